package mqtt

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

// A sharing world is a dispatcher whose shares are fed by the test.
type shareWorld struct {
	*dispatcher
	x    *Shares
	stop func()

	mu    sync.Mutex
	feeds map[string]*feed
	last  func() // is called at the end of a feed; nil: nothing
}

// A feed is a call of SharesConfig.Feed that is under way.
type feed struct {
	*Share
	ctx context.Context
}

// shared is commands with shared subscriptions.
func shared(t testing.TB, change func(*Config)) *shareWorld {
	t.Helper()
	return sharedWith(t, 100, change)
}

func sharedWith(t testing.TB, most int, change func(*Config)) *shareWorld {
	t.Helper()
	return sharedIn(t, most, func(shares func(*Config)) *dispatcher {
		return commands(t, func(c *Config) {
			shares(c)
			if change != nil {
				change(c)
			}
		})
	})
}

// sharedIn has shared subscriptions in the server that start makes.
func sharedIn(t testing.TB, most int, start func(shares func(*Config)) *dispatcher) *shareWorld {
	t.Helper()
	w := &shareWorld{feeds: map[string]*feed{}}
	var err error
	w.x, err = NewShares(SharesConfig{Most: most, PerDevice: most, Feed: w.feed})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	w.dispatcher = start(func(c *Config) { c.Shares = w.x })
	go func() { ended <- w.x.Run(ctx) }() // ends with stop
	w.stop = sync.OnceFunc(func() { stop(); require.NoError(t, <-ended) })
	t.Cleanup(w.stop)
	return w
}

func (w *shareWorld) feed(ctx context.Context, s *Share) {
	w.mu.Lock()
	w.feeds[s.key] = &feed{s, ctx}
	w.mu.Unlock()
	<-ctx.Done()
	w.mu.Lock()
	delete(w.feeds, s.key)
	last := w.last
	w.mu.Unlock()
	if last != nil {
		last()
	}
}

// share waits until the share of a filter is fed.
func (w *shareWorld) share(filter string) (f *feed) {
	w.t.Helper()
	until(w.t, "the share is fed", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		f = w.feeds[filter]
		return f != nil && f.ctx.Err() == nil
	})
	return f
}

// give sends a command to the share of "$share/g/t".
func (w *shareWorld) give(payload string, qos byte) *Command {
	w.t.Helper()
	c := &Command{Topic: []byte("t"), Payload: []byte(payload), QoS: qos}
	w.sendShared(c)
	return c
}

func (w *shareWorld) sendShared(c *Command) {
	w.t.Helper()
	w.sendHeld(w.share("$share/g/t").ctx, c)
}

// sendHeld is sendShared for as long as ctx.
func (w *shareWorld) sendHeld(ctx context.Context, c *Command) {
	w.t.Helper()
	c.Owner = w.dispatcher
	w.dispatcher.mu.Lock()
	w.counted[c]++
	w.promised++
	w.dispatcher.mu.Unlock()
	f := w.share("$share/g/t")
	require.True(w.t, f.Matches(c.Topic))
	f.Send(ctx, c)
	w.s.Flush()
}

// member connects and subscribes to "$share/g/t".
func (w *shareWorld) member(v byte, id string, qos int) *client {
	w.t.Helper()
	c := w.stored(v, id)
	c.subscribe("$share/g/t", qos)
	return c
}

// gives says that the share has n members with room.
func (w *shareWorld) members(n int) {
	w.t.Helper()
	s := w.share("$share/g/t")
	until(w.t, "members with room", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.ready) == n
	})
}

func TestSharedCommandsGoToOneMemberEachInTurn(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := shared(t, nil)
		var devices []*client
		for i := range 3 {
			devices = append(devices, w.member(v, fmt.Sprint("dev", i), 1))
			w.members(i + 1)
		}
		w.device(v, "other").subscribe("$share/h/t", 1)
		for i := range 9 {
			cmd := w.give(fmt.Sprint(i), 1)
			c := devices[i%3]
			c.gets(i, 1, 1, uint16(1+i/3))
			c.send(puback(uint16(1 + i/3)))
			w.became(cmd, fmt.Sprintf("dev%d delivered", i%3))
			w.wasSent(cmd, 1)
		}
		for _, c := range devices {
			c.ping()
		}
		require.True(t, w.share("$share/g/t").Idle())
	})
}

