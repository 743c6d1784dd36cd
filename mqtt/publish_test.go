package mqtt

import (
	"bytes"
	"fmt"
	"math/rand"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMessageCarriesWhatWasSent(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.device(v, "dev")
		for qos := range 3 {
			before := time.Now()
			c.publish(pub{topic: "a/b", payload: "p\x00q", qos: qos, id: uint16(qos), retain: v == 4})
			m := w.next()
			require.Equal(t, "a/b", string(m.Topic))
			require.Equal(t, "p\x00q", string(m.Payload))
			require.Equal(t, byte(qos), m.QoS)
			require.Equal(t, v == 4, m.Retain)
			require.Equal(t, "dev", m.ClientID)
			require.False(t, m.Will)
			require.False(t, m.HasExpiry)
			require.Nil(t, m.ContentType)
			require.Empty(t, m.User)
			require.False(t, m.Received.Before(before))
			w.ack(m)
		}
		c.publish(pub{topic: "/", payload: ""})
		require.Empty(t, w.next().Payload)
	})
}

func TestMessageCarriesThePropertiesOf5(t *testing.T) {
	w := newWorld(t, nil)
	c := w.device(5, "dev")
	c.publish(pub{topic: "t", payload: "x", qos: 1, id: 9, props: cat(
		user("k", "1"), 0x01, 1, 0x02, uint32(77), 0x03, str("text"), 0x08, str("re/ply"), 0x09, str("\x00\x01"), user("k", "2"))})
	m := w.next()
	require.Equal(t, "text", string(m.ContentType))
	require.Equal(t, "re/ply", string(m.ResponseTopic))
	require.Equal(t, "\x00\x01", string(m.CorrelationData))
	require.True(t, m.HasExpiry)
	require.Equal(t, uint32(77), m.Expiry)
	require.Equal(t, []Property{{[]byte("k"), []byte("1")}, {[]byte("k"), []byte("2")}}, m.User, "in their order [MQTT-3.3.2-18]")
	require.Equal(t, "x", string(m.Payload))
	w.ack(m)
	c.expect(puback(9))
	c.publish(pub{topic: "t", qos: 1, id: 9})
	m = w.next()
	require.Nil(t, m.ContentType, "nothing of the message before stays")
	require.Nil(t, m.CorrelationData)
	require.False(t, m.HasExpiry)
	require.Empty(t, m.User)
}

func TestPublishFaults(t *testing.T) {
	w := newWorld(t, nil)
	fault := func(name string, code Code, parts ...any) {
		t.Helper()
		c := w.device(5, "dev")
		c.send(parts...)
		c.goodbye(code)
		w.noMessage()
		require.Zero(t, w.reserved(), name)
	}
	p5 := func(p pub) []byte { return p.packet(5) }
	with := func(parts ...any) []byte { return p5(pub{topic: "t", qos: 1, id: 1, props: cat(parts...)}) }
	fault("QoS 3", MalformedPacket, packet(0x36, str("t"), uint16(1), props()))
	fault("DUP with QoS 0", MalformedPacket, packet(0x38, str("t"), props()))
	fault("packet id 0", ProtocolError, p5(pub{topic: "t", qos: 1}))
	fault("no topic and no alias", ProtocolError, p5(pub{qos: 1, id: 1}))
	fault("wildcard +", MalformedPacket, p5(pub{topic: "a/+"}))
	fault("wildcard #", MalformedPacket, p5(pub{topic: "#"}))
	fault("topic with U+0000", MalformedPacket, p5(pub{topic: "a\x00"}))
	fault("topic not UTF-8", MalformedPacket, p5(pub{topic: "\xc3("}))
	fault("topic a surrogate", MalformedPacket, p5(pub{topic: "\xed\xa0\x80"}))
	fault("topic cut", MalformedPacket, packet(0x30, uint16(5), "abc"))
	fault("no packet id", MalformedPacket, packet(0x32, str("t"), 1))
	fault("no properties", MalformedPacket, packet(0x30, str("t")))
	fault("properties longer than the packet", MalformedPacket, packet(0x30, str("t"), 5, 1))
	fault("retain", RetainNotSupported, p5(pub{topic: "t", retain: true}))
	fault("alias 0", TopicAliasInvalid, with(0x23, uint16(0)))
	fault("alias above the maximum", TopicAliasInvalid, with(0x23, uint16(17)))
	fault("alias that was not set", ProtocolError, p5(pub{qos: 1, id: 1, props: cat(0x23, uint16(1))}))
	fault("subscription identifier from a client", ProtocolError, with(0x0B, 1)) // [MQTT-3.3.4-6]
	fault("response topic with a wildcard", MalformedPacket, with(0x08, str("a/#")))
	fault("payload format 2", ProtocolError, with(0x01, 2))
	fault("property twice", ProtocolError, with(0x03, str("a"), 0x03, str("b")))
	fault("user property not UTF-8", MalformedPacket, with(0x26, str("a"), str("\xff")))
	fault("overlong property length", MalformedPacket, packet(0x30, str("t"), 0x80, 0x00))
}

