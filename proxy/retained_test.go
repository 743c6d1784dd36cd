package proxy

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"sluice/kafka"
	"sluice/kafka/embedded"
	"sluice/mqtt"
	"sluice/proxy/config"
)

// A keeping is what retained messages go through: a server, the rules, Kafka, and the table that follows it.
type keeping struct {
	*publisher
	t        testing.TB
	w        *retainedWriter
	index    *mqtt.Retained
	server   *mqtt.Server
	metrics  *retainedMetrics
	addr     string
	brokers  []string
	producer *kafka.Producer

	mu   sync.Mutex
	seen []embedded.Record
}

const keepingRules = `
publish:
  - {match: "up/#", topic: up}
  - {match: "lost/#", topic: lost}
`

// keepingWorld runs all of it. At its end no memory may be left in use.
func keepingWorld(t testing.TB, retained mqtt.RetainedConfig, unmatched config.Unmatched) *keeping {
	t.Helper()
	cluster, err := embedded.Start(embedded.Config{Topics: []string{"up", "sluice-retained", "dead"}})
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	cfg, err := config.Parse("test", []byte("listeners: [{address: 127.0.0.1:0}]\nkafka: {brokers: [127.0.0.1:1]}\n"+keepingRules), noEnv)
	require.NoError(t, err)
	rules, err := cfg.Rules()
	require.NoError(t, err)
	reg := prometheus.NewPedanticRegistry()
	m, err := newMetrics(reg, rules.Rules())
	require.NoError(t, err)
	k := &keeping{t: t, brokers: cluster.Brokers()}
	k.metrics, err = newRetainedMetrics(reg)
	require.NoError(t, err)
	k.producer, err = kafka.NewProducer(kafka.Config{Brokers: cluster.Brokers(), Linger: time.Millisecond, Burst: func() { k.server.Flush() }})
	require.NoError(t, err)
	k.index, err = mqtt.NewRetained(retained)
	require.NoError(t, err)
	k.publisher = &publisher{rules: rules, producer: k.producer, budget: k.producer.Budget(), unmatched: unmatched, m: m, log: zerolog.Nop()}
	for range rules.Rules() {
		k.publisher.producers, k.publisher.exactlyOnce = append(k.publisher.producers, k.producer), append(k.publisher.exactlyOnce, false)
		k.publisher.passing = append(k.publisher.passing, passing{})
	}
	k.w = newRetainedWriter("sluice-retained", laid("sluice-retained", 1), k.index, k.producer, k.metrics, zerolog.Nop())
	k.publisher.retained = k.w
	scfg := mqtt.DefaultConfig()
	scfg.Retained = k.index
	k.server, err = mqtt.New(scfg, k)
	require.NoError(t, err)
	consumer, err := kafka.NewConsumer(kafka.ConsumerConfig{
		Config: kafka.Config{Brokers: cluster.Brokers()}, Topics: []string{"sluice-retained"}, Handle: newRetainedTable(k.index, k.metrics, zerolog.Nop()).handle,
	})
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	k.addr = l.Addr().String()
	k.run(cluster, l, consumer)
	return k
}

// run starts the parts, and stops them in their order at the end of the test.
func (k *keeping) run(cluster *embedded.Cluster, l net.Listener, consumer *kafka.Consumer) {
	ctx, cancel := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	for _, run := range []func(context.Context) error{k.producer.Run, k.server.Run, k.index.Run, consumer.Run, func(ctx context.Context) error {
		return cluster.Tail(ctx, func(r embedded.Record) {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.seen = append(k.seen, r)
		})
	}} {
		parts.Go(func() { _ = run(ctx) }) // ends with ctx
	}
	parts.Go(func() { _ = k.server.Serve(l) }) // ends with Shutdown
	k.t.Cleanup(func() {
		wait, stop := context.WithTimeout(context.Background(), patience)
		defer stop()
		k.server.Shutdown(wait)
		require.NoError(k.t, k.producer.Close(wait))
		require.Zero(k.t, k.budget.InUse(), "memory is not given back")
		cancel()
		parts.Wait()
		require.True(k.t, k.index.Reserve([]byte("t"), 1), "room is not given back")
	})
	<-consumer.Positioned()
}

// records waits until Kafka has n records in a topic.
func (k *keeping) records(topic string, n int) (all []embedded.Record) {
	k.t.Helper()
	require.Eventually(k.t, func() bool {
		all = k.in(topic)
		return len(all) >= n
	}, patience, time.Millisecond, "%d records in %s", n, topic)
	require.Len(k.t, all, n)
	return all
}

func (k *keeping) in(topic string) (all []embedded.Record) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range k.seen {
		if r.Topic == topic {
			all = append(all, r)
		}
	}
	return all
}

