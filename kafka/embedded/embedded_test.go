package embedded

import (
	"context"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func run(t testing.TB, cfg Config) *Cluster {
	t.Helper()
	c, err := Start(cfg)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func client(t testing.TB, c *Cluster, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(c.Brokers()...))...)
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	return cl
}

// tail collects records until the test ends.
func tail(t testing.TB, c *Cluster) func() []Record {
	t.Helper()
	var mu sync.Mutex
	var got []Record
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { // ends with ctx
		done <- c.Tail(ctx, func(r Record) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, r)
		})
	}()
	t.Cleanup(func() {
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
	})
	return func() []Record {
		mu.Lock()
		defer mu.Unlock()
		return got
	}
}

func TestTailReportsEveryRecordOfEveryTopic(t *testing.T) {
	c := run(t, Config{Topics: []string{"first"}})
	got := tail(t, c)
	cl := client(t, c)
	when := time.UnixMilli(1700000000000)
	require.NoError(t, cl.ProduceSync(t.Context(), &kgo.Record{Topic: "first", Key: []byte("k"), Value: []byte("v"), Timestamp: when,
		Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("x")}}}).FirstErr())
	require.Eventually(t, func() bool { return len(got()) == 1 }, 10*time.Second, time.Millisecond)
	r := got()[0]
	require.True(t, when.Equal(r.Timestamp))
	r.Timestamp = time.Time{}
	require.Equal(t, Record{Topic: "first", Partition: r.Partition, Key: []byte("k"), Value: []byte("v"), Headers: []Header{{"h", []byte("x")}}}, r)

	_, err := kadm.NewClient(cl).CreateTopic(t.Context(), -1, -1, nil, "second")
	require.NoError(t, err)
	for range 20 {
		require.NoError(t, cl.ProduceSync(t.Context(), &kgo.Record{Topic: "second", Value: []byte("v")}).FirstErr())
	}
	require.Eventually(t, func() bool { return len(got()) == 21 }, 10*time.Second, time.Millisecond, "topics made later are read from their beginning")
}

func TestPortCanBeChosen(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	port := l.Addr().(*net.TCPAddr).Port
	require.NoError(t, l.Close())
	c := run(t, Config{Port: port})
	require.Equal(t, []string{net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}, c.Brokers())
	_, err = Start(Config{Port: port})
	require.Error(t, err, "the port is taken")
}

func TestOldRecordsAreForgotten(t *testing.T) {
	const keep = 64 << 10
	c := run(t, Config{Topics: []string{"t"}, Partitions: 1, RetentionBytes: keep})
	cl := client(t, c, kgo.ProducerBatchCompression(kgo.NoCompression()))
	value := make([]byte, 4<<10)
	for range 200 {
		require.NoError(t, cl.ProduceSync(t.Context(), &kgo.Record{Topic: "t", Value: value}).FirstErr())
	}
	require.Eventually(t, func() bool {
		starts, err := kadm.NewClient(cl).ListStartOffsets(t.Context(), "t")
		require.NoError(t, err)
		first, ok := starts.Lookup("t", 0)
		return ok && first.Offset > 200-2*keep/int64(len(value))
	}, 10*time.Second, 20*time.Millisecond)
}

func TestTopicsAreNotMadeByAccident(t *testing.T) {
	c := run(t, Config{})
	cl := client(t, c, kgo.AllowAutoTopicCreation(), kgo.UnknownTopicRetries(1))
	require.Error(t, cl.ProduceSync(t.Context(), &kgo.Record{Topic: "typo"}).FirstErr())
}
