package test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/kafka"
	"sluice/test/cluster"
	"sluice/test/netem"
)

// A heard record is what is kept of one that the consumer gave.
type heard struct {
	offset int64
	value  string
}

// A listener keeps what a consumer gives, by partition.
type listener struct {
	mu    sync.Mutex
	heard map[int32][]heard
	count atomic.Int64
	onTop func(r *kafka.Fetched) // further work; may be nil
}

func (l *listener) handle(r *kafka.Fetched) {
	if l.onTop != nil {
		l.onTop(r)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard[r.Partition] = append(l.heard[r.Partition], heard{r.Offset, string(r.Value)})
	l.count.Add(1)
}

// of gives what was heard of a partition.
func (l *listener) of(partition int32) []heard {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.heard[partition])
}

func (l *listener) values(partition int32) (values []string) {
	for _, h := range l.of(partition) {
		values = append(values, h.value)
	}
	return values
}

// flows waits until so many more records are given.
func (l *listener) flows(t testing.TB, more int64) {
	t.Helper()
	before := l.count.Load()
	require.Eventually(t, func() bool { return l.count.Load() >= before+more }, 90*time.Second, 5*time.Millisecond, "records are given")
}

// runConsumer follows topics until the test ends, and returns when it has found its place.
func runConsumer(t testing.TB, cfg kafka.ConsumerConfig, l *listener) *kafka.Consumer {
	t.Helper()
	cfg.Logger = zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.InfoLevel)
	if l.heard = map[int32][]heard{}; cfg.Handle == nil {
		cfg.Handle = l.handle
	}
	c, err := kafka.NewConsumer(cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }() // ends with cancel
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			require.NoError(t, err)
		case <-time.After(30 * time.Second):
			t.Error("the consumer does not end")
		}
	})
	select {
	case <-c.Positioned():
	case <-time.After(90 * time.Second):
		t.Fatal("the consumer does not find its place")
	}
	return c
}

// independent makes a client that was not written here, which chooses partitions by hand.
func independent(t testing.TB, brokers []string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	c, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(0), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.MetadataMinAge(50 * time.Millisecond), kgo.UnknownTopicRetries(-1)}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// say appends values to a partition.
func say(t testing.TB, c *kgo.Client, topic string, partition int32, values ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var rs []*kgo.Record
	for _, v := range values {
		rs = append(rs, &kgo.Record{Topic: topic, Partition: partition, Value: []byte(v)})
	}
	require.NoError(t, c.ProduceSync(ctx, rs...).FirstErr())
}

// talk produces numbered records to all partitions in turn until ctx ends, and gives how many were acknowledged. No
// more than 500 wait for Kafka, and it makes some 2000 a second at most.
func talk(ctx context.Context, c *kgo.Client, topic string, partitions int) int64 {
	var acked atomic.Int64
	window := make(chan struct{}, 500)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ctx.Err() == nil; n++ {
		if n%10 == 0 {
			<-tick.C
		}
		select {
		case window <- struct{}{}:
		case <-ctx.Done():
			continue
		}
		r := &kgo.Record{Topic: topic, Partition: int32(n % partitions), Value: strconv.AppendInt(nil, int64(n), 10)}
		c.Produce(context.Background(), r, func(_ *kgo.Record, err error) {
			if err == nil {
				acked.Add(1)
			}
			<-window
		})
	}
	flush, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_ = c.Flush(flush) // what it leaves is not acknowledged
	return acked.Load()
}

