package test

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/kafka"
	"sluice/test/cluster"
)

// A mirror is a compacted topic as it was read: the last value of each key, and how far it is.
type mirror struct {
	mu     sync.Mutex
	values map[string]string
	next   map[int32]int64
}

func (m *mirror) handle(r *kafka.Fetched) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.values[string(r.Key)] = string(r.Value); r.Value == nil {
		delete(m.values, string(r.Key))
	}
}

func (m *mirror) progress(_ string, partition int32, next int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.next[partition] = next
}

func (m *mirror) is(want map[string]string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Equal(want, m.values)
}

func (m *mirror) reached(ends map[int32]int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for p, end := range ends {
		if m.next[p] < end {
			return false
		}
	}
	return true
}

// mirrored reads a topic from its beginning, and returns when it has all that there was.
func mirrored(t testing.TB, brokers []string, topic string) (*mirror, *kafka.Consumer) {
	m := &mirror{values: map[string]string{}, next: map[int32]int64{}}
	c := runConsumer(t, kafka.ConsumerConfig{Config: kafka.Config{Brokers: brokers}, Topics: []string{topic}, From: kafka.FromBeginning,
		Handle: m.handle, Progress: m.progress}, &listener{})
	return m, c
}

// churn overwrites keys in all partitions, plainly and in transactions of which every other is aborted, and notes what
// holds. A marker is the last there is in each partition.
func churn(t testing.TB, plain, tx *kgo.Client, topic string, partitions, rounds int, want map[string]string) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	value := 0
	fresh := func(p int, key string) *kgo.Record {
		value++
		return &kgo.Record{Topic: topic, Partition: int32(p), Key: fmt.Appendf(nil, "%d-%s", p, key), Value: fmt.Appendf(nil, "%d-%p", value, &value)}
	}
	for n := range rounds {
		require.NoError(t, tx.BeginTransaction())
		commit := n%2 == 1
		for p := range partitions {
			r, gone := fresh(p, strconv.Itoa(n%3)), fresh(p, "gone")
			if n%2 == 0 {
				gone.Value = nil
			}
			require.NoError(t, plain.ProduceSync(ctx, r, gone).FirstErr())
			if want[string(r.Key)] = string(r.Value); gone.Value == nil {
				delete(want, string(gone.Key))
			} else {
				want[string(gone.Key)] = string(gone.Value)
			}
			in := fresh(p, "tx")
			require.NoError(t, tx.ProduceSync(ctx, in).FirstErr())
			if commit {
				want[string(in.Key)] = string(in.Value)
			}
		}
		require.NoError(t, tx.EndTransaction(ctx, kgo.TransactionEndTry(commit)))
	}
}

// TestStateIsReadFromItsBeginningThroughCompactionAndALeaderThatDies, with the pieces that a Reader reads of it.
func TestStateIsReadFromItsBeginningThroughCompactionAndALeaderThatDies(t *testing.T) {
	besideOthers(t)
	const topic, partitions = "state", 2
	kafkas := cluster.Need(t, cluster.Config{Nodes: 3, Properties: map[string]string{"log.cleaner.backoff.ms": "200", "log.cleaner.threads": "1"}})
	admin, err := kafka.NewAdmin(kafka.Config{Brokers: kafkas.Brokers(), CreateTopics: &kafka.CreateTopics{}, Logger: zerolog.Nop()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, admin.Close()) })
	state := []kafka.StateTopic{{Name: topic, Partitions: partitions, Replication: 3, Settings: map[string]string{"cleanup.policy": "compact",
		"segment.bytes": "1048576", "segment.ms": "500", "min.cleanable.dirty.ratio": "0.001", "delete.retention.ms": "0", "min.insync.replicas": "2"}}}
	ensure(t, admin, state)

	plain := independent(t, kafkas.Brokers())
	tx := independent(t, kafkas.Brokers(), kgo.TransactionalID("churn"))
	want := map[string]string{}
	before, c := mirrored(t, kafkas.Brokers(), topic)
	require.Eventually(t, func() bool { // until it was compacted
		churn(t, plain, tx, topic, partitions, 6, want)
		_, shown := pieces(t, kafkas.Brokers(), topic, 0)
		return int64(shown)*2 < before.at(0)
	}, 2*time.Minute, 300*time.Millisecond, "compaction")

	written := func() bool { return before.is(want) }
	require.Eventually(t, written, time.Minute, 5*time.Millisecond, "as it was written") // Kafka writes markers after its answer
	ends, err := c.Ends(t.Context(), topic)
	require.NoError(t, err)
	require.Len(t, ends, partitions)
	require.Eventually(t, func() bool { return before.reached(ends) }, time.Minute, 5*time.Millisecond, "markers are passed")
	after, _ := mirrored(t, kafkas.Brokers(), topic)
	require.True(t, after.reached(ends), "positioned is at the end")
	require.True(t, after.is(want), "as it is after compaction")
	for p, end := range ends {
		next, _ := pieces(t, kafkas.Brokers(), topic, p)
		require.Equal(t, end, next)
	}

	require.NoError(t, kafkas.Kill(leaderOf(t, kafkas.Brokers(), topic, 0)))
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	end, err := c.End(ctx, topic, 0)
	require.NoError(t, err)
	require.Equal(t, ends[0], end, "nothing of it is lost")
	churn(t, plain, tx, topic, partitions, 2, want)
	require.Eventually(t, written, time.Minute, 5*time.Millisecond, "it goes on")
	ends, err = c.Ends(ctx, topic)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return before.reached(ends) }, time.Minute, 5*time.Millisecond, "markers are passed")
	next, _ := pieces(t, kafkas.Brokers(), topic, 0)
	require.Equal(t, ends[0], next)
}

