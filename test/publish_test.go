package test

import (
	"context"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/test/clients"
	"sluice/test/cluster"
)

// oneTopic is a rule that takes every device topic to one Kafka topic.
func oneTopic(kafkaTopic string) string {
	return fmt.Sprintf("  - match: devices/{device}/telemetry/{metric...}\n    topic: %q\n    key: \"{device}\"\n    headers: {metric: \"{metric}\"}\n", kafkaTopic)
}

// newTopic makes a Kafka topic of the test's own.
func newTopic(t testing.TB, c *cluster.Cluster, partitions int) string {
	t.Helper()
	name := cluster.TopicName(t)
	require.NoError(t, c.CreateTopic(name, partitions, 1, nil))
	return name
}

// records reads n records of a topic, of any partition.
func records(t testing.TB, brokers []string, topic string, n int) []*kgo.Record {
	t.Helper()
	c, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	require.NoError(t, err)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var all []*kgo.Record
	for len(all) < n {
		fetches := c.PollFetches(ctx)
		require.NoError(t, ctx.Err(), "have %d of %d records of %s", len(all), n, topic)
		all = append(all, fetches.Records()...)
	}
	return all
}

func headersOf(r *kgo.Record) map[string]string {
	m := make(map[string]string)
	for _, h := range r.Headers {
		m[h.Key] = string(h.Value)
	}
	return m
}

// TestForeignClientsPublish: every client, version and QoS gets its messages acknowledged without an error or a
// warning, and Kafka has what was sent, byte for byte and in its order.
func TestForeignClientsPublish(t *testing.T) {
	besideOthers(t)
	kafka := cluster.Shared(t)
	topic := newTopic(t, kafka, 3)
	s := serve(t, kafka.Brokers(), oneTopic(topic), "")
	want := make(map[string][]string)
	for name, obtain := range clients.All() {
		t.Run(name, func(t *testing.T) {
			runner := obtain(t)
			for _, version := range runner.Versions {
				for qos := byte(0); qos <= 2; qos++ {
					device := fmt.Sprintf("%s-v%d-qos%d", name, version, qos)
					want[device] = publishFive(t, runner, s.address, device, version, qos)
				}
			}
		})
	}
	total := 0
	for _, payloads := range want {
		total += len(payloads)
	}
	got := make(map[string][]string)
	for _, r := range records(t, kafka.Brokers(), topic, total) {
		got[string(r.Key)] = append(got[string(r.Key)], string(r.Value))
		require.Equal(t, string(r.Key)[len(r.Key)-1:], headersOf(r)["mqtt.qos"])
		require.Equal(t, "temp/inside", headersOf(r)["metric"])
		require.Equal(t, "devices/"+string(r.Key)+"/telemetry/temp/inside", headersOf(r)["mqtt.topic"])
	}
	require.Equal(t, want, got)
	require.Zero(t, s.metric("sluice_mqtt_recovered_panics_total"))
}

