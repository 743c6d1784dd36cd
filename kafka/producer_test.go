package kafka

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestRecordIsStoredAsGiven(t *testing.T) {
	c := fake(t, kfake.SeedTopics(3, "t"))
	p := start(t, testConfig(c.ListenAddrs()))
	l := newLedger()
	when := time.UnixMilli(time.Now().UnixMilli())
	r := l.record(7, "t", "key")
	r.Timestamp = when
	r.Headers = []Header{{[]byte("a"), []byte("b")}, {[]byte("empty"), []byte{}}}
	r.Reserved = 100
	require.True(t, p.Budget().TryTake(Destination{}, 100))
	p.Produce(r)
	eventually(t, func() bool { return l.count() == 1 && p.Budget().InUse() == 0 }, "it ends and its bytes are given back")
	require.NoError(t, l.of(7)[0])
	for partition, rs := range read(t, c.ListenAddrs(), "t", 1) {
		require.Equal(t, PartitionOf([]byte("key"), 3), partition)
		require.Equal(t, partition, r.Partition)
		require.Equal(t, rs[0].Offset, r.Offset)
		require.Equal(t, "key", string(rs[0].Key))
		require.Equal(t, "0000000007", string(rs[0].Value))
		require.True(t, when.Equal(rs[0].Timestamp))
		require.Equal(t, []kgo.RecordHeader{{Key: "a", Value: []byte("b")}, {Key: "empty", Value: []byte{}}}, rs[0].Headers)
	}
}

func TestNilKeyAndValueAreNotEmptyOnes(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "t"))
	p := start(t, testConfig(c.ListenAddrs()))
	done := make(counter, 2)
	p.Produce(&Record{Topic: "t", Owner: done})
	p.Produce(&Record{Topic: "t", Key: []byte{}, Value: []byte{}, Owner: done})
	for range 2 {
		require.NoError(t, <-done)
	}
	rs := read(t, c.ListenAddrs(), "t", 2)[0]
	require.Nil(t, rs[0].Key)
	require.Nil(t, rs[0].Value)
	require.NotNil(t, rs[1].Key)
	require.NotNil(t, rs[1].Value)
}

// counter is an Owner for outcomes that need no name.
type counter chan error

func (c counter) RecordDone(_ *Record, err error) { c <- err }

func TestRecordsWithoutKeyAreSpread(t *testing.T) {
	c := fake(t, kfake.SeedTopics(6, "t"))
	p := start(t, testConfig(c.ListenAddrs()))
	l := newLedger()
	const n = 5000
	for i := range n {
		p.Produce(l.record(i, "t", ""))
	}
	eventually(t, func() bool { return l.count() == n }, "all are stored")
	l.once(t, n)
	require.Zero(t, l.errs())
	require.Greater(t, len(read(t, c.ListenAddrs(), "t", n)), 3)
}

func TestMissingTopicDelaysNoOther(t *testing.T) {
	c := fake(t, kfake.SeedTopics(3, "there"))
	p := start(t, testConfig(c.ListenAddrs()))
	missing, there := newLedger(), newLedger()
	for i := range 3000 {
		p.Produce(missing.record(i, "missing", "k"))
		p.Produce(there.record(i, "there", fmt.Sprint(i%5)))
	}
	eventually(t, func() bool { return there.count() == 3000 }, "records of the topic that exists are stored")
	require.Zero(t, there.errs())
	eventually(t, func() bool { return missing.count() == 3000 }, "records of the missing topic are refused")
	missing.once(t, 3000)
	require.ErrorIs(t, missing.of(0)[0], ErrTopicMissing)
	require.True(t, Final(missing.of(0)[0]))
}

func TestNamesOfNoTopicsAreForgotten(t *testing.T) {
	c := fake(t)
	p := start(t, testConfig(c.ListenAddrs()))
	const names = 500
	l := newLedger()
	for i := range names {
		p.Produce(l.record(i, fmt.Sprint("invented", i), "k"))
	}
	eventually(t, func() bool { return l.count() == names }, "all are refused")
	eventually(t, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.topics) == 0
	}, "a verdict that has ended is not kept")
}

