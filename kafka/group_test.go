package kafka

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// fastSessions lets a test see a session expire.
var fastSessions = kfake.GroupMinSessionTimeout(100 * time.Millisecond)

// A seat notes what a member of a group owns, and fails the test if two own the same partition.
type seat struct {
	t      testing.TB
	room   *room
	g      *Group
	stop   context.CancelFunc
	ended  chan struct{}
	gained int // calls of Assigned
}

// A room is what several members know of each other.
type room struct {
	mu    sync.Mutex
	owner map[spot]*seat
}

func newRoom() *room { return &room{owner: map[spot]*seat{}} }

func (s *seat) assigned(topic string, id int32) {
	s.room.mu.Lock()
	defer s.room.mu.Unlock()
	if before := s.room.owner[spot{topic, id}]; before != nil {
		s.t.Errorf("partition %d of %s is assigned and still owned", id, topic)
	}
	s.room.owner[spot{topic, id}] = s
	s.gained++
}

func (s *seat) revoked(topic string, id int32) {
	s.room.mu.Lock()
	defer s.room.mu.Unlock()
	if s.room.owner[spot{topic, id}] != s {
		s.t.Errorf("partition %d of %s is revoked and not owned", id, topic)
	}
	delete(s.room.owner, spot{topic, id})
}

func (r *room) owned(s *seat) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, owner := range r.owner {
		if owner == s {
			n++
		}
	}
	return n
}

