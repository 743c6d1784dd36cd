package mqtt

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestFullQueueLeavesCommandsInTheStore(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := keeping(t, func(c *Config) { c.CommandsInFlight, c.CommandsQueued = 1, 4 })
		c, k := w.promptly(persistent(v, "dev"), 1)
		for i := range 5 {
			w.placed(1, int64(i), fmt.Sprint(i), byte(1-i/4)) // the last with QoS 0
		}
		for i := 5; i < 8; i++ {
			cmd := &Command{Topic: []byte("t"), Payload: []byte(fmt.Sprint(i)), Place: Place{1, int64(i)}, To: "dev"}
			w.put(cmd)
			require.Equal(t, Reach{Later: true}, w.s.Send(cmd))
		}
		w.placed(2, 0, "another stream", 1)
		c.gets(0, 1, 1, 1)
		require.Zero(t, k.told(&k.lagging), "there is no room")
		require.ElementsMatch(t, []Place{{1, 5}, {2, 0}}, k.o.Session.Behind())
		require.ElementsMatch(t, []Place{{1, 0}, {2, 0}}, k.snapshot().Next)
		c.send(puback(1))
		c.gets(1, 1, 1, 2)
		c.ping()
		require.Zero(t, k.told(&k.lagging))
		c.send(puback(2))
		c.gets(2, 1, 1, 3)
		c.ping()
		require.Equal(t, 1, k.told(&k.lagging))
		require.False(t, w.replayAll("dev", 1, 12), "full again")
		c.send(puback(3))
		c.gets(3, 1, 1, 4)
		c.send(puback(4))
		c.gets(4, 3, 0, 0)
		c.ping()
		require.Equal(t, 2, k.told(&k.lagging))
		require.True(t, w.replayAll("dev", 1, 8))
		c.gets(7, 1, 0, 0)
		require.True(t, w.replayAll("dev", 2, 1))
		c.expect(pub{topic: "t", payload: "another stream", qos: 1, id: 5}.packet(v))
		require.Empty(t, w.dropped())
	})
}

func TestLaggingWaitsForTheConnection(t *testing.T) {
	w := keeping(t, nil)
	c, k := w.promptly(persistent(5, "dev"), 0)
	o, conn := w.outbox("dev"), w.holder("dev")
	o.detach() // as before CONNACK
	o.mu.Lock()
	o.fallBehind(Place{1, 0})
	o.mu.Unlock()
	w.placed(2, 0, "0", 0)
	w.pass(1)
	_, ok := k.o.Session.Join(1)
	require.False(t, ok)
	require.Zero(t, k.told(&k.lagging), "nobody could be given anything")
	o.attach(conn)
	w.s.Flush()
	c.gets(0, 1, 0, 0)
	require.Equal(t, 1, k.told(&k.lagging))
}

// TestRoomThatOthersMakeIsTold: nothing happens to the session itself that would tell it.
func TestRoomThatOthersMakeIsTold(t *testing.T) {
	w := keeping(t, func(c *Config) { c.CommandMemory = 32 << 10 })
	w.v.setPrompt(true)
	c := w.subscribed(5, "dev", 1)
	k := w.v.keeper("dev")
	var hogs []*client
	for i := range commandShare {
		hog := w.stored(5, fmt.Sprint("hog", i))
		hog.subscribe("h", 1)
		hogs = append(hogs, hog)
	}
	for i := range commandShare {
		for range 4 { // the most that one may hold
			w.send(&Command{Topic: []byte("h"), Payload: make([]byte, 400), QoS: 1, To: fmt.Sprint("hog", i)})
		}
	}
	w.placed(1, 0, "0", 1)
	require.Equal(t, []Place{{1, 0}}, k.o.Session.Behind())
	require.False(t, w.replayAll("dev", 1, 1))
	told := k.told(&k.lagging)
	for _, hog := range hogs {
		hog.lost()
	}
	until(t, "room", func() bool { return w.s.held.Load() == 0 })
	require.Equal(t, told, k.told(&k.lagging))
	w.pass(1)
	require.Equal(t, told+1, k.told(&k.lagging))
	require.True(t, w.replayAll("dev", 1, 1))
	c.gets(0, 1, 1, 1)
}

// TestCommandsForTheConnectedAloneAreNotReplayed, so they neither wait behind a replay nor stand in a snapshot.
func TestCommandsForTheConnectedAloneAreNotReplayed(t *testing.T) {
	w := keeping(t, nil)
	w.deposits(deposit{snapshot: Snapshot{Subscriptions: []Subscription{{Filter: "t", QoS: 1}}, Next: []Place{{1, 0}}}})
	w.records(0, 1)
	c := w.stored(5, "dev")
	k := w.v.keeper("dev")
	for i := range 2 * mostDone {
		w.put(&Command{Topic: []byte("t"), Payload: []byte("now"), Connected: true, Place: Place{1, int64(2 + i)}})
		c.expect(pub{topic: "t", payload: "now"}.packet(5))
	}
	require.Empty(t, k.snapshot().Done)
	require.Equal(t, []Place{{1, 0}}, k.snapshot().Next)
	w.v.mu.Lock()
	for p := range w.v.records {
		if p.Offset > 1 {
			delete(w.v.records, p) // the owner does not replay them
		}
	}
	w.v.mu.Unlock()
	require.True(t, w.replayAll("dev", 1, 2*mostDone+2))
	c.gets(0, 2, 1, 1)
}

