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

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/kafka"
	"sluice/test/cluster"
	"sluice/test/netem"
)

// A stream produces numbered records to one topic, as many at a time as its window allows, and keeps what became of
// each. The value of a record is its number, its key the number modulo the keys, so a reader sees losses, repeats and
// disorder.
type stream struct {
	topic  string
	keys   int
	window chan struct{}

	next    atomic.Int64
	stored  atomic.Int64
	mu      sync.Mutex
	done    []uint8         // how often record n was answered
	refused map[int64]error // by number
	slowest time.Duration
}

func newStream(topic string, window int) *stream {
	return &stream{topic: topic, keys: 50, window: make(chan struct{}, window), refused: map[int64]error{}}
}

// RecordDone keeps the outcome.
func (s *stream) RecordDone(r *kafka.Record, err error) {
	n, _ := strconv.ParseInt(string(r.Value), 10, 64)
	s.mu.Lock()
	for int64(len(s.done)) <= n {
		s.done = append(s.done, 0)
	}
	s.done[n]++
	s.slowest = max(s.slowest, time.Since(r.Timestamp))
	if err != nil {
		s.refused[n] = err
	} else {
		s.stored.Add(1)
	}
	s.mu.Unlock()
	<-s.window
}

// run produces until ctx ends.
func (s *stream) run(ctx context.Context, p *kafka.Producer) {
	for {
		select {
		case <-ctx.Done():
			return
		case s.window <- struct{}{}:
		}
		n := s.next.Add(1) - 1
		p.Produce(&kafka.Record{Topic: s.topic, Key: fmt.Appendf(nil, "k%d", n%int64(s.keys)), Value: strconv.AppendInt(nil, n, 10),
			Timestamp: time.Now(), Owner: s})
	}
}

// flows waits until so many more records are stored.
func (s *stream) flows(t testing.TB, more int64) {
	t.Helper()
	before := s.stored.Load()
	require.Eventually(t, func() bool { return s.stored.Load() >= before+more }, 90*time.Second, 5*time.Millisecond, "records are stored")
}

// caughtUp waits until every record that was produced by now is answered.
func (s *stream) caughtUp(t testing.TB) {
	t.Helper()
	n := s.next.Load()
	require.Eventually(t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return int64(len(s.done)) >= n && !slices.Contains(s.done[:n], 0)
	}, 90*time.Second, 10*time.Millisecond, "what waited is stored")
}

// verify requires that every record was answered once and is in Kafka once and in order, and none failed.
func (s *stream) verify(t testing.TB, brokers []string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.next.Load()
	require.Len(t, s.done, int(n))
	for i, times := range s.done {
		require.EqualValues(t, 1, times, "record %d", i)
	}
	seen, disorder := s.read(t, brokers)
	lost, twice, strange := 0, 0, 0
	for i := range n {
		switch {
		case seen[i] == 0 && s.refused[i] == nil:
			lost++
		case seen[i] > 1:
			twice++
		case seen[i] > 0 && s.refused[i] != nil:
			strange++
		}
	}
	t.Logf("%d records, %d failed (of these %d are stored), %d lost, %d twice, %d out of order; slowest %v", n, len(s.refused), strange, lost, twice, disorder, s.slowest)
	for i, err := range s.refused {
		require.NoError(t, err, "record %d", i)
	}
	require.Zero(t, lost+twice+disorder)
}

// read counts how often each record is in Kafka and how often a key's numbers fall, with a client of another make.
func (s *stream) read(t testing.TB, brokers []string) (seen map[int64]int, disorder int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(s.topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	require.NoError(t, err)
	defer c.Close()
	ends, err := kadm.NewClient(c).ListEndOffsets(ctx, s.topic)
	require.NoError(t, err)
	left := int64(0)
	ends.Each(func(o kadm.ListedOffset) {
		require.NoError(t, o.Err)
		left += o.Offset
	})
	seen = map[int64]int{}
	last := map[string]int64{}
	for left > 0 {
		fetches := c.PollFetches(ctx)
		require.NoError(t, ctx.Err(), "%d records are left to read", left)
		fetches.EachRecord(func(r *kgo.Record) {
			n, err := strconv.ParseInt(string(r.Value), 10, 64)
			require.NoError(t, err)
			seen[n]++
			if before, ok := last[string(r.Key)]; ok && n <= before {
				disorder++
			}
			last[string(r.Key)] = n
			left--
		})
	}
	return seen, disorder
}

// runProducer runs a producer until the test ends.
func runProducer(t testing.TB, cfg kafka.Config) *kafka.Producer {
	t.Helper()
	cfg.Logger = zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.InfoLevel)
	cfg.Compression = "lz4"
	p, err := kafka.NewProducer(cfg)
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- p.Run(context.Background()) }() // ends with Close
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		require.NoError(t, p.Close(ctx))
		require.NoError(t, <-done)
	})
	return p
}

