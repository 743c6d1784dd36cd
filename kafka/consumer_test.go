package kafka

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A tape keeps what a consumer gave, and finds fault with its order.
type tape struct {
	mu     sync.Mutex
	values map[string][]string // by topic/partition
	last   map[string]int64    // offset
	faults []string
	bursts int
	open   int // records since the last burst
}

func newTape() *tape { return &tape{values: map[string][]string{}, last: map[string]int64{}} }

func (tp *tape) handle(r *Fetched) {
	tp.mu.Lock()
	defer tp.mu.Unlock()
	at := fmt.Sprint(r.Topic, "/", r.Partition)
	if last, ok := tp.last[at]; ok && r.Offset <= last {
		tp.faults = append(tp.faults, fmt.Sprintf("%s: offset %d after %d", at, r.Offset, last))
	}
	tp.last[at] = r.Offset
	tp.values[at] = append(tp.values[at], string(r.Value))
	tp.open++
}

func (tp *tape) burst() {
	tp.mu.Lock()
	defer tp.mu.Unlock()
	tp.bursts++
	tp.open = 0
}

func (tp *tape) of(topic string, partition int) []string {
	tp.mu.Lock()
	defer tp.mu.Unlock()
	return append([]string(nil), tp.values[fmt.Sprint(topic, "/", partition)]...)
}

func (tp *tape) count() (n int) {
	tp.mu.Lock()
	defer tp.mu.Unlock()
	for _, v := range tp.values {
		n += len(v)
	}
	return n
}

// has waits until n records were given in all, in order.
func (tp *tape) has(t testing.TB, n int) {
	t.Helper()
	eventually(t, func() bool { return tp.count() >= n }, fmt.Sprint(n, " records are given"))
	tp.mu.Lock()
	defer tp.mu.Unlock()
	require.Empty(t, tp.faults)
}

// numbers gives "first" to "last" as strings.
func numbers(first, last int) (s []string) {
	for i := first; i <= last; i++ {
		s = append(s, strconv.Itoa(i))
	}
	return s
}

// following makes the configuration of a consumer that a test waits little for.
func following(brokers []string, tp *tape, topics ...string) ConsumerConfig {
	return ConsumerConfig{Config: testConfig(brokers), Topics: topics, Refresh: 50 * time.Millisecond, Handle: tp.handle, Burst: tp.burst}
}

// follow runs a consumer until the test ends.
func follow(t testing.TB, cfg ConsumerConfig) *Consumer {
	t.Helper()
	c, err := NewConsumer(cfg)
	require.NoError(t, err)
	t.Cleanup(begin(t, c))
	return c
}

// begin runs a consumer and gives what ends it.
func begin(t testing.TB, c *Consumer) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }() // ends with cancel
	return func() {
		cancel()
		select {
		case err := <-done:
			require.NoError(t, err)
		case <-time.After(patience):
			require.Fail(t, "the consumer does not end")
		}
	}
}

func positioned(t testing.TB, c *Consumer) {
	t.Helper()
	select {
	case <-c.Positioned():
	case <-time.After(patience):
		require.Fail(t, "the consumer does not find its place")
	}
}

// client makes a Kafka client of another make that chooses partitions by hand.
func client(t testing.TB, c *kfake.Cluster, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(c.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(0), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.MetadataMinAge(10 * time.Millisecond), kgo.RetryBackoffFn(func(int) time.Duration { return 10 * time.Millisecond })}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	return cl
}

// put appends values to a partition.
func put(t testing.TB, cl *kgo.Client, topic string, partition int, values ...string) {
	t.Helper()
	var rs []*kgo.Record
	for _, v := range values {
		rs = append(rs, &kgo.Record{Topic: topic, Partition: int32(partition), Value: []byte(v)})
	}
	require.NoError(t, cl.ProduceSync(t.Context(), rs...).FirstErr())
}

func TestConsumerBeginsAtTheEndAndGivesWhatFollows(t *testing.T) {
	k := fake(t, kfake.NumBrokers(3), kfake.SeedTopics(6, "t"))
	cl := client(t, k)
	for i := range 6 {
		put(t, cl, "t", i, "old", "old")
	}
	tp := newTape()
	c := follow(t, following(k.ListenAddrs(), tp, "t"))
	positioned(t, c)
	require.Zero(t, c.Lag())
	for n := range 50 {
		for i := range 6 {
			put(t, cl, "t", i, strconv.Itoa(n))
		}
	}
	tp.has(t, 300)
	for i := range 6 {
		require.Equal(t, numbers(0, 49), tp.of("t", i))
	}
	eventually(t, func() bool { return c.Lag() == 0 }, "nothing is left")
}

