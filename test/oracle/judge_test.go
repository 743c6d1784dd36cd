package oracle

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A told is a history as the specifications want it, written down by hand.
type told struct {
	History
	offset int64
}

func (h *told) message(m Message) int {
	h.Messages = append(h.Messages, m)
	return len(h.Messages) - 1
}

// see adds events, a millisecond apart.
func (h *told) see(events ...Event) {
	for _, e := range events {
		e.At = time.Duration(len(h.Events)) * time.Millisecond
		h.Events = append(h.Events, e)
	}
}

// record adds a record of Kafka for a message.
func (h *told) record(n int) {
	m := h.Messages[n]
	h.offset++
	h.see(Event{What: Record, Message: n, Dev: m.From, Kafka: m.Kafka, Topic: m.Topic, QoS: m.QoS, Offset: h.offset})
}

// The numbers of the messages of right.
const (
	plain1 = iota
	once2
	say2
	say1
	will
	command
	keep
	sayBack
)

// right is two devices: a publishes, is taken over with a will, repeats what was not acknowledged; b subscribes, loses its
// connection with a delivery in flight, and comes back.
func right() *told {
	h := &told{History: History{ID: "h"}}
	none := -1
	for _, m := range []Message{
		plain1:  {Topic: "up/h/a", Kafka: Plain, QoS: 1, To: none},
		once2:   {Topic: "once/h/a", Kafka: Once, QoS: 2, To: none},
		say2:    {Topic: "say/h/a/1", Kafka: Loop, QoS: 2, To: none},
		say1:    {Topic: "say/h/a/2", Kafka: Loop, QoS: 1, To: none},
		will:    {Topic: "up/h/a", Kafka: Plain, QoS: 1, Will: true, To: none},
		command: {From: Backend, Topic: "cmd/h/b", Kafka: Commands, QoS: 1, To: 1},
		keep:    {Topic: "keep/h/a", Kafka: Loop, QoS: 1, Keep: true, To: none},
		sayBack: {Topic: "up/h/a", Kafka: Plain, QoS: 1, To: none},
	} {
		h.message(m)
	}
	a := func(what What, e Event) {
		e.What, e.Dev = what, 0
		h.see(e)
	}
	b := func(what What, e Event) {
		e.What, e.Dev = what, 1
		h.see(e)
	}
	publish := func(conn, n int, id uint16, dup bool) {
		m := h.Messages[n]
		a(Publish, Event{Conn: conn, Message: n, ID: id, QoS: m.QoS, Topic: m.Topic, Retain: m.Keep, Dup: dup})
	}
	a(Connect, Event{Conn: 1, Version: 5, Expiry: 3600, Message: will})
	a(GotConnack, Event{Conn: 1, Message: none})
	b(Connect, Event{Conn: 1, Version: 5, Expiry: 3600, Message: none})
	b(GotConnack, Event{Conn: 1, Message: none})
	for i, filter := range []string{"say/h/#", "cmd/h/b"} {
		b(Subscribe, Event{Conn: 1, ID: uint16(9 + i), Message: none, Options: Filter{Name: filter, QoS: 2}})
		b(GotSuback, Event{Conn: 1, ID: uint16(9 + i), Message: none, Code: 2})
	}
	publish(1, plain1, 1, false)
	publish(1, once2, 2, false)
	h.record(plain1)
	a(GotPuback, Event{Conn: 1, ID: 1, Message: none})
	h.record(once2)
	a(GotPubrec, Event{Conn: 1, ID: 2, Message: none})
	a(Pubrel, Event{Conn: 1, ID: 2, Message: once2})
	a(GotPubcomp, Event{Conn: 1, ID: 2, Message: none})
	publish(1, say2, 1, false)
	a(Connect, Event{Conn: 2, Version: 5, Expiry: 3600, Message: none})
	a(GotDisconnect, Event{Conn: 1, Code: 0x8E, Message: none})
	a(GotEnd, Event{Conn: 1, Message: none})
	h.record(will)
	a(GotConnack, Event{Conn: 2, Present: true, Message: none})
	publish(2, say2, 1, true)
	publish(2, say1, 2, false)
	h.record(say2)
	a(GotPubrec, Event{Conn: 2, ID: 1, Message: none})
	a(Pubrel, Event{Conn: 2, ID: 1, Message: say2})
	a(GotPubcomp, Event{Conn: 2, ID: 1, Message: none})
	h.record(say1)
	a(GotPuback, Event{Conn: 2, ID: 2, Message: none})
	b(GotPublish, Event{Conn: 1, Message: say2, ID: 1, QoS: 2, Topic: "say/h/a/1"})
	b(Pubrec, Event{Conn: 1, Message: say2, ID: 1})
	b(GotPublish, Event{Conn: 1, Message: say1, ID: 2, QoS: 1, Topic: "say/h/a/2"})
	b(Cut, Event{Conn: 1, Message: none})
	publish(2, keep, 3, false)
	h.record(keep)
	a(GotPuback, Event{Conn: 2, ID: 3, Message: none})
	publish(2, sayBack, 4, false)
	h.record(sayBack)
	a(GotPuback, Event{Conn: 2, ID: 4, Message: none})
	h.see(Event{What: Written, Message: command, Dev: 1}, Event{What: Stored, Message: command, Dev: 1})
	b(Connect, Event{Conn: 2, Version: 5, Expiry: 3600, Message: none})
	b(GotConnack, Event{Conn: 2, Present: true, Message: none})
	b(GotPubrel, Event{Conn: 2, ID: 1, Message: none})
	b(Pubcomp, Event{Conn: 2, ID: 1, Message: none})
	b(GotPublish, Event{Conn: 2, Message: say1, ID: 2, QoS: 1, Topic: "say/h/a/2", Dup: true})
	b(Puback, Event{Conn: 2, Message: say1, ID: 2})
	b(GotPublish, Event{Conn: 2, Message: command, ID: 1, QoS: 1, Topic: "cmd/h/b"})
	b(Puback, Event{Conn: 2, Message: command, ID: 1})
	h.see(Event{What: Receipt, Message: command, Dev: 1, Outcome: "delivered"})
	b(Subscribe, Event{Conn: 2, ID: 11, Message: none, Options: Filter{Name: "keep/h/+", QoS: 1}})
	b(GotSuback, Event{Conn: 2, ID: 11, Message: none, Code: 1})
	b(GotPublish, Event{Conn: 2, Message: keep, ID: 1, QoS: 1, Topic: "keep/h/a", Retain: true})
	b(Puback, Event{Conn: 2, Message: keep, ID: 1})
	h.see(Event{What: Over, Message: none})
	return h
}

