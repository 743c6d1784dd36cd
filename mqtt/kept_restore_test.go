package mqtt

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// deposits stores a session of "dev".
func (w *keptWorld) deposits(d deposit) {
	w.v.mu.Lock()
	defer w.v.mu.Unlock()
	w.v.stored["dev"] = d
	for _, p := range d.snapshot.Next {
		w.v.next[p.Stream] = max(w.v.next[p.Stream], 0) // the stream is there, though nothing may have come yet
	}
}

// records puts commands with QoS 2 into the first stream, the payloads of which are their offsets.
func (w *keptWorld) records(offsets ...int64) {
	w.v.mu.Lock()
	defer w.v.mu.Unlock()
	for _, at := range offsets {
		p := Place{1, at}
		w.v.records[p] = &Command{Topic: []byte("t"), Payload: []byte(fmt.Sprint(at)), QoS: 2, Place: p}
		w.v.next[1] = at + 1
	}
}

func TestRestoredSubscriptionsAreAsTheyWere(t *testing.T) {
	w := keeping(t, nil)
	all := []Subscription{
		{Filter: "t", ID: 7, QoS: 1}, {Filter: "t/#", ID: 300, QoS: 2, RetainAsPublished: true, RetainHandling: 2},
		{Filter: "+/x", NoLocal: true},
	}
	w.deposits(deposit{snapshot: Snapshot{Subscriptions: all}})
	c := w.stored(5, "dev")
	require.True(t, c.present())
	k := w.v.keeper("dev")
	require.Equal(t, all, k.snapshot().Subscriptions)
	w.send(&Command{Topic: []byte("t"), QoS: 1, Retain: true})
	c.expect(pub{topic: "t", qos: 1, id: 1, retain: true, props: cat(0x0B, 7, 0x0B, 300-128, 2)}.packet(5))
	w.send(&Command{Topic: []byte("a/x"), From: "dev"})
	c.ping()
	c.send(unsubscribePacket(5, 3, "t"))
	c.ping()
	k.save()
	c.expect(unsubackPacket(5, 3))
	require.Equal(t, all[1:], k.snapshot().Subscriptions)
}

// TestRestoredSubscriptionsNeedNoRoom: they were acknowledged, so no bound of this server takes them back.
func TestRestoredSubscriptionsNeedNoRoom(t *testing.T) {
	w := keeping(t, func(c *Config) { c.MaxSubscriptions, c.SubscriptionMemory = 2, 1000 })
	var all []Subscription
	for i := range 5 {
		all = append(all, Subscription{Filter: fmt.Sprint(i, "/", strings.Repeat("x", 100)), QoS: 1})
	}
	w.deposits(deposit{snapshot: Snapshot{Subscriptions: all}})
	c := w.stored(5, "dev")
	require.Equal(t, all, w.v.keeper("dev").snapshot().Subscriptions)
	w.v.setPrompt(true)
	c.send(subscribePacket(5, 1, "one more", 1))
	c.expect(subackPacket(5, 1, QuotaExceeded))
}

func TestUnfinishedDeliveriesAreTakenUp(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := keeping(t, func(c *Config) { c.CommandsInFlight = 10 })
		w.records(10, 11, 12, 14)
		at := func(offset int64, id uint16, qos byte, received bool) Unfinished {
			return Unfinished{Place: Place{1, offset}, ID: id, QoS: qos, Received: received}
		}
		w.deposits(deposit{snapshot: Snapshot{
			Subscriptions: []Subscription{{Filter: "t", QoS: 2}},
			Flight: []Unfinished{
				at(10, 3, 2, false), at(11, 9, 2, true), at(12, 2, 1, false),
				at(5, 4, 2, false), at(6, 5, 2, true), at(7, 6, 1, false), // their records are gone
				{ID: 1, QoS: 2}, // and this one never had a place
			},
			Next: []Place{{1, 10}},
		}})
		c := w.stored(v, "dev")
		c.expect(command(10, 2, 3).again().packet(v), pubrel(9), command(12, 1, 2).again().packet(v))
		c.expect(pubrel(4), pubrel(5), pubrel(1))
		c.ping()
		k := w.v.keeper("dev")
		require.Zero(t, k.told(&k.asked))
		c.send(pubrec(4)) // it had not heard of our PUBREL
		c.expect(pubrel(4))
		require.Zero(t, k.told(&k.asked), "what is completed with PUBREL is not new")
		c.send(pubrec(3), pubcomp(9), puback(2))
		if v == 5 {
			c.send(packet(0x70, uint16(4), PacketIdentifierNotFound))
		} else {
			c.send(pubcomp(4))
		}
		c.send(pubcomp(5), pubcomp(1))
		c.ping()
		require.Equal(t, []Unfinished{at(10, 3, 2, true)}, k.snapshot().Flight)
		k.save()
		c.expect(pubrel(3))
		c.send(pubcomp(3))
		w.replayAll("dev", 1, 15)
		c.ping()
		k.save()
		c.expect(command(14, 2, 1).packet(v)) // the others were settled before it came to them
	})
}

