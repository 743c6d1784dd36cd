package mqtt

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// delayed is a stored session of 1000 s with a will that waits for delay seconds.
func delayed(id string, delay uint32) hello {
	h := persistent(5, id)
	h.props = cat(0x11, uint32(1000))
	h.will = &lastWill{topic: "will/" + id, payload: "gone", props: cat(0x18, delay)}
	return h
}

func willed(v byte, id string) hello {
	return hello{version: v, id: id, will: &lastWill{topic: "will/" + id, payload: "gone", qos: 1}}
}

func (w *world) expectWill(id string) *Message {
	w.t.Helper()
	m := w.next()
	require.True(w.t, m.Will)
	require.Equal(w.t, "will/"+id, string(m.Topic))
	require.Equal(w.t, "gone", string(m.Payload))
	require.Equal(w.t, id, m.ClientID)
	require.False(w.t, m.Received.IsZero())
	return m
}

// ended waits until no connection is left: what its end brings has come then.
func (w *world) ended() {
	w.t.Helper()
	until(w.t, "no connection is left", func() bool { return w.open() == 0 })
}

func TestWillIsPublishedWhenTheConnectionIsLost(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		lose := func(how string, f func(c *client)) {
			t.Helper()
			c := w.connect(willed(v, "dev"))
			f(c)
			m := w.expectWill("dev")
			require.Equal(t, byte(1), m.QoS, how)
			w.ack(m)
			w.ended()
			w.noMessage()
		}
		lose("closed", func(c *client) { _ = c.nc.Close() })
		lose("half closed", func(c *client) { _ = c.nc.CloseWrite() })
		lose("reset", func(c *client) { _ = c.nc.SetLinger(0); _ = c.nc.Close() })
		lose("closed inside a packet", func(c *client) { c.send(0x30, 100, 0); _ = c.nc.Close() })
		lose("a packet, then closed", func(c *client) { c.send(pingreq); _ = c.nc.Close() })
		lose("malformed packet", func(c *client) { c.send(0x36, 0) })
		lose("second CONNECT", func(c *client) { c.send(willed(v, "dev").packet()) })
		lose("keep-alive", func(c *client) {
			w.s.conns.each(func(c *Conn) { c.shutdown(&ProtocolFault{KeepAliveTimeout, ""}) })
		})
		lose("malformed DISCONNECT", func(c *client) { c.send(packet(0xE0, 0, 9, 9)) })
		require.Equal(t, 9, count(w.s.m.wills))
	})
}

// TestCloseRightAfterTheLastPacketIsNoticed: the end of the stream arrives while we are busy with what came
// before it, so that the poller tells of both at once.
func TestCloseRightAfterTheLastPacketIsNoticed(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		busy, release := make(chan bool), make(chan bool)
		w.answer = func(m *Message) {
			if !m.Will {
				busy <- true
				<-release
			}
			w.got <- m
		}
		c := w.connect(willed(v, "dev"))
		c.publish(pub{topic: "t"})
		<-busy
		c.publish(pub{topic: "last"})
		_ = c.nc.Close()
		release <- true
		w.next()
		<-busy
		release <- true
		require.Equal(t, "last", string(w.next().Topic))
		w.expectWill("dev")
	})
}

func TestWillHasAllItsProperties(t *testing.T) {
	w := newWorld(t, nil)
	c := w.connect(hello{version: 5, id: "dev", username: "anna", will: &lastWill{topic: "w", payload: "p\x00", qos: 2, props: cat(
		0x01, 1, 0x02, uint32(60), 0x03, str("text"), 0x08, str("re"), 0x09, str("corr"), user("a", "1"), user("a", "2"))}})
	_ = c.nc.Close()
	m := w.next()
	require.Equal(t, "p\x00", string(m.Payload))
	require.Equal(t, byte(2), m.QoS)
	require.Equal(t, "text", string(m.ContentType))
	require.Equal(t, "re", string(m.ResponseTopic))
	require.Equal(t, "corr", string(m.CorrelationData))
	require.True(t, m.HasExpiry)
	require.Equal(t, uint32(60), m.Expiry)
	require.Len(t, m.User, 2)
	require.Equal(t, "anna", m.Username)
	require.Zero(t, m.Reserved)
	m.Ack(Success)
}

func TestRetainedWillOf311(t *testing.T) {
	w := newWorld(t, nil)
	c := w.connect(hello{version: 4, id: "dev", will: &lastWill{topic: "w", retain: true}})
	_ = c.nc.Close()
	m := w.next()
	require.True(t, m.Retain)
	require.Empty(t, m.Payload)
}

func TestDisconnectDiscardsTheWill(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.connect(willed(v, "dev"))
		c.send(packet(0xE0))
		c.closed()
		w.ended()
		w.noMessage()
	})
}

func TestDisconnectWithAReasonOf5(t *testing.T) {
	w := newWorld(t, nil)
	for code := range 256 {
		c := w.connect(willed(5, "dev"))
		c.send(packet(0xE0, code))
		c.closed()
		if code != 0 { // [MQTT-3.14.4-3] only 0x00 discards it
			w.expectWill("dev")
		}
		w.ended()
		w.noMessage()
	}
}

func TestNoWillAfterAFailedConnect(t *testing.T) {
	w := newWorld(t, nil)
	h := willed(5, "dev")
	h.props = cat(0x15, str("method"))
	c := w.dial(5)
	c.send(h.packet())
	c.read()
	c.closed()
	c = w.dial(5)
	c.send(willed(5, "dev").packet()[:20])
	_ = c.nc.Close()
	w.ended()
	w.noMessage()
}