// at finds the nth event of a kind of a device, or of a message of the back end.
func (h *told) at(what What, dev, nth int) int {
	for i, e := range h.Events {
		if e.What == what && e.Dev == dev {
			if nth--; nth < 0 {
				return i
			}
		}
	}
	panic("no such event")
}

func (h *told) event(what What, dev, nth int) *Event { return &h.Events[h.at(what, dev, nth)] }

func (h *told) drop(i int) { h.Events = slices.Delete(h.Events, i, i+1) }

func (h *told) repeat(i int) { h.Events = slices.Insert(h.Events, i+1, h.Events[i]) }

func (h *told) swap(i, k int) { h.Events[i], h.Events[k] = h.Events[k], h.Events[i] }

func (h *told) recordOf(n int) int {
	return slices.IndexFunc(h.Events, func(e Event) bool { return e.What == Record && e.Message == n })
}

// hearItself lets a subscribe, before the given event, to its last message with QoS 1, and get it.
func (h *told) hearItself(at int) {
	got := h.at(GotPuback, 0, 1) + 1
	h.Events = slices.Insert(h.Events, got, Event{What: GotPublish, Conn: 2, Message: say1, Topic: "say/h/a/2"})
	h.Events = slices.Insert(h.Events, at, Event{What: Subscribe, Conn: 2, ID: 9, Message: -1, Options: Filter{Name: "say/h/a/2"}},
		Event{What: GotSuback, Conn: 2, ID: 9, Message: -1})
}

func TestWhatTheSpecificationsWantIsNoViolation(t *testing.T) {
	require.Empty(t, Judge(&right().History))
	h := right()
	h.hearItself(h.at(Publish, 0, 3)) // before say2 is sent again, and before say1
	require.Empty(t, Judge(&h.History))
}

// TestARepeatBehindASubscribeMayBeANewMessage: with QoS 1 what comes again when its PUBACK is on its way is a message that is
// published then. What was not answered yet is the one from before the SUBSCRIBE.
func TestARepeatBehindASubscribeMayBeANewMessage(t *testing.T) {
	repeated := func() *told {
		h := right()
		again := *h.event(Publish, 0, 4)
		require.Equal(t, say1, again.Message)
		again.Dup = true
		ack := h.at(GotPuback, 0, 1)
		h.hearItself(ack)
		h.Events = slices.Insert(h.Events, ack+2, again)
		return h
	}
	h := repeated()
	require.Len(t, Judge(&h.History), 1)
	h.repeat(h.recordOf(say1))
	require.Empty(t, Judge(&h.History))
}