// replayAll replays a stream up to next to a session, and ends its replay if it got all.
func (w *keptWorld) replayAll(id string, stream int32, next int64) (live bool) {
	s := w.v.keeper(id).o.Session
	until(w.t, "its connection is there", func() bool {
		o := s.session.outbox.Load()
		o.mu.Lock()
		defer o.mu.Unlock()
		return o.conn != nil || o.ended
	})
	from, ok := s.Join(stream)
	for ; ok && from < next; from++ {
		w.v.mu.Lock()
		c := w.v.copyOf(Place{stream, from})
		w.v.mu.Unlock()
		if c != nil {
			w.replay(c)
		}
		ok = s.Passed(stream, from+1)
	}
	w.s.Flush()
	return ok && s.GoLive(stream, next, false)
}

// replay is Server.Replay, counted.
func (w *keptWorld) replay(c *Command) {
	devices, _ := w.s.Replay(c, false)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counted[c] += devices
	w.promised += devices
}

func TestRestoredDeliveryKeepsItsPropertiesAndRetain(t *testing.T) {
	w := keeping(t, nil)
	w.records(10)
	w.v.records[Place{1, 10}].Retain = true
	w.deposits(deposit{snapshot: Snapshot{
		Subscriptions: []Subscription{{Filter: "t", ID: 7, QoS: 2, RetainAsPublished: true}},
		Flight:        []Unfinished{{Place: Place{1, 10}, ID: 3, QoS: 2}},
		Next:          []Place{{1, 10}},
	}})
	c := w.stored(5, "dev")
	c.expect(pub{topic: "t", payload: "10", qos: 2, id: 3, dup: true, retain: true, props: cat(0x0B, 7)}.packet(5))
}

// TestRetainedMessageInFlightIsPartOfTheSession: it is sent again as it was, and is no position in any stream.
func TestRetainedMessageInFlightIsPartOfTheSession(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		for qos := 1; qos <= 2; qos++ {
			x := newRetained(t, 10)
			w := keeping(t, func(c *Config) { c.Retained = x })
			w.v.setPrompt(true)
			at := Place{-3, 7}
			require.NoError(t, x.Set(&RetainedMessage{Topic: []byte("t"), Payload: []byte("x"), QoS: 2, Place: at}))
			c := w.stored(v, "dev")
			c.suback(qos, "t")
			want := pub{topic: "t", payload: "x", qos: qos, id: 1, retain: true}
			c.expect(want.packet(v))
			w.drop("dev")
			left := w.v.keeper("dev").left[0].State
			require.Equal(t, []Unfinished{{Place: at, ID: 1, QoS: byte(qos)}}, left.Flight)
			require.Empty(t, left.Done)
			w.v.records[at] = x.Command(&RetainedMessage{Topic: []byte("t"), Payload: []byte("x"), QoS: 2, Place: at})
			c = w.stored(v, "dev")
			require.True(t, c.present())
			want.dup = true
			c.expect(want.packet(v))
			cmd := w.placed(1, 10, "0", 1)
			c.gets(0, 1, 1, 2) // under another identifier
			c.send(puback(2))
			w.became(cmd, "dev delivered")
		}
	})
}