func TestPublishFaultsOf311CloseAtOnce(t *testing.T) {
	w := newWorld(t, nil)
	for _, p := range [][]byte{
		packet(0x36, str("t"), uint16(1)), packet(0x38, str("t")), pub{topic: "t", qos: 2}.packet(4), pub{}.packet(4),
		pub{topic: "a/+"}.packet(4), pub{topic: "\x00"}.packet(4), packet(0x30, 0), packet(0x32, str("t")),
	} {
		c := w.device(4, "dev")
		c.send(p)
		c.closed()
		w.noMessage()
		require.Zero(t, w.reserved())
	}
}

func TestTopicAliasStandsForItsTopic(t *testing.T) {
	w := newWorld(t, nil)
	c := w.device(5, "dev")
	alias := func(topic string, n int) string {
		c.publish(pub{topic: topic, props: cat(0x23, uint16(n))})
		return string(w.next().Topic)
	}
	require.Equal(t, "a", alias("a", 1))
	require.Equal(t, "b", alias("b", 16))
	require.Equal(t, "a", alias("", 1))
	require.Equal(t, "b", alias("", 16))
	require.Equal(t, "c", alias("c", 1), "set anew")
	require.Equal(t, "c", alias("", 1))
}

func TestTopicAliasOfAMessageInFlightStaysWhatItWas(t *testing.T) {
	w := newWorld(t, nil)
	c := w.device(5, "dev")
	c.publish(pub{topic: "first", props: cat(0x23, uint16(1))})
	c.publish(pub{props: cat(0x23, uint16(1))})
	c.publish(pub{topic: "other", props: cat(0x23, uint16(1))})
	w.next()
	m := w.next()
	w.next()
	require.Equal(t, "first", string(m.Topic))
}

func TestTopicAliasEndsWithItsConnection(t *testing.T) {
	w := newWorld(t, nil)
	c := w.stored(5, "dev")
	c.publish(pub{topic: "a", props: cat(0x23, uint16(1))})
	w.next()
	c = w.stored(5, "dev") // [MQTT-3.3.2-7]
	require.True(t, c.present())
	c.publish(pub{props: cat(0x23, uint16(1))})
	c.goodbye(ProtocolError)
}

// away makes a server whose messages are not stored.
func away(c *Config) { c.Away = func() bool { return true } }

func TestDroppedMessageStillSetsItsTopicAlias(t *testing.T) {
	w := newWorld(t, away)
	c := w.device(5, "dev")
	c.publish(pub{topic: "old", props: cat(0x23, uint16(1))})
	require.Equal(t, "old", string(w.next().Topic))
	w.setFull(true)
	c.publish(pub{topic: "new", props: cat(0x23, uint16(1))})
	c.publish(pub{topic: "more", props: cat(0x23, uint16(2))})
	c.ping()
	require.Equal(t, 2, count(w.s.m.dropped))
	w.noMessage()
	w.setFull(false)
	c.publish(pub{props: cat(0x23, uint16(1))})
	require.Equal(t, "new", string(w.next().Topic), "not the topic that the alias had before")
	c.publish(pub{props: cat(0x23, uint16(2))})
	require.Equal(t, "more", string(w.next().Topic))
}