// TestUnsubscribeEndsWhatWasNotBegun: what was published before it comes or not; what came is completed, and a command has
// its receipt (section 3.10.4).
func TestUnsubscribeEndsWhatWasNotBegun(t *testing.T) {
	unsubscribed := func() *told {
		h := right()
		h.drop(h.at(GotPublish, 1, 3))
		h.drop(h.at(Puback, 1, 1))
		*h.event(Receipt, 1, 0) = Event{What: Receipt, Message: command, Dev: 1, Outcome: "offline"}
		h.Events = slices.Insert(h.Events, h.at(Over, 0, 0), Event{What: Unsubscribe, Dev: 1, Conn: 2, ID: 40, Message: -1, Options: h.event(Subscribe, 1, 1).Options})
		return h
	}
	require.Empty(t, Judge(&unsubscribed().History))
	h := unsubscribed()
	h.drop(h.at(Receipt, 1, 0))
	require.Len(t, Judge(&h.History), 1)
	h = right()
	h.drop(h.at(Puback, 1, 1)) // of the command
	h.event(Receipt, 1, 0).Outcome = "offline"
	h.Events = slices.Insert(h.Events, h.at(Over, 0, 0), Event{What: Unsubscribe, Dev: 1, Conn: 2, ID: 40, Message: -1, Options: h.event(Subscribe, 1, 1).Options})
	require.Len(t, Judge(&h.History), 1, "it is not sent again")
	h = right()
	ack := h.at(GotSuback, 1, 1) + 1 // another filter takes the command with QoS 1, and this one is left before it is read
	h.Events = slices.Insert(h.Events, h.at(GotPublish, 1, 3), Event{What: Unsubscribe, Dev: 1, Conn: 2, ID: 40, Message: -1, Options: h.event(Subscribe, 1, 1).Options})
	h.Events = slices.Insert(h.Events, ack, Event{What: Subscribe, Dev: 1, Conn: 1, ID: 41, Message: -1, Options: Filter{Name: "cmd/h/+", QoS: 1}},
		Event{What: GotSuback, Dev: 1, Conn: 1, ID: 41, Message: -1, Code: 1})
	h.Messages[command].QoS = 2
	require.Empty(t, Judge(&h.History))
}

// TestARefusal: with Kafka or the instance standing still again and again a CONNECT may be refused when its time
// is over. It begins no session.
func TestARefusal(t *testing.T) {
	const none = -1
	f := func(name string, falsify func(h *told), clauses ...string) {
		t.Helper()
		h := right()
		h.Stalled = true
		h.Events = slices.Insert(h.Events, 0, Event{What: Connect, Conn: 9, Version: 5, Expiry: 3600, Message: none},
			Event{What: GotConnack, Conn: 9, Code: 0x88, Message: none, At: 10 * time.Second}, Event{What: GotEnd, Conn: 9, Message: none})
		falsify(h)
		var found []string
		for _, v := range Judge(&h.History) {
			found = append(found, v.Clause)
		}
		require.Equal(t, clauses, found, name)
	}
	f("late", func(h *told) {})
	f("early", func(h *told) { h.Events[1].At = 5 * time.Second }, "CONNACK")
	f("nothing stood still", func(h *told) { h.Stalled = false }, "CONNACK")
	f("another reason", func(h *told) { h.Events[1].Code = 0x87 }, "CONNACK")
	f("a session is left", func(h *told) { h.event(GotConnack, 0, 1).Present = true }, "[MQTT-3.2.2-3]")
}

// TestAMessageForAShareMayComeAgainAfterACrash, with QoS 2 too, and with QoS 2 only then.
func TestAMessageForAShareMayComeAgainAfterACrash(t *testing.T) {
	for _, job := range []bool{false, true} {
		for _, crash := range []What{Finale, Crash} {
			h := right()
			h.Crashed = true
			h.Messages[say2].Job = job
			again := h.at(GotPublish, 1, 3)
			h.Events[again] = Event{What: GotPublish, Dev: 1, Conn: 2, Message: say2, ID: 3, QoS: 2, Topic: "say/h/a/1"}
			h.Events = slices.Insert(h.Events, again, Event{What: crash, Message: -1})
			broken := slices.ContainsFunc(Judge(&h.History), func(v Violation) bool { return v.Clause == "[MQTT-4.3.3-1]" })
			require.Equal(t, !job || crash != Crash, broken, "for a share: %t, %s", job, crash)
		}
	}
}

