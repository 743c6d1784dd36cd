package proxy

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestExpiredSessionIsToldOfOnce by one of the instances, whoever it was that the device was connected to, and then
// it is nowhere.
func TestExpiredSessionIsToldOfOnce(t *testing.T) {
	t.Parallel() // most of it is waiting
	all := fleetOf(t, 3, toOne)
	var want []string
	for i, in := range all {
		id := fmt.Sprint("d", i)
		d := connecting{id: id, expiry: 2}.to(t, in.addr, false)
		d.subscribe("devices/+/x", 1)
		d.leave()
		all[0].write(now("commands", id, "x", "name", "x", "id", "waits"), now("commands", id, "x", "name", "x", "id", "old", "mqtt.expiry", "1"),
			now("commands", id, "x", "name", "x", "id", "sorry"), now("commands", id, "null", headerCancel, "sorry"))
		want = append(want, fmt.Sprintf("%s %s offline session_ended (waits)", id, id), fmt.Sprintf("%s %s expired (old)", id, id), fmt.Sprintf("%s %s cancelled (sorry)", id, id))
	}
	all[0].became(want...)
	all[0].until("it is nowhere", func() bool {
		for _, in := range all {
			if n, _ := in.sessions.driver.Stored(); n > 0 {
				return false
			}
		}
		return true
	})
	lasting("d0").to(t, all[1].addr, false).nothing()
	all[0].became(want...)
}

// TestReturnAfterTheExpiryIsANewSession and what had waited is told of once, also when the device is faster than who
// looks for what has expired.
func TestReturnAfterTheExpiryIsANewSession(t *testing.T) {
	t.Parallel() // most of it is waiting
	all := fleetOf(t, 2, toOne)
	var want []string
	for i := range 4 {
		d := connecting{id: fmt.Sprint("d", i), expiry: 1}.to(t, all[0].addr, false)
		d.subscribe("devices/+/x", 1)
		d.leave()
		left := time.Now()
		all[0].write(now("commands", d.id, "x", "name", "x"))
		until(t, "its time is over", func() bool { return time.Since(left) > time.Second })
		lasting(d.id).to(t, all[i%2].addr, false).nothing()
		want = append(want, fmt.Sprintf("%s %s offline session_ended", d.id, d.id))
	}
	all[0].became(want...)
}

// TestEndedSessionTellsOfNothingBehindItsEnd: what is written when it has ended is its successor's, also when whoever tells
// of what waited comes to it late.
func TestEndedSessionTellsOfNothingBehindItsEnd(t *testing.T) {
	in := fleetOf(t, 1, toOne)[0]
	waits := now("commands", "busy", "x", "name", "x")
	for _, id := range []string{"busy", "d1"} {
		d := lasting(id).to(t, in.addr, false)
		d.subscribe("devices/+/x", 1)
		d.leave()
	}
	seenAway([]*instance{in}, "busy")
	seenAway([]*instance{in}, "d1")
	in.write(waits)
	var st *stream
	in.until("it is read", func() bool {
		for _, st = range in.sessions.streams.all() {
			if st.next.Load() > 0 {
				return true
			}
		}
		return false
	})
	st.reading <- struct{}{} // the first session that ends has to wait for its turn
	connecting{id: "busy", clean: true}.to(t, in.addr, false)
	connecting{id: "d1", clean: true}.to(t, in.addr, false).leave()
	d := lasting("d1").to(t, in.addr, false)
	d.subscribe("devices/+/x", 1)
	in.write(now("commands", "d1", "x", "name", "x"))
	d.ack(d.next(), 0)
	in.became("d1 d1 delivered")
	<-st.reading
	in.until("the ended sessions were told of", func() bool { return len(in.taken()) >= 2 })
	in.stop()
	in.became("d1 d1 delivered", "busy busy offline session_ended")
}