// indexed waits until the index has n messages.
func (k *keeping) indexed(n int) {
	k.t.Helper()
	require.Eventually(k.t, func() bool { return k.index.Len() == n }, patience, time.Millisecond, "%d retained messages", n)
}

// retain publishes with RETAIN and gives the Reason Code of the answer.
func (d *device) retain(qos byte, topic, payload string, props ...byte) byte {
	d.t.Helper()
	body := text16(topic)
	if qos > 0 {
		body = append(body, 0, 7)
	}
	body = append(append(append(body, byte(len(props))), props...), payload...)
	d.send(0x31|qos<<1, body)
	if qos == 0 {
		return 0
	}
	first, answer := d.read()
	require.Equal(d.t, byte(0x30+0x10*qos), first, "PUBACK or PUBREC")
	require.Equal(d.t, uint16(7), binary.BigEndian.Uint16(answer))
	code := byte(0)
	if len(answer) > 2 {
		code = answer[2]
	}
	if qos == 2 && code < 0x80 {
		d.send(0x62, answer[:2])
		_, _ = d.read()
	}
	return code
}

var plenty = mqtt.RetainedConfig{Messages: 1000, Bytes: 1 << 20}

func headersOf(r embedded.Record) string {
	var all []string
	for _, h := range r.Headers {
		all = append(all, h.Key+"="+string(h.Value))
	}
	return strings.Join(all, " ")
}

func TestRetainedPublishIsInBothTopicsWhenItIsAcknowledged(t *testing.T) {
	k := keepingWorld(t, plenty, config.Unmatched{})
	d := dial(t, k.addr, "dev", false)
	property := append(append([]byte{0x26}, text16("site")...), text16("n")...)
	forged := append(append([]byte{0x26}, text16("mqtt.qos")...), text16("0")...)
	expiry := []byte{2, 0, 0, 0, 100}
	require.Zero(t, d.retain(1, "up/a", "1", append(append(property, forged...), expiry...)...))
	kept := k.records("sluice-retained", 1)[0]
	require.Equal(t, "up/a 1", string(kept.Key)+" "+string(kept.Value))
	require.Equal(t, "sluice.v=1 mqtt.qos=1 mqtt.client_id=dev mqtt.expiry=100 site=n", headersOf(kept))
	routed := k.records("up", 1)[0]
	require.Contains(t, headersOf(routed), "mqtt.topic=up/a mqtt.client_id=dev mqtt.qos=1 mqtt.retain=true")
	require.Equal(t, routed.Timestamp, kept.Timestamp)
	require.Zero(t, d.retain(2, "up/b", "2"))
	require.Zero(t, d.retain(0, "up/c", "3"))
	k.indexed(3)
	other := dial(t, k.addr, "other", false)
	other.subscribe("up/+", 0)
	require.Equal(t, delivered{topic: "up/a", payload: "1", retain: true, props: "expiry site:n"}, other.next())
	require.Equal(t, delivered{topic: "up/b", payload: "2", retain: true}, other.next())
	require.Equal(t, delivered{topic: "up/c", payload: "3", retain: true}, other.next())
	require.Eventually(t, func() bool { return testutil.ToFloat64(k.metrics.writes[fromDevice][writeStored]) == 3 }, time.Minute, time.Millisecond)
}

func TestEmptyPayloadDeletesWhatIsRetained(t *testing.T) {
	k := keepingWorld(t, plenty, config.Unmatched{})
	d := dial(t, k.addr, "dev", false)
	require.Zero(t, d.retain(1, "up/a", "1"))
	k.indexed(1)
	require.Zero(t, d.retain(1, "up/a", ""))
	k.indexed(0)
	all := k.records("sluice-retained", 2)
	require.Nil(t, all[1].Value, "a tombstone")
	require.NotNil(t, k.records("up", 2)[1].Value, "the empty message goes through the rules as it stands")
	d.subscribe("up/#", 0)
	d.nothing()
}

// TestRetainedMessagesAreInTheOrderOfTheirConnection: the last one is what stays.
func TestRetainedMessagesAreInTheOrderOfTheirConnection(t *testing.T) {
	k := keepingWorld(t, plenty, config.Unmatched{})
	d := dial(t, k.addr, "dev", false)
	const n = 200
	for i := range n {
		d.send(0x33, append(append(text16("up/a"), byte(i>>8), byte(i+1), 0), fmt.Sprint(i)...))
	}
	for range n {
		first, _ := d.read()
		require.Equal(t, byte(0x40), first)
	}
	for i, r := range k.records("sluice-retained", n) {
		require.Equal(t, fmt.Sprint(i), string(r.Value))
	}
}