// TestAMessageForAShareIsGivenBackWithItsConnection: it may have been offered to another member, and then it is new again and
// its identifier free (section 4.8.2), unless it has QoS 2.
func TestAMessageForAShareIsGivenBackWithItsConnection(t *testing.T) {
	for clause, falsify := range map[string]func(h *told){
		"[MQTT-3.3.1-1]": func(h *told) { h.event(GotPublish, 1, 2).Dup = false },
		"[MQTT-4.4.0-1]": func(h *told) { h.event(GotPublish, 1, 2).Message = command; h.drop(h.at(GotPublish, 1, 3)) },
	} {
		for _, job := range []bool{false, true} {
			h := right()
			h.Messages[say1].Job = job
			falsify(h)
			broken := slices.ContainsFunc(Judge(&h.History), func(v Violation) bool { return v.Clause == clause })
			require.Equal(t, !job, broken, "%s, for a share: %t", clause, job)
		}
	}
}

// TestAWillForWhichNobodyWaitedHasNoOrder: the device came back long after its end, so that it was let in without.
func TestAWillForWhichNobodyWaitedHasNoOrder(t *testing.T) {
	h := right()
	h.Events[h.recordOf(will)].Offset = 99
	h.event(GotConnack, 0, 1).At = 2 * time.Second
	require.Empty(t, Judge(&h.History))
}

// TestADelayedWillOfAnInstanceThatDied is published though the device was back in time, if it has begun a new session since.
func TestADelayedWillOfAnInstanceThatDied(t *testing.T) {
	for _, crashed := range []bool{false, true} {
		for _, anew := range []bool{false, true} {
			h := right()
			h.Crashed = crashed
			h.event(Connect, 0, 0).Delay = 3600
			if anew {
				h.Events = slices.Insert(h.Events, h.at(Over, 0, 0), Event{What: Connect, Conn: 3, Version: 5, Clean: true, Expiry: 3600, Message: -1},
					Event{What: GotDisconnect, Conn: 2, Code: 0x8E, Message: -1}, Event{What: GotEnd, Conn: 2, Message: -1}, Event{What: GotConnack, Conn: 3, Message: -1})
			}
			require.Equal(t, crashed && anew, len(Judge(&h.History)) == 0)
		}
	}
}

// TestAfterACrashAMessageMayHaveAnotherIdentifier with QoS 1, which is not stored before it is sent; but it has to come again.
func TestAfterACrashAMessageMayHaveAnotherIdentifier(t *testing.T) {
	for _, crashed := range []bool{true, false} {
		h := right()
		h.Crashed = crashed
		h.event(GotPublish, 1, 2).ID, h.event(Puback, 1, 0).ID = 7, 7
		h.event(GotPublish, 1, 3).ID, h.event(Puback, 1, 1).ID = 2, 2
		require.Equal(t, crashed, len(Judge(&h.History)) == 0)
		h.drop(h.at(GotPublish, 1, 2))
		h.drop(h.at(Puback, 1, 0))
		h.drop(h.at(GotPublish, 1, 2))
		h.drop(h.at(Puback, 1, 0))
		require.NotEmpty(t, Judge(&h.History))
	}
}

// TestQoS0ComesOnceAlsoThroughACrash: it may be lost, and never doubled.
func TestQoS0ComesOnceAlsoThroughACrash(t *testing.T) {
	for _, crashed := range []bool{true, false} {
		h := right()
		h.Crashed = crashed
		twice := func() bool {
			return slices.ContainsFunc(Judge(&h.History), func(v Violation) bool { return v.Clause == "[MQTT-4.3.1-1]" })
		}
		first, again := h.event(GotPublish, 1, 1), h.event(GotPublish, 1, 2)
		first.QoS, first.ID = 0, 0
		require.False(t, twice())
		again.QoS, again.ID, again.Dup = 0, 0, false
		require.True(t, twice())
	}
}