func TestReplayGoesOnlyToThoseWhoJoined(t *testing.T) {
	w := keeping(t, nil)
	w.records(0, 1, 2, 3)
	w.deposits(deposit{snapshot: Snapshot{Subscriptions: []Subscription{{Filter: "t"}}, Next: []Place{{1, 2}}}})
	c := w.stored(5, "dev")
	c.ping() // CONNACK comes before the session is the connection's
	s := w.v.keeper("dev").o.Session
	play := func(from, next int64) {
		for ; from < next; from++ {
			w.v.mu.Lock()
			cmd := w.v.copyOf(Place{1, from})
			w.v.mu.Unlock()
			w.replay(cmd)
		}
	}
	play(0, 4)
	require.False(t, s.Passed(1, 4), "it has not joined")
	require.Equal(t, []Place{{1, 2}}, s.Behind())
	from, ok := s.Join(1)
	require.True(t, ok)
	require.Equal(t, int64(2), from)
	_, ok = s.Join(2)
	require.False(t, ok, "not behind on this one")
	play(0, 3)
	require.True(t, s.Passed(1, 3))
	require.False(t, s.GoLive(1, 4, false))
	play(0, 4) // once is enough
	w.s.Flush()
	c.gets(2, 2, 0, 0)
	c.ping()
	require.True(t, s.GoLive(1, 4, false))
	require.True(t, s.GoLive(1, 4, false))
	w.placed(1, 3, "3", 0) // the dispatcher comes to it later
	w.placed(1, 4, "4", 0)
	c.gets(4, 1, 0, 0)
	c.ping()
}

// A relay appends to one stream in one goroutine, as Send's caller does, and replays it in another.
type relay struct {
	*keptWorld
	all   []*Command // the numbers of their payloads are their offsets
	chunk int

	mu   sync.Mutex // held during Send
	next int        // how many of all were appended
}

// TestReplayMeetsSendExactly: whatever falls behind and how often, a device gets each command that matches once and in
// order, with every QoS.
func TestReplayMeetsSendExactly(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rng := rand.New(rand.NewPCG(1, rapid.Uint64().Draw(rt, "seed")))
		r := &relay{chunk: rapid.IntRange(1, 20).Draw(rt, "chunk")}
		window, queue := rapid.IntRange(1, 6).Draw(rt, "window"), rapid.IntRange(1, 6).Draw(rt, "queue")
		memory := rapid.SampledFrom([]int64{1 << 20, 40 << 10}).Draw(rt, "memory")
		r.keptWorld = keeping(drawn{t, rt}, func(c *Config) {
			c.CommandsInFlight, c.CommandsQueued, c.CommandMemory = window, queue, memory
		})
		r.v.setPrompt(true)
		before := rapid.IntRange(0, 40).Draw(rt, "before")
		from := rapid.IntRange(0, before).Draw(rt, "from")
		want := r.plan(rng, before+rapid.IntRange(1, 150).Draw(rt, "commands"), from)
		r.extend(before)
		r.deposits(deposit{snapshot: Snapshot{
			Subscriptions: []Subscription{{Filter: "t", QoS: byte(rapid.IntRange(0, 2).Draw(rt, "QoS"))}},
			Next:          []Place{{1, int64(from)}},
		}})
		c := r.stored(5, "dev")
		stop := make(chan struct{})
		var parts sync.WaitGroup
		parts.Go(func() { r.replays(stop) })
		parts.Go(func() { r.extend(len(r.all)) })
		defer parts.Wait()
		defer close(stop)
		require.Equal(rt, want, c.numbers(rng, len(want)))
		c.noPublish()
	})
}

// noPublish holds that no PUBLISH is on its way.
func (c *client) noPublish() {
	c.t.Helper()
	c.send(pingreq)
	for first, _ := c.read(); first != 0xD0; first, _ = c.read() {
		require.Equal(c.t, byte(typePubrel), first>>4)
	}
}

// plan makes n commands and gives the numbers of those from an offset on that match.
func (r *relay) plan(rng *rand.Rand, n, from int) (want []int) {
	want = []int{}
	for i := range n {
		c := &Command{Topic: []byte("t"), Payload: []byte(strconv.Itoa(i)), QoS: byte(rng.IntN(3)), Place: Place{1, int64(i)}}
		switch {
		case rng.IntN(4) == 0:
			c.Topic = []byte("other")
		case i >= from:
			want = append(want, i)
		}
		r.all = append(r.all, c)
	}
	return want
}

// extend appends until there are n.
func (r *relay) extend(n int) {
	for i := r.next; i < n; i++ {
		r.mu.Lock()
		r.put(r.all[i])
		r.next = i + 1
		r.mu.Unlock()
		if i%7 == 0 {
			runtime.Gosched()
		}
	}
}