func (m *mirror) at(partition int32) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.next[partition]
}

// ensure creates topics, and finds them as they are to be the second time.
func ensure(t testing.TB, admin *kafka.Admin, topics []kafka.StateTopic) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for made := 0; ; {
		created, err := admin.EnsureState(ctx, topics)
		if made += len(created); err == nil && len(created) == 0 {
			require.Equal(t, len(topics), made)
			return
		}
		require.False(t, kafka.Final(err), "%v", err)
		require.NoError(t, ctx.Err(), "%v", err)
	}
}

// pieces reads a partition with a Reader, piece by piece, and gives its end and how many records were shown.
func pieces(t testing.TB, brokers []string, topic string, partition int32) (next int64, shown int) {
	r, err := kafka.NewReader(kafka.Config{Brokers: brokers, Logger: zerolog.Nop()})
	require.NoError(t, err)
	defer r.Close()
	at, fails := int64(-1), 0
	for at != next {
		at = next
		last := at - 1
		next, err = r.Read(t.Context(), topic, partition, at, 2000, func(f *kafka.Fetched) bool {
			if f.Offset <= last {
				t.Errorf("offset %d after %d", f.Offset, last)
			}
			last = f.Offset
			shown++
			return true
		})
		if err != nil {
			fails++
			require.Less(t, fails, 100, "%v", err)
			at, next = -1, at
		}
	}
	return next, shown
}

// leaderOf gives the index of the node that leads a partition.
func leaderOf(t testing.TB, brokers []string, topic string, partition int32) int {
	topics, err := kadm.NewClient(independent(t, brokers)).ListTopics(t.Context(), topic)
	require.NoError(t, err)
	return int(topics[topic].Partitions[partition].Leader) - 1 // node IDs begin at 1
}

// BenchmarkStateFromTheBeginning is the start of an instance with a million sessions.
func BenchmarkStateFromTheBeginning(b *testing.B) {
	const records, partitions = 1_000_000, 12
	kafkas := cluster.Shared(b)
	topic := newTopic(b, kafkas, partitions)
	c := independent(b, kafkas.Brokers(), kgo.MaxBufferedRecords(50_000), kgo.ProducerLinger(5*time.Millisecond))
	value := make([]byte, 300)
	for n := range records {
		c.Produce(b.Context(), &kgo.Record{Topic: topic, Partition: int32(n % partitions), Key: strconv.AppendInt(nil, int64(n), 10), Value: value}, nil)
	}
	require.NoError(b, c.Flush(b.Context()))
	for b.Loop() {
		runConsumer(b, kafka.ConsumerConfig{Config: kafka.Config{Brokers: kafkas.Brokers()}, Topics: []string{topic}, From: kafka.FromBeginning,
			Handle: func(*kafka.Fetched) {}}, &listener{})
	}
	b.ReportMetric(records*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}