// under runs trouble while s produces, and then verifies.
func under(t testing.TB, p *kafka.Producer, brokers []string, s *stream, trouble func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan struct{})
	go func() { // ends with ctx
		defer close(ended)
		s.run(ctx, p)
	}()
	s.flows(t, 1000)
	trouble()
	s.flows(t, 1000)
	require.Eventually(t, p.Up, patience, 10*time.Millisecond)
	cancel()
	<-ended
	require.Eventually(t, func() bool { return len(s.window) == 0 }, time.Minute, 5*time.Millisecond, "every record is answered")
	s.verify(t, brokers)
}

// TestProducerLosesNothingWhenTheBrokerIsKilled: kill -9 of the only node, for longer than any of sarama's own limits
// in the long run.
func TestProducerLosesNothingWhenTheBrokerIsKilled(t *testing.T) {
	besideOthers(t)
	kafkas := cluster.Need(t, cluster.Config{Own: true})
	topic := newTopic(t, kafkas, 6)
	p := runProducer(t, kafka.Config{Brokers: kafkas.Brokers()})
	under(t, p, kafkas.Brokers(), newStream(topic, 4000), func() {
		for _, away := range either([]time.Duration{3 * time.Second}, []time.Duration{10 * time.Second, 40 * time.Second, 0, 0, 20 * time.Second}) {
			require.NoError(t, kafkas.Kill(0))
			require.Eventually(t, func() bool { return !p.Up() }, patience, 10*time.Millisecond)
			<-time.After(away) // the length of the outage is what is tested
			require.NoError(t, kafkas.Restart(0))
			require.Eventually(t, p.Up, patience, 10*time.Millisecond)
		}
	})
}

// TestProducerLosesNothingWhenNodesAreKilledInTurn: three nodes, two of them in sync at least.
func TestProducerLosesNothingWhenNodesAreKilledInTurn(t *testing.T) {
	besideOthers(t)
	kafkas := cluster.Need(t, cluster.Config{Own: true, Nodes: 3})
	topic := cluster.TopicName(t)
	require.NoError(t, kafkas.CreateTopic(topic, 6, 3, nil))
	p := runProducer(t, kafka.Config{Brokers: kafkas.Brokers()})
	s := newStream(topic, 4000)
	under(t, p, kafkas.Brokers(), s, func() {
		for i := range either(1, 9) {
			require.NoError(t, kafkas.Kill(i%3))
			if i%2 == 0 {
				s.flows(t, 500)
			}
			require.NoError(t, kafkas.Restart(i%3))
			s.flows(t, 500)
		}
	})
}

// TestProducerLosesNothingWhenTheNetworkSwallowsPackets: connections that stay open and say nothing.
func TestProducerLosesNothingWhenTheNetworkSwallowsPackets(t *testing.T) {
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
	p := runProducer(t, kafka.Config{Brokers: kafkas.Brokers()})
	s := newStream(topic, 4000)
	under(t, p, kafkas.Direct(), s, func() {
		for _, away := range either([]time.Duration{2 * time.Second}, []time.Duration{5 * time.Second, 20 * time.Second, 45 * time.Second}) {
			link.Swallow()
			require.Eventually(t, func() bool { return !p.Up() }, patience, 10*time.Millisecond, "a silent network is noticed")
			<-time.After(away) // the length of the outage is what is tested
			require.NoError(t, link.Heal())
			healed := time.Now()
			s.flows(t, 1000)
			flow := time.Since(healed)
			s.caughtUp(t)
			t.Logf("records flow %v after the network was healed, those that waited are stored after %v", flow, time.Since(healed))
		}
	})
}

// TestProducerKeepsTheRecordsOfADeletedTopic: on a real Kafka the new topic of the old name is another one.
func TestProducerKeepsTheRecordsOfADeletedTopic(t *testing.T) {
	besideOthers(t)
	kafkas := cluster.Shared(t)
	doomed, free := newTopic(t, kafkas, 3), newTopic(t, kafkas, 3)
	p := runProducer(t, kafka.Config{Brokers: kafkas.Brokers(), CreateTopics: &kafka.CreateTopics{Partitions: 2, Replication: 1}})
	lost, other := newStream(doomed, 2000), newStream(free, 2000)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	for _, s := range []*stream{lost, other} {
		wg.Go(func() { s.run(ctx, p) }) // ends with ctx
	}
	lost.flows(t, 1000)
	_, err := kadm.NewClient(independent(t, kafkas.Brokers())).DeleteTopic(t.Context(), doomed) // and no wait: it is soon there again
	require.NoError(t, err)
	lost.flows(t, 5000)
	other.flows(t, 1000)
	cancel()
	wg.Wait()
	require.Eventually(t, func() bool { return len(lost.window)+len(other.window) == 0 }, time.Minute, 5*time.Millisecond)
	other.verify(t, kafkas.Brokers())
	lost.mu.Lock()
	defer lost.mu.Unlock()
	for n, err := range lost.refused {
		require.False(t, kafka.Final(err), "record %d: %v", n, err)
	}
	seen, disorder := lost.read(t, kafkas.Brokers())
	twice := 0
	for _, times := range seen {
		twice += times - 1
	}
	t.Logf("%d records, %d of them in the new topic, %d more than once, %d left open", lost.next.Load(), len(seen), twice, len(lost.refused))
	require.Zero(t, disorder)
}
