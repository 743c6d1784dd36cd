package mqtt

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func q2(id uint16, payload string) pub { return pub{topic: "t", payload: payload, qos: 2, id: id} }

func TestQoS2ExchangeAndReuseOfItsID(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.device(v, "dev")
		for _, payload := range []string{"first", "second", "third"} {
			c.publish(q2(7, payload))
			m := w.next()
			require.Equal(t, payload, string(m.Payload), "free again after PUBCOMP")
			w.ack(m)
			c.expect(pubrec(7))
			c.send(pubrel(7))
			c.expect(pubcomp(7))
		}
	})
}

func TestQoS2SentAgainWhilePendingIsHandedOverOnce(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.device(v, "dev")
		c.publish(q2(7, "x"))
		m := w.next()
		c.publish(q2(7, "x").again())
		c.publish(q2(7, "x")) // without DUP it is the same, since the id is in use
		c.ping()
		w.noMessage()
		w.ack(m)
		c.expect(pubrec(7))
		require.Equal(t, m.Reserved, 0, "recycled")
		c.send(pubrel(7))
		c.expect(pubcomp(7))
		c.ping()
		w.noMessage()
	})
}

// TestNoPubrecLeavesAfterPubcomp: a message that was stored while an older one is not, and is repeated, has one PUBREC as
// long as that waits for its turn, and later one at once. The device may use the identifier again after PUBCOMP.
func TestNoPubrecLeavesAfterPubcomp(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.device(v, "dev")
		c.publish(q2(1, "slow"))
		c.publish(q2(2, "x"))
		slow := w.next()
		w.ack(w.next())
		c.publish(q2(2, "x").again())
		c.ping()
		w.ack(slow)
		c.expect(pubrec(1), pubrec(2))
		c.publish(q2(3, "slow"))
		slow = w.next()
		c.publish(q2(2, "x").again())
		c.expect(pubrec(2))
		c.send(pubrel(2))
		c.expect(pubcomp(2))
		w.ack(slow)
		c.expect(pubrec(3))
		c.ping()
		w.noMessage()
	})
}

func TestQoS2SentAgainAfterPubrecIsAnsweredAtOnce(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.device(v, "dev")
		c.publish(q2(7, "x"))
		w.ack(w.next())
		c.expect(pubrec(7))
		before := w.reserved()
		c.publish(q2(7, "x").again())
		c.expect(pubrec(7))
		c.publish(q2(7, "x")) // without DUP it is still the same: the id is in use
		c.expect(pubrec(7))
		w.noMessage()
		require.Equal(t, before, w.reserved(), "what came again holds no memory")
	})
}

func TestQoS2HandedOverOnceThroughReconnect(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.stored(v, "dev")
		c.publish(q2(1, "stored"))
		c.publish(q2(2, "pending"))
		w.ack(w.next())
		c.expect(pubrec(1))
		pending := w.next()
		require.NoError(t, c.nc.Close())

		c = w.stored(v, "dev")
		require.True(t, c.present())
		c.publish(q2(1, "stored").again())
		c.publish(q2(2, "pending").again())
		c.expect(pubrec(1))
		c.ping() // 2 is not known yet
		w.noMessage()
		w.ack(pending)
		c.expect(pubrec(2))
		require.NoError(t, c.nc.Close())

		c = w.stored(v, "dev")
		c.send(pubrel(1), pubrel(2), pubrel(1))
		c.expect(pubcomp(1), pubcomp(2))
		if v == 5 {
			c.expect(packet(0x70, uint16(1), PacketIdentifierNotFound))
		} else {
			c.expect(pubcomp(1))
		}
		w.noMessage()
	})
}

// TestPubrecOfAnotherConnectionHasItsTurn: what is stored is answered behind what came before it on this connection, if
// it was not answered here yet [MQTT-4.6.0-3].
func TestPubrecOfAnotherConnectionHasItsTurn(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.stored(v, "dev")
		c.publish(q2(1, "slow"))
		c.publish(q2(2, "x"))
		slow := w.next()
		w.ack(w.next())
		c = w.stored(v, "dev")
		c.publish(q2(1, "slow").again())
		c.publish(q2(2, "x").again())
		c.publish(q2(2, "x").again())
		c.ping() // neither has its answer
		w.ack(slow)
		c.expect(pubrec(1), pubrec(2))
		c.publish(q2(2, "x").again())
		c.expect(pubrec(2))
		c.ping()
		w.noMessage()
	})
}

