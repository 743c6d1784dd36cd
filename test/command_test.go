package test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/test/clients"
	"sluice/test/cluster"
	"sluice/test/load"
)

// A commandBench is what a test of commands needs: an instance with one command rule, the Kafka topics of it, and what
// was said in receipts.
type commandBench struct {
	*instance
	t        *testing.T
	kafka    *cluster.Cluster
	topic    string
	receipts *load.Receipts
}

// serveCommands starts an instance whose rule takes records of a topic to devices/KEY/commands, with a receipt for each;
// rule is more of it, in YAML, each line with its indentation of four; extra are more sections.
func serveCommands(t *testing.T, kafka *cluster.Cluster, rule, extra string) *commandBench {
	t.Helper()
	b := &commandBench{t: t, kafka: kafka, topic: newTopic(t, kafka, 6)}
	receipts := newTopic(t, kafka, 3)
	if !strings.Contains(rule, "publish:") {
		rule = "    publish: devices/{key}/commands\n" + rule
	}
	b.instance = serve(t, kafka.Brokers(), oneTopic(newTopic(t, kafka, 1)),
		fmt.Sprintf("commands:\n  - topic: %q\n    receipts: %q\n%s\n%s", b.topic, receipts, rule, extra))
	b.follow(receipts)
	return b
}

// follow reads receipts until the test ends.
func (b *commandBench) follow(topic string) {
	b.t.Helper()
	var err error
	b.receipts, err = load.FollowReceipts(b.kafka.Direct(), topic)
	require.NoError(b.t, err)
	b.t.Cleanup(b.receipts.Close)
}

// start connects and subscribes a fleet at the instance.
func (b *commandBench) start(f *load.CommandFleet) (*load.CommandFleet, *load.CommandWriter) {
	b.t.Helper()
	if f.Addr == "" {
		f.Addr = b.address
	}
	if f.Run == "" {
		f.Run = runID()
	}
	ctx, cancel := context.WithTimeout(b.t.Context(), 2*time.Minute)
	defer cancel()
	b.t.Cleanup(f.Stop)
	require.NoError(b.t, f.Start(ctx))
	w, err := load.NewCommandWriter(f, b.kafka.Brokers(), b.topic)
	require.NoError(b.t, err)
	b.t.Cleanup(w.Close)
	return f, w
}

// patience is how long a test waits for what must come; it is generous, since what never comes fails all the same.
const patience = time.Minute

// stream writes commands at a rate for d and waits until Kafka has all.
func (b *commandBench) stream(w *load.CommandWriter, rate int, d time.Duration, devices []int, headers ...kgo.RecordHeader) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), d)
	defer cancel()
	w.Stream(ctx, rate, devices, headers...)
	b.flush(w)
}

func (b *commandBench) flush(w *load.CommandWriter) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	require.NoError(b.t, w.Flush(ctx))
}

// settled waits until each of the commands has a receipt, and requires that none has two and all can be read.
func (b *commandBench) settled(commands []load.Command) load.ReceiptReport {
	b.t.Helper()
	await(b.t, func() bool { return b.receipts.Report(commands).Missing == 0 }, func() string {
		r := b.receipts.Report(commands).String()
		if b.running() {
			r += fmt.Sprintf("; %v records not handled, %v receipts stored", b.metric("sluice_kafka_consumer_lag_records"),
				b.metric("sluice_command_receipts_total", `result="stored"`))
		}
		return r
	})
	r := b.receipts.Report(commands)
	require.Zero(b.t, r.Twice, r)
	require.Empty(b.t, b.receipts.Errors())
	return r
}

// await waits for a condition; what says where it stands if it does not come.
func await(t testing.TB, cond func() bool, what func() string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-ctx.Done():
			require.Fail(t, "it did not come", what())
		case <-tick.C:
		}
	}
}

// delivered waits until the devices have all commands, and requires that each came to its own device, in order, and
// with QoS 2 once; it gives the repeats.
func delivered(t testing.TB, f *load.CommandFleet, commands []load.Command) load.CommandReport {
	t.Helper()
	await(t, func() bool { return f.Report(commands).Lost == 0 }, func() string {
		failures := f.Failures()
		return fmt.Sprintf("%s; %d failures, such as %v", f.Report(commands), len(failures), failures[:min(len(failures), 3)])
	})
	r := f.Report(commands)
	require.Zero(t, r.Disordered+r.Strange, r)
	if f.QoS != 1 {
		require.Zero(t, r.Twice, r)
	}
	require.Empty(t, f.Failures())
	return r
}

// onlyDevice picks one device.
func onlyDevice(n int) func(int) bool { return func(device int) bool { return device == n } }

// header is a header of a command's record.
func header(name, value string) kgo.RecordHeader {
	return kgo.RecordHeader{Key: name, Value: []byte(value)}
}

