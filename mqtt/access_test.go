package mqtt

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// rights is an Access that has them all but some.
type rights struct {
	mu sync.Mutex
	no map[string]bool // "right topic"
}

func (r *rights) set(denied bool, all []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.no == nil {
		r.no = map[string]bool{}
	}
	for _, what := range all {
		r.no[what] = denied
	}
}

func (r *rights) deny(what ...string)  { r.set(true, what) }
func (r *rights) allow(what ...string) { r.set(false, what) }

func (r *rights) may(right, what string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.no[right+" "+what]
}

func (r *rights) Publish(topic []byte) bool       { return r.may("publish", string(topic)) }
func (r *rights) Retain(topic []byte) bool        { return r.may("retain", string(topic)) }
func (r *rights) Will(topic []byte) bool          { return r.may("will", string(topic)) }
func (r *rights) Subscribe(filter, _ string) bool { return r.may("subscribe", filter) }
func (r *rights) Receive(topic []byte) bool       { return r.may("receive", string(topic)) }

// restricted is a Config in which all devices of a name have these rights.
func restricted(a Access) func(*Config) {
	return func(c *Config) { c.Authenticator = trusting(a) }
}

// user is a stored session of "ann".
func (w *world) ann(v byte, id string) *client {
	w.t.Helper()
	return w.connect(persistent(v, id).as("ann"))
}

func TestWillNeedsARight(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		access := &rights{}
		access.deny("will a", "retain b")
		w := newWorld(t, func(c *Config) {
			restricted(access)(c)
			c.Retained, _ = NewRetained(RetainedConfig{Messages: 1, Bytes: 1})
		})
		code := map[byte]byte{4: 5, 5: 0x87}[v]
		old := w.ann(v, "dev")
		will := func(topic string, retain bool) hello {
			h := persistent(v, "dev").as("ann")
			h.will = &lastWill{topic: topic, retain: retain}
			return h
		}
		w.turnedAway(will("a", false), code)
		w.turnedAway(will("a", true), code)
		w.turnedAway(will("b", true), code)
		old.ping()
		require.Equal(t, 3, count(w.s.m.denied.will))
		w.connect(will("b", false)).lost()
		require.Equal(t, "b", string(w.next().Topic))
		w.connect(will("c", true)).lost()
		require.True(t, w.next().Retain)
		w.ended()
		w.noMessage()
	})
}

func TestSubscribeNeedsARight(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		access := &rights{}
		access.deny("subscribe a/#", "subscribe t")
		w := shared(t, restricted(access))
		c := w.connect(persistent(v, "dev").as("ann"))
		no := any(NotAuthorized)
		if v == 4 {
			no = UnspecifiedError
		}
		filters := cat(str("a/#"), 1, str("b"), 1, str("$share/g/t"), 1, str("$share/t/a/#"), 0, str("$share/g/b"), 2)
		c.send(packet(0x82, uint16(1), c.none(), filters))
		c.expect(subackPacket(v, 1, no, 1, no, no, 2))
		require.Equal(t, 3, count(w.s.m.denied.subscribe))
		n, _ := w.send(&Command{Topic: []byte("a/b")})
		require.Zero(t, n)
		access.allow("subscribe a/#")
		c.subscribe("a/#", 1)
		access.deny("subscribe a/#")
		c.send(subscribePacket(v, 2, "a/#", 2))
		c.expect(subackPacket(v, 2, no))
		w.command("a/b", "x", 2)
		c.expect(pub{topic: "a/b", payload: "x", qos: 1, id: 1}.packet(v)) // the subscription is as it was
	})
}