// replays gives the device what it is behind on, whenever it has room, until stop.
func (r *relay) replays(stop chan struct{}) {
	second := time.NewTicker(5 * time.Millisecond) // the server's, which is longer
	defer second.Stop()
	for {
		select {
		case <-stop:
			return
		case <-second.C:
			r.s.sweep(time.Now())
			continue
		case <-r.v.lagging:
		}
		s := r.v.keeper("dev").o.Session
		from, ok := s.Join(1)
		for at := int(from); ok; {
			at, ok = r.replayChunk(s, at)
		}
	}
}

// replayChunk replays from an offset on; false: the device has left the replay, or gets the rest by Send.
func (r *relay) replayChunk(s *Session, at int) (int, bool) {
	r.mu.Lock()
	next := r.next
	r.mu.Unlock()
	for end := min(next, at+r.chunk); at < end; at++ {
		r.v.mu.Lock()
		c := r.v.copyOf(Place{1, int64(at)})
		r.v.mu.Unlock()
		r.replay(c)
	}
	r.s.Flush()
	if !s.Passed(1, int64(at)) {
		return at, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return at, !s.GoLive(1, int64(r.next), false)
}

// numbers takes n commands at a speed of its own and gives their numbers in order.
func (c *client) numbers(rng *rand.Rand, n int) []int {
	c.t.Helper()
	got, answers := []int{}, []byte(nil)
	for len(got) < n {
		if c.in.Buffered() == 0 || rng.IntN(3) == 0 {
			c.send(answers)
			answers = nil
		}
		first, body := c.read()
		if first>>4 == typePubrel {
			answers = append(answers, pubcomp(binary.BigEndian.Uint16(body))...)
			continue
		}
		require.Zero(c.t, first&8, "sent again")
		body = body[3:]
		if qos := first >> 1 & 3; qos > 0 {
			answers = append(answers, packet(0x30+0x10*int(qos), body[:2])...)
			body = body[2:]
		}
		number, err := strconv.Atoi(string(body[1:])) // no properties
		require.NoError(c.t, err)
		got = append(got, number)
	}
	return got
}

// TestCommandRightAfterCONNACKIsForAConnectedDevice: who is told that it is connected gets what is for those alone who are.
func TestCommandRightAfterCONNACKIsForAConnectedDevice(t *testing.T) {
	w := keeping(t, nil)
	w.deposits(deposit{snapshot: Snapshot{Subscriptions: []Subscription{{Filter: "t", QoS: 1}}, Next: []Place{{1, 0}}}})
	w.records(0, 1)
	for i := range 500 {
		c := w.stored(5, "dev")
		w.put(&Command{Topic: []byte("t"), Payload: []byte("now"), Connected: true, Place: Place{1, int64(2 + i)}})
		c.expect(pub{topic: "t", payload: "now"}.packet(5))
		c.lost()
	}
}

// TestWhoHoldsTheMostItMayIsNotToldOfRoom: it would be replayed the same command at once, in vain, and again. It is told when
// it has answered half, and once a second, since others may have made room.
func TestWhoHoldsTheMostItMayIsNotToldOfRoom(t *testing.T) {
	w := keeping(t, func(c *Config) { c.CommandMemory = 64 << 10 })
	c, k := w.promptly(persistent(5, "dev"), 1)
	for i := range 12 {
		w.put(&Command{Topic: []byte("t"), Payload: make([]byte, 1000), QoS: 1, Place: Place{1, int64(i)}})
	}
	require.Equal(t, []Place{{1, 5}}, k.o.Session.Behind())
	require.Zero(t, k.told(&k.lagging), "there is no room")
	for range 5 {
		c.read()
	}
	for i, told := range []int{0, 0, 1} {
		c.send(puback(uint16(i + 1)))
		c.ping()
		require.Equal(t, told, k.told(&k.lagging), "%d answered", i+1)
	}
	require.False(t, w.replayAll("dev", 1, 12), "full again")
	require.Equal(t, 1, k.told(&k.lagging))
	w.pass(1)
	require.Equal(t, 2, k.told(&k.lagging))
}

// TestWhatIsOverNeedsNoRoom: whoever waits for its receipt hears of it though the device takes nothing.
func TestWhatIsOverNeedsNoRoom(t *testing.T) {
	w := keeping(t, func(c *Config) { c.CommandMemory = 64 << 10 })
	c, k := w.promptly(persistent(5, "dev"), 1)
	put := func(offset int64, expires time.Time) *Command {
		return w.put(&Command{Topic: []byte("t"), Payload: make([]byte, 3000), QoS: 1, Expires: expires, Place: Place{1, offset}})
	}
	put(0, time.Time{})
	put(1, time.Time{})
	w.became(put(2, past()), "dev expired")
	require.Empty(t, k.o.Session.Behind())
	put(3, time.Time{})
	require.Equal(t, []Place{{1, 3}}, k.o.Session.Behind())
	for id := range uint16(2) {
		c.read()
		c.send(puback(id + 1))
	}
	c.ping()
	require.Equal(t, []Place{{1, 3}}, k.snapshot().Next)
}