// TestForeignClientsReceiveCommands: a record that kcat wrote reaches every client, version and QoS byte for byte, with
// MQTT 5 with all that its headers say, and the receipt tells which record was delivered to whom.
func TestForeignClientsReceiveCommands(t *testing.T) {
	besideOthers(t)
	kcat := clients.FindKcat(t)
	b := serveCommands(t, cluster.Shared(t), "    publish: devices/{key}/commands/{header.name}\n    client: \"{key}\"\n    qos: 0", "")
	for name, obtain := range clients.All() {
		t.Run(name, func(t *testing.T) {
			runner := obtain(t)
			for _, version := range runner.Versions {
				for qos := byte(0); qos <= 2; qos++ {
					b.foreign(t, kcat, runner, version, qos)
				}
			}
		})
	}
	require.Zero(t, b.metric("sluice_mqtt_recovered_panics_total"))
}

func (b *commandBench) foreign(t *testing.T, kcat clients.Kcat, runner clients.Runner, version, qos byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	device := fmt.Sprintf("%s-v%d-qos%d", runner.Name, version, qos)
	runner.ClientID = device
	subscription := clients.Subscription{Filters: []string{"devices/" + device + "/commands/+"}, QoS: 2}
	if version == clients.V5 {
		subscription.ID = 7
	}
	s, err := runner.Subscribe(ctx, b.address, version, subscription)
	require.NoError(t, err)
	headers := [][2]string{{"name", "valve"}, {"mqtt.qos", fmt.Sprint(qos)}, {"mqtt.expiry", "3600"}, {"mqtt.content_type", "text/plain"},
		{"mqtt.response_topic", "devices/" + device + "/answers"}, {"mqtt.correlation_data", "corr-" + device}, {"site", "nörth"},
		{"sluice.hidden", "x"}, {"site", "south"}}
	value := "open \"wide\" für " + device
	require.NoError(t, kcat.Produce(ctx, b.kafka.Brokers(), b.topic, device, headers, value))
	got, err := s.Await(ctx, 1)
	require.NoError(t, err)
	require.Len(t, got, 1)
	m := got[0]
	require.Equal(t, "devices/"+device+"/commands/valve", m.Topic)
	require.Equal(t, value, string(m.Payload))
	require.Equal(t, qos, m.QoS)
	require.False(t, m.Retain || m.Dup)
	if version == clients.V5 {
		require.ElementsMatch(t, [][2]string{{"name", "valve"}, {"site", "nörth"}, {"site", "south"}}, m.UserProperties)
		require.Equal(t, "text/plain", m.ContentType)
		require.Equal(t, "devices/"+device+"/answers", m.ResponseTopic)
		require.Equal(t, "corr-"+device, string(m.CorrelationData))
		require.InDelta(t, 3600-45, m.Expiry, 45, "what is left of an hour")
		require.Equal(t, []int{7}, m.SubscriptionIDs)
	}
	b.foreignReceipt(t, device, qos)
	require.NoError(t, kcat.Produce(ctx, b.kafka.Brokers(), b.topic, device, headers, value))
	got, err = s.Await(ctx, 2)
	require.NoError(t, err)
	require.Equal(t, []string{m.Topic, m.Topic}, []string{got[0].Topic, got[1].Topic}, "the second may come with an alias")
	require.NoError(t, s.Close())
}

// foreignReceipt requires the one receipt of a device, which tells the record.
func (b *commandBench) foreignReceipt(t *testing.T, device string, qos byte) {
	t.Helper()
	var mine []load.Receipt
	await(t, func() bool {
		mine = slices.DeleteFunc(b.receipts.All(), func(r load.Receipt) bool { return r.ClientID != device })
		return len(mine) > 0
	}, func() string { return "a receipt for " + device })
	require.Empty(t, b.receipts.Errors())
	r := mine[0]
	require.NotEmpty(t, r.Instance)
	require.GreaterOrEqual(t, r.Milliseconds, int64(0))
	key, correlation, outcome := device, "corr-"+device, "delivered"
	if qos == 0 {
		outcome = "sent"
	}
	record := recordAt(t, b.kafka, b.topic, r.Partition, r.Offset)
	require.Equal(t, device, string(record.Key), "the receipt's partition and offset are the command's")
	require.Equal(t, []load.Receipt{{Topic: b.topic, Partition: r.Partition, Offset: r.Offset, Key: &key, ClientID: device, Outcome: outcome,
		CorrelationData: &correlation, Instance: r.Instance, Milliseconds: r.Milliseconds, RecordKey: []byte(device)}}, mine)
}

// recordAt reads one record.
func recordAt(t *testing.T, kafka *cluster.Cluster, topic string, partition int32, offset int64) *kgo.Record {
	t.Helper()
	c, err := kgo.NewClient(kgo.SeedBrokers(kafka.Direct()...), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(offset)}}))
	require.NoError(t, err)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	fetches := c.PollFetches(ctx)
	require.NoError(t, fetches.Err())
	return fetches.Records()[0]
}
