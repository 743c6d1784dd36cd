package mqtt

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestPubackNotBeforeAck(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.device(v, "dev")
		c.publish(pub{topic: "t", qos: 1, id: 1})
		c.publish(pub{topic: "t", qos: 2, id: 2})
		one, two := w.next(), w.next()
		c.ping() // comes alone
		w.ack(one)
		c.expect(puback(1))
		c.ping()
		w.ack(two)
		c.expect(pubrec(2))
	})
}

func TestAcksLeaveInOrderOfReceipt(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.device(v, "dev")
		rapid.Check(t, func(rt *rapid.T) {
			qos := rapid.SliceOfN(rapid.IntRange(1, 2), 1, 60).Draw(rt, "qos")
			order := rapid.Permutation(seq(len(qos))).Draw(rt, "order")
			held := make([]*Message, len(qos))
			for i, q := range qos {
				c.publish(pub{topic: "t", qos: q, id: uint16(i + 1)})
				held[i] = w.next()
			}
			for _, i := range order {
				held[i].Ack(Success)
				if rapid.Bool().Draw(rt, "flush") {
					w.s.Flush()
				}
			}
			w.s.Flush()
			for i, q := range qos {
				if q == 1 {
					c.expect(puback(uint16(i + 1)))
					continue
				}
				c.expect(pubrec(uint16(i + 1)))
			}
			for i, q := range qos {
				if q == 2 {
					c.send(pubrel(uint16(i + 1)))
					c.expect(pubcomp(uint16(i + 1)))
				}
			}
		})
	})
}

func seq(n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = i
	}
	return s
}

func TestAcksFromManyGoroutinesLeaveInOrder(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, func(c *Config) { c.ReceiveMaximum = 2000 })
		c := w.device(v, "dev")
		var work sync.WaitGroup
		for range 4 {
			work.Go(func() {
				for range 250 {
					w.ack(w.next())
				}
			})
		}
		for i := range 1000 {
			c.publish(pub{topic: "t", qos: 1, id: uint16(i + 1)})
		}
		for i := range 1000 {
			c.expect(puback(uint16(i + 1)))
		}
		work.Wait()
	})
}

func TestAcksAreJoinedIntoOneWrite(t *testing.T) {
	w := newWorld(t, nil)
	c := w.device(4, "dev")
	for i := range 100 {
		c.publish(pub{topic: "t", qos: 1, id: uint16(i + 1)})
	}
	held := make([]*Message, 100)
	for i := range held {
		held[i] = w.next()
	}
	for i := range held {
		held[99-i].Ack(Success) // the head is the last to be known
	}
	w.s.Flush()
	_ = c.nc.SetReadDeadline(time.Now().Add(tooLong))
	b := make([]byte, 1000)
	n, err := c.nc.Read(b)
	require.NoError(t, err)
	require.Equal(t, 400, n, "100 PUBACKs in one piece")
}

func TestAckInsidePublishIsSentWithoutFlush(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		w.answer = func(m *Message) { m.Ack(Success) }
		c := w.device(v, "dev")
		for i := range 300 {
			c.publish(pub{topic: "t", qos: 1, id: uint16(i + 1)})
			c.expect(puback(uint16(i + 1)))
		}
		w.s.flusher.mu.Lock()
		defer w.s.flusher.mu.Unlock()
		require.LessOrEqual(t, len(w.s.flusher.dirty), 1, "a handler that answers at once need not call Flush")
	})
}

