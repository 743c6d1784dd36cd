package mqtt

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A tally is a CommandOwner that counts.
type tally map[*Command]int

func (tally) CommandSent(*Command) {}
func (n tally) CommandSettled(c *Command, _ string, fate Fate, _ Code, _ string) {
	_ = fate.String()
	n[c]++
}

// A conversation is a server with one device, the connections of which are fed by hand, and commands under way.
type conversation struct {
	t       *testing.T
	s       *Server
	c       *fuzzed
	version byte
	settled tally
	counted tally
	last    *Command
}

// FuzzCommands holds commands to one fate each, the window and the memory to their bounds, and the index and the
// backlog to the life of the session, whatever a device says. Each three bytes are one step.
func FuzzCommands(f *testing.F) {
	const send0, send1, send2, ack, rec, comp, rel, sub, unsub, again, raw, sweep, cancel = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12
	f.Add(true, []byte{send1, 0, 0, ack, 1, 0, send2, 0, 0, rec, 2, 0, comp, 2, 0})
	f.Add(false, []byte{send2, 0, 0, send1, 0, 0, again, 0, 0, ack, 2, 0, rec, 1, 0, again, 0, 0, comp, 1, 0})
	f.Add(true, []byte{send2, 0, 0, comp, 1, 0, send1, 0, 0, rec, 2, 0x97, again, 0, 2, ack, 1, 0x80, again, 1, 0, sub, 1, 0, send1, 0, 0})
	f.Add(true, []byte{send1, 1, 0, send1, 2, 0, send1, 0, 9, send1, 0, 0, send1, 0, 0, send1, 0, 0, sweep, 0, 0, cancel, 0, 0, sweep, 0, 0, again, 3, 1})
	f.Add(false, []byte{unsub, 0, 0, send1, 0, 0, sub, 2, 0, send0, 0, 200, rel, 1, 0, raw, 4, 0, 0x40, 2, 0, 1})
	f.Fuzz(func(t *testing.T, five bool, script []byte) {
		v := &conversation{t: t, s: fuzzServer(t), version: 4, settled: tally{}, counted: tally{}, last: &Command{}}
		if five {
			v.version = 5
		}
		v.connect(0, 0)
		for len(script) >= 3 {
			op, a, b := script[0]%13, script[1], script[2]
			script = script[3:]
			switch op {
			case send0, send1, send2:
				v.send(op, a, int(b))
			case again:
				v.c.finish(errHungUp)
				v.connect(a, b)
			case sweep:
				v.s.sweep(late.AddDate(-1, 0, 0))
			case cancel:
				v.last.Cancel()
			case raw:
				n := min(int(a), len(script))
				v.feed(script[:n])
				script = script[n:]
			case sub:
				v.feed(v.request(0x82, str("t"), a%3))
			case unsub:
				v.feed(v.request(0xA2, str("t")))
			default:
				v.answer([]int{ack: 0x40, rec: 0x50, comp: 0x70, rel: 0x62}[op], uint16(a), b)
			}
			v.bounded()
		}
		v.c.finish(errHungUp)
		v.s.sweepSessions(late, true)
		require.Equal(t, v.counted, v.settled)
		require.Zero(t, v.s.held.Load())
		require.Zero(t, v.s.index.len())
		require.Zero(t, v.s.backlog.len())
	})
}

func (v *conversation) request(first int, rest ...any) []byte {
	if v.version == 5 {
		return packet(first, uint16(1), props(), cat(rest...))
	}
	return packet(first, uint16(1), cat(rest...))
}

// connect begins the next connection, with a Receive Maximum unless it is 0; bit 0 of how says clean.
func (v *conversation) connect(how, receiveMaximum byte) {
	h := persistent(v.version, "dev")
	h.persist = how&1 == 0
	if v.version == 5 && receiveMaximum > 0 {
		h.props = cat(h.props, 0x21, uint16(receiveMaximum))
	}
	v.c = fuzzConnOf(v.t, v.s)
	require.NoError(v.t, v.c.feed(h.packet()))
	if o := v.c.session.outbox.Load(); o == nil || len(o.subs) == 0 {
		require.NoError(v.t, v.c.feed(v.request(0x82, str("t"), 2)))
	}
	v.c.flush()
}

// feed has the connection read b; after a fault of it there is the next.
func (v *conversation) feed(b []byte) {
	err := v.c.feed(b)
	if ending := v.c.flush(); err == nil && !ending {
		return
	}
	v.c.finish(err)
	v.connect(0, 0)
}

func (v *conversation) answer(kind int, id uint16, code byte) {
	if v.version == 5 && code > 0 {
		v.feed(packet(kind, id, code))
		return
	}
	v.feed(packet(kind, id))
}

func (v *conversation) send(qos, how byte, size int) {
	cmd := &Command{Topic: []byte("t"), Payload: make([]byte, size), QoS: qos, Owner: v.settled, Connected: how&4 > 0}
	switch how & 3 {
	case 1:
		cmd.Expires = past()
	case 2:
		cmd.Expires = late.AddDate(-2, 0, 0) // before the sweep's time
	}
	if how&8 > 0 {
		cmd.To = "dev"
	}
	if n := v.s.Send(cmd).Devices; n > 0 {
		v.counted[cmd] = n
	}
	v.last = cmd
	v.c.flush()
}

func (v *conversation) bounded() {
	o := v.c.session.outbox.Load()
	require.LessOrEqual(v.t, len(o.flight), v.s.cfg.CommandsInFlight)
	require.LessOrEqual(v.t, len(o.queue), v.s.cfg.CommandsQueued)
	require.LessOrEqual(v.t, v.s.held.Load(), v.s.cfg.CommandMemory)
	for i := range o.flight {
		require.NotZero(v.t, o.flight[i].id)
		require.Equal(v.t, i, o.find(o.flight[i].id), "a packet identifier in use")
	}
}