func TestMissingTopicIsAskedForAgain(t *testing.T) {
	c := fake(t)
	p := start(t, testConfig(c.ListenAddrs()))
	done := make(counter, 1)
	p.Produce(&Record{Topic: "late", Owner: done})
	require.ErrorIs(t, <-done, ErrTopicMissing)
	require.NoError(t, c.CreateTopic("late", 2, nil))
	eventually(t, func() bool {
		p.Produce(&Record{Topic: "late", Owner: done})
		return <-done == nil
	}, "the verdict is not for ever")
}

func TestTopicIsCreatedBeforeItsFirstRecord(t *testing.T) {
	c := fake(t, kfake.NumBrokers(3)) // only one of them is the controller
	cfg := testConfig(c.ListenAddrs())
	cfg.CreateTopics = &CreateTopics{Partitions: 5, Replication: 1}
	p := start(t, cfg)
	l := newLedger()
	const topics = 300
	for i := range 3 * topics {
		p.Produce(l.record(i, fmt.Sprintf("plant-%d", i%topics), "k"))
	}
	eventually(t, func() bool { return l.count() == 3*topics }, "all are stored")
	require.Zero(t, l.errs())
	require.Len(t, c.PartitionInfos("plant-7"), 5)
}

func TestIllegalTopicNameIsRefused(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "t"))
	p := start(t, testConfig(c.ListenAddrs()))
	done := make(counter, 1)
	for _, name := range []string{"", ".", "..", "a/b", "ä", strings.Repeat("x", 250)} {
		p.Produce(&Record{Topic: name, Owner: done})
		require.ErrorIs(t, <-done, ErrInvalidRecord, name)
	}
}

func TestTopicThatMayNotBeWrittenIsRefused(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "seen", "unseen", "open"))
	c.Fault(
		kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Topic: "unseen", Err: kerr.TopicAuthorizationFailed, Count: -1},
		kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "seen", Err: kerr.TopicAuthorizationFailed, Count: -1},
	)
	p := start(t, testConfig(c.ListenAddrs()))
	done := make(counter, 1)
	for _, name := range []string{"seen", "unseen"} {
		p.Produce(&Record{Topic: name, Owner: done})
		err := <-done
		require.ErrorIs(t, err, ErrNotAuthorized, name)
		require.True(t, Final(err))
	}
	p.Produce(&Record{Topic: "open", Owner: done})
	require.NoError(t, <-done)
}

func TestStuckPartitionDelaysNoOther(t *testing.T) {
	c := fake(t, kfake.SeedTopics(2, "stuck"), kfake.SeedTopics(3, "free"))
	stuck := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "stuck", Partitions: []int32{0}, Err: kerr.NotEnoughReplicas, Count: -1})
	p := start(t, testConfig(c.ListenAddrs()))
	bad, good, free := newLedger(), newLedger(), newLedger()
	keys := keysOf(2)
	const n = 4 * mostRecords
	for i := range n {
		p.Produce(bad.record(i, "stuck", keys[0]))
	}
	for i := range n {
		p.Produce(good.record(i, "stuck", keys[1]))
		p.Produce(free.record(i, "free", fmt.Sprint(i%7)))
	}
	eventually(t, func() bool { return free.count() == n }, "the other topic flows")
	eventually(t, func() bool { return good.count() == n }, "so does the other partition")
	require.Zero(t, bad.count())
	stuck.Remove()
	eventually(t, func() bool { return bad.count() == n }, "and the stuck one, when it is free again")
	for _, l := range []*ledger{bad, good, free} {
		l.once(t, n)
		require.Zero(t, l.errs())
	}
	inOrder(t, read(t, c.ListenAddrs(), "stuck", 2*n))
}

