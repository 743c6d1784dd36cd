package mqtt

import (
	"fmt"
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
		three.Ack(Success)
		w.refuse(two, NotAuthorized, "no")
		c.ping() // nothing before the first is known
		w.ack(one)
		c.expect(packet(0x30+0x10*qos, uint16(1)))
		c.closed()
	}
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

func TestReceiveMaximumIsEnforced(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.ReceiveMaximum = 3 })
	c := w.device(5, "dev")
	c.publish(pub{topic: "t", qos: 1, id: 1})
	c.publish(pub{topic: "t", qos: 2, id: 2})
	c.publish(pub{topic: "t", qos: 2, id: 3})
	for _, id := range []uint16{1, 2} {
		w.ack(w.next())
		c.expect(packet(map[uint16]int{1: 0x40, 2: 0x50}[id], id))
	}
	w.refuse(w.next(), NotAuthorized, "")
	c.expect(packet(0x50, uint16(3), 0x87))
	// In use: id 2 until PUBCOMP. 1 was freed by PUBACK, 3 by its PUBREC with an error.
	c.publish(pub{topic: "t", qos: 1, id: 4})
	c.publish(pub{topic: "t", qos: 1, id: 5})
	c.ping()
	c.send(pubrel(2))
	c.expect(pubcomp(2))
	c.publish(pub{topic: "t", qos: 1, id: 6})
	c.ping()
	c.publish(pub{topic: "t"}) // QoS 0 is free
	c.publish(pub{topic: "t", qos: 1, id: 7})
	c.goodbye(ReceiveMaximumExceeded)
	require.Len(t, w.got, 4)
}

func TestReceiveMaximumCountsAlsoWhatIsSentAgainOnANewConnection(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.ReceiveMaximum = 3 })
	c := w.stored(5, "dev")
	for id := uint16(1); id <= 3; id++ {
		c.publish(pub{topic: "t", qos: 2, id: id})
	}
	w.ack(w.next())
	c.expect(pubrec(1))
	c = w.stored(5, "dev") // its quota begins anew (section 4.9)
	for id := uint16(1); id <= 3; id++ {
		c.publish(pub{topic: "t", qos: 2, id: id}.again())
	}
	c.expect(pubrec(1))
	c.publish(pub{topic: "t", qos: 1, id: 4})
	c.goodbye(ReceiveMaximumExceeded)
}

func TestSendingOneQoS2MessageForeverCostsABoundedNumberOfSlots(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.ReceiveMaximum = 10 })
	c := w.device(5, "dev")
	for range 30 {
		if _, err := c.pipe.Write(pub{topic: "t", qos: 2, id: 1, dup: true}.packet(5)); err != nil {
			break
		}
	}
	c.goodbye(ReceiveMaximumExceeded)
	require.Len(t, w.got, 1)
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