func TestReasonCodesReachTheDevice(t *testing.T) {
	w := newWorld(t, nil)
	c := w.device(5, "dev")
	shy := w.connect(hello{version: 5, id: "shy", props: cat(0x17, 0)})               // Request Problem Information 0
	small := w.connect(hello{version: 5, id: "small", props: cat(0x27, uint32(100))}) // its CONNACK has 35 bytes
	id := uint16(0)
	answer := func(c *client, qos int, settle func(*Message), want ...any) {
		t.Helper()
		id++
		c.publish(pub{topic: "t", qos: qos, id: id})
		settle(w.next())
		w.s.Flush()
		c.expect(packet(map[int]int{1: 0x40, 2: 0x50}[qos], id, cat(want...)))
	}
	ack := func(code Code) func(*Message) { return func(m *Message) { m.Ack(code) } }
	no := func(code Code, why string) func(*Message) { return func(m *Message) { m.Refuse(code, why) } }
	long := strings.Repeat("x", 101)
	for qos := 1; qos <= 2; qos++ {
		answer(c, qos, ack(Success))
		answer(c, qos, ack(NoMatchingSubscribers), 0x10)
		for _, code := range []Code{UnspecifiedError, ImplementationSpecificError, NotAuthorized, TopicNameInvalid, QuotaExceeded, PayloadFormatInvalid} {
			answer(c, qos, no(code, "why not"), code, props(0x1F, str("why not")))
			answer(c, qos, no(code, ""), code)
		}
		answer(c, qos, no(NotAuthorized, long[:100]), 0x87, props(0x1F, str(long[:100])))
		answer(c, qos, no(NotAuthorized, long), 0x87)
		answer(shy, qos, no(NotAuthorized, "why"), 0x87) // [MQTT-3.1.2-29]
		answer(small, qos, no(NotAuthorized, "short"), 0x87, props(0x1F, str("short")))
		answer(small, qos, no(NotAuthorized, long[:95]), 0x87)
	}
}

func TestRefusalClosesA311ConnectionAfterTheAcksBefore(t *testing.T) {
	for qos := 1; qos <= 2; qos++ {
		w := newWorld(t, nil)
		c := w.stored(4, "dev")
		for id := uint16(1); id <= 3; id++ {
			c.publish(pub{topic: "t", qos: qos, id: id})
		}
		one, two, three := w.next(), w.next(), w.next()
		w.refuse(two, NotAuthorized, "no")
		c.publish(pub{topic: "t", qos: qos, id: 4})
		c.ping() // nothing before the first is known
		w.ack(one)
		c.expect(packet(0x30+0x10*qos, uint16(1)))
		c.ping() // what was handed over behind it has its turn
		w.ack(three)
		c.expect(packet(0x30+0x10*qos, uint16(3)))
		c.closed()
		w.noMessage() // and what came when the refusal was known was not handed over
	}
}

// TestNothingBehindARefusedMessageIsHandedOverWithoutItsAnswer: a 3.1.1 device sends a refused message and good ones
// behind it after each CONNECT; each of the good ones that is handed over is acknowledged, whenever the refusal comes.
func TestNothingBehindARefusedMessageIsHandedOverWithoutItsAnswer(t *testing.T) {
	const good = 20
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(drawn{t, rt}, nil)
		left, stored := seq(good+1), map[string]int{} // payload 0 is refused
		settle := func(m *Message) {
			if string(m.Payload) == "0" {
				m.Refuse(NotAuthorized, "no")
				return
			}
			stored[string(m.Payload)]++
			m.Ack(Success)
		}
		for turn := range 3 {
			w.answer = nil
			atOnce := rapid.Bool().Draw(rt, "at once")
			if atOnce {
				w.answer = settle
			}
			c := w.stored(4, "dev")
			var packets []byte
			for _, n := range left {
				packets = cat(packets, pub{topic: "t", qos: 1, id: uint16(n + 1), dup: turn > 0, payload: fmt.Sprint(n)}.packet(4))
			}
			c.send(packets)
			if !atOnce {
				until(w.t, "handed over", func() bool { return len(w.got) == len(left) })
				held := make([]*Message, len(left))
				for _, i := range rapid.Permutation(seq(len(left))).Draw(rt, "order") {
					held[i] = w.next()
				}
				for _, m := range held {
					settle(m)
				}
				w.s.Flush()
			}
			for {
				first, body, err := c.tryRead()
				if err != nil {
					break
				}
				require.Equal(w.t, byte(0x40), first)
				acked := int(body[1]) - 1
				left = slices.DeleteFunc(left, func(n int) bool { return n == acked })
			}
			until(w.t, "closed", func() bool { return w.open() == 0 })
		}
		for payload, n := range stored {
			require.Equal(w.t, 1, n, "records of message %s", payload)
		}
		require.Equal(w.t, good+1-len(stored), len(left), "what is stored is acknowledged")
	})
}

