package kafka

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A table keeps the last value of each key and how far each partition was read, and finds fault with Progress.
type table struct {
	mu     sync.Mutex
	values map[string]string
	next   map[string]int64 // what Progress told, by topic/partition
	seen   map[string]int64 // the offset after the last record
	faults []string
}

func newTable() *table {
	return &table{values: map[string]string{}, next: map[string]int64{}, seen: map[string]int64{}}
}

func placeOf(topic string, partition int32) string { return fmt.Sprint(topic, "/", partition) }

func (tb *table) handle(r *Fetched) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	at := placeOf(r.Topic, r.Partition)
	if told, ok := tb.next[at]; !ok || r.Offset < told {
		tb.faults = append(tb.faults, fmt.Sprintf("%s: offset %d after Progress told %d (%v)", at, r.Offset, told, ok))
	}
	tb.seen[at] = r.Offset + 1
	if tb.values[string(r.Key)] = string(r.Value); r.Value == nil {
		delete(tb.values, string(r.Key))
	}
}

func (tb *table) progress(topic string, partition int32, next int64) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	at := placeOf(topic, partition)
	if last, ok := tb.next[at]; next < tb.seen[at] || ok && next < last {
		tb.faults = append(tb.faults, fmt.Sprintf("%s: Progress told %d after %d, and %d was seen", at, next, last, tb.seen[at]))
	}
	tb.next[at] = next
}

// read gives how far a partition was read; -1: Progress was not told.
func (tb *table) read(topic string, partition int32) int64 {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	if next, ok := tb.next[placeOf(topic, partition)]; ok {
		return next
	}
	return -1
}

func (tb *table) check(t testing.TB, want map[string]string) {
	t.Helper()
	tb.mu.Lock()
	defer tb.mu.Unlock()
	require.Empty(t, tb.faults)
	require.Equal(t, want, tb.values)
}

// tabling makes the configuration of a consumer that fills a table.
func tabling(brokers []string, tb *table, topics ...string) ConsumerConfig {
	cfg := following(brokers, newTape(), topics...)
	cfg.From, cfg.Handle, cfg.Progress = FromBeginning, tb.handle, tb.progress
	return cfg
}

// keyed makes a record.
func keyed(topic string, partition int32, key, value string) *kgo.Record {
	return &kgo.Record{Topic: topic, Partition: partition, Key: []byte(key), Value: []byte(value)}
}

func produceAll(t testing.TB, cl *kgo.Client, rs ...*kgo.Record) {
	t.Helper()
	require.NoError(t, cl.ProduceSync(t.Context(), rs...).FirstErr())
}

// stable gives the last stable offset, as another client sees it.
func stable(t testing.TB, cl *kgo.Client, topic string, partition int32) int64 {
	t.Helper()
	ends, err := kadm.NewClient(cl).ListCommittedOffsets(t.Context(), topic)
	require.NoError(t, err)
	end, ok := ends.Lookup(topic, partition)
	require.True(t, ok)
	require.NoError(t, end.Err)
	return end.Offset
}

func TestEverythingFromTheBeginningIsHandledBeforePositioned(t *testing.T) {
	const partitions, each = 3, 4000 // several fetches of each
	k := fake(t, kfake.NumBrokers(3), kfake.SeedTopics(partitions, "t"), kfake.SeedTopics(2, "empty"))
	cl := client(t, k)
	want := map[string]string{}
	value := string(make([]byte, 300))
	for n := range each {
		for p := range int32(partitions) {
			key := fmt.Sprintf("%d-%d", p, n)
			want[key] = value
			cl.Produce(t.Context(), keyed("t", p, key, value), nil)
		}
	}
	require.NoError(t, cl.Flush(t.Context()))
	tb := newTable()
	c := follow(t, tabling(k.ListenAddrs(), tb, "t", "empty"))
	positioned(t, c)
	tb.check(t, want)
	for p := range int32(partitions) {
		require.EqualValues(t, each, tb.read("t", p))
	}
	require.Zero(t, c.Lag())
	produceAll(t, cl, keyed("t", 1, "new", "v"))
	eventually(t, func() bool { return tb.read("t", 1) == each+1 }, "it goes on with what follows")
	require.EqualValues(t, partitions, c.Partitions("t"))
	require.Zero(t, c.Partitions("unknown"))
}

