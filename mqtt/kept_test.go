package mqtt

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func subscribePacket(v byte, id uint16, filter string, options int) []byte {
	return packet(0x82, id, (&client{version: v}).none(), str(filter), options)
}

func subackPacket(v byte, id uint16, codes ...any) []byte {
	return packet(0x90, id, (&client{version: v}).none(), cat(codes...))
}

func unsubscribePacket(v byte, id uint16, filter string) []byte {
	return packet(0xA2, id, (&client{version: v}).none(), str(filter))
}

func unsubackPacket(v byte, id uint16) []byte {
	if v < 5 {
		return packet(0xB0, id)
	}
	return packet(0xB0, id, props(), 0)
}

func TestSubackWaitsUntilTheSubscriptionIsStored(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := keeping(t, nil)
		c := w.stored(v, "dev")
		k := w.v.keeper("dev")
		c.send(subscribePacket(v, 1, "a", 1), subscribePacket(v, 2, "b", 2), unsubscribePacket(v, 3, "a"))
		c.ping()
		require.Equal(t, 1, k.told(&k.asked), "one save for all of them")
		first := k.snapshot()
		require.Equal(t, []Subscription{{Filter: "b", QoS: 2}}, bare(first.Subscriptions))
		c.send(subscribePacket(v, 4, "c", 0))
		c.ping()
		k.o.Session.Saved(first.Version)
		c.expect(subackPacket(v, 1, 1), subackPacket(v, 2, 2), unsubackPacket(v, 3))
		c.ping() // what came after the snapshot was taken waits for the next
		require.Equal(t, 2, k.told(&k.asked), "which is asked for")
		k.save()
		c.expect(subackPacket(v, 4, 0))
		k.save()
		c.ping()
		require.Equal(t, 2, k.told(&k.asked))
	})
}

func TestSubackOfASessionThatEndsWithItsConnectionWaitsForNothing(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := keeping(t, nil)
		c := w.device(v, "dev")
		c.subscribe("t", 2)
		cmd := w.placed(1, 0, "0", 2)
		c.gets(0, 1, 2, 1)
		c.send(pubrec(1))
		c.expect(pubrel(1))
		c.send(pubcomp(1))
		w.became(cmd, "dev delivered")
		k := w.v.keeper("dev")
		require.Zero(t, k.told(&k.asked))
		_ = c.nc.Close()
		require.Zero(t, k.leaving().State)
	})
}

func TestConnectionThatEndsBeforeItsSuback(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := keeping(t, nil)
		c := w.stored(v, "dev")
		k := w.v.keeper("dev")
		c.send(subscribePacket(v, 1, "a", 1))
		c.ping()
		late := k.snapshot()
		require.NoError(t, c.nc.Close())
		l := k.leaving()
		require.Equal(t, []Subscription{{Filter: "a", QoS: 1}}, bare(l.State.Subscriptions))
		w.left("dev")
		k.o.Session.Saved(late.Version)
		c = w.stored(v, "dev")
		k.o.Session.Saved(late.Version)
		c.ping() // the answer was the other connection's
		w.send(&Command{Topic: []byte("a"), Payload: []byte("x"), QoS: 1})
		c.expect(pub{topic: "a", payload: "x", qos: 1, id: 1}.packet(v))
	})
}

func TestAnswersThatWaitAreBounded(t *testing.T) {
	w := keeping(t, nil)
	c := w.stored(5, "dev")
	for i := range mostAnswers {
		c.send(subscribePacket(5, uint16(i+1), "a", 1))
	}
	c.ping()
	c.send(subscribePacket(5, mostAnswers+1, "a", 1))
	c.goodbye(QuotaExceeded)
}