// keysOf gives a key for each partition.
func keysOf(partitions int32) []string {
	keys := make([]string, partitions)
	for i, left := 0, partitions; left > 0; i++ {
		k := fmt.Sprint("key", i)
		if at := PartitionOf([]byte(k), partitions); keys[at] == "" {
			keys[at] = k
			left--
		}
	}
	return keys
}

// inOrder fails the test unless the numbers of each key rise and none is there twice.
func inOrder(t testing.TB, got map[int32][]*kgo.Record) {
	t.Helper()
	last := map[string]int{}
	where := map[string]int32{}
	for partition, rs := range got {
		for _, r := range rs {
			key, n := string(r.Key), number(t, r)
			if before, ok := last[key]; ok {
				require.Greater(t, n, before, "key %s is out of order or twice", key)
				require.Equal(t, where[key], partition, "key %s is in two partitions", key)
			}
			last[key], where[key] = n, partition
		}
	}
}

func TestOrderAndOnceThroughBrokenConnections(t *testing.T) {
	c, g := gated(t, kfake.NumBrokers(3), kfake.SeedTopics(6, "t"))
	p := start(t, testConfig(c.ListenAddrs()))
	l := newLedger()
	const n, senders = 20000, 4
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			for i := s; i < n; i += senders {
				p.Produce(l.record(i, "t", fmt.Sprint("k", i%20)))
				for p.outstanding() > 3000 { // some load, over some time
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	sent := make(chan struct{})
	go func() { wg.Wait(); close(sent) }() // ends with the senders
	for trouble := 0; trouble < 25 || l.count() < n; trouble++ {
		select {
		case <-sent:
		case <-time.After(time.Duration(10+rand.IntN(30)) * time.Millisecond):
		}
		if trouble >= 25 {
			break
		}
		switch trouble % 5 {
		case 4:
			c.ShufflePartitionLeaders()
		case 3:
			g.set(down)
			time.Sleep(30 * time.Millisecond)
			g.set(passing)
		default:
			g.drop()
		}
	}
	<-sent
	eventually(t, func() bool { return l.count() == n }, "all end")
	l.once(t, n)
	require.Zero(t, l.errs())
	inOrder(t, read(t, c.ListenAddrs(), "t", n))
	total := 0
	for _, info := range c.PartitionInfos("t") {
		total += int(info.HighWatermark)
	}
	require.Equal(t, n, total, "nothing is stored twice")
}

func TestOutageLosesNothing(t *testing.T) {
	for _, outage := range []mode{down, swallows} {
		t.Run(fmt.Sprint(outage), func(t *testing.T) {
			c, g := gated(t, kfake.SeedTopics(3, "t"))
			p := start(t, testConfig(c.ListenAddrs()))
			l := newLedger()
			p.Produce(l.record(0, "t", "k"))
			eventually(t, func() bool { return l.count() == 1 && p.Up() }, "it is stored and Kafka is up")
			g.set(outage)
			for i := 1; i < 5000; i++ {
				p.Produce(l.record(i, "t", fmt.Sprint(i%9)))
			}
			eventually(t, func() bool { return !p.Up() }, "the outage is noticed")
			require.Equal(t, 1, l.count(), "nothing is answered meanwhile")
			g.set(passing)
			eventually(t, func() bool { return l.count() == 5000 && p.Up() }, "everything is stored after it")
			l.once(t, 5000)
			require.Zero(t, l.errs())
			inOrder(t, read(t, c.ListenAddrs(), "t", 5000))
		})
	}
}

func TestStartDuringAnOutage(t *testing.T) {
	c, g := gated(t, kfake.SeedTopics(3, "t"))
	g.set(down)
	p := start(t, testConfig(c.ListenAddrs()))
	l := newLedger()
	p.Produce(l.record(0, "t", "k"))
	p.Produce(l.record(1, "missing", "k"))
	require.Never(t, func() bool { return l.count() > 0 || p.Up() }, 300*time.Millisecond, 10*time.Millisecond)
	g.set(passing)
	eventually(t, func() bool { return l.count() == 2 && p.Up() }, "both are answered")
	require.NoError(t, l.of(0)[0])
	require.ErrorIs(t, l.of(1)[0], ErrTopicMissing)
}

func TestFirstConfiguredBrokerMayBeDead(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "t"))
	p := start(t, testConfig(append([]string{"127.0.0.1:1", "127.0.0.1:2"}, c.ListenAddrs()...)))
	done := make(counter, 1)
	p.Produce(&Record{Topic: "t", Owner: done})
	require.NoError(t, <-done)
	eventually(t, p.Up, "the living broker is found")
}