// TestProgressPassesWhatHoldsNoRecords: whoever waits until a partition is read up to its end would hang otherwise.
func TestProgressPassesWhatHoldsNoRecords(t *testing.T) {
	k := fake(t)
	require.NoError(t, k.CreateTopic("t", 1, map[string]string{"cleanup.policy": "compact"}))
	plain, tx := client(t, k), client(t, k, kgo.TransactionalID("tx"))
	for n := range 20 {
		produceAll(t, plain, keyed("t", 0, "a", strconv.Itoa(n)))
		require.NoError(t, tx.BeginTransaction())
		produceAll(t, tx, keyed("t", 0, "b", strconv.Itoa(n)))
		require.NoError(t, tx.EndTransaction(t.Context(), kgo.TransactionEndTry(n%2 == 0)))
	}
	produceAll(t, plain, &kgo.Record{Topic: "t", Key: []byte("a")}) // a tombstone
	k.Compact()
	want := map[string]string{"b": "18"}

	tb := newTable()
	c := follow(t, tabling(k.ListenAddrs(), tb, "t"))
	positioned(t, c)
	tb.check(t, want)
	require.Equal(t, stable(t, plain, "t", 0), tb.read("t", 0))

	for _, commit := range []kgo.TransactionEndTry{kgo.TryAbort, kgo.TryCommit} { // a marker is the last there is
		require.NoError(t, tx.BeginTransaction())
		produceAll(t, tx, keyed("t", 0, "c", "v"))
		require.NoError(t, tx.EndTransaction(t.Context(), commit))
		end, err := c.End(t.Context(), "t", 0)
		require.NoError(t, err)
		require.Equal(t, stable(t, plain, "t", 0), end)
		eventually(t, func() bool { return tb.read("t", 0) == end }, "it is read up to the end")
	}
	want["c"] = "v"
	tb.check(t, want)
}

// TestPositionedDoesNotWaitForAnOpenTransaction: what is in it was not there yet.
func TestPositionedDoesNotWaitForAnOpenTransaction(t *testing.T) {
	k := fake(t, kfake.SeedTopics(1, "t"))
	plain, open := client(t, k), transact(t, k, "tx")
	produceAll(t, plain, keyed("t", 0, "a", "1"))
	produceAll(t, open, keyed("t", 0, "b", "2"))
	produceAll(t, plain, keyed("t", 0, "c", "3"))
	tb := newTable()
	c := follow(t, tabling(k.ListenAddrs(), tb, "t"))
	positioned(t, c)
	tb.check(t, map[string]string{"a": "1"})
	require.EqualValues(t, 1, tb.read("t", 0))
	end, err := c.End(t.Context(), "t", 0)
	require.NoError(t, err)
	require.EqualValues(t, 1, end, "the last stable offset")
	require.NoError(t, open.EndTransaction(t.Context(), kgo.TryCommit))
	eventually(t, func() bool { return tb.read("t", 0) == 4 }, "the marker is passed")
	tb.check(t, map[string]string{"a": "1", "b": "2", "c": "3"})
}

func TestProgressTellsWhereTheFollowingBegins(t *testing.T) {
	k := fake(t, kfake.SeedTopics(2, "t"))
	cl := client(t, k)
	put(t, cl, "t", 0, "old", "older")
	tb := newTable()
	cfg := tabling(k.ListenAddrs(), tb, "t")
	cfg.From = FromEnd
	positioned(t, follow(t, cfg))
	require.EqualValues(t, 2, tb.read("t", 0))
	require.EqualValues(t, 0, tb.read("t", 1))
	tb.check(t, map[string]string{})
}

// TestALogThatWasShortenedIsNoGapFromTheBeginning: nothing was missed that this consumer could have had.
func TestALogThatWasShortenedIsNoGapFromTheBeginning(t *testing.T) {
	k := fake(t, kfake.SeedTopics(1, "t"))
	cl := client(t, k)
	for _, v := range numbers(1, 10) {
		produceAll(t, cl, keyed("t", 0, v, v))
	}
	to := kadm.Offsets{}
	to.AddOffset("t", 0, 7, -1)
	_, err := kadm.NewClient(cl).DeleteRecords(t.Context(), to)
	require.NoError(t, err)
	tb := newTable()
	c := follow(t, tabling(k.ListenAddrs(), tb, "t"))
	positioned(t, c)
	tb.check(t, map[string]string{"8": "8", "9": "9", "10": "10"})
	require.Zero(t, testutil.ToFloat64(c.m.gaps))
}

