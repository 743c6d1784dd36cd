package kafka

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestBlockedHandleDelaysItsPartitionOnly: the others flow while one waits, and it goes on where it was, with what its
// queue could not hold.
func TestBlockedHandleDelaysItsPartitionOnly(t *testing.T) {
	k := fake(t, kfake.SeedTopics(3, "t"))
	tp := newTape()
	cfg := following(k.ListenAddrs(), tp, "t")
	leave := make(chan struct{})
	cfg.Handle = func(r *Fetched) {
		if r.Partition == 0 {
			<-leave
		}
		tp.handle(r)
	}
	c := follow(t, cfg)
	positioned(t, c)
	cl := client(t, k)
	for n := 1; n <= 50; n++ { // more fetches than the queue has room for
		put(t, cl, "t", 0, strconv.Itoa(n))
		put(t, cl, "t", 1, strconv.Itoa(n))
		tp.has(t, n)
	}
	require.Equal(t, numbers(1, 50), tp.of("t", 1))
	require.Empty(t, tp.of("t", 0))
	eventually(t, func() bool { return c.Lag() > 0 }, "what is held back is seen")
	close(leave)
	tp.has(t, 100)
	require.Equal(t, numbers(1, 50), tp.of("t", 0))
	eventually(t, func() bool { return c.Lag() == 0 }, "nothing is left")
}

// TestHeldBackPartitionHoldsFewFetches: memory is bounded by what is not asked for.
func TestHeldBackPartitionHoldsFewFetches(t *testing.T) {
	k := fake(t, kfake.SeedTopics(1, "t"))
	cfg := following(k.ListenAddrs(), newTape(), "t")
	leave := make(chan struct{})
	cfg.Handle = func(*Fetched) { <-leave }
	c := follow(t, cfg)
	defer close(leave)
	positioned(t, c)
	cl := client(t, k)
	large := string(make([]byte, 200<<10))
	for range 20 {
		put(t, cl, "t", 0, large)
	}
	p := only(c, "t")
	queued := func() (n int, next int64) {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(p.queue), p.next
	}
	eventually(t, func() bool { n, _ := queued(); return n == maxQueued }, "the queue is full")
	put(t, cl, "t", 0, large)
	n, next := queued()
	require.Equal(t, maxQueued, n)
	require.LessOrEqual(t, next, int64(2*maxQueued+2), "two such records are all that one fetch takes")
}

// only gives the follower of the first partition of a topic.
func only(c *Consumer, topic string) *follower {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.topics[topic].parts[0]
}

func TestBurstFollowsTheLastRecord(t *testing.T) {
	k := fake(t, kfake.SeedTopics(2, "t"))
	tp := newTape()
	positioned(t, follow(t, following(k.ListenAddrs(), tp, "t")))
	cl := client(t, k)
	for n := range 20 {
		put(t, cl, "t", n%2, numbers(1, 100)...)
	}
	tp.has(t, 2000)
	eventually(t, func() bool {
		tp.mu.Lock()
		defer tp.mu.Unlock()
		return tp.open == 0 && tp.bursts > 0 && tp.bursts < 2000
	}, "what was handled is joined")
}

// TestRecordsAreGivenOnceThroughTrouble: leaders move, partitions have none, brokers refuse and hang up, while records
// are produced.
func TestRecordsAreGivenOnceThroughTrouble(t *testing.T) {
	const parts, each = 4, 60
	k := fake(t, kfake.NumBrokers(3), kfake.SeedTopics(parts, "t"))
	tp := newTape()
	positioned(t, follow(t, following(k.ListenAddrs(), tp, "t")))
	var hangUps atomic.Int64
	k.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		if hangUps.Add(-1) >= 0 {
			return nil, context.Canceled, true // the connection is closed
		}
		return nil, nil, false
	})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { // ends with ctx
		for ctx.Err() == nil {
			partition := rand.Int32N(parts)
			_ = k.MoveTopicPartition("t", partition, rand.Int32N(3))
			hangUps.Store(rand.Int64N(2))
			for _, e := range []*kerr.Error{kerr.NotLeaderForPartition, kerr.UnknownTopicOrPartition, kerr.KafkaStorageError, kerr.OffsetOutOfRange} {
				k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "t", Partitions: []int32{partition}, Err: e})
			}
			_ = sleep(ctx, 30*time.Millisecond)
		}
	})
	cl := client(t, k)
	for n := 1; n <= each; n++ {
		var rs []*kgo.Record
		for i := range parts {
			rs = append(rs, &kgo.Record{Topic: "t", Partition: int32(i), Value: []byte(strconv.Itoa(n))})
		}
		require.NoError(t, cl.ProduceSync(t.Context(), rs...).FirstErr())
	}
	cancel()
	wg.Wait()
	tp.has(t, parts*each)
	for i := range parts {
		require.Equal(t, numbers(1, each), tp.of("t", i), "partition %d", i)
	}
}