func TestWhatTheRulesRefuseIsNotRetained(t *testing.T) {
	k := keepingWorld(t, plenty, config.Unmatched{})
	d := dial(t, k.addr, "dev", false)
	require.Equal(t, byte(mqtt.TopicNameInvalid), d.retain(1, "down/a", "1"))
	require.Zero(t, d.retain(1, "up/a", "1"))
	require.Equal(t, "up/a", string(k.records("sluice-retained", 1)[0].Key))
}

func TestRetainedMessagesBeyondTheLimitAreRefused(t *testing.T) {
	k := keepingWorld(t, mqtt.RetainedConfig{Messages: 2, Bytes: 1 << 20}, config.Unmatched{})
	d := dial(t, k.addr, "dev", false)
	require.Zero(t, d.retain(1, "up/a", "1"))
	require.Zero(t, d.retain(1, "up/b", "1"))
	k.indexed(2)
	require.Equal(t, byte(mqtt.QuotaExceeded), d.retain(1, "up/c", "1"))
	require.Zero(t, d.retain(1, "up/b", "2"), "in place of one that is there")
	require.Zero(t, d.retain(1, "up/a", ""))
	k.indexed(1)
	require.Zero(t, d.retain(1, "up/c", "1"))
	k.indexed(2)
	k.records("up", 5)
	require.EqualValues(t, 1, testutil.ToFloat64(k.metrics.writes[fromDevice][writeRefused]))
	k.index.Delete([]byte("up/c")) // for the room that the end of the test asks for
}

// TestMessageThatCannotBeRetainedIsRefused, and no dead letter, which would be acknowledged.
func TestMessageThatCannotBeRetainedIsRefused(t *testing.T) {
	k := keepingWorld(t, mqtt.RetainedConfig{Messages: 1, Bytes: 1 << 20}, config.Unmatched{Mode: config.DeadLetter, DeadLetter: "dead"})
	d := dial(t, k.addr, "dev", false)
	require.Zero(t, d.retain(1, "up/a", "1"))
	k.indexed(1)
	require.Equal(t, byte(mqtt.QuotaExceeded), d.retain(1, "up/b", "1"))
	require.Equal(t, byte(mqtt.QuotaExceeded), d.retain(1, "none/b", "1"))
	require.Empty(t, k.in("dead"))
	k.index.Delete([]byte("up/a"))
}

// TestAcknowledgedMessageIsRetained though no rule takes it, or Kafka does not take it for its rule: after a success the
// older message is not handed out [MQTT-3.3.1-5].
func TestAcknowledgedMessageIsRetained(t *testing.T) {
	f := func(unmatched config.Unmatched, topic string, code byte, reason string) {
		t.Helper()
		k := keepingWorld(t, plenty, unmatched)
		require.NoError(t, k.index.Set(&mqtt.RetainedMessage{Topic: []byte(topic), Payload: []byte("old")}))
		d := dial(t, k.addr, "dev", false)
		require.Equal(t, code, d.retain(1, topic, "new"))
		require.Equal(t, "new", string(k.records("sluice-retained", 1)[0].Value))
		require.Equal(t, code, d.retain(2, topic, ""))
		require.Nil(t, k.records("sluice-retained", 2)[1].Value)
		if reason == "" {
			require.Empty(t, k.in("dead"))
			return
		}
		for _, r := range k.records("dead", 2) {
			require.Contains(t, headersOf(r), "sluice.refused="+reason)
		}
	}
	dead := config.Unmatched{Mode: config.DeadLetter, DeadLetter: "dead"}
	f(config.Unmatched{Mode: config.Drop}, "none/a", byte(mqtt.NoMatchingSubscribers), "")
	f(dead, "none/a", 0, "no_rule")
	f(dead, "lost/a", 0, "topic_missing")
}

// TestOutcomeOfTheRetainedRecordIsTheMessages when there is no place for it, or nobody knows.
func TestOutcomeOfTheRetainedRecordIsTheMessages(t *testing.T) {
	check := func(written error, want outcome) {
		t.Helper()
		k := keepingWorld(t, plenty, config.Unmatched{Mode: config.DeadLetter, DeadLetter: "dead"})
		m := &mqtt.Message{Topic: []byte("up/a"), Payload: []byte("1"), Retain: true, Reserved: 10, Received: time.Now(), ClientID: "dev"}
		k.budget.Take(kafka.Destination{}, m.Reserved)
		rule := k.publisher.m.rule(0)
		r := &retention{w: k.w, inLine: inLine{d: &delivery{p: k.publisher, msg: m, rule: rule, to: k.producer}}}
		k.w.open.Add(1)
		r.RecordDone(&r.rec, written)
		require.EqualValues(t, 1, testutil.ToFloat64(rule.messages[want]))
		require.Empty(t, k.in("up"))
	}
	check(fmt.Errorf("%w: x", kafka.ErrTooLarge), refused)
	check(fmt.Errorf("%w: x", kafka.ErrUncertain), unknown)
}

