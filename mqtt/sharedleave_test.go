package mqtt

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMemberThatLeavesHandsOnWhatItHasNotAnswered: to another one, in the order of before.
func TestMemberThatLeavesHandsOnWhatItHasNotAnswered(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := shared(t, nil)
		a := w.member(v, "a", 1)
		w.members(1)
		var sent []*Command
		for i := range 4 {
			sent = append(sent, w.give(fmt.Sprint(i), 1))
		}
		a.gets(0, 4, 1, 1)
		b := w.member(v, "b", 1)
		w.members(2)
		a.send(puback(2))
		w.became(sent[1], "a delivered")
		w.drop("a")
		b.expect(command(0, 1, 1).packet(v), command(2, 1, 2).packet(v), command(3, 1, 3).packet(v))
		require.Equal(t, 3, count(w.x.m.handedOn))
		a = w.stored(v, "a") // a member again, which gets nothing of that
		require.True(t, a.present())
		a.ping()
		w.members(2)
		for id := range 3 {
			b.send(puback(uint16(1 + id)))
		}
		for _, i := range []int{0, 2, 3} {
			w.became(sent[i], "b delivered")
		}
	})
}

// TestBegunQoS2IsCompletedByItsSession: nobody else gets it, whether the session returns [MQTT-4.8.2-4] or ends
// [MQTT-4.8.2-5].
func TestBegunQoS2IsCompletedByItsSession(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := shared(t, nil)
		a := w.member(v, "a", 2)
		w.members(1)
		first, second, third := w.give("0", 2), w.give("1", 2), w.give("2", 2)
		a.gets(0, 3, 2, 1)
		b := w.member(v, "b", 2)
		w.members(2)
		a.send(pubrec(1))
		a.expect(pubrel(1))
		w.drop("a")
		b.ping()
		w.waits(first, second, third)
		a = w.stored(v, "a")
		a.expect(pubrel(1))
		again := command(1, 2, 2)
		again.dup = true
		a.expect(again.packet(v))
		_, _ = a.read() // the third
		a.send(pubcomp(1), pubrec(2))
		a.expect(pubrel(2))
		a.send(pubcomp(2))
		w.became(first, "a delivered")
		w.became(second, "a delivered")
		w.device(v, "a") // clean: the session ends
		w.became(third, "a offline: "+reasonNotAnswered)
		b.ping()
	})
}

// TestQoS0OfAShareThatIsBeingWrittenIsNotHandedOn: the device may have it, and would be two with another that gets it.
func TestQoS0OfAShareThatIsBeingWrittenIsNotHandedOn(t *testing.T) {
	w := shared(t, nil)
	w.member(5, "a", 0)
	w.members(1)
	a := w.holder("a")
	a.mu.Lock()
	a.writing = true // as while the socket is given what was taken from the output
	a.mu.Unlock()
	begun := w.give("0", 0)
	until(t, "in the output", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return len(a.marks) == 1
	})
	b := w.member(5, "b", 0)
	w.members(2)
	w.drop("a")
	w.became(begun, "a offline: "+reasonNotAnswered)
	b.ping()
}

func TestSharedCommandComesBackWhenTheLastMemberLeaves(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := shared(t, func(c *Config) { c.CommandsInFlight = 1 })
		a := w.member(v, "a", 1)
		w.members(1)
		sent, waiting := w.give("0", 1), w.give("1", 1)
		a.gets(0, 1, 1, 1)
		w.drop("a")
		w.became(sent, " kept")
		w.became(waiting, " kept")
		until(t, "the share is gone", func() bool { return w.x.len() == 0 })
		a = w.stored(v, "a") // and with it the subscription: a member again
		w.members(1)
		again := w.give("0", 1)
		a.gets(0, 1, 1, 2)
		a.send(puback(2))
		w.became(again, "a delivered")
	})
}

