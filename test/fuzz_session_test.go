package test

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/test/cluster"
	"sluice/test/internal/wire"
)

// A sessionFuzz is a run of the session fuzzer.
type sessionFuzz struct {
	*instance
	hello   wire.Hello
	doors   []door
	until   time.Time
	ledger  ledger
	serial  atomic.Uint64 // of messages
	orders  chan string   // client IDs that want a command
	counts  fuzzCounts
	faultMu sync.Mutex
	fault   string // the first thing that must not happen
}

type fuzzCounts struct {
	connections, refused, packets, mutated, cut, clean, interrupted, commands atomic.Int64
}

const fuzzConfig = `limits: {topic_alias_maximum: 16}
publish:
  - match: healthy/#
    topic: %q
  - match: once/{device}/#
    topic: %q
    exactly_once: true
  - match: devices/{device}/#
    topic: %q
    key: "{device}"
commands:
  - topic: %q
    publish: devices/{key}/commands
    qos: 2
`

const fuzzWorkers = 16

// TestSessionFuzz keeps sessions alive on several connections at once and mutates what they send: what valid devices say,
// then the same with bits flipped, cut, spliced, sent twice, out of order, or in pieces. SLUICE_FUZZTIME is how long it
// lasts, SLUICE_SEED repeats a run's decisions, if not the moments at which they meet.
func TestSessionFuzz(t *testing.T) {
	kafka := cluster.Shared(t)
	seed := fuzzSeed(t)
	t.Logf("SLUICE_SEED=%d", seed)
	fine, orders := newTopic(t, kafka, 1), newTopic(t, kafka, 3)
	topic := cluster.TopicName(t)
	require.NoError(t, kafka.CreateTopic(topic, 6, 1, map[string]string{"retention.bytes": "100000000", "segment.bytes": "10000000"}))
	f := &sessionFuzz{orders: make(chan string, 100)}
	f.serve(t, kafka.Brokers(), fmt.Sprintf(fuzzConfig, fine, topic, topic, orders))
	f.play(t, kafka, seed, fine, topic, orders)
}

func fuzzSeed(t testing.TB) uint64 {
	text := cmp.Or(os.Getenv("SLUICE_SEED"), strconv.FormatUint(rand.Uint64(), 10))
	seed, err := strconv.ParseUint(text, 10, 64)
	require.NoError(t, err)
	return seed
}

func fuzzTime(t testing.TB) time.Duration {
	text := os.Getenv("SLUICE_FUZZTIME")
	if text == "" {
		return either(10*time.Second, 10*time.Minute)
	}
	d, err := time.ParseDuration(text)
	require.NoError(t, err)
	return d
}

func (f *sessionFuzz) play(t *testing.T, kafka *cluster.Cluster, seed uint64, fine, topic, orders string) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	h := startHealthy(t, f.address, f.hello)
	var helpers, workers sync.WaitGroup
	helpers.Go(func() { f.follow(ctx, kafka, topic) })
	helpers.Go(func() { f.command(ctx, kafka, orders) })
	before, begin := f.rss(), time.Now()
	f.until = begin.Add(fuzzTime(t))
	helpers.Go(func() { f.watch(ctx, t, before) })
	for i := range fuzzWorkers {
		workers.Go(func() { f.work(rand.New(rand.NewPCG(seed, uint64(i)))) })
	}
	workers.Wait()
	took := time.Since(begin)

	require.True(t, f.running(), "the process ended")
	require.Zero(t, f.metric("sluice_mqtt_recovered_panics_total"), "SLUICE_SEED=%d", seed)
	require.Empty(t, f.fault, "SLUICE_SEED=%d", seed)
	require.Less(t, f.counts.refused.Load(), 20+f.counts.connections.Load()/10, "valid devices are refused while Kafka is there")
	stored := h.finish(t)
	require.Len(t, distinct(records(t, kafka.Brokers(), fine, stored)), stored)
	require.Eventually(t, func() bool { return f.ledger.missing() == 0 }, time.Minute, 100*time.Millisecond, "what was acknowledged is in Kafka")
	cancel()
	helpers.Wait()
	grown := f.rss() - before
	f.report(t, took, grown, stored, h.slowest)
	require.Less(t, grown, int64(128<<20), "memory")
	requireTidyOutput(t, f.instance)
}

func (f *sessionFuzz) report(t *testing.T, took time.Duration, grown int64, stored int, slowest time.Duration) {
	c := &f.counts
	require.LessOrEqual(t, c.interrupted.Load(), 5+c.clean.Load()/10, "sessions without a fault that were ended")
	t.Logf("%v: %d connections (%d refused, %d ended by the server), %d packets, %d of them mutated, %.0f packets a second",
		took.Round(time.Second), c.connections.Load(), c.refused.Load(), c.cut.Load(), c.packets.Load(), c.mutated.Load(), float64(c.packets.Load())/took.Seconds())
	t.Logf("%d sessions without a fault went to their end, %d were ended while Kafka was away, %d commands came, %d acknowledged messages are all in Kafka, memory %+d KB",
		c.clean.Load(), c.interrupted.Load(), c.commands.Load(), f.ledger.acked.count(), grown>>10)
	t.Logf("the healthy device: %d messages, the slowest answer after %v", stored, slowest)
}

// watch writes a line a minute, for runs of hours.
func (f *sessionFuzz) watch(ctx context.Context, t *testing.T, before int64) {
	minute := time.NewTicker(time.Minute)
	defer minute.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-minute.C:
			t.Logf("%d connections, %d packets, memory %+d KB", f.counts.connections.Load(), f.counts.packets.Load(), (f.rss()-before)>>10)
		}
	}
}

// fail notes what must not happen, and ends the run.
func (f *sessionFuzz) fail(format string, args ...any) {
	f.faultMu.Lock()
	defer f.faultMu.Unlock()
	if f.fault == "" {
		f.fault = fmt.Sprintf(format, args...)
	}
}

func (f *sessionFuzz) over() bool {
	f.faultMu.Lock()
	defer f.faultMu.Unlock()
	return f.fault != "" || time.Now().After(f.until) || !f.running()
}

// follow reads what came to Kafka.
func (f *sessionFuzz) follow(ctx context.Context, kafka *cluster.Cluster, topic string) {
	c, err := kgo.NewClient(kgo.SeedBrokers(kafka.Brokers()...), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		f.fail("%v", err)
		return
	}
	defer c.Close()
	for ctx.Err() == nil {
		c.PollFetches(ctx).EachRecord(func(r *kgo.Record) { f.ledger.found(r.Value) })
	}
}

// command writes commands to devices that want some.
func (f *sessionFuzz) command(ctx context.Context, kafka *cluster.Cluster, topic string) {
	c, err := kgo.NewClient(kgo.SeedBrokers(kafka.Brokers()...), kgo.DefaultProduceTopic(topic))
	if err != nil {
		f.fail("%v", err)
		return
	}
	defer c.Close()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case id := <-f.orders:
			qos := []kgo.RecordHeader{{Key: "mqtt.qos", Value: fmt.Append(nil, n%3)}}
			c.Produce(ctx, &kgo.Record{Key: []byte(id), Value: []byte("do"), Headers: qos}, nil)
		}
	}
}