func TestAPartitionWhoseRecordsWereAllRemovedIsPositioned(t *testing.T) {
	k := fake(t, kfake.SeedTopics(1, "t"))
	cl := client(t, k)
	put(t, cl, "t", 0, numbers(1, 5)...)
	to := kadm.Offsets{}
	to.AddOffset("t", 0, -1, -1)
	_, err := kadm.NewClient(cl).DeleteRecords(t.Context(), to)
	require.NoError(t, err)
	tb := newTable()
	positioned(t, follow(t, tabling(k.ListenAddrs(), tb, "t")))
	require.EqualValues(t, 5, tb.read("t", 0))
}

// TestATopicThatIsMissingIsWaitedForFromTheBeginning: without it nothing is known, and it is not the same as empty.
func TestATopicThatIsMissingIsWaitedForFromTheBeginning(t *testing.T) {
	k := fake(t, kfake.SeedTopics(1, "t"))
	tb := newTable()
	c := follow(t, tabling(k.ListenAddrs(), tb, "t", "late"))
	eventually(t, func() bool { return tb.read("t", 0) == 0 && c.topicIsLate("late") }, "it is believed to be missing")
	select {
	case <-c.Positioned():
		require.Fail(t, "positioned without the topic")
	default:
	}
	require.NoError(t, k.CreateTopic("late", 1, nil))
	cl := client(t, k)
	produceAll(t, cl, keyed("late", 0, "a", "1"), keyed("late", 0, "b", "2"))
	positioned(t, c)
	eventually(t, func() bool { return tb.read("late", 0) == 2 }, "it is read")
	tb.check(t, map[string]string{"a": "1", "b": "2"})
}

func (c *Consumer) topicIsLate(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.topics[name].late
}

// TestPositionedWaitsForHandle: fetched is not handled.
func TestPositionedWaitsForHandle(t *testing.T) {
	k := fake(t, kfake.SeedTopics(1, "t"))
	produceAll(t, client(t, k), keyed("t", 0, "a", "1"), keyed("t", 0, "b", "2"))
	tb := newTable()
	cfg := tabling(k.ListenAddrs(), tb, "t")
	last, free := make(chan struct{}), make(chan struct{})
	cfg.Handle = func(r *Fetched) {
		if string(r.Key) == "b" {
			close(last)
			<-free
		}
		tb.handle(r)
	}
	c := follow(t, cfg)
	<-last
	c.mu.Lock()
	c.checkPositioned()
	fixed := c.fixed
	c.mu.Unlock()
	require.False(t, fixed, "the last record is still being handled")
	close(free)
	positioned(t, c)
	tb.check(t, map[string]string{"a": "1", "b": "2"})
}

// TestTheBeginningIsReadThroughAnOutage: each record is handled once, whatever happens to connections.
func TestTheBeginningIsReadThroughAnOutage(t *testing.T) {
	k, g := gated(t, kfake.NumBrokers(2), kfake.SeedTopics(4, "t"))
	cl := client(t, k)
	want := map[string]string{}
	for n := range 4000 {
		key := strconv.Itoa(n)
		want[key] = string(make([]byte, 500))
		cl.Produce(t.Context(), keyed("t", int32(n%4), key, want[key]), nil)
	}
	require.NoError(t, cl.Flush(t.Context()))
	tb := newTable()
	cfg := tabling(k.ListenAddrs(), tb, "t")
	var once sync.Once
	cfg.Handle = func(r *Fetched) {
		tb.handle(r)
		if r.Offset > 300 {
			once.Do(g.drop)
		}
	}
	positioned(t, follow(t, cfg))
	tb.check(t, want)
}

// BenchmarkFromTheBeginning reads a big topic, as a start does.
func BenchmarkFromTheBeginning(b *testing.B) {
	const records, partitions = 200_000, 4
	k := fake(b, kfake.SeedTopics(partitions, "t"))
	cl, err := kgo.NewClient(kgo.SeedBrokers(k.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MaxBufferedRecords(100_000))
	require.NoError(b, err)
	defer cl.Close()
	value := make([]byte, 300)
	for n := range records {
		cl.Produce(b.Context(), &kgo.Record{Topic: "t", Partition: int32(n % partitions), Key: strconv.AppendInt(nil, int64(n), 10), Value: value}, nil)
	}
	require.NoError(b, cl.Flush(b.Context()))
	for b.Loop() {
		cfg := tabling(k.ListenAddrs(), nil, "t")
		cfg.Handle, cfg.Progress = func(*Fetched) {}, nil
		c, err := NewConsumer(cfg)
		require.NoError(b, err)
		ctx, cancel := context.WithCancel(b.Context())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }() // ends with cancel
		<-c.Positioned()
		cancel()
		require.NoError(b, <-done)
	}
	b.ReportMetric(records*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}