func TestPartitionInTroubleDelaysNoOther(t *testing.T) {
	k := fake(t, kfake.SeedTopics(2, "t"))
	tp := newTape()
	c := follow(t, following(k.ListenAddrs(), tp, "t"))
	positioned(t, c)
	stuck := k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "t", Partitions: []int32{0}, Err: kerr.KafkaStorageError, Count: -1})
	cl := client(t, k)
	for n := 1; n <= 100; n++ {
		put(t, cl, "t", 0, strconv.Itoa(n))
		put(t, cl, "t", 1, strconv.Itoa(n))
	}
	tp.has(t, 100)
	require.Equal(t, numbers(1, 100), tp.of("t", 1))
	stuck.Remove()
	tp.has(t, 200)
	require.Equal(t, numbers(1, 100), tp.of("t", 0))
}

// TestUnreadableBatchDelaysNoOther: sarama reads an answer as a whole, so a batch that is corrupt spoils all in it.
func TestUnreadableBatchDelaysNoOther(t *testing.T) {
	k := fake(t, kfake.SeedTopics(1, "bad", "good", "fine"))
	tp := newTape()
	c := follow(t, following(k.ListenAddrs(), tp, "bad", "good", "fine"))
	positioned(t, c)
	var heal atomic.Bool
	k.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		resp, bad := garbage(req.(*kmsg.FetchRequest))
		return resp, nil, bad && !heal.Load()
	})
	cl := client(t, k)
	put(t, cl, "bad", 0, "x")
	for n := 1; n <= 20; n++ {
		put(t, cl, "good", 0, strconv.Itoa(n))
		put(t, cl, "fine", 0, strconv.Itoa(n))
		tp.has(t, 2*n)
	}
	require.Empty(t, tp.of("bad", 0))
	heal.Store(true)
	tp.has(t, 41)
	require.Equal(t, []string{"x"}, tp.of("bad", 0))
}

// garbage answers a fetch of the topic bad with a batch that can't be read, and with nothing from other topics.
func garbage(req *kmsg.FetchRequest) (resp *kmsg.FetchResponse, bad bool) {
	resp = req.ResponseKind().(*kmsg.FetchResponse)
	for _, rt := range req.Topics {
		st := kmsg.NewFetchResponseTopic()
		st.Topic = rt.Topic
		for _, rp := range rt.Partitions {
			sp := kmsg.NewFetchResponseTopicPartition()
			sp.Partition, sp.HighWatermark, sp.LastStableOffset, sp.RecordBatches = rp.Partition, rp.FetchOffset, rp.FetchOffset, []byte{}
			if rt.Topic == "bad" {
				bad = true
				sp.RecordBatches = make([]byte, 200)
				sp.RecordBatches[11], sp.RecordBatches[16] = 188, 2 // length and version; the checksum is wrong
			}
			st.Partitions = append(st.Partitions, sp)
		}
		resp.Topics = append(resp.Topics, st)
	}
	return resp, bad
}

// TestGapIsPassedAndCounted: records that were deleted before they could be read.
func TestGapIsPassedAndCounted(t *testing.T) {
	k := fake(t, kfake.SeedTopics(1, "t"))
	cl := client(t, k)
	put(t, cl, "t", 0, "old")
	tp := newTape()
	c := follow(t, following(k.ListenAddrs(), tp, "t"))
	positioned(t, c)
	away := k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "t", Err: kerr.KafkaStorageError, Count: -1})
	eventually(t, func() bool { return counted(c.m.errors) > 0 }, "the partition is refused")
	put(t, cl, "t", 0, numbers(1, 100)...)
	offsets := kadm.Offsets{}
	offsets.AddOffset("t", 0, 61, -1)
	_, err := kadm.NewClient(cl).DeleteRecords(t.Context(), offsets)
	require.NoError(t, err)
	away.Remove()
	tp.has(t, 40)
	require.Equal(t, numbers(61, 100), tp.of("t", 0))
	require.Equal(t, 1.0, counted(c.m.gaps))
	require.Equal(t, 60.0, counted(c.m.gapRecords))
	eventually(t, func() bool { return c.Lag() == 0 }, "nothing is left")
}

