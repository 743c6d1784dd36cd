package proxy

import (
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

// fleetOf runs n instances that share their sessions, until each partition has an owner.
func fleetOf(t testing.TB, n int, text string) []*instance {
	t.Helper()
	s := found(t, 4, text)
	var all []*instance
	for range n {
		in := s.instance()
		in.serve()
		all = append(all, in)
	}
	s.owned(all...)
	return all
}

// seenAway waits until all instances have read that a device is not connected.
func seenAway(all []*instance, id string) {
	all[0].t.Helper()
	for _, in := range all {
		in.until("it has left", func() bool {
			state, connected := in.sessions.driver.Whereabouts(id, millis())
			return !connected && (state == nil || state.OfflineSince > 0)
		})
	}
}

// TestSessionGoesOnAtAnyInstance: subscriptions, and the commands that waited, in their order, each once.
func TestSessionGoesOnAtAnyInstance(t *testing.T) {
	all := fleetOf(t, 3, toOne)
	a := all[0]
	d := lasting("d1").to(t, a.addr, false)
	d.subscribe("devices/d1/#", 2)
	d.leave()
	var want []string
	for round, in := range []*instance{all[1], all[2], all[0], all[1]} {
		for qos := range 3 {
			id := fmt.Sprint(3*round + qos)
			a.write(now("commands", "d1", id, "name", "x", "id", id, "mqtt.qos", fmt.Sprint(qos)))
			want = append(want, fmt.Sprintf("d1 d1 %s (%s)", []string{"sent", "delivered", "delivered"}[qos], id))
		}
		d = lasting("d1").to(t, in.addr, true)
		for qos := range 3 {
			m := d.next()
			require.Equal(t, fmt.Sprint(3*round+qos), m.payload)
			require.EqualValues(t, qos, m.qos)
			switch qos {
			case 1:
				d.ack(m, 0)
			case 2:
				d.complete(m)
			}
		}
		d.nothing()
		d.leave()
	}
	a.became(want...)
}

// TestUnfinishedDeliveriesAreFinishedElsewhere with the packet identifiers they had: QoS 1 as a repetition, QoS 2
// from where it was.
func TestUnfinishedDeliveriesAreFinishedElsewhere(t *testing.T) {
	all := fleetOf(t, 2, toOne)
	d := lasting("d1").to(t, all[0].addr, false)
	d.subscribe("devices/d1/#", 2)
	for i := range 3 {
		all[0].write(now("commands", "d1", fmt.Sprint(i), "name", "x", "id", fmt.Sprint(i), "mqtt.qos", fmt.Sprint(min(i+1, 2))))
	}
	one, two, three := d.next(), d.next(), d.next()
	d.send(0x50, []byte{byte(two.id >> 8), byte(two.id)}) // PUBREC
	first, body := d.read()
	require.Equal(t, byte(0x62), first, "PUBREL")
	require.Equal(t, []byte{byte(two.id >> 8), byte(two.id)}, body[:2])
	_ = d.nc.Close()

	d = lasting("d1").to(t, all[1].addr, true)
	again := d.next()
	require.Equal(t, one, again)
	d.ack(again, 0)
	first, body = d.read()
	require.Equal(t, byte(0x62), first, "PUBREL, and no PUBLISH")
	require.Equal(t, []byte{byte(two.id >> 8), byte(two.id)}, body[:2])
	d.send(0x70, body[:2])
	again = d.next()
	require.Equal(t, three, again)
	d.complete(again)
	d.nothing()
	all[0].became("d1 d1 delivered (0)", "d1 d1 delivered (1)", "d1 d1 delivered (2)")
}

// TestLastConnectionHasTheClientID wherever it is, with the session if there is one.
func TestLastConnectionHasTheClientID(t *testing.T) {
	all := fleetOf(t, 3, toOne)
	for _, c := range []connecting{lasting("kept"), {id: "fleeting"}, {id: "clean", clean: true}, {id: "clean-kept", clean: true, expiry: 3600}} {
		resumes := c.expiry > 0 && !c.clean
		before := c.to(t, all[0].addr, false)
		before.subscribe("devices/+/x", 1)
		for i := 1; i < 6; i++ {
			next := c.to(t, all[i%3].addr, resumes)
			before.ended(0x8E)
			if !resumes {
				next.subscribe("devices/+/x", 1)
			}
			before = next
		}
		all[0].write(now("commands", c.id, "x", "name", "x", "id", c.id))
		before.ack(before.next(), 0)
		before.nothing()
	}
	all[0].became("kept kept delivered (kept)", "fleeting fleeting delivered (fleeting)", "clean clean delivered (clean)", "clean-kept clean-kept delivered (clean-kept)")
}

// TestCleanStartEndsTheSessionEverywhere: what waited for it is told of, once, and it is not there for anybody.
func TestCleanStartEndsTheSessionEverywhere(t *testing.T) {
	t.Parallel()
	all := fleetOf(t, 3, toOne)
	d := lasting("d1").to(t, all[0].addr, false)
	d.subscribe("devices/d1/#", 1)
	d.leave()
	all[0].write(now("commands", "d1", "x", "name", "x", "id", "1"))
	d = connecting{id: "d1", clean: true, expiry: 3600}.to(t, all[1].addr, false)
	d.nothing()
	all[0].became("d1 d1 offline session_ended (1)")
	d.subscribe("devices/d1/other", 1)
	d.leave()
	seenAway(all, "d1")
	all[0].write(now("commands", "d1", "x", "name", "x", "id", "2"))
	all[0].became("d1 d1 offline session_ended (1)", "d1 d1 dropped not_subscribed (2)")
	d = lasting("d1").to(t, all[2].addr, true)
	d.nothing()
}

// TestCleanStartWhileConnectedElsewhere: what the device was sent and has not acknowledged is told of as that, what waited
// as ended, and what it has acknowledged just before was delivered.
func TestCleanStartWhileConnectedElsewhere(t *testing.T) {
	all := fleetOf(t, 3, toOne+"limits: {commands_in_flight: 2}\n")
	d := lasting("d1").to(t, all[0].addr, false)
	d.subscribe("devices/d1/#", 1)
	for i := range 5 {
		all[0].write(now("commands", "d1", "x", "name", "x", "id", fmt.Sprint(i)))
	}
	d.ack(d.next(), 0)
	d.ack(d.next(), 0)
	all[0].until("all are there", func() bool { return all[0].value("sluice_command_matched_devices_total") == 5 })
	connecting{id: "d1", clean: true, expiry: 3600}.to(t, all[1].addr, false).nothing()
	all[0].became("d1 d1 delivered (0)", "d1 d1 delivered (1)", "d1 d1 offline not_acknowledged (2)", "d1 d1 offline not_acknowledged (3)", "d1 d1 offline session_ended (4)")
}

// standsStill keeps an instance of fleetOf from handing out commands until goOn.
func (in *instance) standsStill() (goOn func()) {
	var held []*stream
	for partition := range int32(4) {
		st := in.sessions.streams.of("commands", partition)
		st.mu.Lock()
		held = append(held, st)
	}
	return func() {
		for _, st := range held {
			st.mu.Unlock()
		}
	}
}

// TestUnwantedCommandHasOneReceiptAtATakeover: the instance that the device comes to may read the command later than the one
// that it leaves, which has told of it, whether or not the session has something open before it.
func TestUnwantedCommandHasOneReceiptAtATakeover(t *testing.T) {
	t.Parallel()
	for name, clean := range map[string]bool{"resumed": false, "clean": true} {
		for _, open := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, open %v", name, open), func(t *testing.T) {
				all := fleetOf(t, 2, toOne)
				d := lasting("d1").to(t, all[0].addr, false)
				d.subscribe("devices/+/other", 1)
				goOn := all[1].standsStill()
				want := []string{"d1 d1 dropped not_subscribed (1)"}
				if open {
					all[0].write(now("commands", "d1", "x", "name", "other", "id", "0"))
					d.next()
				}
				all[0].write(now("commands", "d1", "x", "name", "x", "id", "1"))
				all[0].became(want...)
				next := connecting{id: "d1", clean: clean, expiry: 3600}.to(t, all[1].addr, !clean)
				d.ended(0x8E)
				all[1].until("the end of the session before is known", func() bool {
					return len(all[1].sessions.driver.Ahead("d1")) > 0
				})
				if clean {
					next.subscribe("devices/+/other", 1) // what the session before was sent is not for this one
				}
				goOn()
				switch {
				case open && clean:
					want = append(want, "d1 d1 offline not_acknowledged (0)")
				case open:
					next.ack(next.next(), 0)
					want = append(want, "d1 d1 delivered (0)")
				}
				all[0].write(now("commands", "d1", "x", "name", "x", "id", "2"), now("commands", "d1", "x", "name", "other", "id", "3"))
				next.ack(next.next(), 0)
				want = append(want, "d1 d1 dropped not_subscribed (2)", "d1 d1 delivered (3)")
				all[0].becameForGood(all, want...)
			})
		}
	}
}