// TestRetainedMessageIsOwedOnALaterConnection of the session, for each filter, until UNSUBSCRIBE.
func TestRetainedMessageIsOwedOnALaterConnection(t *testing.T) {
	f := func(want bool, change func(h *told, given int)) {
		t.Helper()
		h := right()
		given := h.at(GotPublish, 1, 4)
		h.Events[given].Conn, h.Events[given+1].Conn = 3, 3
		h.Events = slices.Insert(h.Events, given, Event{What: Cut, Dev: 1, Conn: 2, Message: -1}, Event{What: Connect, Dev: 1, Conn: 3, Version: 5, Expiry: 3600, Message: -1},
			Event{What: GotConnack, Dev: 1, Conn: 3, Present: true, Message: -1})
		change(h, given+3)
		found := Judge(&h.History)
		require.Equal(t, want, slices.ContainsFunc(found, func(v Violation) bool { return v.Clause == "[MQTT-3.3.1-9]" }), "%v", found)
	}
	lost := func(h *told, given int) { h.Events = slices.Delete(h.Events, given, given+2) }
	another := func(h *told, at int) {
		h.Events = slices.Insert(h.Events, at, Event{What: Subscribe, Dev: 1, Conn: 3, ID: 12, Message: -1, Options: Filter{Name: "keep/h/#", QoS: 1}},
			Event{What: GotSuback, Dev: 1, Conn: 3, ID: 12, Message: -1, Code: 1})
	}
	f(false, func(*told, int) {})
	f(true, lost)
	f(true, another)
	f(true, func(h *told, given int) { another(h, given+2) })
	f(false, func(h *told, given int) {
		lost(h, given)
		h.Events = slices.Insert(h.Events, given, Event{What: Unsubscribe, Dev: 1, Conn: 3, ID: 12, Message: -1, Options: Filter{Name: "keep/h/+"}})
	})
	f(false, func(h *told, given int) { lost(h, given); h.event(GotConnack, 1, 2).Present = false })
	f(false, func(h *told, given int) {
		again := h.Events[given]
		again.ID = 2
		another(h, given)
		h.Events = slices.Insert(h.Events, given+4, again)
	})
}