// TestLogThatWasCutIsFollowedFromItsEnd: an election of a leader that did not have all. No fake does that, so it is
// asked of the part that decides.
func TestLogThatWasCutIsFollowedFromItsEnd(t *testing.T) {
	answer := func(offset int64) *sarama.OffsetResponseBlock { return &sarama.OffsetResponseBlock{Offset: offset} }
	f := func(next, oldest, newest, stable, want int64, gaps, records float64) {
		t.Helper()
		var begun []int64
		c, err := NewConsumer(ConsumerConfig{Config: testConfig([]string{"127.0.0.1:1"}), Topics: []string{"t"}, Handle: func(*Fetched) {},
			Begin: func(_, _ string, _ int32, next int64) { begun = append(begun, next) }})
		require.NoError(t, err)
		p := newFollower("t", "", 0, next)
		p.queue, p.lost = nil, true
		c.goOn(t.Context(), place{p: p, offset: next}, answer(oldest), answer(newest), answer(stable))
		c.work.Wait()
		require.False(t, p.lost)
		require.Equal(t, want, p.next)
		if want < next {
			require.Equal(t, []int64{want}, begun)
		} else {
			require.Empty(t, begun)
		}
		require.Equal(t, gaps, counted(c.m.gaps))
		require.Equal(t, records, counted(c.m.gapRecords))
		if gaps > 0 {
			require.Equal(t, want, p.handled.Load())
		}
	}
	f(100, 0, 80, 80, 80, 1, 0)
	f(100, 0, 80, 70, 70, 1, 0)
	f(100, 150, 200, 200, 150, 1, 50)
	f(100, 0, 100, 90, 100, 0, 0) // a new leader that did not know yet how far all are
	f(100, 0, 120, 120, 100, 0, 0)
}

func TestTopicMadeAnewIsReadFromItsBeginning(t *testing.T) {
	k := fake(t, kfake.NumBrokers(2), kfake.SeedTopics(2, "t", "other"))
	tp := newTape()
	c := follow(t, following(k.ListenAddrs(), tp, "t", "other"))
	positioned(t, c)
	cl := client(t, k)
	put(t, cl, "t", 0, numbers(1, 30)...)
	tp.has(t, 30)
	_, err := kadm.NewClient(cl).DeleteTopic(t.Context(), "t")
	require.NoError(t, err)
	eventually(t, func() bool { return c.following() == 2 }, "the topic is not followed any more")
	errors := counted(c.m.errors)
	tp2 := tp.count()
	for n := range 20 { // the other one is not disturbed, and nobody insists on the one that is gone
		put(t, cl, "other", 0, strconv.Itoa(n))
		tp.has(t, tp2+n+1)
	}
	require.LessOrEqual(t, counted(c.m.errors), errors+2)
	tp.mu.Lock()
	clear(tp.last) // offsets begin again
	tp.mu.Unlock()
	require.NoError(t, k.CreateTopic("t", 3, nil))
	late := client(t, k)
	for i := range 3 {
		put(t, late, "t", i, numbers(31, 40)...)
	}
	tp.has(t, tp2+20+30)
	require.Equal(t, numbers(1, 40), tp.of("t", 0))
	require.Equal(t, numbers(31, 40), tp.of("t", 2))
	require.Zero(t, counted(c.m.gaps))
}

// TestBeginComesBeforeAllElse of a partition, also of one without records, and tells the topic's ID.
func TestBeginComesBeforeAllElse(t *testing.T) {
	k := fake(t, kfake.SeedTopics(1, "t"))
	cl := client(t, k)
	put(t, cl, "t", 0, numbers(1, 30)...)
	cfg := following(k.ListenAddrs(), newTape(), "t")
	var mu sync.Mutex
	var told []string
	tell := func(what string, at int64) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, fmt.Sprint(what, at))
	}
	ids := map[string]bool{}
	cfg.Begin = func(_, id string, _ int32, next int64) {
		tell("begin ", next)
		ids[id] = true
	}
	cfg.Handle = func(r *Fetched) { tell("record ", r.Offset) }
	cfg.Progress = nil
	positioned(t, follow(t, cfg))
	put(t, cl, "t", 0, "31")
	has := func(n int, what string) {
		t.Helper()
		eventually(t, func() bool { mu.Lock(); defer mu.Unlock(); return len(told) == n }, what)
	}
	has(2, "the record that is new")
	_, err := kadm.NewClient(cl).DeleteTopic(t.Context(), "t")
	require.NoError(t, err)
	require.NoError(t, k.CreateTopic("t", 2, nil))
	has(4, "the new topic begins, though it is empty")
	put(t, client(t, k), "t", 0, "32")
	has(5, "its record")
	require.Equal(t, []string{"begin 30", "record 30", "begin 0", "begin 0", "record 0"}, told)
	require.Len(t, ids, 2)
	require.NotContains(t, ids, "")
}

