package kafka

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(brokerEnv) != "" {
		serveBroker()
		return
	}
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("github.com/rcrowley/go-metrics.(*meterArbiter).tick"),
		// sarama's circuit breakers close again after 10 s, in a goroutine that nobody can end.
		goleak.IgnoreAnyFunction("github.com/eapache/go-resiliency/breaker.(*Breaker).timer"))
}

// patience is how long a test waits for what has to happen.
const patience = 30 * time.Second

// eventually waits for a condition.
func eventually(t testing.TB, ok func() bool, what string) {
	t.Helper()
	require.Eventually(t, ok, patience, 2*time.Millisecond, what)
}

// fake starts an in-memory cluster.
func fake(t testing.TB, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func testConfig(brokers []string) Config {
	return Config{Brokers: brokers, Linger: time.Millisecond, RequestTimeout: 2 * time.Second, DialTimeout: time.Second,
		Logger: zerolog.Nop()}
}

// start runs a producer until the test ends.
func start(t testing.TB, cfg Config) *Producer {
	t.Helper()
	p, err := NewProducer(cfg)
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- p.Run(context.Background()) }() // ends with Close
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = p.Close(ctx)
		require.NoError(t, <-done)
		require.Zero(t, p.outstanding())
	})
	return p
}

// A ledger is an Owner that counts what becomes of records. The value of a record is its number.
type ledger struct {
	mu      sync.Mutex
	done    map[int][]error
	stored  map[int]int64 // offsets
	order   []int         // of completion
	settled chan struct{} // replaced at each change
}

func newLedger() *ledger {
	return &ledger{done: map[int][]error{}, stored: map[int]int64{}, settled: make(chan struct{})}
}

func (l *ledger) RecordDone(r *Record, err error) {
	n, _ := strconv.Atoi(string(r.Value[:min(len(r.Value), 10)]))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done[n] = append(l.done[n], err)
	l.order = append(l.order, n)
	if err == nil {
		l.stored[n] = r.Offset
	}
}

// record makes the n-th record.
func (l *ledger) record(n int, topic, key string) *Record {
	r := &Record{Topic: topic, Value: fmt.Appendf(nil, "%010d", n), Owner: l}
	if key != "" {
		r.Key = []byte(key)
	}
	return r
}

func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.order)
}

// of gives the outcomes of record n.
func (l *ledger) of(n int) []error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.done[n]
}

// errs gives how many ended with an error.
func (l *ledger) errs() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, errs := range l.done {
		for _, err := range errs {
			if err != nil {
				n++
			}
		}
	}
	return n
}

// once fails the test unless each of the first n records ended exactly once.
func (l *ledger) once(t testing.TB, n int) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	require.Len(t, l.done, n)
	require.Len(t, l.order, n, "a record ended twice")
}

// read gives the values of a topic by partition, in order, once there are n in all.
func read(t testing.TB, brokers []string, topic string, n int) map[int32][]*kgo.Record {
	t.Helper()
	c, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	require.NoError(t, err)
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	got := map[int32][]*kgo.Record{}
	for have := 0; have < n && ctx.Err() == nil; {
		c.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			got[r.Partition] = append(got[r.Partition], r)
			have++
		})
	}
	require.NoError(t, ctx.Err(), "not all records are there")
	return got
}

func number(t testing.TB, r *kgo.Record) int {
	t.Helper()
	n, err := strconv.Atoi(string(r.Value[:10]))
	require.NoError(t, err)
	return n
}