// underTrouble has records produced while there is trouble, and requires that the consumer gave exactly what is in
// Kafka, partition by partition, in its order.
func underTrouble(t testing.TB, brokers []string, topic string, partitions int, l *listener, trouble func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	acked := make(chan int64, 1)
	producer := independent(t, brokers)
	go func() { acked <- talk(ctx, producer, topic, partitions) }() // ends with ctx
	l.flows(t, 1000)
	trouble()
	l.flows(t, 1000)
	cancel()
	n := <-acked
	require.Eventually(t, func() bool { return l.count.Load() >= n }, time.Minute, 5*time.Millisecond, "all that was acknowledged is given")
	stored := contents(t, brokers, topic)
	total := 0
	for i := range int32(partitions) {
		total += len(stored[i])
		require.Equal(t, stored[i], l.of(i), "partition %d", i)
	}
	t.Logf("%d records acknowledged, %d stored, %d given, in order", n, total, l.count.Load())
	require.GreaterOrEqual(t, int64(total), n)
}

// contents reads the committed records of a topic, by partition.
func contents(t testing.TB, brokers []string, topic string) map[int32][]heard {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	require.NoError(t, err)
	defer c.Close()
	ends, err := kadm.NewClient(c).ListEndOffsets(ctx, topic)
	require.NoError(t, err)
	left := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		require.NoError(t, o.Err)
		if o.Offset > 0 {
			left[o.Partition] = o.Offset
		}
	})
	stored := map[int32][]heard{}
	for len(left) > 0 {
		fetches := c.PollFetches(ctx)
		require.NoError(t, ctx.Err(), "some of %v is left to read", left)
		fetches.EachRecord(func(r *kgo.Record) {
			stored[r.Partition] = append(stored[r.Partition], heard{r.Offset, string(r.Value)})
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
		})
	}
	return stored
}

// TestConsumerLosesNothingWhenTheBrokerIsKilled: kill -9 of the only node, while records wait to be produced.
func TestConsumerLosesNothingWhenTheBrokerIsKilled(t *testing.T) {
	besideOthers(t)
	kafkas := cluster.Need(t, cluster.Config{Own: true})
	topic := newTopic(t, kafkas, 6)
	l := new(listener)
	runConsumer(t, kafka.ConsumerConfig{Config: kafka.Config{Brokers: kafkas.Brokers()}, Topics: []string{topic}}, l)
	underTrouble(t, kafkas.Brokers(), topic, 6, l, func() {
		for _, away := range either([]time.Duration{3 * time.Second, 0}, []time.Duration{10 * time.Second, 40 * time.Second, 0, 0, 20 * time.Second}) {
			require.NoError(t, kafkas.Kill(0))
			<-time.After(away) // the length of the outage is what is tested
			require.NoError(t, kafkas.Restart(0))
			back := time.Now()
			l.flows(t, 1000)
			t.Logf("1000 records were given %v after the broker was back", time.Since(back))
		}
	})
}

// TestConsumerLosesNothingWhenNodesAreKilledInTurn: three nodes, two of them in sync at least.
func TestConsumerLosesNothingWhenNodesAreKilledInTurn(t *testing.T) {
	besideOthers(t)
	kafkas := cluster.Need(t, cluster.Config{Own: true, Nodes: 3})
	topic := cluster.TopicName(t)
	require.NoError(t, kafkas.CreateTopic(topic, 6, 3, nil))
	l := new(listener)
	runConsumer(t, kafka.ConsumerConfig{Config: kafka.Config{Brokers: kafkas.Brokers()}, Topics: []string{topic}}, l)
	underTrouble(t, kafkas.Brokers(), topic, 6, l, func() {
		for i := range either(1, 9) {
			require.NoError(t, kafkas.Kill(i%3))
			killed := time.Now()
			if i%2 == 0 {
				l.flows(t, 500)
				t.Logf("500 records were given %v after a node was killed", time.Since(killed))
			}
			require.NoError(t, kafkas.Restart(i%3))
			back := time.Now()
			l.flows(t, 500)
			t.Logf("500 records were given %v after it was back", time.Since(back))
		}
	})
}