// TestWhatTheSpecificationsForbidIsAViolation takes the right history, falsifies one thing, and wants the clause named.
func TestWhatTheSpecificationsForbidIsAViolation(t *testing.T) {
	for _, c := range []struct {
		name, clause string
		falsify      func(h *told)
	}{
		{"a session is forgotten", "[MQTT-3.1.2-5]", func(h *told) { h.event(GotConnack, 1, 1).Present = false }},
		{"a session out of nothing", "[MQTT-3.2.2-3]", func(h *told) { h.event(GotConnack, 0, 0).Present = true }},
		{"a session in spite of Clean Start", "[MQTT-3.2.2-2]", func(h *told) { h.event(Connect, 1, 1).Clean = true }},
		{"a session that was to end with its connection", "[MQTT-3.2.2-3]", func(h *told) { h.event(Connect, 0, 0).Expiry = 0 }},
		{"a CONNECT is refused", "CONNACK", func(h *told) { h.event(GotConnack, 1, 1).Code = 0x88 }},
		{"the server leaves", "DISCONNECT", func(h *told) { *h.event(Cut, 1, 0) = Event{What: GotEnd, Dev: 1, Conn: 1, Message: -1} }},
		{"another reason at takeover", "[MQTT-3.1.4-3]", func(h *told) { h.event(GotDisconnect, 0, 0).Code = 0x8B }},
		{"no reason at takeover", "[MQTT-3.1.4-3]", func(h *told) { h.drop(h.at(GotDisconnect, 0, 0)) }},
		{"the older connection stays", "[MQTT-3.1.4-3]", func(h *told) { h.drop(h.at(GotDisconnect, 0, 0)); h.drop(h.at(GotEnd, 0, 0)) }},
		{"acknowledged and lost, QoS 1", "DESIGN 1, PUBACK only after Kafka", func(h *told) { h.drop(h.recordOf(plain1)) }},
		{"acknowledged and lost, QoS 2", "DESIGN 1, PUBACK only after Kafka", func(h *told) { h.drop(h.recordOf(once2)) }},
		{"QoS 2 stored twice", "[MQTT-4.3.3-10]", func(h *told) { h.repeat(h.recordOf(say2)) }},
		{"QoS 1 sent once and stored twice", "[MQTT-4.3.2-5]", func(h *told) { h.repeat(h.recordOf(plain1)) }},
		{"no PUBACK", "[MQTT-4.3.2-4]", func(h *told) { h.drop(h.at(GotPuback, 0, 2)) }},
		{"PUBACK twice", "[MQTT-4.3.2-4]", func(h *told) { h.repeat(h.at(GotPuback, 0, 0)) }},
		{"PUBREC for QoS 1", "[MQTT-4.3.2-4]", func(h *told) { h.event(GotPuback, 0, 0).What = GotPubrec }},
		{"a refusal", "docs/acknowledgement.md", func(h *told) { h.event(GotPuback, 0, 0).Code = 0x97 }},
		{"acknowledgements change places", "[MQTT-4.6.0-2]", func(h *told) { h.swap(h.at(GotPuback, 0, 0), h.at(GotPubrec, 0, 0)) }},
		{"records change places", "[MQTT-4.6.0-1], DESIGN 1, order", func(h *told) { h.Events[h.recordOf(sayBack)].Offset = 0 }},
		{"one key in two partitions", "DESIGN 1, two records with one key", func(h *told) { h.Events[h.recordOf(say1)].Partition = 5 }},
		{"another header", "DESIGN 3", func(h *told) { h.Events[h.recordOf(say1)].QoS = 2 }},
		{"no will", "[MQTT-3.1.2-8]", func(h *told) { h.drop(h.recordOf(will)) }},
		{"two wills", "[MQTT-3.1.2-8]", func(h *told) { h.repeat(h.recordOf(will)) }},
		{"a will after the next connection's message", "[MQTT-3.1.2-8], order", func(h *told) { h.Events[h.recordOf(will)].Offset = 99 }},
		{"a will although the session goes on within its delay", "[MQTT-3.1.2-10]", func(h *told) { h.event(Connect, 0, 0).Delay = 3600 }},
		{"a will of a connection that said DISCONNECT", "[MQTT-3.1.2-10]", func(h *told) {
			h.Events = slices.Insert(h.Events, h.at(Connect, 0, 1), Event{What: Disconnect, Dev: 0, Conn: 1, Expiry: -1, Message: -1})
		}},
		{"a delivery is missing", "[MQTT-3.3.4-2]", func(h *told) { h.drop(h.at(GotPublish, 1, 3)); h.drop(h.at(Puback, 1, 1)) }},
		{"QoS 2 is delivered twice", "[MQTT-4.3.3-1]", func(h *told) {
			*h.event(GotPublish, 1, 3) = Event{What: GotPublish, Dev: 1, Conn: 2, Message: say2, ID: 3, QoS: 2, Topic: "say/h/a/1"}
		}},
		{"QoS 1 twice on a connection", "[MQTT-4.4.0-1]", func(h *told) { e := *h.event(GotPublish, 1, 2); e.ID = 7; *h.event(GotPublish, 1, 3) = e }},
		{"no DUP", "[MQTT-3.3.1-1]", func(h *told) { h.event(GotPublish, 1, 2).Dup = false }},
		{"DUP the first time", "[MQTT-3.3.1-2]", func(h *told) { h.event(GotPublish, 1, 0).Dup = true }},
		{"not sent again", "[MQTT-4.4.0-1]", func(h *told) { h.drop(h.at(GotPublish, 1, 2)); h.drop(h.at(Puback, 1, 0)) }},
		{"not released", "[MQTT-4.3.3-8]", func(h *told) { h.drop(h.at(GotPubrel, 1, 0)); h.drop(h.at(Pubcomp, 1, 0)) }},
		{"an identifier that is in use", "[MQTT-2.2.1-4]", func(h *told) { h.drop(h.at(Puback, 1, 0)); h.event(GotPublish, 1, 3).ID = 2 }},
		{"an identifier stands for another message", "[MQTT-4.4.0-1]", func(h *told) { h.event(GotPublish, 1, 2).Message = command }},
		{"a QoS 2 identifier stands for another message", "[MQTT-4.3.3-2]", func(h *told) {
			h.Events = slices.Insert(h.Events, h.at(GotPubrel, 1, 0), Event{What: GotPublish, Dev: 1, Conn: 2, Message: command, ID: 1, QoS: 2, Topic: "cmd/h/b"})
		}},
		{"more than the granted QoS", "[MQTT-3.8.4-8]", func(h *told) { h.event(GotPublish, 1, 3).QoS = 2 }},
		{"another QoS granted", "[MQTT-3.8.4-8]", func(h *told) { h.event(GotSuback, 1, 0).Code = 1 }},
		{"without a subscription", "[MQTT-3.3.4-2]", func(h *told) { h.event(Subscribe, 1, 0).Options.Name = "say/h/b/#" }},
		{"published before the SUBSCRIBE on the same connection", "[MQTT-3.3.4-2]", func(h *told) { h.hearItself(h.at(GotPuback, 0, 1)) }},
		{"RETAIN on a live message", "[MQTT-3.3.1-12]", func(h *told) { h.event(GotPublish, 1, 3).Retain = true }},
		{"No Local", "[MQTT-3.3.4-2]", func(h *told) {
			h.event(Subscribe, 1, 0).Options.NoLocal = true
			h.Messages[say1].From = 1
		}},
		{"the order of deliveries", "[MQTT-4.6.0-5]", func(h *told) {
			h.Messages[say1].QoS, h.Messages[say1].From, h.Messages[say2].From = 2, Backend, Backend
			one, two := h.event(GotPublish, 1, 0), h.event(GotPublish, 1, 1)
			one.Message, two.Message, two.QoS = say1, say2, 2
		}},
		{"no retained message", "[MQTT-3.3.1-9]", func(h *told) { h.drop(h.at(GotPublish, 1, 4)) }},
		{"a retained message with QoS 2 comes for nobody", "[MQTT-4.3.3-1]", func(h *told) {
			h.Messages[keep].QoS, h.Events[h.recordOf(keep)].QoS = 2, 2
			h.event(Subscribe, 1, 2).Options.QoS, h.event(GotSuback, 1, 2).Code = 2, 2
			h.drop(h.at(Puback, 1, 2))
			got := h.at(GotPublish, 1, 4)
			h.Events[got].QoS = 2
			for id := range uint16(2) {
				e := h.Events[got]
				e.ID = id + 20
				h.Events = slices.Insert(h.Events, got, e)
			}
		}},
		{"a retained message that was ended", "[MQTT-3.3.1-5]", func(h *told) {
			h.Messages[sayBack] = Message{Topic: "keep/h/a", Kafka: Loop, QoS: 1, Keep: true, Empty: true, To: -1}
			h.drop(h.recordOf(sayBack))
		}},
		{"a retained message that nobody asked for", "[MQTT-3.3.1-5]", func(h *told) { h.event(Subscribe, 1, 2).Options.Handling = 2 }},
		{"no receipt", "docs/commands.md, receipts", func(h *told) { h.drop(h.at(Receipt, 1, 0)) }},
		{"two receipts", "docs/commands.md, receipts", func(h *told) { h.repeat(h.at(Receipt, 1, 0)) }},
		{"a receipt that says nobody has it", "docs/commands.md, receipts", func(h *told) { h.event(Receipt, 1, 0).Outcome = "dropped not_subscribed" }},
		{"a receipt without PUBACK", "docs/commands.md, receipts", func(h *told) { h.drop(h.at(Puback, 1, 1)) }},
		{"a message for a share comes twice", "[MQTT-4.8.2-4]", func(h *told) { h.Messages[say2].Job = true; h.share(say2, say2, 2) }},
		{"a message for a share comes to nobody", "[MQTT-4.8.2-4]", func(h *told) {
			h.share(h.message(Message{From: Backend, Topic: "job/h/1", Kafka: Notices, QoS: 1, To: -1, Job: true}), -1, 1)
		}},
		{"a command for another", "docs/commands.md, client", func(h *told) { h.Messages[command].To = 0 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := right()
			c.falsify(h)
			var clauses []string
			for _, v := range Judge(&h.History) {
				clauses = append(clauses, v.Clause)
			}
			require.Contains(t, clauses, c.clause)
		})
	}
}

