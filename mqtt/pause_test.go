package mqtt

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReadingOf311PausesAtTheReceiveMaximum(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.ReceiveMaximum = 10 })
	c := w.device(4, "dev")
	for id := uint16(1); id <= 25; id++ {
		c.publish(pub{topic: "t", qos: 1 + int(id%2), id: id, payload: fmt.Sprint(id)})
	}
	c.send(pingreq)
	until(t, "paused", func() bool { return count(w.s.m.paused) == 1 })
	require.Len(t, w.got, 10)
	for id := uint16(1); id <= 25; id++ {
		require.LessOrEqual(t, len(w.got), 10)
		m := w.next()
		require.Equal(t, fmt.Sprint(id), string(m.Payload))
		w.ack(m)
	}
	var acks []byte
	for range 26 {
		first, body := c.read()
		if first == 0xD0 {
			continue // after all messages that it stood behind, before or between their answers
		}
		acks = append(acks, body[1])
		require.Equal(t, byte(0x40+0x10*(body[1]%2)), first)
	}
	for i, id := range acks {
		require.Equal(t, byte(i+1), id)
	}
	require.Zero(t, count(w.s.m.paused))
}

func TestReadingPausesAtTheBytesOfOneConnection(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, func(c *Config) { c.MaxInFlightBytes = 3 * (MessageOverhead + 1000) })
		c := w.device(v, "dev")
		other := w.device(v, "other")
		for id := uint16(1); id <= 9; id++ {
			c.publish(pub{topic: "t", qos: 1, id: id, payload: strings.Repeat("x", 980)})
		}
		until(t, "paused", func() bool { return count(w.s.m.paused) == 1 })
		require.Len(t, w.got, 3)
		other.publish(pub{topic: "t"}) // nobody else waits
		other.ping()
		require.Len(t, w.got, 4)
		for id := uint16(1); id <= 10; id++ {
			if m := w.next(); m.QoS == 1 {
				w.ack(m)
			}
		}
		for id := uint16(1); id <= 9; id++ {
			c.expect(puback(id))
		}
	})
}

func TestOneMessageAboveTheBytesOfItsConnectionIsTakenAlone(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, func(c *Config) { c.MaxInFlightBytes = 10 })
		c := w.device(v, "dev")
		c.publish(pub{topic: "t", qos: 1, id: 1})
		c.publish(pub{topic: "t", qos: 1, id: 2})
		m := w.next()
		until(t, "paused", func() bool { return count(w.s.m.paused) == 1 })
		w.noMessage()
		w.ack(m)
		c.expect(puback(1))
		w.ack(w.next())
		c.expect(puback(2))
	})
}

// TestReadingPausesAtTheBytesThatAreHeldBack: messages with QoS 0 have no answer that would bound them, but where the
// Handler holds them back they are in flight as others are.
func TestReadingPausesAtTheBytesThatAreHeldBack(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, func(c *Config) { c.MaxInFlightBytes = 3 * (MessageOverhead + 1000) })
		w.answer = func(m *Message) {
			m.Hold()
			m.Hold() // counts once
			w.got <- m
		}
		c := w.device(v, "dev")
		big := strings.Repeat("x", 980)
		c.publish(pub{topic: "t", payload: big, qos: 1, id: 1})
		for range 8 {
			c.publish(pub{topic: "t", payload: big})
		}
		paused := func() bool { return count(w.s.m.paused) == 1 }
		until(t, "paused", paused)
		c.ping()
		require.Len(t, w.got, 3, "of each QoS")
		w.ack(w.next())
		c.expect(puback(1))
		require.True(t, paused(), "not for each one")
		for range 8 {
			w.ack(w.next())
		}
		c.ping()
		w.noMessage()
		require.False(t, paused())
		require.Zero(t, count(w.s.m.dropped))
		x := w.holder("dev")
		x.mu.Lock()
		defer x.mu.Unlock()
		require.Zero(t, x.inFlight)
	})
}

// TestWhatWouldBeHeldBackForTooLongIsDropped as where there is no memory, so that it holds up nothing else.
func TestWhatWouldBeHeldBackForTooLongIsDropped(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, func(c *Config) { c.MaxInFlightBytes = MessageOverhead + 1000 })
		w.answer = func(m *Message) {
			m.Hold()
			w.got <- m
		}
		c := w.device(v, "dev")
		big := strings.Repeat("x", 980)
		c.publish(pub{topic: "t", payload: big})
		c.publish(pub{topic: "t", payload: big})
		until(t, "paused", func() bool { return count(w.s.m.paused) == 1 })
		w.pass(spareWait)
		c.ping()
		require.Zero(t, count(w.s.m.dropped))
		w.pass(2)
		until(t, "dropped", func() bool { return count(w.s.m.dropped) == 1 })
		w.ack(w.next())
		c.publish(pub{topic: "t", payload: "next"})
		m := w.next()
		require.Equal(t, "next", string(m.Payload))
		w.ack(m)
		c.ping()
		w.noMessage()
	})
}