// TestWithdrawnSubscriptionIsTakenFromTheSessionThatReturns: those that it still may have stay, and so do their messages.
func TestWithdrawnSubscriptionIsTakenFromTheSessionThatReturns(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		access := &rights{}
		w := commands(t, restricted(access))
		c := w.ann(v, "dev")
		c.subscribe("no", 1)
		c.subscribe("t", 1)
		c.subscribe("no/#", 1)
		c.lost()
		w.left("dev")
		access.deny("subscribe no", "subscribe no/#", "receive no")
		no, yes := w.command("no", "x", 1), w.command("t", "0", 1)
		c = w.ann(v, "dev")
		require.True(t, c.present())
		c.gets(0, 1, 1, 1)
		w.became(no, "dev dropped: "+reasonNotAuthorized)
		w.waits(yes)
		access.allow("subscribe no", "receive no") // what was taken is gone all the same
		n, _ := w.send(&Command{Topic: []byte("no")})
		require.Zero(t, n)
		c.send(unsubscribePacket(v, 3, "no"))
		if v == 5 {
			c.expect(c.unsuback(3, NoSubscriptionExisted))
		} else {
			c.expect(unsubackPacket(v, 3))
		}
		require.Equal(t, 2, count(w.s.m.denied.subscribe))
	})
}

// TestWithdrawnSubscriptionIsTakenFromTheStore: the session is stored without it.
func TestWithdrawnSubscriptionIsTakenFromTheStore(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		access := &rights{}
		access.deny("subscribe no")
		w := keeping(t, restricted(access))
		w.deposits(deposit{snapshot: Snapshot{Subscriptions: []Subscription{{Filter: "no", QoS: 1}, {Filter: "t", QoS: 2}, {Filter: "$share/g/no"}}}})
		c := w.ann(v, "dev")
		require.True(t, c.present())
		k := w.v.keeper("dev")
		until(t, "a save is asked for", func() bool { return k.told(&k.asked) == 1 })
		k.save()
		w.v.mu.Lock()
		stored := w.v.stored["dev"].snapshot.Subscriptions
		w.v.mu.Unlock()
		require.Equal(t, []Subscription{{Filter: "t", QoS: 2}}, stored)
		n, _ := w.send(&Command{Topic: []byte("no")})
		require.Zero(t, n)
	})
}

// TestDeliveryNeedsARight at the moment it is made, of every QoS.
func TestDeliveryNeedsARight(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		access := &rights{}
		w := commands(t, restricted(access))
		c := w.ann(v, "dev")
		c.subscribe("#", 2)
		access.deny("receive no")
		for qos := range 3 {
			w.became(w.command("no", "x", byte(qos)), "dev dropped: "+reasonNotAuthorized)
		}
		w.command("t", "0", 2)
		c.gets(0, 1, 2, 1)
		access.allow("receive no")
		w.command("no", "x", 1)
		c.expect(pub{topic: "no", payload: "x", qos: 1, id: 2}.packet(v))
		require.Equal(t, 3, count(w.s.m.denied.receive))
	})
}

// TestRightWithdrawnWhileTheDeviceIsAway: of what was under way QoS 1 is not sent again, QoS 2 is completed without the
// message.
func TestRightWithdrawnWhileTheDeviceIsAway(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		access := &rights{}
		w := commands(t, restricted(access))
		c := w.ann(v, "dev")
		c.subscribe("t", 2)
		c.subscribe("u", 2)
		sent := append(w.numbered(0, 1, 1), w.numbered(1, 2, 2)...)
		c.gets(0, 1, 1, 1)
		c.gets(1, 2, 2, 2)
		c.send(pubrec(2)) // the device answers for it
		c.expect(pubrel(2))
		c.lost()
		w.left("dev")
		queued := w.numbered(3, 3, 2)
		access.deny("receive t")
		other := w.command("u", "x", 1)
		c = w.ann(v, "dev")
		c.expect(pubrel(2), pubrel(3), pub{topic: "u", payload: "x", qos: 1, id: 4}.packet(v))
		for _, cmd := range append(queued, sent[0], sent[2]) {
			w.became(cmd, "dev dropped: "+reasonNotAuthorized)
		}
		c.send(pubcomp(2), pubcomp(3), puback(4))
		w.became(sent[1], "dev delivered")
		w.became(other, "dev delivered")
		c.ping()
		require.Empty(t, w.outbox("dev").flight)
	})
}