// TestSharedSubscriptionsGetNothingOfOrdinaryCommands: their commands come by their share alone.
func TestSharedSubscriptionsGetNothingOfOrdinaryCommands(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := shared(t, nil)
		c := w.member(v, "dev", 1)
		for _, topic := range []string{"t", "$share/g/t"} {
			for _, to := range []string{"", "dev"} {
				n, _ := w.send(&Command{Topic: []byte(topic), QoS: 1, To: to})
				require.Zero(t, n)
			}
		}
		c.subscribe("t", 0)
		n, _ := w.send(&Command{Topic: []byte("t"), QoS: 1})
		require.Equal(t, 1, n)
		c.expect(pub{topic: "t"}.packet(v))
		w.give("1", 1) // the other subscription has its own copy
		c.gets(1, 1, 1, 1)
		c.send(puback(1))
		c.ping()
	})
}

func TestSharedCommandHasTheOptionsOfItsSubscription(t *testing.T) {
	w := shared(t, nil)
	c := w.device(5, "dev")
	c.send(packet(0x82, uint16(1), props(0x0B, 7), str("$share/g/t"), 2|8))
	c.expect(packet(0x90, uint16(1), props(), 2))
	w.sendShared(&Command{Topic: []byte("t"), QoS: 2, Retain: true})
	c.expect(pub{topic: "t", qos: 2, id: 1, retain: true, props: cat(0x0B, 7)}.packet(5))
	c.subscribe("$share/g/t", 1) // in its place
	w.sendShared(&Command{Topic: []byte("t"), QoS: 2, Retain: true})
	c.expect(pub{topic: "t", qos: 1, id: 2}.packet(5))
	c.send(pubrec(1))
	c.expect(pubrel(1))
	c.send(pubcomp(1), puback(2))
	require.Equal(t, 1, w.x.len())
}

func TestSharedCommandWaitsForAMemberWithRoom(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := shared(t, func(c *Config) { c.CommandsInFlight = 2 })
		a := w.member(v, "a", 1)
		w.members(1)
		var sent []*Command
		for i := range 5 {
			sent = append(sent, w.give(fmt.Sprint(i), 1))
		}
		a.gets(0, 2, 1, 1)
		a.ping() // no more
		w.waits(sent...)
		a.send(puback(1))
		a.gets(2, 1, 1, 3)
		b := w.member(v, "b", 1) // has room at once
		b.gets(3, 2, 1, 1)
		a.ping()
		for _, id := range []uint16{2, 3} {
			a.send(puback(id))
		}
		b.send(puback(1), puback(2))
		for i, who := range []string{"a", "a", "a", "b", "b"} {
			w.became(sent[i], who+" delivered")
		}
	})
}

func TestQoSOfSharedCommandsMayDiffer(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := shared(t, func(c *Config) { c.CommandsInFlight = 1 })
		zero := w.member(v, "zero", 0)
		w.members(1)
		two := w.member(v, "two", 2)
		w.members(2)
		a, b, c := w.give("0", 2), w.give("1", 2), w.give("2", 2)
		zero.expect(command(0, 0, 0).packet(v))
		two.gets(1, 1, 2, 1)
		zero.expect(command(2, 0, 0).packet(v))
		d := w.give("3", 2) // the window of one is full, the other needs none
		zero.expect(command(3, 0, 0).packet(v))
		two.send(pubrec(1))
		two.expect(pubrel(1))
		two.send(pubcomp(1))
		for cmd, want := range map[*Command]string{a: "zero sent", b: "two delivered", c: "zero sent", d: "zero sent"} {
			w.became(cmd, want)
		}
	})
}