func TestQoS0IsDroppedAtOnceWhileNothingIsStoredAndNeverAnswered(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, func(c *Config) {
			away(c)
			c.ReceiveMaximum = 1
		})
		c := w.device(v, "dev")
		c.publish(pub{topic: "t", qos: 1, id: 1})
		held := w.next()
		w.setFull(true)
		for range 100 {
			c.publish(pub{topic: "t", payload: "x"})
		}
		c.ping()
		require.Equal(t, 100, count(w.s.m.dropped))
		w.setFull(false)
		for range 100 {
			c.publish(pub{topic: "t", payload: "x"})
		}
		c.ping()
		for range 100 {
			w.next().Refuse(NotAuthorized, "no")
		}
		w.ack(held)
		c.expect(puback(1))
		c.ping()
	})
}

// fiveWait has a device send five messages with QoS 0, 0 to 4, for which there is no memory.
func (w *world) fiveWait(c *client) {
	w.setFull(true)
	for i := range 5 {
		c.publish(pub{topic: "t", payload: fmt.Sprint(i)})
	}
	until(w.t, "paused", func() bool { return count(w.s.m.paused) == 1 })
}

func TestQoS0WaitsForMemoryWhileMessagesAreStored(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.device(v, "dev")
		w.fiveWait(c)
		c.ping()
		w.noMessage()
		w.makeRoom()
		for i := range 5 {
			require.Equal(t, fmt.Sprint(i), string(w.next().Payload))
		}
		require.Zero(t, count(w.s.m.dropped))
	})
}

// TestQoS0OfADeviceThatIsGoneWaitsForMemoryToo: nobody sends it again, and the farewell behind it counts.
func TestQoS0OfADeviceThatIsGoneWaitsForMemoryToo(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.connect(hello{version: v, id: "dev", will: &lastWill{topic: "w"}})
		w.fiveWait(c)
		c.send(packet(0xE0))
		_ = c.nc.CloseWrite()
		w.wakeInVain()
		w.noMessage()
		w.makeRoom()
		for i := range 5 {
			require.Equal(t, fmt.Sprint(i), string(w.next().Payload))
		}
		w.ended()
		w.noMessage()
		require.Zero(t, count(w.s.m.dropped))
	})
}

// TestQoS0OfADeviceThatIsGoneWaitsOnce: not for each message, with a will that waits for all.
func TestQoS0OfADeviceThatIsGoneWaitsOnce(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.connect(hello{version: v, id: "dev", will: &lastWill{topic: "w"}})
		w.fiveWait(c)
		_ = c.nc.Close()
		w.wakeInVain()
		w.noMessage()
		for range 4 { // fewer than there are messages: that it is gone may be noticed after the first was dropped
			before := count(w.s.m.dropped)
			w.s.tick.Add(spareWait + 2)
			until(t, "more are dropped", func() bool {
				w.s.sweep(time.Now())
				return count(w.s.m.dropped) > before || before == 5
			})
		}
		require.True(t, w.next().Will)
		until(t, "it left", func() bool { return w.open() == 0 })
		require.Equal(t, 5, count(w.s.m.dropped))
	})
}

// TestQoS0BehindMessagesOfADeviceThatIsGoneIsCounted: its will does not wait for what it did not wait for itself.
func TestQoS0BehindMessagesOfADeviceThatIsGoneIsCounted(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.connect(hello{version: v, id: "dev", will: &lastWill{topic: "w"}})
		w.setFull(true)
		c.send(cat(pub{topic: "t", qos: 1, id: 1}.packet(v), pub{topic: "t"}.packet(v), pub{topic: "t"}.packet(v)))
		until(t, "waiting", func() bool { return w.waiting() == 1 })
		_ = c.nc.Close()
		require.True(t, w.next().Will)
		until(t, "it left", func() bool { return w.open() == 0 })
		require.Equal(t, 2, count(w.s.m.dropped))
	})
}