func TestQoS2AckedBetweenTwoConnections(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.stored(v, "dev")
		c.publish(q2(2, "x"))
		m := w.next()
		require.NoError(t, c.nc.Close())
		until(t, "closed", func() bool { return w.open() == 0 })
		w.ack(m)
		c = w.stored(v, "dev")
		c.publish(q2(2, "x").again())
		c.expect(pubrec(2))
		w.noMessage()
	})
}

func TestQoS2KeepsTheOrderOfWhatItIsResentAmong(t *testing.T) {
	w := newWorld(t, nil)
	c := w.stored(4, "dev")
	c.publish(q2(1, "x"))
	m := w.next()
	c = w.stored(4, "dev")
	c.publish(q2(1, "x").again())
	c.publish(pub{topic: "t", qos: 1, id: 9})
	w.ack(w.next())
	c.ping() // the PUBACK waits for the PUBREC before it
	w.ack(m)
	c.expect(pubrec(1), puback(9))
}

func TestQoS2ThatIsAllOverIsANewMessage(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.stored(v, "dev")
		c.publish(q2(1, "x"))
		w.ack(w.next())
		c.expect(pubrec(1))
		c = w.device(v, "dev") // clean start: the ids are forgotten with the session
		c.publish(q2(1, "y"))
		require.Equal(t, "y", string(w.next().Payload))
	})
}

func TestRefusedQoS2FreesItsID(t *testing.T) {
	w := newWorld(t, nil)
	c := w.device(5, "dev")
	c.publish(q2(1, "x"))
	w.refuse(w.next(), QuotaExceeded, "")
	c.expect(packet(0x50, uint16(1), QuotaExceeded))
	c.publish(q2(1, "y"))
	m := w.next()
	require.Equal(t, "y", string(m.Payload))
	w.ack(m)
	c.expect(pubrec(1))
}

func TestRefusalReachesEveryoneWhoSentTheMessage(t *testing.T) {
	w := newWorld(t, nil)
	c := w.stored(5, "dev")
	c.publish(q2(1, "x"))
	m := w.next()
	c = w.stored(5, "dev")
	c.publish(q2(1, "x").again())
	c.ping()
	w.refuse(m, NotAuthorized, "")
	c.expect(packet(0x50, uint16(1), NotAuthorized))
}

func TestRefusedQoS2Of311IsTriedAfreshByTheNextConnection(t *testing.T) {
	w := newWorld(t, nil)
	c := w.stored(4, "dev")
	c.publish(q2(1, "x"))
	w.refuse(w.next(), QuotaExceeded, "")
	c.closed()
	c = w.stored(4, "dev")
	c.publish(q2(1, "x").again())
	w.ack(w.next())
	c.expect(pubrec(1))
}

func TestPubrelOfAnUnknownID(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.device(v, "dev")
		c.send(pubrel(9))
		if v == 5 {
			c.expect(packet(0x70, uint16(9), PacketIdentifierNotFound))
		} else {
			c.expect(pubcomp(9)) // it can't say no, and PUBREL must be answered [MQTT-4.3.3-2] of 3.1.1
		}
	})
}

func TestPubrelMayCarryAReason(t *testing.T) {
	w := newWorld(t, nil)
	c := w.device(5, "dev")
	for id, rest := range [][]byte{nil, cat(0), cat(0x92), cat(0, props()), cat(0x92, props(0x1F, str("gone"), user("a", "b")))} {
		c.publish(q2(uint16(id+1), "x"))
		w.ack(w.next())
		c.expect(pubrec(uint16(id + 1)))
		c.send(packet(0x62, uint16(id+1), rest))
		c.expect(pubcomp(uint16(id + 1)))
	}
}

