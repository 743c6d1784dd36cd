package mqtt

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

// newRetained makes a Retained that runs until the end of the test.
func newRetained(t testing.TB, messages int) *Retained {
	t.Helper()
	x, err := NewRetained(RetainedConfig{Messages: messages, Bytes: 1 << 40})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- x.Run(ctx) }() // ends with ctx
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-ended)
	})
	return x
}

// retaining starts a server with retained messages.
func retaining(t testing.TB, change func(*Config)) (*world, *Retained) {
	t.Helper()
	x := newRetained(t, 1_000_000)
	return newWorld(t, func(c *Config) {
		c.Retained = x
		if change != nil {
			change(c)
		}
	}), x
}

// keep makes payload the retained message of a topic.
func (x *Retained) keep(t testing.TB, topic, payload string, qos byte) {
	t.Helper()
	require.NoError(t, x.Set(&RetainedMessage{Topic: []byte(topic), Payload: []byte(payload), QoS: qos}))
}

// suback takes SUBSCRIBE and SUBACK for filters with the same options.
func (c *client) suback(options int, filters ...string) {
	c.t.Helper()
	var request, codes []byte
	for _, f := range filters {
		request = cat(request, str(f), options)
		codes = append(codes, byte(options&3))
	}
	c.send(packet(0x82, uint16(9), c.none(), request))
	c.expect(packet(0x90, uint16(9), c.none(), codes))
}

func TestRetainedMessagesAreOffered(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w, _ := retaining(t, nil)
		c := w.connect(hello{version: v, id: "dev", will: &lastWill{topic: "w", payload: "gone", retain: true}})
		if v == 5 {
			r := cursor{b: c.connack[2:]}
			for p := r.take(r.varint()); len(p) > 0; {
				require.NotEqual(t, byte(0x25), p[0], "Retain Available is 1 where it is absent")
				p = p[map[byte]int{0x21: 3, 0x22: 3, 0x27: 5, 0x2A: 2, 0x13: 3}[p[0]]:]
			}
		}
		for qos := range 3 {
			c.publish(pub{topic: "t", qos: qos, id: uint16(qos), retain: true})
			m := w.next()
			require.True(t, m.Retain)
			w.ack(m)
		}
		c.expect(puback(1), pubrec(2))
		_ = c.nc.Close()
		will := w.next()
		require.True(t, will.Retain)
		require.True(t, will.Will)
		will.Ack(Success)
	})
}

func TestSubscriberGetsWhatIsRetainedAfterItsSuback(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w, x := retaining(t, nil)
		for i := range 3 {
			x.keep(t, fmt.Sprint("t/", i), "old", 2)
			x.keep(t, fmt.Sprint("t/", i), fmt.Sprint("value ", i), 2)
		}
		for qos := range 3 {
			c := w.device(v, "dev")
			c.suback(qos, "t/+")
			for i := range 3 { // RETAIN is 1 whatever the subscription says of it [MQTT-3.3.1-8]
				id := uint16(0)
				if qos > 0 {
					id = uint16(i + 1)
				}
				c.expect(pub{topic: fmt.Sprint("t/", i), payload: fmt.Sprint("value ", i), qos: qos, id: id, retain: true}.packet(v))
			}
			c.ping()
		}
	})
}

func TestRetainedMessageKeepsItsProperties(t *testing.T) {
	w, x := retaining(t, nil)
	require.NoError(t, x.Set(&RetainedMessage{
		Topic: []byte("t"), Payload: []byte("p"), QoS: 1, ContentType: []byte("text"), ResponseTopic: []byte("r"), CorrelationData: []byte{},
		User: []Property{{[]byte("a"), []byte("1")}, {[]byte("a"), nil}}, Expires: time.Now().Add(time.Hour - time.Millisecond),
	}))
	c := w.device(5, "dev")
	c.send(packet(0x82, uint16(1), props(0x0B, vbi(300)), str("t"), 0, str("#"), 1))
	c.expect(packet(0x90, uint16(1), props(), 0, 1))
	want := pub{topic: "t", payload: "p", retain: true, props: cat(0x02, uint32(3600), 0x0B, vbi(300), 0x03, str("text"), 0x08, str("r"), 0x09, str(""), user("a", "1"), user("a", ""))}
	second := want
	second.qos, second.id = 1, 1
	c.expect(want.packet(5), second.packet(5)) // a copy for each of overlapping subscriptions
	c.ping()
}