func publishFive(t *testing.T, runner clients.Runner, address, device string, version, qos byte) (payloads []string) {
	t.Helper()
	var messages []clients.Message
	for i := range 5 {
		payload := fmt.Sprintf("%s \x00\xff message %d", device, i)
		if runner.Name == "mosquitto_pub" {
			payload = fmt.Sprintf("%s message %d", device, i) // its command line takes text
		}
		payloads = append(payloads, payload)
		messages = append(messages, clients.Message{Topic: "devices/" + device + "/telemetry/temp/inside", Payload: []byte(payload)})
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := runner.Run(ctx, address, version, qos, messages)
	require.NoError(t, err, out.Log)
	return payloads
}

// TestPropertiesBecomeHeaders: what MQTT 5 says beside the payload arrives as the headers of the contract, and a
// device can't forge them.
func TestPropertiesBecomeHeaders(t *testing.T) {
	kafka := cluster.Shared(t)
	topic := newTopic(t, kafka, 1)
	s := serve(t, kafka.Brokers(), oneTopic(topic), "")
	runner := clients.Go(t)
	runner.ClientID = "d-props"
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	before := time.Now().Add(-time.Second)
	_, err := runner.Run(ctx, s.address, clients.V5, 1, []clients.Message{{
		Topic: "devices/d1/telemetry/temp", Payload: []byte("21.5"), ContentType: "text/plain", ResponseTopic: "answers/d1",
		CorrelationData: []byte{0, 1, 2}, Expiry: 60,
		UserProperties: [][2]string{{"site", "north"}, {"mqtt.client_id", "somebody else"}, {"site", "south"}},
	}})
	require.NoError(t, err)
	r := records(t, kafka.Brokers(), topic, 1)[0]
	var got []string
	for _, h := range r.Headers {
		got = append(got, h.Key+"="+string(h.Value))
	}
	require.Equal(t, []string{"mqtt.topic=devices/d1/telemetry/temp", "mqtt.client_id=d-props", "mqtt.qos=1",
		"mqtt.content_type=text/plain", "mqtt.response_topic=answers/d1", "mqtt.correlation_data=\x00\x01\x02", "mqtt.expiry=60",
		"site=north", "site=south", "metric=temp"}, got)
	require.Equal(t, "21.5", string(r.Value))
	require.Equal(t, "d1", string(r.Key))
	require.WithinRange(t, r.Timestamp, before, time.Now().Add(time.Second))
	require.EqualValues(t, 1, s.metric("sluice_publish_forged_properties_total"))
}

// TestKeysHashAsKafkasOwnClients: franz-go's partitioner, which follows the Java client, puts the same keys into the
// same partitions.
func TestKeysHashAsKafkasOwnClients(t *testing.T) {
	kafka := cluster.Shared(t)
	topic := newTopic(t, kafka, 7)
	s := serve(t, kafka.Brokers(), oneTopic(topic), "")
	runner := clients.Go(t)
	var messages []clients.Message
	for i := range 40 {
		messages = append(messages, clients.Message{Topic: fmt.Sprintf("devices/ключ-%d/telemetry/x", i), Payload: []byte("v")})
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := runner.Run(ctx, s.address, clients.V5, 1, messages)
	require.NoError(t, err)
	partitioner := kgo.StickyKeyPartitioner(nil).ForTopic(topic)
	for _, r := range records(t, kafka.Brokers(), topic, 40) {
		require.EqualValues(t, partitioner.Partition(&kgo.Record{Key: r.Key}, 7), r.Partition, "key %q", r.Key)
	}
}

// TestAnEmptyPayloadIsNotATombstone: the record's value is empty, not null, which would delete the key from a compacted
// topic.
func TestAnEmptyPayloadIsNotATombstone(t *testing.T) {
	kafka := cluster.Shared(t)
	topic := newTopic(t, kafka, 1)
	s := serve(t, kafka.Brokers(), oneTopic(topic), "")
	d := connectDevice(t, s.address, "empty", 5)
	d.publish("devices/d1/telemetry/x", 1, "")
	_, body := d.packet()
	require.Equal(t, []byte{0, 1}, body)
	withEmptyWill := []byte{0, 4, 'M', 'Q', 'T', 'T', 4, 0x06, 0, 60, 0, 1, 'w', 0, 22}
	withEmptyWill = append(append(withEmptyWill, "devices/d1/telemetry/w"...), 0, 0)
	c, err := dialFrom(s.address, 0)
	require.NoError(t, err)
	_, err = c.Write(append([]byte{0x10, byte(len(withEmptyWill))}, withEmptyWill...))
	require.NoError(t, err)
	require.NoError(t, c.(*net.TCPConn).CloseWrite())
	_, err = io.Copy(io.Discard, c)
	require.NoError(t, err)
	require.NoError(t, c.Close())
	for _, r := range records(t, kafka.Brokers(), topic, 2) {
		require.NotNil(t, r.Value, headersOf(r))
		require.Empty(t, r.Value)
	}
}