func TestSettledAboveAnUnsettledOneIsNotDeliveredAgain(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := keeping(t, nil)
		c, k := w.promptly(persistent(v, "dev"), 1)
		for i := range 5 {
			w.placed(1, int64(i), fmt.Sprint(i), 1)
		}
		c.gets(0, 5, 1, 1)
		c.send(puback(2), puback(4))
		c.ping()
		s := k.snapshot()
		s.Flight = nil // its checkpoint came before they were sent
		w = w.crash(nil)
		w.deposits(deposit{snapshot: s})
		c = w.stored(v, "dev")
		require.True(t, w.replayAll("dev", 1, 5))
		c.expect(command(0, 1, 1).packet(v), command(2, 1, 2).packet(v), command(4, 1, 3).packet(v))
		c.ping()
	})
}

// TestRestoredWithTooMuchSettledGoesOn: a server that pauses there was waiting for an answer; this one waits for none.
func TestRestoredWithTooMuchSettledGoesOn(t *testing.T) {
	w := keeping(t, nil)
	w.records(0)
	s := Snapshot{Subscriptions: []Subscription{{Filter: "t", QoS: 2}}, Next: []Place{{1, 0}}}
	for i := range mostDone + 10 {
		s.Done = append(s.Done, Place{1, int64(i + 1)})
	}
	w.v.next[1] = mostDone + 11
	w.deposits(deposit{snapshot: s})
	w.v.setPrompt(true)
	c := w.stored(5, "dev")
	require.True(t, w.replayAll("dev", 1, mostDone+11))
	c.gets(0, 1, 2, 1)
	c.send(pubrec(1))
	c.expect(pubrel(1))
	c.send(pubcomp(1))
	c.ping()
	w.placed(1, mostDone+11, "1", 1)
	c.gets(1, 1, 1, 2)
	require.Empty(t, w.v.keeper("dev").snapshot().Done)
}

func TestReceivedIdentifiersAreKnownAgain(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := keeping(t, nil)
		w.deposits(deposit{received: []uint16{3, 700}})
		c := w.stored(v, "dev")
		c.publish(q2(3, "x").again())
		c.expect(pubrec(3))
		c.publish(q2(700, "x"))
		c.expect(pubrec(700))
		c.publish(q2(4, "new"))
		m := w.next()
		require.Equal(t, "new", string(m.Payload))
		k := w.v.keeper("dev")
		told := make(chan uint16, 1)
		known := func(id uint16, stored bool) {
			require.True(t, stored)
			told <- id
		}
		stored, pending := k.o.Session.Received(known)
		require.Equal(t, []uint16{3, 700}, stored)
		require.Equal(t, []uint16{4}, pending)
		w.ack(m)
		c.expect(pubrec(4))
		require.EqualValues(t, 4, <-told)
		c.send(pubrel(3))
		c.expect(pubcomp(3))
		stored, pending = k.o.Session.Received(known)
		require.Equal(t, []uint16{4, 700}, stored)
		require.Empty(t, pending)
		w.noMessage()
	})
}

// TestReceivedIdentifiersOfAStoredSessionAreCounted on each connection, those that another server tells of too. None is
// refused, though there is no room for so many.
func TestReceivedIdentifiersOfAStoredSessionAreCounted(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := keeping(t, func(c *Config) { c.ReceiveMaximum, c.MaxExtraBytes = 2, 2*idBytes })
		w.deposits(deposit{received: []uint16{1, 2, 3, 4, 5}})
		held := func(ids int) {
			t.Helper()
			require.EqualValues(t, ids*idBytes, w.s.extra.used.Load())
		}
		c := w.stored(v, "dev")
		held(3)
		s := w.v.keeper("dev").o.Session
		s.Settle([]uint16{5, 6}, nil, false)()
		held(4)
		c.publish(q2(7, "new"))
		c.goodbye(ReceiveMaximumExceeded)
		w.ended()
		s.Settle([]uint16{8}, nil, false)() // too late
		held(0)
		c = w.stored(v, "dev")
		held(3)
		for id := uint16(1); id <= 5; id++ {
			c.publish(q2(id, "old").again())
			c.expect(pubrec(id))
			c.send(pubrel(id))
			c.expect(pubcomp(id))
		}
		held(0)
		w.noMessage()
	})
}