func TestSharedCommandThatWaitsCanEnd(t *testing.T) {
	w := shared(t, func(c *Config) { c.CommandsInFlight = 1 })
	a := w.member(5, "a", 1)
	w.members(1)
	w.give("0", 1)
	a.gets(0, 1, 1, 1)
	ours, end := context.WithCancel(w.share("$share/g/t").ctx)
	defer end()
	cancelled, stays := w.give("cancelled", 1), w.give("stays", 1)
	expired := &Command{Topic: []byte("t"), QoS: 1, Expires: past()}
	w.sendShared(expired)
	foreign := &Command{Topic: []byte("t"), QoS: 1, Owner: w.dispatcher}
	w.dispatcher.mu.Lock()
	w.promised++
	w.counted[foreign]++
	w.dispatcher.mu.Unlock()
	w.share("$share/g/t").Send(ours, foreign)
	cancelled.Cancel()
	end()
	w.x.sweep(time.Now())
	w.became(cancelled, " cancelled")
	w.became(expired, " expired")
	w.became(foreign, " kept")
	w.waits(stays)
	a.send(puback(1))
	a.expect(pub{topic: "t", payload: "stays", qos: 1, id: 2}.packet(5))
}

func TestSharedCommandTooLargeForItsMemberIsDropped(t *testing.T) { // [MQTT-3.1.2-25]
	w := shared(t, nil)
	c := w.connect(hello{version: 5, id: "a", props: cat(0x27, uint32(30))})
	c.subscribe("$share/g/t", 1)
	cmd := w.give("this does not fit into thirty bytes", 1)
	w.became(cmd, "a dropped: "+reasonTooLarge)
	next := w.give("0", 1)
	c.gets(0, 1, 1, 1)
	c.send(puback(1))
	w.became(next, "a delivered")
}

func TestSharesAreBounded(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := sharedWith(t, 2, nil)
		full := map[byte]Code{4: 0x80, 5: QuotaExceeded}[v]
		a, b := w.device(v, "a"), w.device(v, "b")
		a.send(packet(0x82, uint16(5), a.none(), str("$share/g/1"), 1, str("$share/g/2"), 1, str("$share/g/3"), 1, str("$share/h/1"), 1))
		a.expect(packet(0x90, uint16(5), a.none(), 1, 1, full, full))
		b.subscribe("$share/g/1", 1) // one that there is
		require.Equal(t, 2, w.x.len())
		a.send(packet(0xA2, uint16(6), a.none(), str("$share/g/2")))
		a.expect(a.unsuback(6, Success))
		until(t, "room", func() bool { return w.x.len() == 1 })
		b.subscribe("$share/h/1", 1)
	})
}

// TestOneDeviceHasSoManyShares, those included that it has left not long ago, and it leaves some for others.
func TestOneDeviceHasSoManyShares(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := sharedWith(t, 100, nil)
		w.x.cfg.PerDevice, w.x.cfg.Linger = 2, time.Hour
		full := map[byte]Code{4: 0x80, 5: QuotaExceeded}[v]
		a := w.device(v, "a")
		asks := func(c *client, filter string, code Code) {
			t.Helper()
			c.send(packet(0x82, uint16(5), c.none(), str(filter), 1))
			c.expect(packet(0x90, uint16(5), c.none(), code))
		}
		asks(a, "$share/g/1", 1)
		asks(a, "$share/g/2", 1)
		asks(a, "$share/g/3", full)
		asks(a, "$share/g/1", 1)
		asks(w.device(v, "b"), "$share/g/3", 1)
		a.send(packet(0xA2, uint16(6), a.none(), str("$share/g/2")))
		a.expect(a.unsuback(6, Success))
		asks(a, "$share/g/3", full)
		asks(a, "$share/g/2", 1)
		w.drop("a")
		a = w.device(v, "a") // clean
		asks(a, "$share/g/4", full)
		asks(a, "$share/g/2", 1)
		w.x.mu.Lock()
		w.x.dues.forgive(time.Now().Add(2 * time.Hour))
		w.x.mu.Unlock()
		asks(a, "$share/g/4", 1)
		asks(a, "$share/g/1", full)
	})
}

