package proxy

import (
	"encoding/binary"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

// disconnects says DISCONNECT with a Session Expiry Interval, and waits until the server has let go.
func (d *device) disconnects(expiry uint32) {
	d.t.Helper()
	d.send(0xE0, append([]byte{0, 5, 0x11}, binary.BigEndian.AppendUint32(nil, expiry)...))
	for {
		if _, _, err := d.tryRead(); err != nil {
			require.ErrorIs(d.t, err, io.EOF)
			return
		}
	}
}

// ends are the ways in which a connection can end, and whether a session that has the Session Expiry Interval of its
// CONNECT is there afterwards.
func ends(expiry uint32) map[string]struct {
	end  func(d *device)
	kept bool
} {
	type way = struct {
		end  func(d *device)
		kept bool
	}
	kept := expiry > 0
	all := map[string]way{
		"cut":                      {func(d *device) { _ = d.nc.Close() }, kept},
		"DISCONNECT":               {(*device).leave, kept},
		"taken over":               {func(*device) {}, kept},
		"DISCONNECT with expiry 0": {func(d *device) { d.disconnects(0) }, false},
	}
	if kept {
		all["DISCONNECT with expiry 77"] = way{func(d *device) { d.disconnects(77) }, true}
	}
	return all
}

// TestSessionIsThereAsItsExpirySays: whatever CONNECT asks for, it goes on with what is stored, subscriptions, what is
// in flight and what waits; and it is the last expiry that was said that tells whether there is a session after the
// connection [MQTT-3.1.2-5] (section 3.1.2.11.2).
func TestSessionIsThereAsItsExpirySays(t *testing.T) {
	all := fleetOf(t, 2, toOne)
	command := func(id, what string) {
		all[0].write(now("commands", id, what, "name", "x"))
	}
	n := 0
	for _, first := range []uint32{0, 3600} {
		for how, first1 := range ends(first) {
			for _, second := range []uint32{0, 3600} {
				for how2, second2 := range ends(second) {
					for at := range 2 {
						n++
						id := fmt.Sprint("d", n)
						t.Run(fmt.Sprintf("expiry %d, %s, then expiry %d at instance %d, %s", first, how, second, at, how2), func(t *testing.T) {
							t.Parallel()
							try := func(expiry uint32, at int, present bool) *device {
								t.Helper()
								return connecting{id: id, expiry: expiry}.to(t, all[at].addr, present)
							}
							d := try(first, 0, false)
							d.subscribe("devices/"+id+"/#", 1)
							command(id, "in flight")
							require.Equal(t, "in flight", d.next().payload)
							first1.end(d)
							d2 := try(second, at, first1.kept)
							if !first1.kept {
								d2.nothing()
								d2.subscribe("devices/"+id+"/#", 1)
							} else {
								m := d2.next()
								require.Equal(t, "in flight", m.payload)
								d2.ack(m, 0)
							}
							command(id, "live")
							m := d2.next()
							require.Equal(t, "live", m.payload)
							d2.ack(m, 0)
							second2.end(d2)
							d3 := try(3600, 1-at, second2.kept)
							if !second2.kept {
								d3.nothing()
								return
							}
							command(id, "live too")
							require.Equal(t, "live too", d3.next().payload)
						})
					}
				}
			}
		}
	}
}

// TestWaitingCommandsOfASessionThatEndsHaveReceipts: each one, in whatever way the session ends, and wherever: those in
// flight, those that wait here, and those that wait in Kafka.
func TestWaitingCommandsOfASessionThatEndsHaveReceipts(t *testing.T) {
	t.Parallel()
	all := fleetOf(t, 2, toOne+"limits: {commands_queued: 2, commands_in_flight: 2}\n")
	const waiting = 9
	var want []string
	n := 0
	for how, end := range map[string]func(id string, in *instance){
		"DISCONNECT with expiry 0": func(id string, in *instance) { lasting(id).to(t, in.addr, true).disconnects(0) },
		"CONNECT with expiry 0": func(id string, in *instance) {
			_ = connecting{id: id}.to(t, in.addr, true).nc.Close()
		},
		"CONNECT with expiry 0, then a new session": func(id string, in *instance) {
			d := connecting{id: id}.to(t, in.addr, true)
			d.next()
			lasting(id).to(t, all[1].addr, false).nothing()
		},
		"Clean Start": func(id string, in *instance) { connecting{id: id, clean: true}.to(t, in.addr, false).leave() },
	} {
		for _, in := range all {
			n++
			id := fmt.Sprint("d", n)
			d := lasting(id).to(t, all[0].addr, false)
			d.subscribe("devices/"+id+"/x", 1)
			d.leave()
			for i := range waiting {
				all[0].write(now("commands", id, "x", "name", "x", "id", fmt.Sprint(i)))
				want = append(want, fmt.Sprintf("%s: %s %d", how, id, i))
			}
			end(id, in)
		}
	}
	all[0].until("receipts", func() bool { return len(all[0].taken()) >= len(want) })
	for _, in := range all {
		in.stop()
	}
	told := map[string]int{}
	for _, r := range all[0].receipts(len(want)) {
		require.Equal(t, "offline", r.Outcome)
		told[r.ClientID]++
	}
	for i := range n {
		require.Equal(t, waiting, told[fmt.Sprint("d", i+1)])
	}
}

// TestRefusedConnectLeavesTheSessionAsItWas: an instance has opened it, and can't read what is in flight before CONNACK is due. The
// Session Expiry Interval of that CONNECT, which is 0, ends nothing [MQTT-3.1.2-5].
func TestRefusedConnectLeavesTheSessionAsItWas(t *testing.T) {
	t.Parallel() // most of it is waiting
	s := found(t, 3, toOne+"limits: {connect_timeout: 5s}\n")
	well, cut := s.instance(), s.instance()
	cut.findAt("127.0.0.1:1") // where nobody answers
	well.serve()
	cut.serve()
	d := lasting("d").to(t, well.addr, false)
	d.subscribe("devices/+/x", 1)
	well.write(now("commands", "d", "x", "name", "x"))
	first := d.next()
	require.NoError(t, d.nc.Close())
	well.stored("d")

	_, present, code := connecting{id: "d"}.try(t, cut.addr)
	require.Equal(t, []any{false, byte(0x88)}, []any{present, code})
	d = lasting("d").to(t, well.addr, true)
	head, body := d.read()
	require.Equal(t, byte(0x3A), head, "PUBLISH with DUP")
	require.Equal(t, first, decode(head, body))
	d.ack(first, 0)
	d.leave()
}