// TestSessionOfAnotherUserIsRefused, also where it is connected, and that connection goes on.
func TestSessionOfAnotherUserIsRefused(t *testing.T) {
	all := fleetOf(t, 2, toOne)
	mine := connecting{id: "d1", user: "mine", expiry: 3600}
	for _, at := range []*instance{all[0], all[1]} {
		d, _, code := mine.try(t, at.addr)
		require.Zero(t, code)
		d.subscribe("devices/d1/#", 1)
		for _, clean := range []bool{false, true} {
			for _, in := range all {
				other, _, code := connecting{id: "d1", user: "theirs", clean: clean, expiry: 3600}.try(t, in.addr)
				require.EqualValues(t, 0x87, code)
				_, _, err := other.tryRead()
				require.ErrorIs(t, err, io.EOF)
			}
		}
		d.nothing()
		d.leave()
		_, _, code = connecting{id: "d1", user: "theirs", clean: true}.try(t, all[0].addr)
		require.EqualValues(t, 0x87, code, "also when it is away")
	}
	mine.expiry = 0
	mine.clean = true
	mine.to(t, all[0].addr, false).leave()
	until(t, "the session has ended, so it is nobody's", func() bool {
		_, _, code := connecting{id: "d1", user: "theirs"}.try(t, all[1].addr)
		return code == 0
	})
}

// TestDisconnectCanEndTheSession with Session Expiry Interval 0: what waits in the connection has its receipt, and
// nobody finds the session.
func TestDisconnectCanEndTheSession(t *testing.T) {
	all := fleetOf(t, 2, toOne+"limits: {commands_in_flight: 1}\n")
	d := lasting("d1").to(t, all[0].addr, false)
	d.subscribe("devices/d1/#", 1)
	for i := range 2 {
		all[0].write(now("commands", "d1", "x", "name", "x", "id", fmt.Sprint(i)))
	}
	d.next()
	all[0].until("the second waits", func() bool { return all[0].value("sluice_command_matched_devices_total") == 2 })
	d.send(0xE0, []byte{0, 5, 0x11, 0, 0, 0, 0})
	_, _, err := d.tryRead()
	require.ErrorIs(t, err, io.EOF)
	all[0].became("d1 d1 offline not_acknowledged (0)", "d1 d1 offline session_ended (1)")
	lasting("d1").to(t, all[1].addr, false).nothing()
}