// TestTopicMadeAnewWaitsForTheCallUnderWay: calls of Handle for one partition are never made at once.
func TestTopicMadeAnewWaitsForTheCallUnderWay(t *testing.T) {
	k := fake(t, kfake.SeedTopics(1, "t"))
	var inside, most atomic.Int64
	entered, leave := make(chan string, 10), make(chan struct{})
	cfg := following(k.ListenAddrs(), newTape(), "t")
	cfg.Handle = func(r *Fetched) {
		most.Store(max(most.Load(), inside.Add(1)))
		entered <- string(r.Value)
		<-leave
		inside.Add(-1)
	}
	c := follow(t, cfg)
	positioned(t, c)
	put(t, client(t, k), "t", 0, "first", "never")
	require.Equal(t, "first", <-entered)
	old := only(c, "t")
	for n := range 3 {
		cl := client(t, k)
		_, err := kadm.NewClient(cl).DeleteTopic(t.Context(), "t")
		require.NoError(t, err)
		require.NoError(t, k.CreateTopic("t", 1, nil))
		put(t, client(t, k), "t", 0, fmt.Sprint("anew ", n))
		eventually(t, func() bool {
			p := only(c, "t")
			c.mu.Lock()
			defer c.mu.Unlock()
			return p != old && len(p.queue) == 2 // where it begins, and the record
		}, "the new topic's record is at hand")
		old = only(c, "t")
	}
	close(leave)
	require.Equal(t, "anew 2", <-entered)
	require.EqualValues(t, 1, most.Load())
}

// TestTopicThatMayNotBeSeenHoldsUpNothing: and when it may be, its old records are not given.
func TestTopicThatMayNotBeSeenHoldsUpNothing(t *testing.T) {
	k := fake(t, kfake.SeedTopics(1, "hidden", "open"))
	denied := k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Topic: "hidden", Err: kerr.TopicAuthorizationFailed, Count: -1})
	tp := newTape()
	c := follow(t, following(k.ListenAddrs(), tp, "hidden", "open"))
	positioned(t, c)
	cl := client(t, k)
	put(t, cl, "open", 0, "a")
	tp.has(t, 1)
	denied.Remove()
	eventually(t, func() bool { return c.following() == 2 && only(c, "hidden").handled.Load() >= 0 }, "it is seen")
	eventually(t, func() bool {
		put(t, cl, "hidden", 0, "b")
		return len(tp.of("hidden", 0)) > 0
	}, "it is followed")
}

// TestPartitionWithoutALeaderIsWaitedFor: it was there at the start, so its old records are not given when it has one.
func TestPartitionWithoutALeaderIsWaitedFor(t *testing.T) {
	k := fake(t, kfake.SeedTopics(2, "t"))
	cl := client(t, k)
	put(t, cl, "t", 0, "old")
	without := k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Topic: "t", Partitions: []int32{0}, Err: kerr.NotLeaderForPartition, Count: -1})
	tp := newTape()
	c := follow(t, following(k.ListenAddrs(), tp, "t"))
	eventually(t, func() bool {
		put(t, cl, "t", 1, "b")
		return len(tp.of("t", 1)) > 0
	}, "the other partition is followed meanwhile")
	select {
	case <-c.Positioned():
		require.Fail(t, "one partition has no place yet")
	default:
	}
	without.Remove()
	positioned(t, c)
	put(t, cl, "t", 0, "new")
	eventually(t, func() bool { return len(tp.of("t", 0)) > 0 }, "it is followed")
	require.Equal(t, []string{"new"}, tp.of("t", 0))
}

func TestCompactedLogIsFollowed(t *testing.T) {
	k := fake(t)
	compact := "compact"
	require.NoError(t, k.CreateTopic("t", 1, map[string]string{"cleanup.policy": compact, "segment.bytes": "2000"}))
	tp := newTape()
	c := follow(t, following(k.ListenAddrs(), tp, "t"))
	positioned(t, c)
	cl := client(t, k)
	require.NoError(t, cl.ProduceSync(t.Context(), &kgo.Record{Topic: "t", Key: []byte("stays"), Value: []byte("x")}).FirstErr())
	tp.has(t, 1)
	away := k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "t", Err: kerr.KafkaStorageError, Count: -1})
	eventually(t, func() bool { return counted(c.m.errors) > 0 }, "the partition is refused")
	for n := range 300 {
		require.NoError(t, cl.ProduceSync(t.Context(), &kgo.Record{Topic: "t", Key: []byte{byte(n % 7)}, Value: []byte(strconv.Itoa(n))}).FirstErr())
	}
	k.Compact()
	away.Remove()
	eventually(t, func() bool { v := tp.of("t", 0); return len(v) > 0 && v[len(v)-1] == "299" }, "the last record is given")
	require.Less(t, tp.count(), 300)
	eventually(t, func() bool { return c.Lag() == 0 }, "nothing is left")
	require.Zero(t, counted(c.m.gaps))
}