func TestRecordMayBeProducedAgainFromItsOwner(t *testing.T) {
	c := fake(t, kfake.SeedTopics(2, "t"))
	p := start(t, testConfig(c.ListenAddrs()))
	again := &echo{p: p, left: 500, done: make(chan struct{})}
	p.Budget().Take(Destination{}, 10)
	p.Produce(&Record{Topic: "t", Key: []byte("k"), Value: []byte("0"), Reserved: 10, Owner: again})
	<-again.done
	require.Zero(t, again.errs)
	eventually(t, func() bool { return p.Budget().InUse() == 0 }, "each use gives its bytes back")
}

// echo produces its record again until it has done so often enough.
type echo struct {
	p    *Producer
	left int
	errs int
	done chan struct{}
}

func (e *echo) RecordDone(r *Record, err error) {
	if err != nil {
		e.errs++
	}
	if e.left--; e.left == 0 {
		close(e.done)
		return
	}
	r.Reserved = 10
	e.p.Budget().Take(Destination{}, 10)
	e.p.Produce(r)
}

func TestCompressions(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "none", "gzip", "snappy", "lz4", "zstd"))
	for name := range codecs {
		cfg := testConfig(c.ListenAddrs())
		cfg.Compression = name
		p := start(t, cfg)
		done := make(counter, 1)
		p.Produce(&Record{Topic: name, Value: []byte(strings.Repeat("x", 1000)), Owner: done})
		require.NoError(t, <-done)
		require.Len(t, read(t, c.ListenAddrs(), name, 1)[0][0].Value, 1000)
	}
}

func TestBurstFollowsCompletions(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "t"))
	cfg := testConfig(c.ListenAddrs())
	l := newLedger()
	seen := make(chan int, 10000)
	cfg.Burst = func() { seen <- l.count() }
	p := start(t, cfg)
	const n = 2000
	for i := range n {
		p.Produce(l.record(i, "t", "k"))
	}
	bursts := 1
	for <-seen < n {
		bursts++
	}
	require.Less(t, bursts, n, "completions are joined")
}

func TestPartitionsAreThoseOfKafkasOwnClients(t *testing.T) {
	// From org.apache.kafka.common.utils.UtilsTest.
	for key, want := range map[string]int32{"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536,
		"a-little-bit-longer-string": -1486304829, "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971, "abc": 479470107} {
		require.Equal(t, want, int32(murmur2([]byte(key))), key)
	}
	theirs := sarama.NewMurmur2Partitioner("t")
	for i := range 5000 {
		key := fmt.Appendf(nil, "%*d", i%40, i)
		n := int32(i%64 + 1)
		want, err := theirs.Partition(&sarama.ProducerMessage{Key: sarama.ByteEncoder(key)}, n)
		require.NoError(t, err)
		require.Equal(t, want, PartitionOf(key, n))
	}
}

func TestNewProducerStartsNothingAndChecks(t *testing.T) {
	_, err := NewProducer(Config{})
	require.ErrorContains(t, err, "no brokers")
	_, err = NewProducer(Config{Brokers: []string{"x:1"}, Compression: "rar", Linger: -1})
	require.ErrorContains(t, err, "rar")
	p, err := NewProducer(Config{Brokers: []string{"127.0.0.1:1"}})
	require.NoError(t, err)
	require.False(t, p.Up())
	require.Equal(t, int64(64<<20), p.Budget().Max())
	require.NoError(t, p.Close(context.Background()))
	require.NoError(t, p.Run(context.Background()), "there is nothing to run any more")
}
