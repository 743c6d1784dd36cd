package mqtt

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func newConn() *Conn { return &Conn{srv: &Server{}} }

func TestHolderAndItsEndAreSeenTogether(t *testing.T) {
	r := newRegistry(10)
	a, b, c := newConn(), newConn(), newConn()
	s, _, _, _, _ := r.attach(a, "dev", false, 100)
	_, _, _, old, gone := r.attach(b, "dev", false, 100)
	require.Equal(t, a, old)
	require.NotNil(t, gone, "b waits")
	r.detach(s, nil, 0)
	<-gone
	_, present, _, _, _ := r.attach(c, "dev", false, 100) // c was faster than b
	require.True(t, present)
	_, _, _, old, gone = r.attach(b, "dev", false, 100)
	require.Equal(t, c, old)
	require.NotNil(t, gone, "b waits again, for c")
}

func TestStoredSessionsExpireNotBeforeTheirTime(t *testing.T) {
	r := newRegistry(10)
	s, _, _, _, _ := r.attach(newConn(), "dev", false, 10)
	before := time.Now()
	r.detach(s, &Message{}, 5)
	after := time.Now()
	require.Empty(t, r.sweep(before.Add(5*time.Second-time.Millisecond), false), "not before the Will Delay Interval has passed [MQTT-3.1.3-9]")
	require.Len(t, r.sweep(after.Add(5*time.Second+time.Millisecond), false), 1)
	r.sweep(before.Add(10*time.Second-time.Millisecond), false)
	require.Equal(t, 1, r.storedCount())
	r.sweep(after.Add(10*time.Second+time.Millisecond), false)
	require.Zero(t, r.storedCount())
}

func TestExpiredSessionIsNotPresentThoughNobodySwept(t *testing.T) {
	r := newRegistry(10)
	s, _, _, _, _ := r.attach(newConn(), "dev", false, 10)
	will := &Message{}
	require.Nil(t, r.detach(s, will, 1000))
	s.endsAt = time.Now().Add(-time.Second).UnixMilli()
	_, present, due, _, _ := r.attach(newConn(), "dev", false, 10)
	require.False(t, present)
	require.Same(t, will, due, "its session ended, so the will is due")
	require.Zero(t, r.storedCount())
}

func TestSessionThatNeverExpires(t *testing.T) {
	r := newRegistry(10)
	s, _, _, _, _ := r.attach(newConn(), "dev", false, neverExpires)
	r.detach(s, nil, 0)
	r.sweep(time.Now().AddDate(900, 0, 0), false)
	require.Equal(t, 1, r.storedCount())
	s, _, _, _, _ = r.attach(newConn(), "dev", false, neverExpires-1)
	r.detach(s, nil, 0)
	r.sweep(time.Now().Add((neverExpires-2)*time.Second), false)
	require.Equal(t, 1, r.storedCount())
	r.sweep(time.Now().Add(neverExpires*time.Second), false)
	require.Zero(t, r.storedCount())
}

func TestStoredSessionsAreBoundedExactly(t *testing.T) {
	r := newRegistry(7)
	for i := range 20 {
		s, _, _, _, _ := r.attach(newConn(), fmt.Sprint(i), false, 100)
		will := &Message{}
		due := r.detach(s, will, 50)
		require.Equal(t, i >= 7, due == will, "the will of a session that is not stored is due at once")
		require.Equal(t, min(i+1, 7), r.storedCount())
	}
	_, present, _, _, _ := r.attach(newConn(), "3", true, 0) // back, and clean
	require.False(t, present)
	require.Equal(t, 6, r.storedCount())
}

func TestLateOutcomeOfAForgottenMessageSettlesNoOther(t *testing.T) {
	s := &session{}
	c := newConn()
	first, second := &Message{id: 1, conn: c}, &Message{id: 1, conn: c}
	require.Equal(t, receivedFirst, s.receive(first, 10).how)
	s.forget(1, first)
	require.Equal(t, receivedFirst, s.receive(second, 10).how)
	s.settle(first, outcome{state: slotAcked})
	require.Equal(t, receivedAgain, s.receive(&Message{id: 1, conn: c}, 10).how, "the second is still awaited")
	s.settle(second, outcome{state: slotAcked})
	require.Equal(t, receivedStored, s.receive(&Message{id: 1, conn: c}, 10).how)
}

func TestFewerStoredIDsHoldNoMap(t *testing.T) {
	s := &session{}
	m := &Message{id: 1, conn: newConn()}
	s.receive(m, 10)
	s.settle(m, outcome{state: slotAcked})
	require.True(t, s.release(1))
	require.Nil(t, s.received)
	require.False(t, s.release(1))
}

func TestNoSessionIsStoredWhenNoneMayBe(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, func(c *Config) { c.SessionExpiryMax = 0 })
		c := w.stored(v, "dev")
		if v == 5 {
			require.Equal(t, "\x00\x00\x00\x00", serverProps(t, c.connack[2:])[0x11], "the device is told")
			c.send(packet(0xE0, 0, props(0x11, uint32(60)))) // legal: CONNECT asked for more than 0 [MQTT-3.14.2-2]
		} else {
			c.send(packet(0xE0))
		}
		c.closed()
		w.ended()
		require.Zero(t, w.s.sessions.storedCount())
		require.False(t, w.stored(v, "dev").present())
	})
}