// TestQoS0StopsWaitingWhenNothingIsStoredAnyMore, and after a while even if others are.
func TestQoS0StopsWaitingWhenNothingIsStoredAnyMore(t *testing.T) {
	var gone atomic.Bool
	w := newWorld(t, func(c *Config) { c.Away = gone.Load })
	c, other := w.device(5, "dev"), w.device(5, "other")
	w.setFull(true)
	for i := range 3 {
		c.publish(pub{topic: "t", payload: fmt.Sprint(i)})
	}
	other.publish(pub{topic: "t", qos: 1, id: 1})
	until(t, "paused", func() bool { return count(w.s.m.paused) == 2 })
	w.s.sweep(time.Now())
	c.ping()
	require.Zero(t, count(w.s.m.dropped))

	w.s.tick.Add(spareWait + 2) // others are stored, this one has waited for too long, and the next one begins to
	w.s.sweep(time.Now())
	until(t, "one is dropped", func() bool { return count(w.s.m.dropped) == 1 && count(w.s.m.paused) == 2 })

	gone.Store(true)
	w.s.sweep(time.Now())
	until(t, "all are dropped", func() bool { return count(w.s.m.dropped) == 3 })
	c.ping()
	w.makeRoom()
	require.Equal(t, byte(1), w.next().QoS, "QoS 1 has waited on")
}

func TestReceivedMessagesAreCountedByQoS(t *testing.T) {
	w := newWorld(t, nil)
	c := w.device(4, "dev")
	for qos := range 3 {
		for i := range qos + 1 {
			c.publish(pub{topic: "t", qos: qos, id: uint16(10*qos + i + 1)})
			w.next()
		}
	}
	for qos := range 3 {
		require.Equal(t, qos+1, count(w.s.m.received[qos]))
	}
}

// TestMessageMemoryIsNobodyElses keeps many messages in flight from several devices, settles them in any
// order from other goroutines and looks that each still holds what was sent when its turn comes.
func TestMessageMemoryIsNobodyElses(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		const devices, each = 4, 400
		w := newWorld(t, func(c *Config) { c.ReceiveMaximum = 1000 })
		var work sync.WaitGroup
		for range 3 {
			work.Go(func() { settleAtRandom(t, w, devices*each) })
		}
		for d := range devices {
			c := w.device(v, fmt.Sprintf("d%d", d))
			work.Go(func() {
				for i := range each {
					c.publish(pub{topic: fmt.Sprintf("t/%d", i), payload: payloadOf(fmt.Sprintf("d%d", d), i), qos: 1, id: uint16(i + 1)})
				}
				for i := range each {
					c.expect(puback(uint16(i + 1)))
				}
			})
		}
		work.Wait()
	})
}

func payloadOf(id string, i int) string { return strings.Repeat(fmt.Sprintf("%s-%d,", id, i), 1+i%700) }

func settleAtRandom(t *testing.T, w *world, total int) {
	var held []*Message
	for count(w.s.m.received[1]) < total || len(held) > 0 || len(w.got) > 0 {
		select {
		case m := <-w.got:
			held = append(held, m)
			continue
		case <-time.After(time.Millisecond):
		}
		rand.Shuffle(len(held), func(i, j int) { held[i], held[j] = held[j], held[i] })
		for _, m := range held {
			var i int
			_, err := fmt.Sscanf(string(m.Topic), "t/%d", &i)
			if err != nil || !bytes.Equal(m.Payload, []byte(payloadOf(m.ClientID, i))) {
				t.Errorf("message of %s to %s holds other bytes", m.ClientID, m.Topic)
			}
			m.Ack(Success)
		}
		held = held[:0]
		w.s.Flush()
	}
}

// TestPropertiesAreAdmittedByWhatTheyCost: empty user properties take five bytes on the wire and far more in memory.
func TestPropertiesAreAdmittedByWhatTheyCost(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.UserProperties = 1000 })
	c := w.device(5, "dev")
	p := pub{topic: "t", qos: 1, id: 1, props: []byte(strings.Repeat("\x26\x00\x00\x00\x00", 1000))}
	c.publish(p)
	m := w.next()
	require.Len(t, m.User, 1000)
	require.GreaterOrEqual(t, w.reserved(), 1000*propertyOverhead)
	w.ack(m)
	c.expect(puback(1))
}