// share makes b a member of a share long before a message is published, and gives it another at the end.
func (h *told) share(published, delivered int, qos byte) {
	ack := h.at(GotSuback, 1, 0) + 1
	h.Events = slices.Insert(h.Events, ack, Event{What: Subscribe, Dev: 1, Conn: 1, ID: 20, Message: -1, Options: Filter{Name: "$share/g/job/h/#", QoS: 2}},
		Event{What: GotSuback, Dev: 1, Conn: 1, ID: 20, Message: -1, Code: 2})
	over := h.at(Over, 0, 0)
	if h.Messages[published].From == Backend {
		h.Events = slices.Insert(h.Events, over, Event{What: Written, Message: published, At: time.Hour}, Event{What: Stored, Message: published, At: time.Hour})
	}
	if delivered >= 0 {
		h.Events = slices.Insert(h.Events, over, Event{What: GotPublish, Dev: 1, Conn: 2, Message: delivered, ID: 30, QoS: qos, Topic: h.Messages[delivered].Topic})
	}
}

// TestFiltersMatch has the examples of section 4.7.
func TestFiltersMatch(t *testing.T) {
	f := func(want bool, filter, topic string) {
		t.Helper()
		require.Equal(t, want, matches(filter, topic))
	}
	f(true, "sport/tennis/player1/#", "sport/tennis/player1")
	f(true, "sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon")
	f(true, "sport/#", "sport")
	f(true, "#", "a/b")
	f(true, "sport/tennis/+", "sport/tennis/player1")
	f(false, "sport/tennis/+", "sport/tennis/player1/ranking")
	f(false, "sport/+", "sport")
	f(true, "sport/+", "sport/")
	f(true, "+/+", "/finance")
	f(true, "/+", "/finance")
	f(false, "+", "/finance")
	f(true, "$share/consumer1/sport/tennis/+", "sport/tennis/player1")
}