// TestConsumerLosesNothingWhenTheNetworkSwallowsPackets: connections that stay open and say nothing. The producer's
// way to Kafka is not disturbed, so what it appends meanwhile has to be caught up with.
func TestConsumerLosesNothingWhenTheNetworkSwallowsPackets(t *testing.T) {
	besideOthers(t)
	var link *netem.Proxy
	kafkas := cluster.Need(t, cluster.Config{Own: true, Advertise: func(_ int, addr string) string {
		if link == nil {
			var err error
			link, err = netem.New(addr)
			require.NoError(t, err)
		}
		return link.Addr()
	}})
	defer func() { _ = link.Close() }()
	topic := newTopic(t, kafkas, 6)
	l := new(listener)
	runConsumer(t, kafka.ConsumerConfig{Config: kafka.Config{Brokers: kafkas.Brokers(), RequestTimeout: 2 * time.Second}, Topics: []string{topic}}, l)
	underTrouble(t, kafkas.Direct(), topic, 6, l, func() {
		for _, away := range either([]time.Duration{time.Second, 6 * time.Second}, []time.Duration{5 * time.Second, 20 * time.Second, 45 * time.Second}) {
			link.Swallow()
			<-time.After(away) // the length of the outage is what is tested
			require.NoError(t, link.Heal())
			healed := time.Now()
			l.flows(t, 1)
			t.Logf("records are given %v after the network was healed", time.Since(healed))
			l.flows(t, 1000)
		}
	})
}

// TestConsumerReadsATopicMadeAnewFromItsBeginning: on a real Kafka the new topic of the old name is another one.
func TestConsumerReadsATopicMadeAnewFromItsBeginning(t *testing.T) {
	besideOthers(t)
	kafkas := cluster.Shared(t)
	doomed, free := newTopic(t, kafkas, 2), newTopic(t, kafkas, 1)
	var others atomic.Int64
	l := new(listener)
	c := independent(t, kafkas.Brokers())
	cfg := kafka.ConsumerConfig{Config: kafka.Config{Brokers: kafkas.Brokers()}, Topics: []string{doomed, free}, Refresh: 500 * time.Millisecond}
	cfg.Handle = func(r *kafka.Fetched) {
		if r.Topic == free {
			others.Add(1)
			return
		}
		l.handle(r)
	}
	runConsumer(t, cfg, l)
	say(t, c, doomed, 0, "a", "b", "c")
	l.flows(t, 3-l.count.Load())
	for round := range 3 {
		require.NoError(t, kafkas.DeleteTopic(doomed))
		if round == 1 { // one is missed for longer than the consumer takes to believe it
			before := others.Load()
			for n := range int64(100) {
				say(t, c, free, 0, "x")
				require.Eventually(t, func() bool { return others.Load() == before+n+1 }, time.Minute, time.Millisecond)
			}
		}
		require.NoError(t, kafkas.CreateTopic(doomed, 2, 1, nil))
		say(t, independent(t, kafkas.Brokers()), doomed, 0, fmt.Sprint("d", round), "e")
		want := int64(3 + 2*(round+1))
		require.Eventually(t, func() bool { return l.count.Load() >= want }, time.Minute, 5*time.Millisecond, "round %d", round)
	}
	require.Equal(t, []string{"a", "b", "c", "d0", "e", "d1", "e", "d2", "e"}, l.values(0))
}