// join runs a member until the test ends or it is left.
func (r *room) join(t testing.TB, cfg GroupConfig) *seat {
	t.Helper()
	s := &seat{t: t, room: r, ended: make(chan struct{})}
	cfg.Assigned, cfg.Revoked = s.assigned, s.revoked
	var err error
	s.g, err = NewGroup(cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	go func() { // ends with cancel
		defer close(s.ended)
		if err := s.g.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	t.Cleanup(s.leave)
	return s
}

func (s *seat) leave() {
	s.stop()
	<-s.ended
}

func groupConfig(brokers []string, topics ...string) GroupConfig {
	return GroupConfig{Config: testConfig(brokers), Name: "g", Topics: topics, SessionTimeout: 1500 * time.Millisecond, Heartbeat: 100 * time.Millisecond,
		RevokeWait: 300 * time.Millisecond}
}

func TestMembersShareThePartitions(t *testing.T) {
	c := fake(t, kfake.NumBrokers(3), kfake.SeedTopics(12, "t"), fastSessions)
	r := newRoom()
	a := r.join(t, groupConfig(c.ListenAddrs(), "t"))
	eventually(t, func() bool { return r.owned(a) == 12 }, "the first has all")
	b := r.join(t, groupConfig(c.ListenAddrs(), "t"))
	eventually(t, func() bool { return r.owned(a) == 6 && r.owned(b) == 6 }, "two have half each")
	require.Len(t, a.g.Owned(), 6)
	require.Equal(t, 12, a.gained, "what stays is not taken away in between")
	d := r.join(t, groupConfig(c.ListenAddrs(), "t"))
	eventually(t, func() bool { return r.owned(a) == 4 && r.owned(b) == 4 && r.owned(d) == 4 }, "three have a third each")
	require.Equal(t, 12+6+4, a.gained+b.gained+d.gained, "only what has to move does")
	b.leave()
	eventually(t, func() bool { return r.owned(a) == 6 && r.owned(d) == 6 }, "what was left is shared")
	require.Empty(t, b.g.Owned())
}

// TestPartitionsOfADeadMemberAreTakenOver: it gives them up by itself before, on its own clock.
func TestPartitionsOfADeadMemberAreTakenOver(t *testing.T) {
	c := fake(t, kfake.SeedTopics(8, "t"), fastSessions)
	r := newRoom()
	a, b := r.join(t, groupConfig(c.ListenAddrs(), "t")), r.join(t, groupConfig(c.ListenAddrs(), "t"))
	eventually(t, func() bool { return r.owned(a) == 4 && r.owned(b) == 4 }, "both have a share")
	b.g.net.close() // no request gets through any more
	b.g.joins.close()
	eventually(t, func() bool { return r.owned(a) == 8 }, "the other takes over")
	require.Zero(t, r.owned(b))
}

func TestMembersGiveUpWhatTheyMayHaveLostDuringAnOutage(t *testing.T) {
	for _, outage := range []mode{down, swallows} {
		t.Run(fmt.Sprint(outage), func(t *testing.T) {
			c, g := gated(t, kfake.SeedTopics(4, "t"), fastSessions)
			r := newRoom()
			a, b := r.join(t, groupConfig(c.ListenAddrs(), "t")), r.join(t, groupConfig(c.ListenAddrs(), "t"))
			eventually(t, func() bool { return r.owned(a) == 2 && r.owned(b) == 2 }, "both have a share")
			g.set(outage)
			eventually(t, func() bool { return r.owned(a)+r.owned(b) == 0 }, "both give it up")
			g.set(passing)
			eventually(t, func() bool { return r.owned(a) == 2 && r.owned(b) == 2 }, "both have a share again")
		})
	}
}

func TestShortOutageTakesNothingAway(t *testing.T) {
	c, g := gated(t, kfake.SeedTopics(4, "t"), fastSessions)
	r := newRoom()
	a := r.join(t, groupConfig(c.ListenAddrs(), "t"))
	eventually(t, func() bool { return r.owned(a) == 4 }, "it has all")
	for range 5 {
		_, before := a.g.member.get()
		alive := func() time.Time { a.g.lock.Lock(); defer a.g.lock.Unlock(); return a.g.alive }
		was := alive()
		g.drop()
		eventually(t, func() bool { return alive().After(was) }, "heartbeats are answered again")
		_, after := a.g.member.get()
		require.Equal(t, before, after)
	}
	require.Equal(t, 4, a.gained)
}

func TestNewPartitionsAreShared(t *testing.T) {
	c := fake(t, kfake.SeedTopics(2, "t"), fastSessions)
	r := newRoom()
	a, b := r.join(t, groupConfig(c.ListenAddrs(), "t", "later")), r.join(t, groupConfig(c.ListenAddrs(), "t", "later"))
	eventually(t, func() bool { return r.owned(a) == 1 && r.owned(b) == 1 }, "both have a share")
	_, err := kadm.NewClient(client(t, c)).UpdatePartitions(t.Context(), 6, "t")
	require.NoError(t, err)
	eventually(t, func() bool { return r.owned(a) == 3 && r.owned(b) == 3 }, "of the new ones too")
	require.NoError(t, c.CreateTopic("later", 2, nil))
	eventually(t, func() bool { return r.owned(a) == 4 && r.owned(b) == 4 }, "and of a topic that was missing")
}

// A desk is where records of a group end up.
type desk struct {
	mu     sync.Mutex
	got    map[int32][]int64 // offsets as they came
	values map[string]int    // how often each came
	keep   bool              // do not settle
	kept   []func()
}

func newDesk() *desk { return &desk{got: map[int32][]int64{}, values: map[string]int{}} }

func (d *desk) handle(_ context.Context, r *Fetched, done func(bool)) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.got[r.Partition] = append(d.got[r.Partition], r.Offset)
	d.values[string(r.Value)]++
	if d.keep {
		d.kept = append(d.kept, func() { done(true) })
	} else {
		done(true)
	}
	return true
}

func (d *desk) count() (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, o := range d.got {
		n += len(o)
	}
	return n
}

func (d *desk) distinct() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.values)
}

func putAll(t testing.TB, cl *kgo.Client, topic string, partitions, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		put(t, cl, topic, i%partitions, fmt.Sprint(i))
	}
}