func TestTakeoverPublishesTheWillOfTheOlder(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		w.connect(willed(v, "dev"))
		h := persistent(v, "dev")
		h.will = &lastWill{topic: "will/dev", payload: "gone"}
		w.connect(h)
		w.expectWill("dev")
		w.stored(v, "dev").ping()
		w.expectWill("dev")
		w.noMessage()
	})
}

// TestWillComesBeforeTheMessagesOfTheNewcomer: what ends with a connection is not told after what the next one says.
func TestWillComesBeforeTheMessagesOfTheNewcomer(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		short := hello{version: v, id: "dev", will: &lastWill{topic: "will/dev", payload: "gone"}}
		long := persistent(v, "dev")
		long.will = short.will
		hellos := []hello{short, long}
		if v == 5 { // the delay ends with the session, which has no time after its connection
			delayed := short
			delayed.will = &lastWill{topic: "will/dev", payload: "gone", props: cat(0x18, uint32(100))}
			hellos = append(hellos, delayed)
		}
		for _, h := range hellos {
			w := newWorld(t, nil)
			w.answer = func(m *Message) {
				if m.Will {
					time.Sleep(50 * time.Millisecond) // the newcomer has all the time to be first
				}
				w.got <- m
			}
			w.connect(h)
			c := w.device(v, "dev")
			c.publish(pub{topic: "new"})
			w.expectWill("dev")
			require.Equal(t, "new", string(w.next().Topic))
			c.ping()
			w.noMessage()
		}
	})
}

func TestWillDelayIsKept(t *testing.T) {
	w := newWorld(t, nil)
	c := w.connect(delayed("dev", 10))
	_ = c.nc.Close()
	w.ended()
	start := time.Now()
	w.s.sweep(start.Add(9 * time.Second))
	w.noMessage()
	w.s.sweep(start.Add(10*time.Second + time.Millisecond))
	w.expectWill("dev")
	w.s.sweep(start.Add(2000 * time.Second))
	w.noMessage()
}

func TestWillDelayEndsWithTheSession(t *testing.T) {
	w := newWorld(t, nil)
	c := w.connect(delayed("dev", 5000))
	_ = c.nc.Close()
	w.ended()
	w.s.sweep(time.Now().Add(999 * time.Second))
	w.noMessage()
	w.s.sweep(time.Now().Add(1001 * time.Second))
	w.expectWill("dev")
	require.Zero(t, w.s.sessions.storedCount())
}

func TestWillDelayWithoutStoredSessionIsNone(t *testing.T) {
	w := newWorld(t, nil)
	h := delayed("dev", 100)
	h.props = nil
	c := w.connect(h)
	_ = c.nc.Close()
	w.expectWill("dev")
}

func TestDelayedWillIsCancelledByTheReturn(t *testing.T) {
	w := newWorld(t, nil)
	c := w.connect(delayed("dev", 10))
	_ = c.nc.Close()
	w.ended()
	c = w.connect(delayed("dev", 10))
	require.True(t, c.present())
	w.s.sweep(time.Now().Add(20 * time.Second))
	w.noMessage()
	c = w.connect(delayed("dev", 10)) // by takeover too
	w.s.sweep(time.Now().Add(20 * time.Second))
	c.ping()
	w.noMessage()
}

func TestDelayedWillIsPublishedByACleanStart(t *testing.T) {
	w := newWorld(t, nil)
	c := w.connect(delayed("dev", 10))
	_ = c.nc.Close()
	w.ended()
	w.device(5, "dev").ping() // [MQTT-3.1.2-8]: the session ends
	w.expectWill("dev")
	w.connect(delayed("dev", 10))
	w.device(5, "dev").ping() // the same by takeover
	w.expectWill("dev")
	w.noMessage()
}

func TestDisconnectWithWillKeepsTheDelay(t *testing.T) {
	w := newWorld(t, nil)
	c := w.connect(delayed("dev", 10))
	c.send(packet(0xE0, 4))
	c.closed()
	w.noMessage()
	w.s.sweep(time.Now().Add(11 * time.Second))
	w.expectWill("dev")
	c = w.connect(delayed("dev", 10))
	c.send(packet(0xE0, 4, props(0x11, uint32(0))))
	c.closed()
	w.expectWill("dev") // the session ended at once
}

func TestManyWillsAtOnce(t *testing.T) {
	w := newWorld(t, nil)
	for i := range 50 {
		c := w.connect(delayed(fmt.Sprint(i), 10))
		_ = c.nc.Close()
	}
	w.ended()
	w.s.sweep(time.Now().Add(11 * time.Second))
	seen := map[string]bool{}
	for range 50 {
		seen[string(w.next().Topic)] = true
	}
	require.Len(t, seen, 50)
	w.noMessage()
}

func TestPanicOfTheHandlerAtAWillEndsNothingElse(t *testing.T) {
	w := newWorld(t, nil)
	w.answer = func(m *Message) { panic("a bug at " + string(m.Topic)) }
	other := w.device(5, "other")
	c := w.connect(willed(5, "dev"))
	_ = c.nc.Close()
	until(t, "counted", func() bool { return count(w.s.m.panics) == 1 })
	c = w.connect(delayed("late", 10))
	_ = c.nc.Close()
	until(t, "closed", func() bool { return w.open() == 1 })
	w.s.sweep(time.Now().Add(11 * time.Second))
	require.Equal(t, 2, count(w.s.m.panics))
	other.ping()
	w.device(5, "dev").ping()
}