// TestMemberThatComesWhileTheFeedEndsIsGivenNothingOfIt: what was handed back comes again with the next feed, and would be on
// its connection twice.
func TestMemberThatComesWhileTheFeedEndsIsGivenNothingOfIt(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := shared(t, func(c *Config) { c.CommandsInFlight = 1 })
		enough := make(chan struct{})
		w.last = sync.OnceFunc(func() { <-enough })
		a := w.member(v, "a", 1)
		w.members(1)
		sent, waiting := w.give("0", 1), w.give("1", 1)
		a.gets(0, 1, 1, 1)
		w.drop("a")
		a = w.stored(v, "a") // a member again, while the feed has not ended
		a.ping()
		w.waits(waiting)
		close(enough)
		w.became(sent, " kept")
		w.became(waiting, " kept")
		w.members(1)
		again := w.give("0", 1)
		a.gets(0, 1, 1, 2)
		a.send(puback(2))
		w.became(again, "a delivered")
	})
}

func TestUnsubscribeLeavesTheShare(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := shared(t, nil)
		a, b := w.member(v, "a", 1), w.member(v, "b", 1)
		w.members(2)
		sent := w.give("0", 1)
		who, other, name := a, b, "a"
		if w.outbox("b").nextID > 0 {
			who, other, name = b, a, "b"
		}
		who.gets(0, 1, 1, 1)
		who.send(packet(0xA2, uint16(3), who.none(), str("$share/g/t"), str("$share/g/t")))
		who.expect(who.unsuback(3, Success, NoSubscriptionExisted))
		w.members(1)
		next := w.give("1", 1)
		other.gets(1, 1, 1, 1)
		other.send(puback(1))
		who.send(puback(1)) // what it was given stays with it (section 3.10.4)
		w.became(sent, name+" delivered")
		until(t, "settled", func() bool { return len(w.of(next)) == 1 })
		who.ping()
	})
}

func TestRejectionOfASharedCommandIsFinal(t *testing.T) { // [MQTT-4.8.2-6]
	w := shared(t, nil)
	a := w.member(5, "a", 2)
	w.members(1)
	one, two := w.give("0", 1), w.give("1", 2)
	a.gets(0, 1, 1, 1)
	a.gets(1, 1, 2, 2)
	b := w.member(5, "b", 2)
	w.members(2)
	a.send(packet(0x40, uint16(1), QuotaExceeded), packet(0x50, uint16(2), QuotaExceeded))
	w.became(one, "a rejected 0x97")
	w.became(two, "a rejected 0x97")
	b.ping()
}

// TestSharedCommandsThroughComingAndGoing: members come, answer, go and return, and each command is delivered once.
func TestSharedCommandsThroughComingAndGoing(t *testing.T) {
	w := shared(t, func(c *Config) { c.CommandsInFlight = 3 })
	keep := w.member(5, "keep", 1)
	w.members(1)
	var devices sync.WaitGroup
	for i := range 3 {
		devices.Go(func() {
			for range 20 {
				c := w.device(5, fmt.Sprint("dev", i))
				c.subscribe("$share/g/t", 1)
				for range 3 {
					c.answers()
				}
				_ = c.nc.Close()
			}
		})
	}
	var sent []*Command
	for i := range 400 {
		sent = append(sent, w.give(fmt.Sprint(i), 1))
	}
	devices.Wait()
	until(t, "all are delivered", func() bool {
		keep.answers()
		return w.share("$share/g/t").Idle()
	})
	for _, c := range sent {
		require.Len(t, w.of(c), 1)
		require.Regexp(t, ` delivered$`, w.of(c)[0])
	}
}

// answers acknowledges what has come until now.
func (c *client) answers() {
	c.t.Helper()
	c.send(pingreq)
	for {
		first, body := c.read()
		if first == 0xD0 {
			return
		}
		require.Equal(c.t, byte(0x32), first)
		c.send(puback(uint16(body[3])<<8 | uint16(body[4])))
	}
}