func TestMembersHandleEachRecordOnce(t *testing.T) {
	c := fake(t, kfake.NumBrokers(2), kfake.SeedTopics(4, "t"), fastSessions)
	cl := client(t, c)
	putAll(t, cl, "t", 4, 0, 4) // before there was a group
	r, d := newRoom(), newDesk()
	cfg := groupConfig(c.ListenAddrs(), "t")
	cfg.Handle = d.handle
	a, b := r.join(t, cfg), r.join(t, cfg)
	eventually(t, func() bool { return r.owned(a) == 2 && r.owned(b) == 2 }, "both have a share")
	begun := func(s *seat) bool {
		s.g.mu.Lock()
		defer s.g.mu.Unlock()
		for _, h := range s.g.owned {
			if h.position() < 0 {
				return false
			}
		}
		return true
	}
	eventually(t, func() bool { return begun(a) && begun(b) }, "it is settled where they begin")
	putAll(t, cl, "t", 4, 4, 404)
	eventually(t, func() bool { return d.count() == 400 }, "all are handled")
	b.leave()
	eventually(t, func() bool { return r.owned(a) == 4 }, "one takes over")
	putAll(t, cl, "t", 4, 404, 804)
	eventually(t, func() bool { return d.count() == 800 }, "it goes on where the other was")
	require.Equal(t, 800, d.distinct(), "none came twice")
	for _, offsets := range d.got {
		require.True(t, slices.IsSorted(offsets))
	}
}

func TestUnsettledRecordsComeAgain(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "t"), fastSessions)
	cl := client(t, c)
	r, d := newRoom(), newDesk()
	d.keep = true
	cfg := groupConfig(c.ListenAddrs(), "t")
	cfg.Handle, cfg.Window = d.handle, 8
	a := r.join(t, cfg)
	eventually(t, func() bool { return len(a.g.Owned()) == 1 && positionOf(a, spot{"t", 0}) >= 0 }, "it has begun")
	putAll(t, cl, "t", 1, 0, 20)
	eventually(t, func() bool { return d.count() == 8 }, "as many as the window takes")
	d.mu.Lock()
	settle := []func(){d.kept[4], d.kept[1], d.kept[0], d.kept[0], d.kept[2]} // 3 is the first that is not
	d.mu.Unlock()
	for _, done := range settle {
		done()
	}
	eventually(t, func() bool { return d.count() == 11 }, "three places are free, and what is settled above counts not")
	a.leave()
	late := newDesk()
	cfg.Handle = late.handle
	b := r.join(t, cfg)
	eventually(t, func() bool { return late.count() == 17 }, "the rest comes to the next")
	require.Equal(t, int64(3), late.got[0][0])
	b.leave()
	offsets, err := kadm.NewClient(cl).FetchOffsets(t.Context(), "g")
	require.NoError(t, err)
	at, _ := offsets.Lookup("t", 0)
	require.Equal(t, int64(20), at.At)
}

// TestWhatIsSettledComesToNobodyAgain though a record before it does: neither to the next member nor to the one after it, which
// comes before the next has seen all of it.
func TestWhatIsSettledComesToNobodyAgain(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "t"), fastSessions)
	cl := client(t, c)
	putAll(t, cl, "t", 1, 0, 12)
	cfg := groupConfig(c.ListenAddrs(), "t")
	cfg.Apart = true
	cfg.Begin = func(string, string, int32) (int64, bool) { return 0, true }
	r := newRoom()
	sit := func(window, expect int, settle ...int) (got []int64) {
		d := newDesk()
		d.keep = true
		cfg.Handle, cfg.Window = d.handle, window
		s := r.join(t, cfg)
		defer s.leave()
		eventually(t, func() bool { return d.count() == expect }, "as many as the window takes")
		d.mu.Lock()
		defer d.mu.Unlock()
		for _, i := range settle {
			d.kept[i]()
		}
		return d.got[0]
	}
	require.Equal(t, []int64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, sit(12, 12, 0, 2, 3, 5, 9, 10))
	require.Equal(t, []int64{1, 4, 6}, sit(6, 3, 1), "1 to 6, of which three were settled, and 4 is now")
	require.Equal(t, []int64{1, 6, 7, 8, 11}, sit(12, 5, 0, 1, 2, 3, 4))
	requireCommitted(t, cl, 12)
}