func TestRetainHandlingSaysWhenRetainedMessagesAreSent(t *testing.T) {
	w, x := retaining(t, nil)
	x.keep(t, "t", "x", 0)
	c := w.device(5, "dev")
	retained := pub{topic: "t", payload: "x", retain: true}.packet(5)
	subscribe := func(handling int, sent bool) {
		t.Helper()
		c.suback(handling<<4, "t")
		if sent {
			c.expect(retained)
		}
		w.fence(c)
	}
	unsubscribe := func() {
		t.Helper()
		c.send(packet(0xA2, uint16(3), props(), str("t")))
		c.expect(c.unsuback(3, Success))
	}
	subscribe(2, false) // [MQTT-3.3.1-11]
	subscribe(1, false) // [MQTT-3.3.1-10]: it exists
	subscribe(0, true)  // [MQTT-3.3.1-9]
	subscribe(0, true)
	unsubscribe()
	subscribe(1, true)
	subscribe(1, false)
	c = w.stored(5, "kept")
	subscribe(1, true)
	_ = c.nc.Close()
	w.left("kept")
	c = w.stored(5, "kept")
	require.True(t, c.present())
	subscribe(1, false)
	subscribe(0, true)
}

// fence takes a PINGRESP and nothing before it, when nobody has anything to hand out any more.
func (w *world) fence(c *client) {
	w.t.Helper()
	until(w.t, "nothing is to be handed out", func() bool { return w.handouts() == 0 })
	c.ping()
}

// handouts counts the handouts of all sessions.
func (w *world) handouts() (n int) {
	for i := range w.s.sessions.shards {
		sh := &w.s.sessions.shards[i]
		sh.mu.Lock()
		for _, s := range sh.sessions {
			if o := s.outbox.Load(); o != nil {
				o.mu.Lock()
				n += len(o.handouts)
				o.mu.Unlock()
			}
		}
		sh.mu.Unlock()
	}
	return n
}

func TestRetainedMessagesMatchTheFilter(t *testing.T) {
	w, x := retaining(t, nil)
	for _, topic := range []string{"sport", "sport/tennis", "sport/tennis/a", "sport-x", "/finance", "$SYS/up", "$SYS", "sport/"} {
		x.keep(t, topic, "x", 0)
	}
	gets := func(filter string, topics ...string) {
		t.Helper()
		c := w.device(4, "dev")
		c.suback(0, filter)
		for _, topic := range topics {
			c.expect(pub{topic: topic, payload: "x", retain: true}.packet(4))
		}
		w.fence(c)
	}
	gets("sport/#", "sport", "sport/", "sport/tennis", "sport/tennis/a")
	gets("#", "/finance", "sport", "sport-x", "sport/", "sport/tennis", "sport/tennis/a") // [MQTT-4.7.2-1]
	gets("+", "sport", "sport-x")
	gets("+/+", "/finance", "sport/", "sport/tennis")
	gets("/+", "/finance")
	gets("$SYS/#", "$SYS", "$SYS/up")
	gets("$SYS/+", "$SYS/up")
	gets("sport/tennis", "sport/tennis")
	gets("sport/+/a", "sport/tennis/a")
	gets("nothing/#")
}

func TestDeletedAndExpiredMessagesAreNotHandedOut(t *testing.T) {
	w, x := retaining(t, nil)
	x.keep(t, "a", "x", 0)
	x.keep(t, "b", "x", 0)
	x.keep(t, "c", "x", 0)
	x.keep(t, "c", "", 0) // no payload deletes [MQTT-3.3.1-6]
	x.Delete([]byte("a"))
	x.Delete([]byte("never there"))
	soon := time.Now().Add(30 * time.Millisecond)
	require.NoError(t, x.Set(&RetainedMessage{Topic: []byte("soon"), Payload: []byte("x"), Expires: soon}))
	require.Equal(t, 2, x.Len())
	until(t, "expired", func() bool { return !time.Now().Before(soon) })
	c := w.device(5, "dev")
	c.suback(0, "#")
	c.expect(pub{topic: "b", payload: "x", retain: true}.packet(5))
	w.fence(c)
	x.sweep(time.Now())
	require.Equal(t, 1, x.Len(), "expired ones vanish")
	x.Delete([]byte("b"))
	require.Zero(t, x.Bytes())
	require.Zero(t, x.expiring)
}

func TestExpiredMessageEndsTheOneBeforeIt(t *testing.T) {
	x := newRetained(t, 10)
	x.keep(t, "t", "before", 0)
	require.NoError(t, x.Set(&RetainedMessage{Topic: []byte("t"), Payload: []byte("after"), Expires: time.Now().Add(-time.Second)}))
	require.Zero(t, x.Len())
}