// TestConsumerGivesCommittedRecordsOnly: with a transaction that is open at the start, and aborted ones.
func TestConsumerGivesCommittedRecordsOnly(t *testing.T) {
	besideOthers(t)
	kafkas := cluster.Shared(t)
	topic := newTopic(t, kafkas, 1)
	plain := independent(t, kafkas.Brokers())
	one := independent(t, kafkas.Brokers(), kgo.TransactionalID(topic+"-one"))
	two := independent(t, kafkas.Brokers(), kgo.TransactionalID(topic+"-two"))
	say(t, plain, topic, 0, "old")
	require.NoError(t, one.BeginTransaction())
	say(t, one, topic, 0, "open at the start")
	say(t, plain, topic, 0, "behind it")
	l := new(listener)
	c := runConsumer(t, kafka.ConsumerConfig{Config: kafka.Config{Brokers: kafkas.Brokers()}, Topics: []string{topic}}, l)
	require.NoError(t, one.EndTransaction(t.Context(), kgo.TryCommit))
	want := []string{"open at the start", "behind it"}
	for n := range 30 {
		require.NoError(t, one.BeginTransaction())
		require.NoError(t, two.BeginTransaction())
		say(t, one, topic, 0, fmt.Sprint("one ", n))
		say(t, two, topic, 0, fmt.Sprint("two ", n))
		say(t, plain, topic, 0, fmt.Sprint("plain ", n))
		require.NoError(t, one.EndTransaction(t.Context(), kgo.TransactionEndTry(n%3 == 0)))
		require.NoError(t, two.EndTransaction(t.Context(), kgo.TransactionEndTry(n%2 == 0)))
		if n%3 == 0 {
			want = append(want, fmt.Sprint("one ", n))
		}
		if n%2 == 0 {
			want = append(want, fmt.Sprint("two ", n))
		}
		want = append(want, fmt.Sprint("plain ", n))
	}
	require.Eventually(t, func() bool { return l.count.Load() >= int64(len(want)) && c.Lag() == 0 }, time.Minute, 5*time.Millisecond)
	require.Equal(t, want, l.values(0))
}

func TestConsumerReadsNewPartitionsFromTheirBeginning(t *testing.T) {
	besideOthers(t)
	kafkas := cluster.Shared(t)
	topic := newTopic(t, kafkas, 1)
	c := independent(t, kafkas.Brokers())
	say(t, c, topic, 0, "old")
	l := new(listener)
	runConsumer(t, kafka.ConsumerConfig{Config: kafka.Config{Brokers: kafkas.Brokers()}, Topics: []string{topic}, Refresh: 2 * time.Second}, l)
	_, err := kadm.NewClient(c).CreatePartitions(t.Context(), 3, topic)
	require.NoError(t, err)
	late := independent(t, kafkas.Brokers())
	for i := range int32(4) {
		require.Eventually(t, func() bool {
			ends, err := kadm.NewClient(late).ListEndOffsets(t.Context(), topic)
			return err == nil && len(ends[topic]) == 4 && ends.Error() == nil
		}, time.Minute, 20*time.Millisecond)
		say(t, late, topic, i, "a", "b")
	}
	require.Eventually(t, func() bool { return l.count.Load() >= 8 }, time.Minute, 5*time.Millisecond)
	for i := range int32(4) {
		require.Equal(t, []string{"a", "b"}, l.values(i))
	}
}

// TestConsumerCountsWhatWasDeletedBeforeItWasRead: retention that overtakes a consumer which is held back.
func TestConsumerCountsWhatWasDeletedBeforeItWasRead(t *testing.T) {
	besideOthers(t)
	kafkas := cluster.Shared(t)
	topic := newTopic(t, kafkas, 1)
	c := independent(t, kafkas.Brokers())
	reg := prometheus.NewRegistry()
	leave := make(chan struct{})
	l := &listener{onTop: func(*kafka.Fetched) { <-leave }}
	consumer := runConsumer(t, kafka.ConsumerConfig{Config: kafka.Config{Brokers: kafkas.Brokers(), Registerer: reg}, Topics: []string{topic}}, l)
	const all, keep = 200, 20
	large := string(make([]byte, 100<<10))
	for range all { // more than it holds while it is held back
		say(t, c, topic, 0, large)
	}
	cut := kadm.Offsets{}
	cut.AddOffset(topic, 0, all-keep, -1)
	_, err := kadm.NewClient(c).DeleteRecords(t.Context(), cut)
	require.NoError(t, err)
	close(leave)
	require.Eventually(t, func() bool { got := l.of(0); return len(got) > 0 && got[len(got)-1].offset == all-1 }, time.Minute, 5*time.Millisecond)
	got := len(l.of(0))
	require.Less(t, got, all)
	families, err := reg.Gather()
	require.NoError(t, err)
	values := map[string]float64{}
	for _, f := range families {
		values[f.GetName()] = f.GetMetric()[0].GetCounter().GetValue()
	}
	require.Equal(t, 1.0, values["sluice_kafka_consumer_gaps_total"])
	require.Equal(t, float64(all-got), values["sluice_kafka_consumer_gap_records_total"])
	require.Eventually(t, func() bool { return consumer.Lag() == 0 }, time.Minute, 5*time.Millisecond)
}