func TestConsumerGivesRecordsAsStored(t *testing.T) {
	k := fake(t, kfake.SeedTopics(1, "t"))
	got := make(chan Fetched, 2)
	cfg := following(k.ListenAddrs(), newTape(), "t")
	cfg.Handle = func(r *Fetched) {
		kept := *r
		kept.Headers = append([]Header(nil), r.Headers...)
		got <- kept
	}
	positioned(t, follow(t, cfg))
	when := time.UnixMilli(1700000000123)
	cl := client(t, k, kgo.ProducerBatchCompression(kgo.ZstdCompression()))
	require.NoError(t, cl.ProduceSync(t.Context(),
		&kgo.Record{Topic: "t", Key: []byte("k"), Value: []byte{}, Timestamp: when, Headers: []kgo.RecordHeader{{Key: "a", Value: []byte("b")}, {Key: "", Value: nil}}},
		&kgo.Record{Topic: "t", Key: []byte{}, Value: nil, Timestamp: when}).FirstErr())
	for offset, want := range []Fetched{
		{Key: []byte("k"), Value: []byte{}, Headers: []Header{{[]byte("a"), []byte("b")}, {[]byte{}, nil}}},
		{Key: []byte{}, Value: nil},
	} {
		r := <-got
		require.True(t, when.Equal(r.Timestamp))
		want.Topic, want.Offset, want.Timestamp = "t", int64(offset), r.Timestamp
		require.Equal(t, want, r)
	}
}

// TestConsumerMissesNothingOncePositioned: whoever waits for it, appends a record and sees none has found a fault.
func TestConsumerMissesNothingOncePositioned(t *testing.T) {
	k := fake(t, kfake.NumBrokers(2), kfake.SeedTopics(4, "t"))
	cl := client(t, k)
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	wg.Go(func() { // ends with ctx; the log grows while consumers look for its end
		for i := 0; ctx.Err() == nil; i++ {
			cl.ProduceSync(ctx, &kgo.Record{Topic: "t", Partition: int32(i % 4), Value: []byte("noise")})
		}
	})
	defer wg.Wait()
	defer cancel()
	for n := range 20 {
		tp := newTape()
		c, err := NewConsumer(following(k.ListenAddrs(), tp, "t"))
		require.NoError(t, err)
		end := begin(t, c)
		positioned(t, c)
		for i := range 4 {
			put(t, cl, "t", i, "mark")
		}
		for i := range 4 {
			eventually(t, func() bool {
				v := tp.of("t", i)
				return len(v) > 0 && contains(v, "mark")
			}, fmt.Sprint("the mark in partition ", i, ", round ", n))
		}
		end()
		require.Empty(t, tp.faults)
	}
}

func contains(values []string, want string) bool {
	for _, v := range values {
		if v == want {
			return true
		}
	}
	return false
}

func TestConsumerReadsLaterPartitionsFromTheirBeginning(t *testing.T) {
	k := fake(t, kfake.NumBrokers(2), kfake.SeedTopics(1, "t"))
	cl := client(t, k)
	put(t, cl, "t", 0, "old")
	tp := newTape()
	cfg := following(k.ListenAddrs(), tp, "t")
	cfg.Refresh = 300 * time.Millisecond
	positioned(t, follow(t, cfg))
	_, err := kadm.NewClient(cl).CreatePartitions(t.Context(), 3, "t")
	require.NoError(t, err)
	cl.ForceMetadataRefresh()
	late := client(t, k)
	for i := range 4 {
		put(t, late, "t", i, numbers(1, 10)...)
	}
	tp.has(t, 40)
	for i := range 4 {
		require.Equal(t, numbers(1, 10), tp.of("t", i))
	}
}