// TestRetainedMessageIsStoredBeforeItIsLive: a subscriber who comes after the live message must find the retained one,
// also while its broker stands still. What the device sends behind it keeps its place, and nobody else waits.
func TestRetainedMessageIsStoredBeforeItIsLive(t *testing.T) {
	k := keepingWorld(t, plenty, config.Unmatched{Mode: config.DeadLetter, DeadLetter: "dead"})
	still, err := kafka.NewProducer(kafka.Config{Brokers: k.brokers, Linger: time.Millisecond, Burst: func() { k.server.Flush() }})
	require.NoError(t, err)
	k.w.producer = still // does not run yet
	d := dial(t, k.addr, "dev", false)
	d.send(0x33, append(append(text16("up/a"), 0, 1, 0), "1"...))
	d.send(0x30, append(append(text16("up/b"), 0), "2"...))
	d.send(0x32, append(append(text16("none/c"), 0, 2, 0), "3"...))
	d.send(0x35, append(append(text16("up/c"), 0, 3, 0), "4"...))
	d.send(0x32, append(append(text16("up/d"), 0, 4, 0), "5"...))
	d.nothing()
	other := dial(t, k.addr, "other", false)
	other.publish("up/z", "0")
	first, _ := other.read()
	require.Equal(t, byte(0x40), first, "another device does not wait")
	require.Len(t, k.records("up", 1), 1)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- still.Run(ctx) }() // ends with ctx
	for _, want := range []byte{0x40, 0x40, 0x50, 0x40} {
		first, _ := d.read()
		require.Equal(t, want, first)
	}
	var live []string
	for _, r := range k.records("up", 5) {
		live = append(live, string(r.Value))
	}
	require.Equal(t, []string{"0", "1", "2", "4", "5"}, live)
	require.Len(t, k.records("sluice-retained", 2), 2)
	require.Len(t, k.records("dead", 1), 1)
	require.NoError(t, still.Close(t.Context()))
	require.Zero(t, still.Budget().InUse())
	cancel()
	require.NoError(t, <-ended)
}

// TestWhatStandsBehindARetainedMessageIsBounded: it has the memory of a healthy topic for as long as the topic of retained
// messages is stuck, which a single connection must not use up.
func TestWhatStandsBehindARetainedMessageIsBounded(t *testing.T) {
	k := keepingWorld(t, plenty, config.Unmatched{})
	still, err := kafka.NewProducer(kafka.Config{Brokers: k.brokers, Linger: time.Millisecond, Burst: func() { k.server.Flush() }})
	require.NoError(t, err)
	k.w.producer = still // does not run yet
	d := dial(t, k.addr, "dev", false)
	const messages, size = 60, 200 << 10
	most := int64(mqtt.DefaultConfig().MaxInFlightBytes)
	require.Greater(t, int64(messages*size), most+size)
	sent := make(chan struct{})
	go func() { // ends when all was read
		defer close(sent)
		d.send(0x31, append(append(text16("up/first"), 0), "0"...))
		for range messages {
			d.send(0x30, append(append(text16("up/behind"), 0), make([]byte, size)...))
		}
	}()
	require.Eventually(t, func() bool { return k.budget.InUse() > most-2*size }, patience, time.Millisecond)
	require.Never(t, func() bool { return k.budget.InUse() > most }, 200*time.Millisecond, time.Millisecond)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- still.Run(ctx) }() // ends with ctx
	<-sent
	require.Equal(t, "0", string(k.records("up", messages+1)[0].Value))
	require.NoError(t, still.Close(t.Context()))
	cancel()
	require.NoError(t, <-ended)
}

// TestRetainedWillIsRetained even where there is no room: it has no other moment.
func TestRetainedWillIsRetained(t *testing.T) {
	k := keepingWorld(t, mqtt.RetainedConfig{Messages: 1, Bytes: 1 << 20}, config.Unmatched{})
	require.Zero(t, dial(t, k.addr, "other", false).retain(1, "up/a", "x"))
	k.indexed(1)
	nc, err := net.Dial("tcp", k.addr)
	require.NoError(t, err)
	body := append(text16("MQTT"), 5, 2|4|0x20, 0, 0, 0)
	body = append(append(append(body, text16("dev")...), 0), append(text16("up/will"), text16("gone")...)...)
	_, err = nc.Write(append(binary.AppendUvarint([]byte{0x10}, uint64(len(body))), body...))
	require.NoError(t, err)
	_, err = nc.Read(make([]byte, 100))
	require.NoError(t, err)
	require.NoError(t, nc.Close())
	k.indexed(2)
	require.Equal(t, "gone", string(k.lastOf("up/will").Value))
	require.Contains(t, headersOf(k.records("up", 2)[1]), "mqtt.will=true")
	k.index.Delete([]byte("up/a"))
	k.index.Delete([]byte("up/will"))
}