// TestRepeatsInFlightAreTheSameMessage: a device that sends each message again while Kafka is slow gets one record and
// one answer for each, also where reading is paused.
func TestRepeatsInFlightAreTheSameMessage(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		for qos := 1; qos <= 2; qos++ {
			w := newWorld(t, nil)
			c := w.device(v, "dev")
			message := func(id uint16) pub { return pub{topic: "t", qos: qos, id: id, payload: fmt.Sprint(id)} }
			for id := uint16(1); id <= 10; id++ {
				c.publish(message(id))
			}
			for range 30 {
				for id := uint16(1); id <= 10; id++ {
					c.publish(message(id).again())
				}
			}
			c.ping()
			require.Len(t, w.got, 10)
			for id := uint16(1); id <= 10; id++ {
				m := w.next()
				require.Equal(t, fmt.Sprint(id), string(m.Payload))
				w.ack(m)
				c.expect(packet(0x30+0x10*qos, id))
			}
			c.ping()
			if qos == 1 { // answered: the identifier is free, and what has it is a new message [MQTT-4.3.2-5]
				c.publish(message(3).again())
				w.ack(w.next())
				c.expect(puback(3))
			}
			c.publish(message(11))
			c.publish(pub{topic: "t", qos: 1, id: 12})
			c.publish(pub{topic: "t", qos: 1, id: 12}) // without DUP it says that it is another one
			w.ack(w.next())
			w.ack(w.next())
			w.ack(w.next())
			c.expect(packet(0x30+0x10*qos, uint16(11)), puback(12), puback(12))
			c.ping()
			w.noMessage()
		}
	})
}

// TestRepeatsBehindAPauseAreTheSameMessage: they wait unread, and the first may be answered before their turn.
func TestRepeatsBehindAPauseAreTheSameMessage(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, func(c *Config) { c.ReceiveMaximum = 4 })
		c := w.device(v, "dev")
		message := func(id uint16) pub { return pub{topic: "t", qos: 1 + int(id%2), id: id, payload: fmt.Sprint(id)} }
		for range 3 {
			for id := uint16(1); id <= 4; id++ {
				p := message(id)
				p.dup = w.reserved() > 0
				c.publish(p)
			}
			c.ping()
		}
		c.publish(message(5))
		until(t, "paused", func() bool { return count(w.s.m.paused) == 1 })
		for range 3 {
			for id := uint16(1); id <= 4; id++ {
				c.publish(message(id).again())
			}
			c.ping()
		}
		for id := uint16(1); id <= 5; id++ {
			m := w.next()
			require.Equal(t, fmt.Sprint(id), string(m.Payload))
			w.ack(m)
			c.expect(packet(0x40+0x10*int(id%2), id))
		}
		c.ping()
		w.noMessage()
	})
}

// TestRepeatsBehindAPauseStillSetTheirTopicAlias, in the order in which they came.
func TestRepeatsBehindAPauseStillSetTheirTopicAlias(t *testing.T) {
	for qos := 1; qos <= 2; qos++ {
		w := newWorld(t, func(c *Config) { c.ReceiveMaximum = 2 })
		c := w.device(5, "dev")
		aliased := func(id uint16, topic string) pub {
			return pub{topic: topic, qos: qos, id: id, props: cat(0x23, uint16(1))}
		}
		c.publish(aliased(1, "a"))
		c.publish(aliased(2, "b"))
		c.publish(aliased(3, "")) // pauses
		for range 2 {
			c.publish(aliased(1, "a").again())
			c.publish(aliased(2, "").again())
		}
		c.publish(aliased(4, ""))
		c.publish(aliased(5, "c"))
		c.publish(aliased(2, "b").again())
		c.publish(aliased(6, ""))
		c.ping()
		for i, topic := range []string{"a", "b", "b", "a", "c", "b"} {
			m := w.next()
			require.Equal(t, topic, string(m.Topic))
			w.ack(m)
			c.expect(packet(0x30+0x10*qos, uint16(i+1)))
		}
		c.ping()
		w.noMessage()
	}
}