// TestAScriptIsItsSeedAndItsText: the same seed gives the same script, and its text is read as it was.
func TestAScriptIsItsSeedAndItsText(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.IntRange(0, 1<<30).Draw(rt, "seed")
		o := Options{Instances: rapid.IntRange(1, 2).Draw(rt, "instances"), Timed: rapid.Bool().Draw(rt, "timed"), Commands: rapid.Bool().Draw(rt, "commands")}
		s := Draw(seed, o)
		require.Equal(rt, s, Draw(seed, o))
		read, err := ParseScript(s.String())
		require.NoError(rt, err)
		require.Equal(rt, s, read)
	})
}

// TestTwoMayTellThatNobodyWantedACommand if it was there before a connection: what its instance tells the other may have told.
func TestTwoMayTellThatNobodyWantedACommand(t *testing.T) {
	told := func(outcomes ...string) *facts {
		m := &facts{from: 5}
		for i, o := range outcomes {
			m.receipts = append(m.receipts, Event{Outcome: o, Instance: string('a' + rune(i)), At: time.Second})
		}
		return m
	}
	d := &device{conns: []*conn{{connack: 3}, {connack: 7}}}
	require.True(t, d.toldByTwo(told("offline not_connected", "dropped not_subscribed")))
	require.False(t, d.toldByTwo(told("offline not_connected", "delivered")))
	require.False(t, d.toldByTwo(told("offline not_connected", "offline not_connected", "offline not_connected")))
	same := told("offline not_connected", "dropped not_subscribed")
	same.receipts[1].Instance = "a"
	require.False(t, d.toldByTwo(same))
	d.conns[1].connack = 4
	require.False(t, d.toldByTwo(told("offline not_connected", "dropped not_subscribed")), "the connection was there before")
	d.conns[1].connack, d.conns[1].hello.At = 7, 2*time.Second
	require.False(t, d.toldByTwo(told("offline not_connected", "dropped not_subscribed")), "it came later")
	d.conns[0].how, d.conns[0].end, d.conns[0].gone, d.conns[1].connack, d.conns[1].end = Connect, 4, 6, 4, never
	require.True(t, d.toldByTwo(told("dropped not_subscribed", "dropped not_subscribed")), "both connections are there")
	require.True(t, d.toldByTwo(told("delivered", "dropped not_subscribed")), "and the one that was left does not know it")
	require.False(t, d.toldByTwo(told("delivered", "dropped memory_full")))
	d.conns[0].gone = 4
	require.False(t, d.toldByTwo(told("delivered", "dropped not_subscribed")), "the first is gone")
	require.False(t, d.toldByTwo(told("dropped not_subscribed", "dropped not_subscribed")), "the first is gone")
	require.False(t, d.sentAndPerhaps(told("sent", "dropped perhaps_sent")))
	d.conns[1].connack, d.conns[1].opened = 7, d.conns[1].hello.At+handOver
	require.True(t, d.sentAndPerhaps(told("dropped perhaps_sent", "sent")), "it was not waited for any longer")
	require.False(t, d.sentAndPerhaps(told("sent", "sent")))
}

// TestWhoIsLetInWithoutALastWordMayGetItAgainAsNew: how far the connection before had come may be unknown with QoS 1.
func TestWhoIsLetInWithoutALastWordMayGetItAgainAsNew(t *testing.T) {
	f := func(waited time.Duration, stalled bool) []Violation {
		h := right()
		h.Stalled = stalled
		h.event(GotPublish, 1, 2).Dup = false
		for i := h.at(GotConnack, 1, 1); i < len(h.Events); i++ {
			h.Events[i].At += waited
		}
		return Judge(&h.History)
	}
	require.Len(t, f(0, true), 1)
	require.Len(t, f(handOver, false), 1)
	require.Empty(t, f(handOver, true))
}