func positionOf(s *seat, at spot) int64 {
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	if h := s.g.owned[at]; h != nil {
		return h.position()
	}
	return -1
}

// TestFullWindowHoldsBackNoOtherPartition and loses nothing when it opens again.
func TestFullWindowHoldsBackNoOtherPartition(t *testing.T) {
	c := fake(t, kfake.SeedTopics(2, "t"), fastSessions)
	cl := client(t, c)
	var mu sync.Mutex
	var kept []func()
	got := [2]int{}
	cfg := groupConfig(c.ListenAddrs(), "t")
	cfg.Window = 4
	cfg.Handle = func(_ context.Context, r *Fetched, done func(bool)) bool {
		mu.Lock()
		defer mu.Unlock()
		got[r.Partition]++
		if r.Partition == 0 && kept != nil {
			kept = append(kept, func() { done(true) })
		} else {
			done(true)
		}
		return true
	}
	kept = []func(){}
	r := newRoom()
	a := r.join(t, cfg)
	eventually(t, func() bool { return positionOf(a, spot{"t", 0}) >= 0 && positionOf(a, spot{"t", 1}) >= 0 }, "it has begun")
	putAll(t, cl, "t", 2, 0, 2000)
	count := func(i int) int { mu.Lock(); defer mu.Unlock(); return got[i] }
	eventually(t, func() bool { return count(1) == 1000 && count(0) == 4 }, "one waits and the other goes on")
	mu.Lock()
	settle := kept
	kept = nil
	mu.Unlock()
	for _, done := range settle {
		done()
	}
	eventually(t, func() bool { return count(0) == 1000 }, "all come when there is room")
}

// TestWhatIsSettledIsCommittedWhenAMemberLeaves, also while the members are being assembled anew.
func TestWhatIsSettledIsCommittedWhenAMemberLeaves(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "t"), fastSessions)
	cl := client(t, c)
	admin := kadm.NewClient(cl)
	for round := range 10 {
		d := newDesk()
		cfg := groupConfig(c.ListenAddrs(), "t")
		cfg.Handle = d.handle
		r := newRoom()
		a := r.join(t, cfg)
		eventually(t, func() bool { return positionOf(a, spot{"t", 0}) >= 0 }, "it has begun")
		putAll(t, cl, "t", 1, 10*round, 10*(round+1))
		eventually(t, func() bool { return d.distinct() == 10 }, "all are settled")
		late := cfg
		late.Handle = func(context.Context, *Fetched, func(bool)) bool { return false }
		b := r.join(t, late)
		eventually(t, func() bool { id, _ := b.g.member.get(); return id != "" }, "another one joins")
		a.leave()
		offsets, err := admin.FetchOffsets(t.Context(), "g")
		require.NoError(t, err)
		at, _ := offsets.Lookup("t", 0)
		require.Equal(t, int64(10*(round+1)), at.At)
		b.leave()
	}
}

// TestAMemberWhoseSessionMayHaveExpiredHandsNothingOut: what it fetched before it stood still is its successor's.
func TestAMemberWhoseSessionMayHaveExpiredHandsNothingOut(t *testing.T) {
	d := newDesk()
	cfg := groupConfig([]string{"127.0.0.1:1"}, "t")
	cfg.Handle = d.handle
	g, err := NewGroup(cfg)
	require.NoError(t, err)
	h := newHolding(t.Context(), g, spot{"t", 0})
	m := &sarama.ConsumerMessage{Topic: "t"}
	g.seen(time.Now().Add(-cfg.SessionTimeout))
	require.False(t, h.hand(m))
	g.seen(time.Now())
	require.True(t, h.hand(m))
	require.Equal(t, 1, d.count())
}

