package proxy

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
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

// A site is a Kafka that instances share.
type site struct {
	t        testing.TB
	cluster  *embedded.Cluster
	settings *config.Config
	writer   *kafka.Producer
	noKafka  func() // ends Kafka

	mu   sync.Mutex
	tail map[string][]embedded.Record // by topic
}

// An instance is a whole proxy in this process.
type instance struct {
	*Proxy
	*site
	registry *prometheus.Registry
	addr     string // of the listener
	quit     context.CancelFunc
	ended    chan error
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

// found starts a Kafka with the topics of a configuration, which have that many partitions.
func found(t testing.TB, partitions int, text string) *site {
	t.Helper()
	s := &site{t: t, tail: map[string][]embedded.Record{}}
	var err error
	s.cluster, err = embedded.Start(embedded.Config{})
	require.NoError(t, err)
	s.noKafka = sync.OnceFunc(s.cluster.Close)
	t.Cleanup(s.noKafka)
	s.settings = settingsFor(t, s.cluster.Brokers()[0], partitions, text)
	_, _, err = EnsureTopics(t.Context(), s.settings)
	require.NoError(t, err)
	s.writer = writer(t, s.cluster.Brokers())
	s.follow()
	return s
}

// configText is a whole configuration.
func configText(broker string, partitions int, text string) string {
	return fmt.Sprintf("listeners: [{address: 127.0.0.1:0}]\nadmin: {address: \"\"}\nkafka: {brokers: [%q], create_topics: {partitions: %d, replication: 1}}\n%s",
		broker, partitions, text)
}

func settingsFor(t testing.TB, broker string, partitions int, text string) *config.Config {
	t.Helper()
	cfg, err := config.Parse("test", []byte(configText(broker, partitions, text)), noEnv)
	require.NoError(t, err)
	return cfg
}

// instance makes one more instance. It does not run yet.
func (s *site) instance() *instance {
	s.t.Helper()
	return s.telling(zerolog.Nop())
}

// telling is instance with a log.
func (s *site) telling(log zerolog.Logger) *instance {
	s.t.Helper()
	in := &instance{site: s, registry: prometheus.NewRegistry(), ended: make(chan error, 1)}
	var err error
	in.Proxy, err = New(s.settings, log, in.registry)
	require.NoError(s.t, err)
	return in
}

// prepare makes an instance with a Kafka of its own. It does not run yet.
func prepare(t testing.TB, partitions int, text string) *instance {
	t.Helper()
	return found(t, partitions, text).instance()
}

// findAt has the instance read what was sent and not completed by way of another address of Kafka.
func (in *instance) findAt(broker string) {
	in.t.Helper()
	r, err := kafka.NewReader(kafka.Config{Brokers: []string{broker}})
	require.NoError(in.t, err)
	in.t.Cleanup(r.Close)
	in.sessions.finder.chunks = newChunks(r)
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
	if in.consumer != nil {
		select {
		case <-in.consumer.Positioned():
		default:
			require.Fail(in.t, "it takes devices before it knows where the commands begin that it must not miss")
		}
	}
	listeners, _ := in.Addresses()
	in.addr = listeners[0].String()
}

// begin is prepare and serve, until the instance tells of devices that are absent.
func begin(t testing.TB, partitions int, text string) *instance {
	t.Helper()
	in := prepare(t, partitions, text)
	in.serve()
	in.owned(in)
	return in
}

// owned waits until these instances together look after all partitions of the sessions topic.
func (s *site) owned(all ...*instance) {
	s.t.Helper()
	s.until("owners", func() bool {
		owners := 0
		for _, in := range all {
			owners += in.sessions.driver.Owned()
		}
		return owners == int(all[0].sessions.driver.Partitions())
	})
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

// follow collects all records until the test ends.
func (s *site) follow() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { // ends with ctx
		defer close(done)
		_ = s.cluster.Tail(ctx, func(r embedded.Record) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.tail[r.Topic] = append(s.tail[r.Topic], r)
		})
	}()
	s.t.Cleanup(func() { cancel(); <-done })
}

// of gives the records that a topic has got until now.
func (s *site) of(topic string) []embedded.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.tail[topic])
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
func (s *site) write(records ...*kafka.Fetched) {
	s.t.Helper()
	done := make(owner, len(records))
	for _, r := range records {
		s.writer.Produce(&kafka.Record{Topic: r.Topic, Key: r.Key, Value: r.Value, Headers: r.Headers, Timestamp: r.Timestamp, Owner: done})
	}
	for range records {
		require.NoError(s.t, <-done)
	}
}

// now makes a record that was written just now.
func now(topic, key, value string, headers ...string) *kafka.Fetched {
	r := recordOf(topic, key, value, headers...)
	r.Timestamp = time.Now()
	return r
}

// receipts waits until Kafka has n receipts and gives them in the order of each partition.
func (s *site) receipts(n int) []receipted {
	s.t.Helper()
	s.until("receipts", func() bool { return len(s.taken()) >= n })
	taken := s.taken()
	require.Len(s.t, taken, n)
	all := make([]receipted, n)
	for i, r := range taken {
		require.NoError(s.t, json.Unmarshal(r.Value, &all[i].Receipt), "%s", r.Value)
		require.NotEmpty(s.t, all[i].Instance)
		require.Empty(s.t, r.Headers)
		all[i].key = string(r.Key)
	}
	return all
}

func (s *site) taken() []embedded.Record { return s.of("receipts") }

// became waits until Kafka has exactly these receipts, in any order.
func (s *site) became(want ...string) []receipted {
	s.t.Helper()
	all := s.receipts(len(want))
	var got []string
	for _, r := range all {
		got = append(got, r.String())
	}
	require.ElementsMatch(s.t, want, got)
	return all
}

// becameForGood is became, and the same once all instances have stopped.
func (s *site) becameForGood(all []*instance, want ...string) {
	s.t.Helper()
	s.became(want...)
	for _, in := range all {
		in.stop()
	}
	s.became(want...)
}

// until waits for a condition.
func (s *site) until(what string, ok func() bool) {
	s.t.Helper()
	require.Eventually(s.t, ok, patience, time.Millisecond, what)
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

// presences gives the presence records that Kafka has.
func (s *site) presences() []Presence {
	s.t.Helper()
	all := make([]Presence, 0)
	for _, r := range s.of("presence") {
		var p Presence
		require.NoError(s.t, json.Unmarshal(r.Value, &p))
		require.Equal(s.t, p.ClientID, string(r.Key))
		all = append(all, p)
	}
	return all
}