// TestMessagesThatAnotherServerTookInAreAnsweredByWhatItSays and not handed over once more.
func TestMessagesThatAnotherServerTookInAreAnsweredByWhatItSays(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := keeping(t, nil)
		c := w.stored(v, "dev")
		s := w.v.keeper("dev").o.Session
		s.Settle(nil, []uint16{5, 6}, false)()
		c.publish(q2(5, "x").again())
		c.publish(q2(6, "y").again())
		c.ping()
		_, pending := s.Received(nil)
		require.Empty(t, pending, "they are not on their way here")
		s.Settle([]uint16{5}, []uint16{6}, false)()
		c.expect(pubrec(5))
		c.publish(q2(5, "x").again())
		c.expect(pubrec(5))
		c.ping()
		w.noMessage()
		s.Settle(nil, nil, false)()
		if v == 5 {
			c.goodbye(ImplementationSpecificError)
		} else {
			c.closed()
		}
	})
}

// TestUnsureSessionReadsNoMessageWithQoS2 until it is known what was received, and then as it says.
func TestUnsureSessionReadsNoMessageWithQoS2(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := keeping(t, nil)
		c := w.stored(v, "dev")
		s := w.v.keeper("dev").o.Session
		s.Settle(nil, nil, true)()
		c.publish(pub{topic: "t", payload: "before", qos: 1, id: 1})
		m := w.next()
		require.Equal(t, "before", string(m.Payload))
		w.ack(m)
		c.expect(puback(1))
		c.publish(q2(5, "old").again())
		c.publish(q2(6, "new"))
		c.ping()
		w.noMessage()
		s.Settle([]uint16{5}, nil, false)()
		c.expect(pubrec(5))
		m = w.next()
		require.Equal(t, "new", string(m.Payload))
		w.ack(m)
		c.expect(pubrec(6))
	})
}

// TestPubrelWaitsUntilItIsKnownWhatWasReceived: an identifier that came to be known after its PUBCOMP would swallow the
// next message that uses it.
func TestPubrelWaitsUntilItIsKnownWhatWasReceived(t *testing.T) {
	settled := func(name string, then func(w *keptWorld, c *client, s *Session), known bool) {
		t.Run(name, func(t *testing.T) {
			bothVersions(t, func(t *testing.T, v byte) {
				w := keeping(t, nil)
				c := w.stored(v, "dev")
				s := w.v.keeper("dev").o.Session
				then(w, c, s)
				c.ping()
				w.noMessage()
				if known {
					s.Settle([]uint16{3}, nil, false)()
				} else {
					s.Settle(nil, nil, false)()
				}
				if known || v < 5 {
					c.expect(pubcomp(3))
				} else {
					c.expect(packet(0x70, uint16(3), PacketIdentifierNotFound))
				}
				m := w.next()
				require.Equal(t, "new", string(m.Payload))
				w.ack(m)
				c.expect(pubrec(3))
				c.send(pubrel(3))
				c.expect(pubcomp(3))
			})
		})
	}
	released := func(c *client) {
		c.send(pubrel(3))
		c.ping() // answered, and nothing before it
		c.publish(q2(3, "new"))
	}
	for _, known := range []bool{true, false} {
		settled(fmt.Sprint("unsure ", known), func(_ *keptWorld, c *client, s *Session) {
			s.Settle(nil, nil, true)()
			released(c)
		}, known)
		settled(fmt.Sprint("pending elsewhere ", known), func(_ *keptWorld, c *client, s *Session) {
			s.Settle(nil, []uint16{3}, false)()
			released(c)
		}, known)
		settled(fmt.Sprint("unsure, then pending elsewhere ", known), func(_ *keptWorld, c *client, s *Session) {
			s.Settle(nil, nil, true)()
			released(c)
			s.Settle(nil, []uint16{3, 4}, false)()
			c.ping()
			s.Settle(nil, []uint16{3}, false)()
		}, known)
	}
	settled("two to be heard, of which the first knows it", func(_ *keptWorld, c *client, s *Session) {
		s.Settle(nil, nil, true)()
		released(c)
		s.Settle([]uint16{3}, nil, true)()
		c.ping()
	}, true)
}