func TestPubrelFaults(t *testing.T) {
	fault := func(v byte, code Code, p []byte) {
		t.Helper()
		w := newWorld(t, nil)
		c := w.device(v, "dev")
		c.send(p)
		c.goodbye(code)
	}
	bothVersions(t, func(t *testing.T, v byte) {
		fault(v, ProtocolError, pubrel(0))
		fault(v, MalformedPacket, packet(0x62, 1))
		fault(v, MalformedPacket, packet(0x60, uint16(1))) // [MQTT-3.6.1-1]
	})
	fault(4, MalformedPacket, packet(0x62, uint16(1), 0))
	fault(5, MalformedPacket, packet(0x62, uint16(1), 0, 5))
	fault(5, MalformedPacket, packet(0x62, uint16(1), 0, props(), 1))
	fault(5, MalformedPacket, packet(0x62, uint16(1), 0, props(0x11, uint32(1))))
}

func TestPubrelBeforePubrecFreesTheID(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.device(v, "dev")
		c.publish(q2(1, "x"))
		first := w.next()
		c.publish(q2(1, "x").again())
		c.send(pubrel(1))
		c.expect(pubcomp(1))
		c.publish(q2(1, "y")) // a message of its own, not a repetition
		second := w.next()
		require.Equal(t, "y", string(second.Payload))
		w.ack(first)
		c.expect(pubrec(1))
		c.ping() // the outcome of the first says nothing of the second
		w.ack(second)
		c.expect(pubrec(1))
		c.send(pubrel(1))
		c.expect(pubcomp(1))
	})
}

func TestUnreleasedQoS2MessagesAreBounded(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		full := func(change func(*Config), most int) {
			w := newWorld(t, change)
			w.answer = func(m *Message) { m.Ack(Success) }
			c := w.stored(v, "dev")
			sent := c.flood(burstOf(v, 2, most+1))
			for id := 1; id <= most; id++ {
				c.expect(pubrec(uint16(id)))
			}
			c.goodbye(ReceiveMaximumExceeded)
			<-sent
			c = w.stored(v, "dev")
			c.publish(q2(1, "").again()) // what is known is no more than before
			c.expect(pubrec(1))
			c.send(pubrel(1))
			c.expect(pubcomp(1))
			last := uint16(most + 1)
			c.publish(q2(last, ""))
			c.expect(pubrec(last))
			require.Positive(t, w.s.extra.used.Load())
			w.device(v, "dev") // clean start
			require.Zero(t, w.s.extra.used.Load(), "what the session had is given back")
		}
		full(nil, idsMost)
		full(func(c *Config) { c.ReceiveMaximum, c.MaxExtraBytes = 20, 10*idBytes }, 30)
	})
}

// TestIDsOfASessionThatEndsAreGivenBack, in every way that a session ends.
func TestIDsOfASessionThatEndsAreGivenBack(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, func(c *Config) { c.ReceiveMaximum, c.MaxStoredSessions = 1, 1 })
		received := func(c *client) {
			for id := uint16(1); id <= 3; id++ {
				c.publish(q2(id, ""))
				w.ack(w.next())
				c.expect(pubrec(id))
			}
			require.NoError(t, c.nc.Close())
			w.ended()
		}
		held := func(ids int) {
			t.Helper()
			require.EqualValues(t, ids*idBytes, w.s.extra.used.Load())
		}
		received(w.device(v, "ends with its connection"))
		held(0)
		received(w.stored(v, "stays"))
		held(2)
		received(w.stored(v, "finds no room"))
		held(2)
		w.s.sweepSessions(time.Now().Add(48*time.Hour), false)
		held(0)
	})
}

// TestQoS2RepeatGetsTheSameCode: a message that was accepted and not kept is not called stored when it is repeated.
func TestQoS2RepeatGetsTheSameCode(t *testing.T) {
	w := newWorld(t, nil)
	c := w.device(5, "dev")
	p := pub{topic: "t", qos: 2, id: 7}
	c.publish(p)
	m := w.next()
	m.Ack(NoMatchingSubscribers)
	w.s.Flush()
	c.expect(packet(0x50, uint16(7), 0x10))
	c.publish(p)
	c.expect(packet(0x50, uint16(7), 0x10))
	w.noMessage()
}