func TestReadingPausesUntilTheBudgetHasRoom(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.device(v, "dev")
		w.setFull(true)
		for id := uint16(1); id <= 5; id++ {
			c.publish(pub{topic: "t", qos: 1 + int(id%2), id: id, payload: fmt.Sprint(id)})
		}
		for round := 1; round <= 5; round++ { // woken with nothing to be had: it waits again
			until(t, "waiting", func() bool { return w.waiting() == 1 })
			w.noMessage()
			require.Zero(t, w.reserved())
			w.wakeInVain()
		}
		until(t, "waiting", func() bool { return w.waiting() == 1 })
		w.makeRoom()
		for id := uint16(1); id <= 5; id++ {
			m := w.next()
			require.Equal(t, fmt.Sprint(id), string(m.Payload))
			w.ack(m)
			c.expect(packet(0x40+0x10*int(id%2), id))
		}
	})
}

func TestAConnectionThatEndsLeavesItsTurn(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		w.setFull(true)
		var all []*client
		for i := range 20 {
			c := w.device(v, fmt.Sprint("dev", i))
			c.publish(pub{topic: "t", qos: 1 + i%2, id: 1, payload: fmt.Sprint(i)})
			all = append(all, c)
		}
		turns := func() int {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.turns
		}
		until(t, "all wait", func() bool { return turns() == len(all) })
		for _, c := range all[:10] {
			require.NoError(t, c.nc.Close())
		}
		until(t, "those that are gone wait no longer", func() bool { return turns() == 10 })
		for i := 10; i < 15; i++ {
			w.device(v, fmt.Sprint("dev", i)) // takes the client ID over
		}
		until(t, "nor those that were taken over", func() bool { return turns() == 5 })
		w.makeRoom()
		for range 5 {
			w.ack(w.next())
		}
		require.Zero(t, turns())
	})
}

// wakeInVain resumes all who wait although there is still no room.
func (r *recorder) wakeInVain() {
	r.mu.Lock()
	all := r.resumes
	r.resumes = nil
	r.mu.Unlock()
	for _, resume := range all {
		resume()
	}
}

func TestResumeInsideAdmitIsNotLost(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		hasty := &hastyHandler{recorder: w.recorder}
		w.s.handler = hasty
		c := w.device(v, "dev")
		for id := uint16(1); id <= 20; id++ {
			c.publish(pub{topic: "t", qos: 1, id: id})
			w.ack(w.next())
			c.expect(puback(id))
		}
		require.Equal(t, 20, hasty.refused)
	})
}

// A hastyHandler refuses the first time and calls resume before it returns.
type hastyHandler struct {
	*recorder
	ready   bool
	refused int
}

func (h *hastyHandler) Admit(m *Message, resume func()) bool {
	if h.ready {
		h.ready = false
		return h.recorder.Admit(m, resume)
	}
	if resume != nil {
		h.refused++
		h.ready = true
		resume()
	}
	return false
}

func TestPausedConnectionKeepsWhatItRead(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, func(c *Config) { c.MaxPacketSize = 1 << 20 })
		c := w.device(v, "dev")
		w.setFull(true)
		c.publish(pub{topic: "t", qos: 1, id: 1, payload: strings.Repeat("x", 200_000)})
		c.publish(pub{topic: "t", qos: 1, id: 2, payload: "y"})
		for range 3 {
			until(t, "waiting", func() bool { return w.waiting() == 1 })
			until(t, "counted", func() bool { return w.s.waiting.Load() >= 200_000 })
			require.Zero(t, w.s.partial.Load(), "what waits for Kafka is no incomplete packet")
			w.wakeInVain()
		}
		until(t, "waiting", func() bool { return w.waiting() == 1 })
		w.makeRoom()
		require.Len(t, w.next().Payload, 200_000)
		require.Equal(t, "y", string(w.next().Payload))
		c.ping()
		require.Zero(t, w.s.partial.Load()+w.s.waiting.Load(), "nothing is counted any more")
	})
}