// TestExpiryDividesTheCommands: each that is written while a session expires has one receipt, by the session or by who
// tells of absent devices, however late the end is noticed. Of two instances none may tell while partitions move.
func TestExpiryDividesTheCommands(t *testing.T) {
	for _, instances := range []int{1, 2} {
		t.Run(fmt.Sprint(instances), func(t *testing.T) {
			t.Parallel() // most of it is waiting
			all := fleetOf(t, instances, toOne)
			const devices = 4
			for i := range devices {
				d := connecting{id: fmt.Sprint("d", i), expiry: 1}.to(t, all[i%instances].addr, false)
				d.subscribe("devices/+/x", 1)
				d.leave()
			}
			n := 0
			gone := func() bool { return all[0].value("sluice_session_stored_sessions") == 0 }
			for began := time.Now(); !gone() && time.Since(began) < patience; {
				for i := range devices {
					all[0].write(now("commands", fmt.Sprint("d", i), "x", "name", "x"))
					n++
				}
			}
			require.True(t, gone())
			if instances == 1 {
				all[0].until("each has a receipt", func() bool { return len(all[0].taken()) >= n })
			}
			stored := 0
			for _, in := range all {
				in.stop()
				stored += int(in.value("sluice_command_receipts_total", "stored"))
			}
			told := make(map[string]string)
			for _, r := range all[0].receipts(stored) {
				at := fmt.Sprintf("%d@%d", r.Partition, r.Offset)
				require.Empty(t, told[at], "%s has another receipt, %s by %s", at, r, r.Instance)
				told[at] = r.String() + " by " + r.Instance
			}
		})
	}
}

// TestOneInstanceTellsOfAbsentDevices: each command has one receipt, whichever reads it first.
func TestOneInstanceTellsOfAbsentDevices(t *testing.T) {
	t.Parallel()
	all := fleetOf(t, 3, toOne)
	here := make([]*device, 3)
	for i, in := range all {
		here[i] = dial(t, in.addr, fmt.Sprint("here", i), i == 0)
		here[i].subscribe("devices/+/x", 1)
	}
	away := lasting("away").to(t, all[0].addr, false)
	away.subscribe("devices/away/x", 1)
	away.leave()
	seenAway(all, "away")
	var want []string
	for i := range 30 {
		id := fmt.Sprint("nobody", i)
		all[0].write(now("commands", id, "x", "name", "x"), now("commands", id, "x", "id", "bad"), now("commands", id, "x", "name", "x", "mqtt.expiry", "0"))
		want = append(want, fmt.Sprintf("%s %s offline not_connected", id, id), fmt.Sprintf("%s dropped missing_value", id), fmt.Sprintf("%s %s expired", id, id))
	}
	for _, d := range append(here, away) {
		all[0].write(now("commands", d.id, "x", "name", "y"))
		want = append(want, fmt.Sprintf("%s %s dropped not_subscribed", d.id, d.id))
	}
	for _, d := range here {
		all[0].write(now("commands", d.id, "x", "name", "x"))
		d.ack(d.next(), 0)
		want = append(want, fmt.Sprintf("%s %s delivered", d.id, d.id))
	}
	all[0].becameForGood(all, want...)
}

// TestCommandRightAfterTheSubscribeIsNotTakenForUnwanted: the instance that tells of absent devices may know of a
// SUBSCRIBE later than the sender of a command.
func TestCommandRightAfterTheSubscribeIsNotTakenForUnwanted(t *testing.T) {
	t.Parallel()
	all := fleetOf(t, 3, toOne)
	var want []string
	for i := range 30 {
		id := fmt.Sprint("d", i)
		d := lasting(id).to(t, all[i%3].addr, false)
		d.subscribe("devices/+/x", 1)
		all[0].write(now("commands", id, "x", "name", "x"))
		d.ack(d.next(), 0)
		want = append(want, fmt.Sprintf("%s %s delivered", id, id))
	}
	for _, in := range all {
		in.stop()
	}
	all[0].became(want...)
}
