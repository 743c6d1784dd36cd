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

// fill makes n retained messages, whose topics are in the order of their numbers.
func (x *Retained) fill(t testing.TB, n int, qos byte, payload string) {
	t.Helper()
	for i := range n {
		x.keep(t, numbered(i), payload, qos)
	}
}

func numbered(i int) string { return fmt.Sprintf("t/%07d", i) }

// TestDeviceThatDoesNotReadTakesNoMemory: it subscribes to 100 000 retained messages and reads none, or answers none.
// Others get theirs meanwhile, and it gets all of them later.
func TestDeviceThatDoesNotReadTakesNoMemory(t *testing.T) {
	const n = 100_000
	payload := strings.Repeat("0123456789", 10) // all of it is more than what buffers of sockets hold
	for qos := range 3 {
		w, x := retaining(t, func(c *Config) { c.CommandsInFlight = 100 })
		x.fill(t, n, 2, payload)
		slow := w.device(5, "slow")
		slow.suback(qos, "#")
		o := w.outbox("slow")
		state := func() (queued, flying, handouts int) {
			o.mu.Lock()
			defer o.mu.Unlock()
			return len(o.queue), len(o.flight), len(o.handouts)
		}
		until(t, "it is full", func() bool { queued, _, _ := state(); return queued > 0 })
		before := heap()
		for i := range 20 {
			c := w.device(4, fmt.Sprint("other", i))
			c.suback(0, "t/+")
			for i := range 200 {
				c.expect(pub{topic: numbered(i), payload: payload, retain: true}.packet(4))
			}
			_ = c.nc.Close()
		}
		queued, flying, handouts := state()
		require.LessOrEqual(t, queued, portionMessages)
		require.LessOrEqual(t, flying, 100)
		require.Equal(t, 1, handouts)
		require.Less(t, w.s.held.Load(), int64(2<<20), "connections that close may still have theirs")
		require.Less(t, heap(), before+(8<<20))
		for next := 0; next < n && (qos < 2 || next < 2000); { // QoS 2 is slow indeed
			next += slow.obey(qos, next)
		}
	}
}

// obey takes a packet of a handout and answers it; it gives 1 if it is the PUBLISH with that number.
func (c *client) obey(qos, number int) int {
	c.t.Helper()
	first, body := c.read()
	r := cursor{b: body}
	if first == 0x62 {
		c.send(pubcomp(r.uint16()))
		return 0
	}
	require.Equal(c.t, byte(0x31|qos<<1), first&^8)
	topic := string(r.string())
	switch qos {
	case 1:
		c.send(puback(r.uint16()))
	case 2:
		c.send(pubrec(r.uint16()))
	}
	if first&8 != 0 && topic < numbered(number) {
		return 0
	}
	require.Equal(c.t, numbered(number), topic)
	return 1
}

// TestHandoutGoesOnAfterAReconnect: a session that outlives its connection gets the rest on the next one, without a Store too.
func TestHandoutGoesOnAfterAReconnect(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		const n = 500
		w, x := retaining(t, nil)
		x.fill(t, n, 1, "x")
		c := w.stored(v, "dev")
		c.suback(1, "t/#")
		next := 0
		for next < n {
			for i := 0; i < 90 && next < n; i++ {
				next += c.obey(1, next)
			}
			w.drop("dev")
			c = w.stored(v, "dev")
			require.True(t, c.present())
		}
		require.Zero(t, w.handouts())
	})
}

func TestUnsubscribeEndsTheHandout(t *testing.T) {
	w, x := retaining(t, func(c *Config) { c.CommandsInFlight = 1 })
	x.fill(t, 10*portionMessages, 1, "x")
	c := w.device(4, "dev")
	c.suback(1, "t/#")
	first, body := c.read()
	require.Equal(t, byte(0x33), first)
	c.send(packet(0xA2, uint16(3), str("t/#")))
	c.expect(c.unsuback(3, Success))
	r := cursor{b: body}
	r.string()
	c.send(puback(r.uint16()))
	for i := 1; i < portionMessages; i++ { // what waits for it is still sent (section 3.10.4)
		require.Equal(t, 1, c.obey(1, i))
	}
	w.fence(c)
}

// TestHandoutWaitsForMemory that other devices take, and goes on.
func TestHandoutWaitsForMemory(t *testing.T) {
	w, x := retaining(t, func(c *Config) { c.CommandMemory = 16 << 10 })
	x.keep(t, "a", "x", 0)
	w.s.held.Add(w.s.cfg.CommandMemory) // all others together
	c := w.device(5, "dev")
	c.suback(0, "a")
	o := w.outbox("dev")
	until(t, "it waits", func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		return o.parked
	})
	c.ping()
	w.s.held.Add(-w.s.cfg.CommandMemory)
	c.expect(pub{topic: "a", payload: "x", retain: true}.packet(5))
}