// TestRightWithdrawnWhileTheSessionIsStored: PUBREL for what the device may have goes out when it is stored that the
// message is not to be sent again.
func TestRightWithdrawnWhileTheSessionIsStored(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		access := &rights{}
		access.deny("receive t")
		w := keeping(t, restricted(access))
		w.records(10, 11, 12)
		w.deposits(deposit{snapshot: Snapshot{
			Subscriptions: []Subscription{{Filter: "t", QoS: 2}},
			Flight:        []Unfinished{{Place: Place{1, 10}, ID: 3, QoS: 2}, {Place: Place{1, 11}, ID: 4, QoS: 2, Received: true}, {Place: Place{1, 12}, ID: 5, QoS: 1}},
			Next:          []Place{{1, 10}},
		}})
		c := w.ann(v, "dev")
		k := w.v.keeper("dev")
		until(t, "a save is asked for", func() bool { return k.told(&k.asked) == 1 })
		c.ping() // and nothing before it
		s := k.snapshot()
		begun := []Unfinished{{ID: 3, QoS: 2, Received: true}, {Place: Place{1, 11}, ID: 4, QoS: 2, Received: true}}
		require.Equal(t, append(begun, Unfinished{Place: Place{1, 12}, ID: 5, QoS: 1}), s.Flight)
		require.Equal(t, []Place{{1, 10}}, s.Done)
		k.save()
		c.expect(pubrel(3), pubrel(4))
		c.ping()
		s = k.snapshot()
		require.Equal(t, begun, s.Flight)
		require.Equal(t, []Place{{1, 10}, {1, 12}}, s.Done)
		c.send(pubcomp(3), pubcomp(4))
		c.ping()
		require.Empty(t, k.snapshot().Flight)
	})
}

// TestQoS2ThatWaitedForTheStoreNeedsTheRightWhenItIsSent.
func TestQoS2ThatWaitedForTheStoreNeedsTheRightWhenItIsSent(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		access := &rights{}
		w := keeping(t, restricted(access))
		c, k := w.promptly(persistent(v, "dev").as("ann"), 2)
		cmd := w.placed(1, 0, "0", 2)
		c.ping()
		access.deny("receive t")
		k.save()
		w.became(cmd, "dev dropped: "+reasonNotAuthorized)
		c.ping()
		require.Empty(t, k.snapshot().Flight)
	})
}

func TestRetainedMessageNeedsTheRightToReceiveIt(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		access := &rights{}
		access.deny("receive t/0000001")
		w, x := retaining(t, restricted(access))
		x.fill(t, 3, 1, "x")
		c := w.ann(v, "dev")
		c.suback(0, "#")
		for _, i := range []int{0, 2} {
			c.expect(pub{topic: numbered(i), payload: "x", retain: true}.packet(v))
		}
		c.ping()
		require.Equal(t, 1, count(x.m.settled[Dropped]))
	})
}

// TestMemberOfAShareNeedsTheRightToReceive: what comes to one without it is dropped, and goes round no further.
func TestMemberOfAShareNeedsTheRightToReceive(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		access := &rights{}
		w := shared(t, restricted(access))
		c := w.ann(v, "a")
		c.subscribe("$share/g/t", 1)
		w.members(1)
		w.share("$share/g/t")
		access.deny("receive t")
		w.became(w.give("0", 1), "a dropped: "+reasonNotAuthorized)
		access.allow("receive t")
		w.give("1", 1)
		c.gets(1, 1, 1, 1)
		c.lost()
		w.left("a")
		access.deny("subscribe t")
		c = w.ann(v, "a")
		require.True(t, c.present())
		c.ping()
		until(t, "it is no member any more", func() bool { return w.x.len() == 0 })
	})
}