func TestShutdownOfAPausedConnectionCountsNothing(t *testing.T) {
	w := newWorld(t, nil)
	c := w.device(4, "dev")
	w.setFull(true)
	c.publish(pub{topic: "t", qos: 1, id: 1, payload: strings.Repeat("x", 200_000)})
	until(t, "waiting", func() bool { return w.waiting() == 1 })
	w.device(4, "dev").ping()
	c.closed()
	w.makeRoom()
	until(t, "one is left", func() bool { return w.open() == 1 })
	require.Zero(t, w.s.partial.Load()+w.s.waiting.Load())
	require.Zero(t, w.reserved())
	require.Zero(t, count(w.s.m.paused))
}

// TestPingreqIsAnsweredDuringAPause: whatever waits before it, and in however many pieces it comes.
func TestPingreqIsAnsweredDuringAPause(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.device(v, "dev")
		w.setFull(true)
		c.send(cat(pub{topic: "t", qos: 1, id: 1, payload: "a"}.packet(v), pingreq, pub{topic: "t", qos: 2, id: 2, payload: "b"}.packet(v), pingreq))
		c.expect(pingresp)
		c.expect(pingresp)
		third := pub{topic: "t", qos: 1, id: 3, payload: "c"}.packet(v)
		c.send(third[:3])
		c.send(cat(third[3:], pingreq[:1]))
		c.send(pingreq[1:])
		c.expect(pingresp)
		w.noMessage()
		until(t, "waiting", func() bool { return w.waiting() == 1 })
		w.makeRoom()
		for id, payload := range []string{"a", "b", "c"} {
			m := w.next()
			require.Equal(t, payload, string(m.Payload))
			w.ack(m)
			c.expect(packet(0x40+0x10*(id%2), uint16(id+1)))
		}
		c.ping()
		require.Zero(t, count(w.s.m.paused))
	})
}

// TestFarewellDuringAPauseCounts: DISCONNECT behind messages that wait still means that there is no will.
func TestFarewellDuringAPauseCounts(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.connect(hello{version: v, id: "dev", will: &lastWill{topic: "w"}})
		w.setFull(true)
		c.send(cat(pub{topic: "t", qos: 1, id: 1, payload: "a"}.packet(v), packet(0xE0)))
		_ = c.nc.CloseWrite()
		until(t, "it left", func() bool { return w.open() == 0 })
		w.makeRoom()
		w.noMessage()
		require.Zero(t, count(w.s.m.paused))
	})
}

// TestAPausedDeviceThatVanishesIsMissed: its will does not wait for Kafka to come back.
func TestAPausedDeviceThatVanishesIsMissed(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.connect(hello{version: v, id: "dev", will: &lastWill{topic: "w"}})
		w.setFull(true)
		c.publish(pub{topic: "t", qos: 1, id: 1, payload: "a"})
		until(t, "waiting", func() bool { return w.waiting() == 1 })
		_ = c.nc.Close()
		require.True(t, w.next().Will)
		until(t, "it left", func() bool { return w.open() == 0 })
		w.makeRoom()
		w.noMessage()
	})
}

// TestAPausedConnectionIsReadOnlySoFar: the rest stays in the socket.
func TestAPausedConnectionIsReadOnlySoFar(t *testing.T) {
	w := newWorld(t, nil)
	c := w.device(5, "dev")
	w.setFull(true)
	sent := make(chan struct{})
	go func() { // ends when the connection closes
		defer close(sent)
		b := pub{topic: "t", qos: 1, id: 1, payload: strings.Repeat("x", 1000)}.packet(5)
		for range 100_000 {
			if _, err := c.pipe.Write(b); err != nil {
				return
			}
		}
	}()
	until(t, "waiting", func() bool { return w.waiting() == 1 })
	until(t, "reading stops", func() bool { return count(w.s.m.bytesIn) >= holdBytes })
	for range 20 {
		w.wakeInVain()
		until(t, "waiting", func() bool { return w.waiting() == 1 })
	}
	require.Less(t, count(w.s.m.bytesIn), 2*holdBytes)
	_ = c.nc.Close()
	<-sent
	w.makeRoom()
}

// TestFaultyPacketIsNoDroppedMessage, also if it has waited behind one: what ends the connection is counted as that.
func TestFaultyPacketIsNoDroppedMessage(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.device(v, "dev")
		w.setFull(true)
		faulty := pub{topic: "t", payload: "x"}.packet(v)
		faulty[0] |= 8                                                            // DUP [MQTT-3.3.1-2]
		c.send(cat(pub{topic: "t"}.packet(v), faulty, pub{topic: "t"}.packet(v))) // the last one is dropped
		until(t, "paused", func() bool { return count(w.s.m.paused) == 1 })
		w.makeRoom()
		w.next()
		w.ended()
		require.Equal(t, 1, count(w.s.m.dropped))
	})
}