// TestMessageThatIsTooLargeDoesNotHoldUpTheRest: for the device, or for all memory there is.
func TestMessageThatIsTooLargeDoesNotHoldUpTheRest(t *testing.T) {
	w, x := retaining(t, func(c *Config) { c.CommandMemory = 16 << 10 })
	x.keep(t, "a", string(make([]byte, 32<<10)), 0)
	x.keep(t, "b", string(make([]byte, 300)), 0)
	x.keep(t, "c", "x", 0)
	c := w.connect(hello{version: 5, id: "dev", props: cat(0x27, uint32(100))})
	c.suback(0, "#")
	c.expect(pub{topic: "c", payload: "x", retain: true}.packet(5))
	w.fence(c)
	require.Equal(t, 2, int(testutil.ToFloat64(x.m.settled[Dropped])))
	until(t, "counted", func() bool { return testutil.ToFloat64(x.m.settled[Sent]) == 1 })
}

// TestCommandsGoOnDuringAHandout, and the newest value is what is handed out.
func TestCommandsGoOnDuringAHandout(t *testing.T) {
	w, x := retaining(t, func(c *Config) { c.CommandsInFlight = 1 })
	d := w.dispatcher()
	x.fill(t, 100, 1, "old")
	c := w.device(5, "dev")
	c.suback(1, "t/#")
	first, _ := c.read()
	require.Equal(t, byte(0x33), first)
	x.keep(t, numbered(99), "new", 1)
	x.Delete([]byte(numbered(98)))
	d.command("t/live", "now", 1)
	var live, last string
	for id := uint16(1); ; id++ {
		c.send(puback(id))
		if id == 100 {
			break
		}
		first, body := c.read()
		r := cursor{b: body}
		topic := string(r.string())
		_, _ = r.uint16(), r.take(r.varint())
		if topic == "t/live" {
			live = string(r.b)
			require.Equal(t, byte(0x32), first)
			require.Less(t, id, uint16(2*portionMessages), "it waits for the portion before it and not for all of them")
		} else {
			last = topic + string(r.b)
		}
	}
	w.fence(c)
	require.Equal(t, "now", live)
	require.Equal(t, numbered(99)+"new", last)
}

// saving is a Store with sessions that are stored when the test says so.
// Admits lets everybody have every client ID.
func (*saving) Admits(string, string) bool { return true }

func (*saving) Full() bool { return false }

type saving struct {
	session *Session
	changed chan struct{}
}

func (s *saving) Open(_ context.Context, o *Opening) (*Opened, error) {
	s.session = o.Session
	return &Opened{Keeper: s}, nil
}

func (s *saving) Changed()                     { s.changed <- struct{}{} }
func (s *saving) Progressed()                  {}
func (s *saving) Lagging()                     {}
func (s *saving) Released(uint16, func()) bool { return false }
func (s *saving) Left(*Leaving)                {}
func (s *saving) Streams() ([]int32, func(int32) (int64, bool)) {
	return nil, func(int32) (int64, bool) { return 0, false }
}

// TestStoredSessionGetsItsSubackFirst, which waits until the subscription is stored.
func TestStoredSessionGetsItsSubackFirst(t *testing.T) {
	store := &saving{changed: make(chan struct{}, 100)}
	w, x := retaining(t, func(c *Config) { c.Store = store })
	x.keep(t, "t", "x", 0)
	c := w.stored(5, "dev")
	c.send(packet(0x82, uint16(9), props(), str("t"), 0))
	<-store.changed
	c.ping() // neither SUBACK nor PUBLISH
	s := store.session.Snapshot(nil, nil)
	require.Len(t, s.Subscriptions, 1)
	store.session.Saved(s.Version)
	c.expect(packet(0x90, uint16(9), props(), 0), pub{topic: "t", payload: "x", retain: true}.packet(5))
	w.fence(c)
}

// TestManySubscribersAreServedInTurn: each gets all of it.
func TestManySubscribersAreServedInTurn(t *testing.T) {
	w, x := retaining(t, nil)
	const n, devices = 300, 30
	x.fill(t, n, 0, "x")
	var all []*client
	for i := range devices {
		c := w.device(4, fmt.Sprint("dev", i))
		c.send(packet(0x82, uint16(9), str("t/+"), 0))
		all = append(all, c)
	}
	for _, c := range all {
		c.expect(packet(0x90, uint16(9), 0))
		for i := range n {
			c.expect(pub{topic: numbered(i), payload: "x", retain: true}.packet(4))
		}
		w.fence(c)
	}
	require.Equal(t, n*devices, int(testutil.ToFloat64(x.m.settled[Sent])))
}

// TestShutdownEndsHandouts in the middle.
func TestShutdownEndsHandouts(t *testing.T) {
	w, x := retaining(t, nil)
	x.fill(t, 10_000, 1, "x")
	for i := range 5 {
		w.device(5, fmt.Sprint("dev", i)).suback(1, "#")
		w.stored(5, fmt.Sprint("kept", i)).suback(1, "#")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	w.s.Shutdown(ctx)
	require.Zero(t, w.s.held.Load())
	require.Zero(t, w.handouts())
}