// TestConsumerGivesLargeBatches: each larger than what a partition may have of an answer, from all partitions at once.
func TestConsumerGivesLargeBatches(t *testing.T) {
	kafkas := cluster.Shared(t)
	const partitions, each = 4, 15
	topic := newTopic(t, kafkas, partitions)
	l := new(listener)
	runConsumer(t, kafka.ConsumerConfig{Config: kafka.Config{Brokers: kafkas.Brokers()}, Topics: []string{topic}}, l)
	c := independent(t, kafkas.Brokers())
	var wg sync.WaitGroup
	for i := range int32(partitions) {
		wg.Go(func() { // ends when all are stored
			for n := range each {
				size := 900 << 10
				if n%3 == 0 {
					size = 10
				}
				say(t, c, topic, i, string(make([]byte, size)))
			}
		})
	}
	wg.Wait()
	require.Eventually(t, func() bool { return l.count.Load() == partitions*each }, time.Minute, 5*time.Millisecond)
	for i, stored := range contents(t, kafkas.Brokers(), topic) {
		require.True(t, slices.Equal(stored, l.of(i)), "partition %d", i)
	}
}

// TestConsumerLatency reports how long after the append begins a record is given, at 1000 a second. It asserts nothing
// about time.
func TestConsumerLatency(t *testing.T) {
	kafkas := cluster.Shared(t)
	n := either(3000, 30000)
	for _, partitions := range []int{1, 100} {
		topic := newTopic(t, kafkas, partitions)
		sent, acked, given := make([]time.Time, n), make([]time.Time, n), make([]time.Time, n)
		l := &listener{onTop: func(r *kafka.Fetched) {
			if i, err := strconv.Atoi(string(r.Value)); err == nil {
				given[i] = time.Now()
			}
		}}
		runConsumer(t, kafka.ConsumerConfig{Config: kafka.Config{Brokers: kafkas.Brokers()}, Topics: []string{topic}}, l)
		c := independent(t, kafkas.Brokers())
		say(t, c, topic, 0, "warm") // connections
		tick := time.NewTicker(time.Millisecond)
		for i := range n {
			<-tick.C
			sent[i] = time.Now()
			r := &kgo.Record{Topic: topic, Partition: int32(i % partitions), Value: strconv.AppendInt(nil, int64(i), 10)}
			c.Produce(t.Context(), r, func(*kgo.Record, error) { acked[i] = time.Now() })
		}
		tick.Stop()
		require.NoError(t, c.Flush(t.Context()))
		require.Eventually(t, func() bool { return l.count.Load() == int64(n)+1 }, time.Minute, 5*time.Millisecond)
		t.Logf("%d records in %d partitions: acknowledged after %s, given after %s, given after the acknowledgement by %s",
			n, partitions, spread(sent, acked), spread(sent, given), spread(acked, given))
	}
}

// spread describes the times between what happened at two places.
func spread(from, to []time.Time) string {
	d := make([]time.Duration, len(from))
	for i := range from {
		d[i] = to[i].Sub(from[i])
	}
	slices.Sort(d)
	return fmt.Sprintf("p50 %v p99 %v", d[len(d)/2], d[len(d)*99/100])
}