// TestPubrelOfWhatIsPendingElsewhereLeavesNoPublishUnanswered: a device that sends it before PUBREC breaks the protocol,
// but an answer that never came would hold up all behind it.
func TestPubrelOfWhatIsPendingElsewhereLeavesNoPublishUnanswered(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := keeping(t, nil)
		c := w.stored(v, "dev")
		s := w.v.keeper("dev").o.Session
		s.Settle(nil, []uint16{3}, false)()
		c.publish(q2(3, "old").again())
		c.send(pubrel(3))
		c.ping()
		s.Settle([]uint16{3}, nil, false)()
		first, _ := c.read()
		second, _ := c.read()
		require.ElementsMatch(t, []byte{typePubrec << 4, typePubcomp << 4}, []byte{first, second})
		c.publish(pub{topic: "t", payload: "behind", qos: 1, id: 9})
		w.ack(w.next())
		c.expect(puback(9))
		w.noMessage()
	})
}

func TestReceivedIsToldWhenTheLastOutcomeIsARefusal(t *testing.T) {
	w := keeping(t, nil)
	c := w.stored(5, "dev")
	c.publish(q2(1, "x"))
	c.publish(q2(2, "y"))
	stored, refused := w.next(), w.next()
	require.NoError(t, c.nc.Close())
	k := w.v.keeper("dev")
	k.leaving()
	known := make(chan bool, 2)
	_, pending := k.o.Session.Received(func(_ uint16, stored bool) { known <- stored })
	require.Equal(t, []uint16{1, 2}, pending)
	w.ack(stored)
	require.True(t, <-known)
	w.refuse(refused, QuotaExceeded, "")
	require.False(t, <-known)
	ids, pending := k.o.Session.Received(nil)
	require.Equal(t, []uint16{1}, ids)
	require.Empty(t, pending)
}

func TestPubcompWaitsUntilTheIdentifierIsFree(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := keeping(t, nil)
		w.deposits(deposit{received: []uint16{1, 2, 3}})
		c := w.stored(v, "dev")
		k := w.v.keeper("dev")
		c.send(pubrel(1))
		c.expect(pubcomp(1))
		w.v.mu.Lock()
		k.slow = true
		w.v.mu.Unlock()
		c.send(pubrel(2), pubrel(3), pubrel(2))
		c.ping() // also when it asks again
		w.v.mu.Lock()
		done := k.released
		w.v.mu.Unlock()
		require.Len(t, done, 2)
		done[1]()
		c.expect(pubcomp(3))
		done[0]()
		c.expect(pubcomp(2))
		c.send(pubrel(9)) // nothing is free by this one
		_, _ = c.read()
		require.Len(t, k.released, 2)
		w.v.mu.Lock()
		k.slow = false
		w.v.mu.Unlock()
		require.NoError(t, c.nc.Close())
		w.left("dev")
		done[0]() // late
	})
}

func TestRestoredQoS1ThatExpiredIsOver(t *testing.T) {
	w := keeping(t, nil)
	w.records(1, 2)
	w.deposits(deposit{snapshot: Snapshot{
		Subscriptions: []Subscription{{Filter: "t", QoS: 2}},
		Flight:        []Unfinished{{Place: Place{1, 1}, ID: 1, QoS: 1}, {Place: Place{1, 2}, ID: 2, QoS: 2}},
		Next:          []Place{{1, 1}},
	}})
	w.v.expires = time.Now().Add(-time.Hour)
	c := w.stored(4, "dev")
	c.expect(command(2, 2, 2).again().packet(4)) // its exchange began, so it is completed
	c.ping()
	require.Len(t, w.v.keeper("dev").snapshot().Flight, 1)
}