func TestQoS2IsSentWhenItsIdentifierIsStored(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := keeping(t, nil)
		c, k := w.promptly(persistent(v, "dev"), 2)
		before := k.told(&k.asked)
		cmd := w.placed(1, 10, "0", 2)
		c.ping()
		require.Equal(t, before+1, k.told(&k.asked))
		require.Equal(t, []Unfinished{{Place: Place{1, 10}, ID: 1, QoS: 2}}, k.snapshot().Flight)
		k.save()
		c.gets(0, 1, 2, 1)
		c.send(pubrec(1), pubrec(1))
		c.ping() // PUBREL waits until it is stored that PUBREC came
		require.Equal(t, before+2, k.told(&k.asked))
		require.Equal(t, []Unfinished{{Place: Place{1, 10}, ID: 1, QoS: 2, Received: true}}, k.snapshot().Flight)
		k.save()
		c.expect(pubrel(1))
		c.ping()
		c.send(pubrec(1))
		c.expect(pubrel(1)) // known already
		w.waits(cmd)
		c.send(pubcomp(1))
		w.became(cmd, "dev delivered")
		c.ping()
		require.Equal(t, before+2, k.told(&k.asked), "PUBCOMP needs no write")
		require.Empty(t, k.snapshot().Flight)
		require.Equal(t, []Place{{1, 11}}, k.snapshot().Next)
	})
}

func TestQoS2RejectedByTheDeviceNeedsNoWrite(t *testing.T) {
	w := keeping(t, nil)
	c, k := w.promptly(persistent(5, "dev"), 2)
	cmd := w.placed(1, 10, "0", 2)
	k.save()
	c.gets(0, 1, 2, 1)
	asked := k.told(&k.asked)
	c.send(packet(0x50, uint16(1), QuotaExceeded))
	w.became(cmd, "dev rejected 0x97")
	c.ping()
	require.Equal(t, asked, k.told(&k.asked))
}

func TestQoS1NeedsNoWriteAndKeepsItsOrder(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := keeping(t, nil)
		c, k := w.promptly(persistent(v, "dev"), 2)
		asked := k.told(&k.asked)
		first := w.placed(1, 0, "0", 1)
		c.gets(0, 1, 1, 1)
		c.send(puback(1))
		w.became(first, "dev delivered")
		require.Equal(t, asked, k.told(&k.asked))
		for i, qos := range []byte{2, 1, 0, 2, 1} {
			w.placed(1, int64(i+1), fmt.Sprint(i+1), qos)
		}
		c.ping() // all behind the first, which waits
		k.save()
		c.expect(command(1, 2, 2).packet(v), command(2, 1, 3).packet(v), command(3, 0, 0).packet(v))
		c.ping()
		k.save()
		c.expect(command(4, 2, 4).packet(v), command(5, 1, 5).packet(v))
	})
}

func TestWindowCountsWhatWaitsToBeStored(t *testing.T) {
	window := func(h hello, want int) {
		t.Helper()
		w := keeping(t, func(c *Config) { c.CommandsInFlight = 3 })
		c, k := w.promptly(h, 2)
		for i := range 8 {
			w.placed(1, int64(i), fmt.Sprint(i), 2)
		}
		c.ping()
		require.Len(t, k.snapshot().Flight, want)
		k.save()
		c.gets(0, want, 2, 1)
		c.ping()
		for i := range want {
			c.send(pubrec(uint16(i + 1)))
		}
		c.ping()
		k.save()
		for i := range want {
			c.expect(pubrel(uint16(i + 1)))
		}
		c.ping() // PUBREC keeps the place
		c.send(pubcomp(1))
		c.ping()
		require.Len(t, k.snapshot().Flight, want)
		k.save()
		c.gets(want, 1, 2, uint16(want+1))
		c.ping()
	}
	window(persistent(4, "dev"), 3)
	window(persistent(5, "dev"), 3)
	window(limited("dev", 2), 2)
	window(limited("dev", 1), 1)
	window(limited("dev", 100), 3)
}

func TestSnapshotNamesWhatIsSettledAboveAnUnsettledOne(t *testing.T) {
	w := keeping(t, nil)
	c, k := w.promptly(persistent(5, "dev"), 1)
	for i := range 5 {
		w.placed(1, int64(10+i), fmt.Sprint(i), 1)
	}
	w.placed(2, 7, "5", 1)
	c.gets(0, 6, 1, 1)
	c.send(puback(1), puback(3), puback(5), puback(6))
	c.ping()
	s := k.snapshot()
	require.Equal(t, []Place{{1, 11}, {2, 8}}, s.Next)
	require.ElementsMatch(t, []Place{{1, 12}, {1, 14}}, s.Done)
	c.send(puback(2), puback(4))
	c.ping()
	s = k.snapshot()
	require.Equal(t, []Place{{1, 15}, {2, 8}}, s.Next)
	require.Empty(t, s.Done)
}

