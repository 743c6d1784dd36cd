package mqtt

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLeavingSaysWhatDisconnectChanged(t *testing.T) {
	leaves := func(v byte, end []byte, tidy bool, expiry uint32, reason string) {
		t.Helper()
		w := keeping(t, nil)
		w.v.setPrompt(true)
		c := w.subscribed(v, "dev", 1)
		if end == nil {
			require.NoError(t, c.nc.Close())
		} else {
			c.send(end)
			c.closed()
		}
		k := w.v.keeper("dev")
		l := k.leaving()
		require.Equal(t, tidy, l.Tidy)
		require.Equal(t, expiry, l.Expiry)
		require.Equal(t, reason, l.Reason)
		require.Equal(t, "dev", l.Session.ClientID())
		require.Equal(t, []Subscription{{Filter: "t", QoS: 1}}, bare(l.State.Subscriptions))
		w.left("dev")
		require.Equal(t, expiry > 0, w.stored(v, "dev").present())
	}
	const day = 24 * 3600
	leaves(5, nil, false, 3600, "connection lost")
	leaves(4, nil, false, day, "connection lost")
	leaves(4, packet(0xE0), true, day, "normal disconnection")
	leaves(5, packet(0xE0), true, 3600, "normal disconnection")
	leaves(5, packet(0xE0, 0x04), false, 3600, "disconnect with a reason code of the device")
	leaves(5, packet(0xE0, 0, props(0x11, uint32(0))), true, 0, "normal disconnection")
	leaves(5, packet(0xE0, 4, props(0x11, uint32(77))), false, 77, "disconnect with a reason code of the device")
	leaves(5, packet(0xE0, 0, props(0x11, uint32(1e6))), true, day, "normal disconnection")
	leaves(4, packet(0x36, 0), false, day, MalformedPacket.String())
}

func (c *client) lost() { _ = c.nc.Close() }

func TestCommandsOfALeavingSessionAreKept(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := keeping(t, func(c *Config) { c.CommandsInFlight = 4 })
		c, k := w.promptly(persistent(v, "dev"), 2)
		var all []*Command
		for i, qos := range []byte{1, 2, 2, 2, 2, 1} {
			all = append(all, w.placed(1, int64(i), fmt.Sprint(i), qos))
		}
		k.save()
		c.gets(0, 1, 1, 1)
		c.gets(1, 3, 2, 2)
		c.send(pubrec(2), pubrec(3))
		c.ping()
		k.save()
		c.expect(pubrel(2), pubrel(3))
		c.send(pubcomp(3))
		c.ping() // the next has its identifier now, which is not stored
		c.lost()
		l := k.leaving()
		for i, cmd := range all {
			if i == 2 {
				w.became(cmd, "dev delivered")
			} else {
				w.became(cmd, "dev kept")
			}
		}
		require.Equal(t, []Unfinished{
			{Place: Place{1, 0}, ID: 1, QoS: 1}, {Place: Place{1, 1}, ID: 2, QoS: 2, Received: true},
			{Place: Place{1, 3}, ID: 4, QoS: 2}, {Place: Place{1, 4}, ID: 5, QoS: 2},
		}, l.State.Flight)
		require.Equal(t, []Place{{1, 0}}, l.State.Next)
		require.Equal(t, []Place{{1, 2}}, l.State.Done)
	})
}

func TestCommandsThatNobodyKeepsAreOver(t *testing.T) {
	w := keeping(t, func(c *Config) { c.CommandsInFlight = 1 })
	c, k := w.promptly(persistent(5, "dev"), 1)
	first := w.placed(1, 0, "0", 1)
	c.gets(0, 1, 1, 1)
	connected := w.put(&Command{Topic: []byte("t"), QoS: 1, Connected: true, Place: Place{1, 1}})
	nowhere := w.command("t", "2", 1)
	c.ping()
	c.lost()
	k.leaving()
	w.became(first, "dev kept")
	w.became(connected, "dev offline: not_sent")
	w.became(nowhere, "dev offline: not_sent")
}

func TestCommandsEndWithASessionThatDisconnectEnds(t *testing.T) {
	w := keeping(t, func(c *Config) { c.CommandsInFlight = 1 })
	c, k := w.promptly(persistent(5, "dev"), 1)
	first, second := w.placed(1, 0, "0", 1), w.placed(1, 1, "1", 1)
	c.gets(0, 1, 1, 1)
	c.send(packet(0xE0, 0, props(0x11, uint32(0))))
	c.closed()
	w.became(first, "dev offline: not_acknowledged")
	w.became(second, "dev offline: session_ended")
	l := k.leaving()
	require.Equal(t, []Place{{1, 2}}, l.State.Next, "both have their outcome")
	require.Empty(t, l.State.Flight)
}

// TestSessionIsStillAllThereWhileItsConnectionLeaves: nothing may store it empty, or take a command for it.
func TestSessionIsStillAllThereWhileItsConnectionLeaves(t *testing.T) {
	w := keeping(t, nil)
	c, k := w.promptly(persistent(5, "dev"), 2)
	w.placed(1, 0, "0", 2)
	k.save()
	c.gets(0, 1, 2, 1)
	before := k.snapshot()
	c.lost()
	k.leaving()
	require.Equal(t, before, k.snapshot(), "a save that was asked for before comes late")
	require.Zero(t, w.s.Send(&Command{Topic: []byte("t"), QoS: 1, Owner: w}))
	s := k.o.Session
	_, ok := s.Join(1)
	require.False(t, ok)
	require.False(t, s.Passed(1, 10))
	require.True(t, s.GoLive(1, 10, false))
	s.Saved(before.Version)
	s.TakeOver()
}

func TestWillIsTheKeepers(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := keeping(t, nil)
		h := willed(v, "dev")
		h.persist = true
		c := w.connect(h)
		c.lost()
		k := w.v.keeper("dev")
		require.False(t, k.leaving().Tidy)
		w.ended()
		w.pass(2)
		w.noMessage()
		require.Equal(t, "gone", string(k.o.Will.Payload))
		require.Equal(t, "dev", k.o.Will.ClientID)
	})
}

func TestTakeOverTellsTheDevice(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := keeping(t, nil)
		c := w.stored(v, "dev")
		k := w.v.keeper("dev")
		k.o.Session.TakeOver()
		c.goodbye(SessionTakenOver)
		require.Equal(t, SessionTakenOver.String(), k.leaving().Reason)
	})
}

func TestShutdownLeavesEverySession(t *testing.T) {
	w := keeping(t, nil)
	w.v.setPrompt(true)
	for i := range 5 {
		c := w.subscribed(4, fmt.Sprint("dev", i), 1)
		if i%2 == 0 {
			c.lost()
		}
	}
	done, hurry := w.shutdown()
	hurry()
	w.returned(done)
	for i := range 5 {
		w.v.mu.Lock()
		require.Len(t, w.v.keepers[i].left, 1)
		w.v.mu.Unlock()
		require.Len(t, w.v.keepers[i].left[0].State.Subscriptions, 1)
	}
}