// TestUnreadDeliveriesStayInFlight without a place in the device's window, and without PUBREL. If the device has one all
// the same, it may complete it.
func TestUnreadDeliveriesStayInFlight(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := keeping(t, func(c *Config) { c.CommandsInFlight = 1 })
		at := func(offset int64, id uint16, qos byte) Unfinished {
			return Unfinished{Place: Place{-1, offset}, ID: id, QoS: qos}
		}
		all := []Unfinished{at(5, 1, 2), at(6, 4, 1), at(7, 5, 2)}
		unread := slices.Clone(all)
		for i := range unread {
			unread[i].Unread = true
		}
		w.deposits(deposit{snapshot: Snapshot{Subscriptions: []Subscription{{Filter: "t", QoS: 1}}, Flight: unread}})
		c := w.stored(v, "dev")
		k := w.v.keeper("dev")
		for id := uint16(2); id <= 3; id++ {
			w.send(&Command{Topic: []byte("t"), QoS: 1})
			c.expect(pub{topic: "t", qos: 1, id: id}.packet(v))
			c.send(puback(id))
		}
		c.ping()
		require.Equal(t, all, k.snapshot().Flight)
		c.send(pubrec(1), puback(4))
		c.ping()
		k.save()
		c.expect(pubrel(1))
		c.send(pubcomp(1))
		c.ping()
		require.Equal(t, all[2:], k.snapshot().Flight)
		w.send(&Command{Topic: []byte("t"), QoS: 1})
		c.expect(pub{topic: "t", qos: 1, id: 4}.packet(v))
		c.send(puback(4))
		c.ping()
	})
}

// TestUnreadDeliveriesAreSentWhenTheyAreFound, on the connection that they could not be read for, with their packet identifiers
// [MQTT-4.4.0-1], as the device has room for them.
func TestUnreadDeliveriesAreSentWhenTheyAreFound(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := keeping(t, func(c *Config) { c.CommandsInFlight = 2 })
		at := func(offset int64, id uint16, qos byte) Unfinished {
			return Unfinished{Place: Place{-1, offset}, ID: id, QoS: qos, Unread: true}
		}
		all := []Unfinished{at(5, 1, 2), at(6, 4, 1), at(7, 5, 1), at(8, 6, 2), at(9, 7, 1)}
		w.deposits(deposit{snapshot: Snapshot{Flight: all, Subscriptions: []Subscription{{Filter: "t", QoS: 2}}}})
		c := w.stored(v, "dev")
		<-w.v.lagging
		k := w.v.keeper("dev")
		found := func(u Unfinished, payload string) {
			if u.Unread = false; payload != "" {
				u.Command = &Command{Topic: []byte("t"), Payload: []byte(payload), QoS: 2, Place: u.Place, Owner: unowned{}}
			}
			k.o.Session.Found(u)
		}
		again := func(id uint16, qos int, payload string) pub {
			return pub{topic: "t", payload: payload, qos: qos, id: id, dup: true, retain: true}
		}
		found(all[1], "1")
		c.expect(again(4, 1, "1").packet(v))
		found(all[0], "0")
		c.expect(again(1, 2, "0").packet(v))
		found(all[0], "0") // it has been
		found(all[4], "4")
		c.ping() // there is no room
		c.send(puback(4))
		c.expect(again(7, 1, "4").packet(v))
		c.send(puback(7))
		found(all[2], "") // it is gone
		c.send(pubrec(1))
		c.ping()
		k.save()
		c.expect(pubrel(1))
		c.send(pubcomp(1))
		found(all[3], "")
		c.expect(pubrel(6)) // and so is this, of which the device may have the PUBLISH
		c.send(pubcomp(6))
		c.ping()
		require.Empty(t, k.snapshot().Flight)
		until(t, "room", func() bool { return w.s.held.Load() == 0 })
	})
}

// TestCommandsOfTheSessionBeforeAreNotForTheNext: it has told of them, though those who are here have not come so far.
func TestCommandsOfTheSessionBeforeAreNotForTheNext(t *testing.T) {
	for _, persist := range []bool{false, true} {
		t.Run(fmt.Sprint("session kept: ", persist), func(t *testing.T) {
			w := keeping(t, nil)
			w.v.past = []Place{{1, 6}}
			w.v.setPrompt(true)
			h := hello{version: 5, id: "dev", persist: persist}
			if persist {
				h.props = cat(0x11, uint32(3600))
			}
			c := w.connect(h)
			c.subscribe("t", 0)
			w.placed(1, 5, "before", 0)
			w.placed(1, 6, "after", 0)
			w.placed(2, 5, "another stream", 0)
			c.expect(pub{topic: "t", payload: "after"}.packet(5))
			c.expect(pub{topic: "t", payload: "another stream"}.packet(5))
		})
	}
}