// TestShareNamesMayBeGiven: others are refused, and taken from a session that has one.
func TestShareNamesMayBeGiven(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := shared(t, nil)
		w.x.cfg.Allowed = func(group string) bool { return group == "g" || group == "was" }
		denied := map[byte]Code{4: 0x80, 5: NotAuthorized}[v]
		c := w.stored(v, "dev")
		c.send(packet(0x82, uint16(5), c.none(), str("$share/g/t"), 1, str("$share/x/t"), 1, str("$share/was/t"), 1))
		c.expect(packet(0x90, uint16(5), c.none(), 1, denied, 1))
		w.drop("dev")
		w.x.cfg.Allowed = func(group string) bool { return group == "g" }
		c = w.stored(v, "dev")
		require.True(t, c.present())
		c.ping()
		until(t, "one share is left", func() bool { return w.x.len() == 1 })
		w.share("$share/g/t")
	})
}

// TestSharesThatWereLeftAreKeptInMindWithinABound.
func TestSharesThatWereLeftAreKeptInMindWithinABound(t *testing.T) {
	d, now := newShareDues(), time.Now()
	for i := range mostShareDues + 10 {
		id := fmt.Sprint(i)
		d.take(id, "f")
		d.leave(id, "f", now)
	}
	require.Equal(t, mostShareDues, d.left.Len())
	require.Len(t, d.devices, mostShareDues)
	require.True(t, d.mayTake("0", "g", 1))
	require.False(t, d.mayTake("10", "g", 1))
	d.forgive(now)
	require.Empty(t, d.devices)
}

func TestSharedSubscriptionsAreOfferedWhereThereAreAny(t *testing.T) {
	offered := func(w *world) bool {
		c := w.device(5, "dev")
		r := cursor{b: c.connack[2:]}
		var rest = r.take(r.varint())
		for i := range rest {
			if rest[i] == 0x2A {
				return rest[i+1] == 1
			}
		}
		return true
	}
	require.False(t, offered(newWorld(t, nil)))
	require.True(t, offered(shared(t, nil).world))
}

func TestSharedSubscriptionMayNotAskForNoLocal(t *testing.T) { // [MQTT-3.8.3-4]
	w := shared(t, nil)
	c := w.device(5, "dev")
	c.send(packet(0x82, uint16(1), props(), str("$share/g/t"), 1|4))
	c.goodbye(ProtocolError)
}

func TestSharesNeedRoomAndSomebodyWhoFeeds(t *testing.T) {
	_, err := NewShares(SharesConfig{Feed: func(context.Context, *Share) {}})
	require.Error(t, err)
	_, err = NewShares(SharesConfig{Most: 1, PerDevice: 1})
	require.Error(t, err)
	reg := prometheus.NewRegistry()
	good := SharesConfig{Most: 1, PerDevice: 1, Feed: func(context.Context, *Share) {}, Registerer: reg}
	_, err = NewShares(good)
	require.NoError(t, err)
	_, err = NewShares(good)
	require.Error(t, err, "its metrics are there already")
}

// TestShareHasRoomWhileThereIsMemoryOrNothingUnderWay: what it has, it keeps.
func TestShareHasRoomWhileThereIsMemoryOrNothingUnderWay(t *testing.T) {
	w := shared(t, func(c *Config) { c.CommandMemory = 500 })
	c := w.member(5, "dev", 1)
	w.members(1)
	s := w.share("$share/g/t")
	require.True(t, s.HasRoom())
	cmd := w.give("0", 1)
	require.False(t, s.HasRoom())
	_, _ = c.read()
	c.send(puback(1))
	w.became(cmd, "dev delivered")
	until(t, "room", s.HasRoom)
}