// placed is a command of the first stream for "t".
func placed(offset int64, payload string, qos byte) *Command {
	return &Command{Topic: []byte("t"), Payload: []byte(payload), QoS: qos, Place: Place{1, offset}}
}

// TestSharedCommandThatComesAgainIsTheOneItsMemberHas: a feed that lost what it had, to a change of the group's members, gives it
// again. The same connection must not get it twice.
func TestSharedCommandThatComesAgainIsTheOneItsMemberHas(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		for qos := byte(1); qos <= 2; qos++ {
			w := shared(t, func(c *Config) { c.CommandsInFlight = 2 })
			a := w.member(v, "a", 2)
			w.members(1)
			held, lose := context.WithCancel(t.Context())
			defer lose()
			first, second := placed(0, "0", qos), placed(1, "1", qos)
			w.sendHeld(held, first)
			w.sendHeld(held, second)
			a.gets(0, 2, int(qos), 1)
			w.wasSent(second, 1)
			lose()
			firstAgain, secondAgain := placed(0, "0", qos), placed(1, "1", qos)
			w.sendShared(firstAgain)
			w.sendShared(secondAgain)
			a.ping()
			w.became(first, " kept")
			w.became(second, " kept")
			w.waits(firstAgain, secondAgain)
			if qos == 2 {
				a.send(pubrec(1))
				a.expect(pubrel(1))
				a.send(pubcomp(1))
				w.became(firstAgain, "a delivered")
				continue
			}
			a.send(puback(1))
			w.became(firstAgain, "a delivered")
			b := w.member(v, "b", 2)
			w.members(2)
			w.drop("a") // it was sent the other, but others may have that
			b.gets(1, 1, 1, 1)
			b.send(puback(1))
			w.became(secondAgain, "b delivered")
			w.wasSent(secondAgain, 1)
			answered := placed(1, "1", qos) // so it is another one
			w.sendShared(answered)
			b.gets(1, 1, 1, 2)
			b.send(puback(2))
			w.became(answered, "b delivered")
		}
	})
}

// TestSharedCommandThatIsNotTheSameIsGiven: the log was cut, or the topic was made anew.
func TestSharedCommandThatIsNotTheSameIsGiven(t *testing.T) {
	w := shared(t, nil)
	a := w.member(5, "a", 1)
	w.members(1)
	held, lose := context.WithCancel(t.Context())
	defer lose()
	w.sendHeld(held, placed(0, "0", 1))
	a.gets(0, 1, 1, 1)
	w.sendHeld(held, placed(0, "0", 1)) // while the first still counts
	a.gets(0, 1, 1, 2)
	lose()
	w.sendShared(placed(0, "1", 1))
	a.gets(1, 1, 1, 3)
	for id := range uint16(3) {
		a.send(puback(1 + id))
	}
	w.settled()
}

// TestSharedCommandThatComesAgainIsCancelled: nobody gets it when its member leaves, and what that was not sent yet is not sent.
func TestSharedCommandThatComesAgainIsCancelled(t *testing.T) {
	w := shared(t, func(c *Config) { c.CommandsInFlight = 1 })
	a := w.member(5, "a", 1)
	w.members(1)
	held, lose := context.WithCancel(t.Context())
	defer lose()
	first, again, other := placed(0, "0", 1), placed(0, "0", 1), placed(1, "1", 1)
	w.sendHeld(held, first)
	a.gets(0, 1, 1, 1)
	b := w.member(5, "b", 1)
	w.members(2)
	w.sendShared(other)
	b.gets(1, 1, 1, 1)
	lose()
	w.sendShared(again)
	w.became(first, " kept")
	require.False(t, first.IsCancelled())
	again.Cancel()
	require.True(t, first.IsCancelled(), "it is what waits for the member's network")
	w.drop("a")
	b.send(puback(1))
	w.became(other, "b delivered")
	w.became(again, " cancelled")
	b.ping()
}