// TestRepeatsThatAPauseLeftUnreadAreTheSameMessage: they are more than what is read during it, so they are looked at when
// the first has long had its answer.
func TestRepeatsThatAPauseLeftUnreadAreTheSameMessage(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		for qos := 1; qos <= 2; qos++ {
			w := newWorld(t, func(c *Config) { c.ReceiveMaximum = 4 })
			c := w.device(v, "dev")
			message := func(id uint16) pub { return pub{topic: "t", qos: qos, id: id, payload: fmt.Sprint(id)} }
			expect := func(id uint16) {
				t.Helper()
				m := w.next()
				require.Equal(t, fmt.Sprint(id), string(m.Payload))
				w.ack(m)
				c.expect(packet(0x30+0x10*qos, id))
			}
			for id := uint16(1); id <= 5; id++ {
				c.publish(message(id))
			}
			until(t, "paused", func() bool { return count(w.s.m.paused) == 1 })
			c.publish(pub{topic: "t", payload: strings.Repeat("x", 2*holdBytes)})
			until(t, "reading stops", func() bool { return count(w.s.m.bytesIn) >= holdBytes })
			for id := uint16(1); id <= 5; id++ {
				c.publish(message(id).again())
			}
			w.pass(repeatsCome + 1) // however long Kafka is away
			for id := uint16(1); id <= 5; id++ {
				expect(id)
			}
			require.Len(t, w.next().Payload, 2*holdBytes)
			c.ping()
			w.noMessage()
			w.pass(repeatsCome)
			c.publish(message(2).again()) // from where the network kept it
			c.ping()
			w.noMessage()
			if qos == 2 {
				continue
			}
			c.publish(message(2)) // says that it is another one
			expect(2)
			w.pass(1)
			c.publish(message(3).again()) // [MQTT-4.3.2-5]
			expect(3)
		}
	})
}

// TestRepeatsAreNoRecordsOfTheirOwn: a device sends messages again, in any order, until they are answered. Some of that is
// handled before, some waits, and some stays in the socket. Topic aliases hold in the order of the packets.
func TestRepeatsAreNoRecordsOfTheirOwn(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		rapid.Check(t, func(rt *rapid.T) {
			const window = 4
			w := newWorld(drawn{t, rt}, func(c *Config) { c.ReceiveMaximum = window })
			c := w.device(v, "dev")
			aliases := map[int]string{}
			publish := func(p pub) {
				if alias := rapid.IntRange(0, 2).Draw(rt, "alias"); v == 5 && alias > 0 {
					p.props = cat(0x23, uint16(alias))
					if aliases[alias] == p.topic {
						p.topic = ""
					} else {
						aliases[alias] = p.topic
					}
				}
				c.publish(p)
			}
			for round := range 3 { // each with the same identifiers
				sent, large := []pub{}, 1
				for range rapid.IntRange(1, 40).Draw(rt, "packets") {
					switch kind := rapid.IntRange(0, 9).Draw(rt, "kind"); {
					case len(sent) == 0 || kind < 3:
						id := uint16(len(sent) + 1)
						topic := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "topic")
						sent = append(sent, pub{topic: topic, payload: fmt.Sprint(round, id), qos: rapid.IntRange(1, 2).Draw(rt, "qos"), id: id})
						p := sent[id-1]
						p.dup = round == 0 && rapid.Bool().Draw(rt, "dup") // from another connection
						publish(p)
					case kind < 9:
						publish(rapid.SampledFrom(sent).Draw(rt, "repeat").again())
					case large > 0 && len(sent) > window: // what follows stays in the socket
						large--
						publish(pub{topic: "a", payload: strings.Repeat("x", 2*holdBytes)})
					}
				}
				if len(sent) > window {
					until(w.t, "paused", func() bool { return count(w.s.m.paused) == 1 })
				} else {
					c.ping() // all is handled
				}
				for rest := sent; len(rest) > 0; {
					var held []*Message
					for len(held) < min(len(rest), window/2+1) { // with fewer it is read on
						if m := w.next(); m.QoS > 0 {
							p := rest[len(held)]
							require.Equal(rt, p.payload+" to "+p.topic, string(m.Payload)+" to "+string(m.Topic))
							held = append(held, m)
						}
					}
					for _, i := range rapid.Permutation(seq(len(held))).Draw(rt, "order") {
						w.ack(held[i])
					}
					for _, p := range rest[:len(held)] {
						c.expect(packet(0x30+0x10*p.qos, p.id))
					}
					rest = rest[len(held):]
				}
				for _, p := range sent {
					if p.qos == 2 {
						c.send(pubrel(p.id))
						c.expect(pubcomp(p.id))
					}
				}
				c.ping()
				for len(w.got) > 0 {
					require.Zero(rt, w.next().QoS)
				}
			}
		})
	})
}