func TestSweepFindsExpiredMessagesAmongMany(t *testing.T) {
	x, err := NewRetained(RetainedConfig{Messages: 1, Bytes: 1})
	require.NoError(t, err)
	const n = 3*sweepRows + 17
	now := time.Now()
	for i := range n {
		m := &RetainedMessage{Topic: fmt.Append(nil, i), Payload: []byte("x")}
		if i%3 == 0 {
			m.Expires = now.Add(time.Hour)
		}
		require.NoError(t, x.Set(m))
	}
	for range 6 {
		x.sweep(now.Add(2 * time.Hour))
	}
	require.Equal(t, n-(n+2)/3, x.Len())
	require.Equal(t, (n+2)/3, int(testutil.ToFloat64(x.m.expired)))
}

func TestNoLocalSparesTheDeviceWhatItRetained(t *testing.T) {
	w, x := retaining(t, nil)
	require.NoError(t, x.Set(&RetainedMessage{Topic: []byte("t"), Payload: []byte("x"), ClientID: "a"}))
	for _, id := range []string{"a", "b"} {
		c := w.device(5, id)
		c.suback(4, "t") // [MQTT-3.8.3-3]
		if id == "b" {
			c.expect(pub{topic: "t", payload: "x", retain: true}.packet(5))
		}
		w.fence(c)
	}
}

func TestRoomForRetainedMessagesIsBounded(t *testing.T) {
	m := &RetainedMessage{Topic: []byte("a"), Payload: []byte(strings.Repeat("x", 100))}
	size := m.RetainedBytes()
	x, err := NewRetained(RetainedConfig{Messages: 3, Bytes: int64(3 * size)})
	require.NoError(t, err)
	reserve := func(topic string, bytes int, want bool) {
		t.Helper()
		require.Equal(t, want, x.Reserve([]byte(topic), bytes), topic)
	}
	reserve("a", size, true)
	require.NoError(t, x.Set(m))
	x.Release(size)
	reserve("a", size, true) // in place of what is there
	reserve("b", size, true)
	reserve("c", 2*size, false) // bytes
	reserve("c", size/2, false) // the message under way counts although it takes the place of another one
	x.Release(size)
	reserve("c", size, true)
	reserve("d", 1, false) // number
	x.Release(size)
	x.Release(size)
	reserve("d", size, true)
	for _, topic := range []string{"d", "e", "f"} { // accepted elsewhere
		m.Topic = []byte(topic)
		require.NoError(t, x.Set(m))
	}
	require.Equal(t, 4, x.Len())
	x.Release(size)
	reserve("g", 1, false)
	x.Delete([]byte("e"))
	x.Delete([]byte("f"))
	reserve("g", size, true)
}

func TestRetainedNeedsATopicAndBounds(t *testing.T) {
	x := newRetained(t, 1)
	require.ErrorIs(t, x.Set(&RetainedMessage{Payload: []byte("x")}), ErrNoRetainedTopic)
	require.ErrorIs(t, x.Set(&RetainedMessage{Topic: make([]byte, 1<<16), Payload: []byte("x")}), ErrNoRetainedTopic)
	x.Delete(nil)
	for _, bad := range []RetainedConfig{{Messages: 0, Bytes: 1}, {Messages: 1}} {
		_, err := NewRetained(bad)
		require.Error(t, err)
	}
}

// TestSubscriberIsServedWhenWhatWasAcknowledgedIsThere and has its SUBACK before. Who unsubscribes meanwhile gets nothing.
func TestSubscriberIsServedWhenWhatWasAcknowledgedIsThere(t *testing.T) {
	asked, there := make(chan []string), make(chan struct{})
	x, err := NewRetained(RetainedConfig{Messages: 10, Bytes: 1 << 20, CatchUp: func(ctx context.Context, filters []string, _ any) error {
		asked <- filters
		select {
		case <-there:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- x.Run(ctx) }() // ends with ctx
	w := newWorld(t, func(c *Config) { c.Retained = x })
	x.keep(t, "t", "old", 0)
	c := w.device(5, "dev")
	c.suback(0, "t", "u")
	require.Equal(t, []string{"t", "u"}, <-asked)
	c.ping() // nothing came
	c.suback(0, "v")
	c.suback(0, "v")
	x.keep(t, "t", "new", 0)
	x.keep(t, "v", "v", 0)
	c.send(packet(0xA2, uint16(2), props(), str("v")))
	c.expect(packet(0xB0, uint16(2), props(), 0))
	c.suback(0, "w")
	there <- struct{}{}
	c.expect(pub{topic: "t", payload: "new", retain: true}.packet(5))
	require.Equal(t, []string{"w"}, <-asked)
	stop()
	require.NoError(t, <-ended)
	c.suback(0, "t")
	c.ping()
}
