package proxy

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"sluice/kafka"
	"sluice/kafka/embedded"
	"sluice/proxy/config"
)

// An instance is a whole proxy in this process, with a Kafka of its own.
type instance struct {
	*Proxy
	t        testing.TB
	registry *prometheus.Registry
	addr     string // of the listener
	writer   *kafka.Producer
	noKafka  func() // ends Kafka
	quit     context.CancelFunc
	ended    chan error

	mu   sync.Mutex
	tail []embedded.Record // of the topic "receipts"
}

// A receipted is a receipt with the key of its record.
type receipted struct {
	Receipt
	key string
}

// String is the receipt without what differs from run to run.
func (r receipted) String() string {
	parts := []string{r.key, r.ClientID, r.Outcome, r.Reason}
	if r.Code != 0 {
		parts = append(parts, fmt.Sprintf("%#x", r.Code))
	}
	if r.CorrelationData != nil {
		parts = append(parts, "("+*r.CorrelationData+")")
	}
	return strings.Join(strings.Fields(strings.Join(parts, " ")), " ")
}

// prepare makes an instance with this configuration and its topics, which have that many partitions. It does not
// run yet.
func prepare(t testing.TB, partitions int, text string) *instance {
	t.Helper()
	cluster, err := embedded.Start(embedded.Config{})
	require.NoError(t, err)
	away := sync.OnceFunc(cluster.Close)
	t.Cleanup(away)
	cfg, err := config.Parse("test", fmt.Appendf(nil, "listeners: [{address: 127.0.0.1:0}]\nadmin: {address: \"\"}\nkafka: {brokers: [%q], create_topics: {partitions: %d, replication: 1}}\n%s",
		cluster.Brokers()[0], partitions, text), noEnv)
	require.NoError(t, err)
	_, _, err = EnsureTopics(t.Context(), cfg)
	require.NoError(t, err)
	in := &instance{t: t, registry: prometheus.NewRegistry(), ended: make(chan error, 1), noKafka: away}
	in.Proxy, err = New(cfg, zerolog.Nop(), in.registry)
	require.NoError(t, err)
	in.writer = writer(t, cluster.Brokers())
	in.follow(cluster)
	return in
}

// serve runs the instance and waits until it takes devices.
func (in *instance) serve() {
	in.t.Helper()
	var ctx context.Context
	ctx, in.quit = context.WithCancel(context.Background())
	go func() { in.ended <- in.Run(ctx) }() // ends with ctx
	in.t.Cleanup(func() { in.quit(); <-in.ended })
	select {
	case <-in.Serving():
	case err := <-in.ended:
		in.ended <- nil
		require.Fail(in.t, "it does not serve", "%v", err)
	}
	select {
	case <-in.consumer.Positioned():
	default:
		require.Fail(in.t, "it takes devices before it knows where the commands begin that it must not miss")
	}
	listeners, _ := in.Addresses()
	in.addr = listeners[0].String()
}

// begin is prepare and serve.
func begin(t testing.TB, partitions int, text string) *instance {
	t.Helper()
	in := prepare(t, partitions, text)
	in.serve()
	return in
}

// writer runs a producer for the test's own records.
func writer(t testing.TB, brokers []string) *kafka.Producer {
	t.Helper()
	p, err := kafka.NewProducer(kafka.Config{Brokers: brokers, Linger: time.Millisecond})
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- p.Run(context.Background()) }() // ends with Close
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = p.Close(ctx)
		<-done
	})
	return p
}

// follow collects the receipts until the test ends.
func (in *instance) follow(cluster *embedded.Cluster) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { // ends with ctx
		defer close(done)
		_ = cluster.Tail(ctx, func(r embedded.Record) {
			if r.Topic == "receipts" {
				in.mu.Lock()
				defer in.mu.Unlock()
				in.tail = append(in.tail, r)
			}
		})
	}()
	in.t.Cleanup(func() { cancel(); <-done })
}

// end ends the instance and gives what Run returned.
func (in *instance) end() error {
	in.quit()
	err := <-in.ended
	in.ended <- nil // for those who come later
	return err
}

// stop ends the instance, which must have nothing left to answer for.
func (in *instance) stop() {
	in.t.Helper()
	require.NoError(in.t, in.end())
	require.Zero(in.t, in.value("sluice_command_receipts_total", "lost"), "a receipt is lost")
	require.Zero(in.t, in.producer.Budget().InUse(), "memory is not given back")
	require.Empty(in.t, in.commands.pending.all, "what is settled can't be cancelled")
	require.Zero(in.t, in.value("sluice_mqtt_command_bytes"))
	require.Zero(in.t, in.value("sluice_mqtt_waiting_sessions"))
}

// An owner gets the outcome of one record.
type owner chan error

func (o owner) RecordDone(_ *kafka.Record, err error) { o <- err }

// write writes records to a Kafka topic, all at once, and waits until Kafka has them.
func (in *instance) write(records ...*kafka.Fetched) {
	in.t.Helper()
	done := make(owner, len(records))
	for _, r := range records {
		in.writer.Produce(&kafka.Record{Topic: r.Topic, Key: r.Key, Value: r.Value, Headers: r.Headers, Timestamp: r.Timestamp, Owner: done})
	}
	for range records {
		require.NoError(in.t, <-done)
	}
}

// now makes a record that was written just now.
func now(topic, key, value string, headers ...string) *kafka.Fetched {
	r := recordOf(topic, key, value, headers...)
	r.Timestamp = time.Now()
	return r
}

// receipts waits until Kafka has n receipts and gives them in the order of each partition.
func (in *instance) receipts(n int) []receipted {
	in.t.Helper()
	in.until("receipts", func() bool { return len(in.taken()) >= n })
	taken := in.taken()
	require.Len(in.t, taken, n)
	all := make([]receipted, n)
	for i, r := range taken {
		require.NoError(in.t, json.Unmarshal(r.Value, &all[i].Receipt), "%s", r.Value)
		require.NotEmpty(in.t, all[i].Instance)
		require.Empty(in.t, r.Headers)
		all[i].key = string(r.Key)
	}
	return all
}

func (in *instance) taken() []embedded.Record {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.tail
}

// became waits until Kafka has exactly these receipts, in any order.
func (in *instance) became(want ...string) []receipted {
	in.t.Helper()
	all := in.receipts(len(want))
	var got []string
	for _, r := range all {
		got = append(got, r.String())
	}
	require.ElementsMatch(in.t, want, got)
	return all
}

// until waits for a condition.
func (in *instance) until(what string, ok func() bool) {
	in.t.Helper()
	require.Eventually(in.t, ok, patience, time.Millisecond, what)
}

// value adds up the series of a metric that have all these label values.
func (in *instance) value(metric string, labels ...string) (sum float64) {
	in.t.Helper()
	families, err := in.registry.Gather()
	require.NoError(in.t, err)
	for _, f := range families {
		if f.GetName() != metric {
			continue
		}
		for _, m := range f.Metric {
			have := map[string]bool{}
			for _, l := range m.Label {
				have[l.GetValue()] = true
			}
			all := true
			for _, l := range labels {
				all = all && have[l]
			}
			if all {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}