func TestAckOf311IsPlainWhateverTheCode(t *testing.T) {
	w := newWorld(t, nil)
	c := w.device(4, "dev")
	c.publish(pub{topic: "t", qos: 1, id: 1})
	w.next().Ack(NoMatchingSubscribers)
	w.s.Flush()
	c.expect(puback(1))
}

func TestAbandonedMessageIsNeverAnswered(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		for qos := 1; qos <= 2; qos++ {
			w := newWorld(t, nil)
			c := w.stored(v, "dev")
			for id := uint16(1); id <= 3; id++ {
				c.publish(pub{topic: "t", qos: qos, id: id})
			}
			one, two, three := w.next(), w.next(), w.next()
			two.Abandon("unknown")
			three.Ack(Success)
			w.ack(one)
			c.expect(packet(0x30+0x10*qos, uint16(1)))
			c.goodbye(ImplementationSpecificError)
			c = w.stored(v, "dev")
			c.publish(pub{topic: "t", qos: qos, id: 2}.again())
			w.ack(w.next()) // it comes again, so that it is not lost
			c.expect(packet(0x30+0x10*qos, uint16(2)))
		}
	})
}

func TestAckAfterTheConnectionEndedIsHarmless(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.device(v, "dev")
		for id := uint16(1); id <= 50; id++ {
			c.publish(pub{topic: "t", qos: 1 + int(id%2), id: id})
		}
		until(t, "all handed over", func() bool { return len(w.got) == 50 })
		require.NoError(t, c.nc.Close())
		until(t, "closed", func() bool { return w.open() == 0 })
		for range 50 {
			w.ack(w.next())
		}
		c = w.device(v, "dev")
		c.ping()
	})
}

// TestBurstAboveTheReceiveMaximumIsHeldBack: a client that does not keep to it, as MQTT.js, is read no further until
// what is in flight is settled, and gets everything stored and acknowledged, whatever the QoS.
func TestBurstAboveTheReceiveMaximumIsHeldBack(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		for qos := 1; qos <= 2; qos++ {
			w := newWorld(t, func(c *Config) { c.ReceiveMaximum = 16 })
			c := w.connect(hello{version: v, id: "dev", keep: 10})
			const burst = 1000
			sent := c.flood(burstOf(v, qos, burst))
			until(t, "paused", func() bool { return count(w.s.m.paused) == 1 })
			w.pass(60) // the silence is ours
			require.Len(t, w.got, 16)
			var work sync.WaitGroup
			work.Go(func() {
				for range burst {
					w.ack(w.next())
				}
			})
			for id := uint16(1); id <= burst; id++ {
				c.expect(packet(0x30+0x10*qos, id))
			}
			work.Wait()
			<-sent
			if qos == 2 {
				require.EqualValues(t, (burst-16)*idBytes, w.s.extra.used.Load())
				for id := uint16(1); id <= burst; id++ {
					c.send(pubrel(id))
					c.expect(pubcomp(id))
				}
			}
			c.ping()
			require.Zero(t, w.s.extra.used.Load())
		}
	})
}

// burstOf is many messages with packet identifiers from 1.
func burstOf(v byte, qos, n int) (packets []byte) {
	for id := range n {
		packets = append(packets, pub{topic: "t", qos: qos, id: uint16(id + 1)}.packet(v)...)
	}
	return packets
}

func TestManyInFlightOnManyConnectionsAreAcknowledgedToTheirOwn(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		var clients []*client
		for d := range 20 {
			c := w.device(v, fmt.Sprint(d))
			c.publish(pub{topic: "t", qos: 1, id: uint16(1000 + d)})
			clients = append(clients, c)
		}
		for range clients {
			m := w.next()
			defer m.Ack(Success) // in the reverse order
		}
		t.Cleanup(func() {
			w.s.Flush()
			for d, c := range clients {
				c.expect(puback(uint16(1000 + d)))
			}
		})
	})
}