// TestRecordWithoutRoomIsOfferedAgain, for longer than a session lasts: the member stays one, other partitions go on, and
// when there is room all come once and in order.
func TestRecordWithoutRoomIsOfferedAgain(t *testing.T) {
	c := fake(t, kfake.SeedTopics(2, "t"), fastSessions)
	cl := client(t, c)
	d := newDesk()
	var room atomic.Bool
	var offers atomic.Int64
	cfg := groupConfig(c.ListenAddrs(), "t")
	cfg.Handle = func(ctx context.Context, r *Fetched, done func(bool)) bool {
		if r.Partition == 0 && !room.Load() {
			offers.Add(1)
			return false
		}
		return d.handle(ctx, r, done)
	}
	r := newRoom()
	a := r.join(t, cfg)
	eventually(t, func() bool { return positionOf(a, spot{"t", 0}) >= 0 && positionOf(a, spot{"t", 1}) >= 0 }, "it has begun")
	_, generation := a.g.member.get()
	putAll(t, cl, "t", 2, 0, 100)
	eventually(t, func() bool { return d.count() == 50 && offers.Load() > int64(2*cfg.SessionTimeout/offerAgain) }, "one goes on and the other waits")
	_, after := a.g.member.get()
	require.Equal(t, generation, after)
	require.Equal(t, 2, a.gained)
	room.Store(true)
	eventually(t, func() bool { return d.count() == 100 }, "all come when there is room")
	require.True(t, slices.IsSorted(d.got[0]))
	require.Equal(t, 100, d.distinct())
	a.leave()
	offsets, err := kadm.NewClient(cl).FetchOffsets(t.Context(), "g")
	require.NoError(t, err)
	at, _ := offsets.Lookup("t", 0)
	require.Equal(t, int64(50), at.At)
}

// TestRecordThatIsNotSettledComesAgainWithAllBehindIt, when those before are done, and the member stays one.
func TestRecordThatIsNotSettledComesAgainWithAllBehindIt(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "t"), fastSessions)
	cl := client(t, c)
	d := newDesk()
	d.keep = true
	var dones []func(bool)
	cfg := groupConfig(c.ListenAddrs(), "t")
	cfg.Handle = func(ctx context.Context, r *Fetched, done func(bool)) bool {
		took := d.handle(ctx, r, done)
		d.mu.Lock()
		defer d.mu.Unlock()
		dones = append(dones, done)
		return took
	}
	r := newRoom()
	a := r.join(t, cfg)
	eventually(t, func() bool { return positionOf(a, spot{"t", 0}) >= 0 }, "it has begun")
	putAll(t, cl, "t", 1, 0, 6)
	eventually(t, func() bool { return d.count() == 6 }, "all are handed out")
	d.mu.Lock()
	first := dones
	dones = nil
	d.keep = false
	d.mu.Unlock()
	first[3](false)
	first[4](false)
	for _, i := range []int{5, 0, 1} {
		first[i](true)
	}
	require.Equal(t, 6, d.count(), "one before is open")
	first[2](true)
	eventually(t, func() bool { return d.count() == 9 }, "from there on")
	require.Equal(t, []int64{0, 1, 2, 3, 4, 5, 3, 4, 5}, d.got[0])
	require.Equal(t, 1, a.gained)
}

// TestMemberStartedDuringAnOutageJoinsAfterIt, and can be ended before.
func TestMemberStartedDuringAnOutageJoinsAfterIt(t *testing.T) {
	c, g := gated(t, kfake.SeedTopics(2, "t"), fastSessions)
	g.set(swallows)
	r := newRoom()
	cfg := groupConfig(c.ListenAddrs(), "t")
	a, b := r.join(t, cfg), r.join(t, cfg)
	b.leave()
	g.set(passing)
	eventually(t, func() bool { return r.owned(a) == 2 }, "it joins")
}