func TestConsumerReadsLaterTopicsFromTheirBeginning(t *testing.T) {
	k := fake(t, kfake.SeedTopics(1, "commands.a", "commands", "__commands.x", "sluice-commands.x"))
	cl := client(t, k)
	for _, topic := range []string{"commands.a", "commands", "__commands.x", "sluice-commands.x"} {
		put(t, cl, topic, 0, "old")
	}
	tp := newTape()
	cfg := following(k.ListenAddrs(), tp, "named", "sluice-named")
	cfg.Patterns = []*regexp.Regexp{regexp.MustCompile(`commands\.|commands\..+|__.*|sluice-.*`)}
	positioned(t, follow(t, cfg)) // though the named ones are missing
	for _, topic := range []string{"named", "sluice-named", "commands.b", "xcommands.b", "sluice-commands.b"} {
		require.NoError(t, k.CreateTopic(topic, 2, nil))
		put(t, client(t, k), topic, 1, numbers(1, 3)...)
	}
	put(t, cl, "commands.a", 0, "new")
	put(t, cl, "commands", 0, "new")
	tp.has(t, 10)
	require.Equal(t, numbers(1, 3), tp.of("named", 1))
	require.Equal(t, numbers(1, 3), tp.of("sluice-named", 1))
	require.Equal(t, numbers(1, 3), tp.of("commands.b", 1))
	require.Equal(t, []string{"new"}, tp.of("commands.a", 0))
	put(t, cl, "commands.a", 0, "last")
	tp.has(t, 11)
	require.Equal(t, 11, tp.count(), "no other topic is followed")
}

// TestConsumerWaitsForKafka: what comes while there is no Kafka at all is not an error of the consumer.
func TestConsumerWaitsForKafka(t *testing.T) {
	first := fake(t)
	addrs := first.ListenAddrs()
	first.Close()
	tp := newTape()
	c := follow(t, following(addrs, tp, "t"))
	eventually(t, func() bool { return counted(c.m.errors) >= 3 }, "it keeps trying")
	select {
	case <-c.Positioned():
		require.Fail(t, "it knows nothing")
	default:
	}
	k := fake(t, kfake.Ports(portOf(t, addrs[0])), kfake.SeedTopics(2, "t"))
	positioned(t, c)
	put(t, client(t, k), "t", 1, "a")
	tp.has(t, 1)
}

func TestConsumerEndsAtAnyTime(t *testing.T) {
	k := fake(t, kfake.NumBrokers(3), kfake.SeedTopics(12, "t"))
	cl := client(t, k)
	gone := fake(t)
	nobody := gone.ListenAddrs()
	gone.Close()
	for n := range 30 {
		cfg := following(k.ListenAddrs(), newTape(), "t")
		if n%3 == 0 {
			cfg.Brokers = nobody
		}
		c, err := NewConsumer(cfg)
		require.NoError(t, err)
		end := begin(t, c)
		if n%3 == 1 {
			positioned(t, c)
			put(t, cl, "t", n%12, "x")
		}
		end() // TestMain looks for what is left
	}
}

func TestConsumerEndsWhenHandleReturns(t *testing.T) {
	k := fake(t, kfake.SeedTopics(1, "t"))
	entered, leave := make(chan struct{}), make(chan struct{})
	cfg := following(k.ListenAddrs(), newTape(), "t")
	cfg.Handle = func(*Fetched) { entered <- struct{}{}; <-leave }
	c, err := NewConsumer(cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }() // ends with ctx
	positioned(t, c)
	put(t, client(t, k), "t", 0, "a", "b")
	<-entered
	cancel()
	select {
	case <-done:
		require.Fail(t, "Handle is still being called")
	case <-time.After(50 * time.Millisecond): // a fault shows sooner or not at all
	}
	close(leave)
	require.NoError(t, <-done)
}

func TestConsumerRefusesAConfigurationThatCannotWork(t *testing.T) {
	good := ConsumerConfig{Config: Config{Brokers: []string{"127.0.0.1:1"}}, Topics: []string{"t"}, Handle: func(*Fetched) {}}
	_, err := NewConsumer(good)
	require.NoError(t, err)
	for what, spoil := range map[string]func(*ConsumerConfig){
		"no brokers":      func(c *ConsumerConfig) { c.Brokers = nil },
		"no topics":       func(c *ConsumerConfig) { c.Topics = nil },
		"nothing handles": func(c *ConsumerConfig) { c.Handle = nil },
		"not a legal":     func(c *ConsumerConfig) { c.Topics = []string{"a b"} },
		"negative":        func(c *ConsumerConfig) { c.Refresh = -1 },
		"is nil":          func(c *ConsumerConfig) { c.Patterns = []*regexp.Regexp{nil} },
	} {
		bad := good
		spoil(&bad)
		_, err := NewConsumer(bad)
		require.ErrorContains(t, err, what)
	}
}