func TestProgressIsToldAfterAHundredSettled(t *testing.T) {
	w := keeping(t, nil)
	c, k := w.promptly(persistent(4, "dev"), 0)
	for i := range 2*progressEvery - 1 {
		w.placed(1, int64(i), "x", 0)
		_, _ = c.read()
	}
	require.Equal(t, 1, k.told(&k.progressed))
	w.placed(1, 2*progressEvery, "x", 0)
	_, _ = c.read()
	until(t, "told", func() bool { return k.told(&k.progressed) == 2 })
}

// TestSendingPausesWhenTooMuchIsSettledAboveAnUnsettledCommand: each snapshot names all of it.
func TestSendingPausesWhenTooMuchIsSettledAboveAnUnsettledCommand(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		const most = mostDone + 200
		w := keeping(t, func(c *Config) { c.CommandsInFlight, c.CommandsQueued = 8, 2*most })
		c, k := w.promptly(persistent(v, "dev"), 1)
		for i := range most {
			w.placed(1, int64(i), fmt.Sprint(i), 1)
		}
		c.gets(0, 1, 1, 1)
		sent := 1 + c.takesAll()
		require.GreaterOrEqual(t, sent, mostDone)
		require.LessOrEqual(t, sent, mostDone+8)
		require.Len(t, k.snapshot().Done, sent-1)
		c.send(puback(1))
		sent += c.takesAll()
		require.Equal(t, most, sent)
		require.Equal(t, []Place{{1, most}}, k.snapshot().Next)
	})
}

// TestExpiryAboveACommandThatWaitsDoesNotStopIt: however much of what is behind it is over, it is sent in the end.
func TestExpiryAboveACommandThatWaitsDoesNotStopIt(t *testing.T) {
	w := keeping(t, func(c *Config) { c.CommandsInFlight, c.CommandsQueued = 1, 100 })
	c, k := w.promptly(persistent(5, "dev"), 1)
	w.placed(1, 0, "0", 1)
	w.placed(1, 1, "1", 1)
	offset := int64(2)
	for range 2 * mostDone / 64 {
		for range 64 {
			w.put(&Command{Topic: []byte("t"), QoS: 1, Expires: past(), Place: Place{1, offset}})
			offset++
		}
		w.pass(1)
	}
	require.Less(t, len(k.snapshot().Done), mostDone+100, "the size of a snapshot is bounded")
	c.gets(0, 1, 1, 1)
	c.send(puback(1))
	c.gets(1, 1, 1, 2)
	c.send(puback(2))
	c.ping()
	require.Empty(t, k.snapshot().Done)
}

// takesAll takes and acknowledges QoS 1 until there is none left.
func (c *client) takesAll() (n int) {
	for {
		c.send(pingreq)
		before := n
		for first, body := c.read(); first>>4 == typePublish; first, body = c.read() {
			n++
			c.send(cat(0x40, 2, body[3:5]))
		}
		if n == before {
			return n
		}
	}
}

// TestStoredSessionsDoNotGrowBeyondTheirMemory: those that end with their connection are no burden of the Store's.
func TestStoredSessionsDoNotGrowBeyondTheirMemory(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := keeping(t, nil)
		c := w.stored(v, "dev")
		k := w.v.keeper("dev")
		c.send(subscribePacket(v, 1, "a", 1))
		c.ping()
		w.v.full.Store(true)
		refused := map[byte]int{4: 0x80, 5: int(QuotaExceeded)}[v]
		c.send(subscribePacket(v, 2, "b", 1), subscribePacket(v, 3, "a", 2))
		c.ping()
		k.save()
		c.expect(subackPacket(v, 1, 1), subackPacket(v, 2, refused), subackPacket(v, 3, 2))
		w.device(v, "other").subscribe("b", 1)
	})
}
