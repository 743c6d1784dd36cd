package test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/test/clients"
	"sluice/test/cluster"
	"sluice/test/load"
)

// replyConfig is the whole way of a request and its answer: with MQTT 5 by Response Topic and Correlation Data, with
// 3.1.1 by the last level of the topics.
const replyConfig = `commands:
  - topic: %[1]q
    when: {header.mqtt: "5"}
    publish: devices/{key}/commands
    response_topic: devices/{key}/answers
    client: "{key}"
    receipts: %[2]q
  - topic: %[1]q
    publish: devices/{key}/commands/{header.mqtt.correlation_data}
    client: "{key}"
    receipts: %[2]q
`

const replyRules = `  - match: devices/{device}/answers
    topic: %[1]q
    key: "{device}"
  - match: devices/{device}/answers/{id}
    topic: %[1]q
    key: "{device}"
    headers: {correlation: "{id}"}
`

// serveReplies starts an instance and gives the Kafka topic of the answers.
func serveReplies(t *testing.T) (b *commandBench, answers string) {
	t.Helper()
	kafka := cluster.Shared(t)
	b = &commandBench{t: t, kafka: kafka, topic: newTopic(t, kafka, 6)}
	answers = newTopic(t, kafka, 3)
	receipts := newTopic(t, kafka, 3)
	b.instance = serve(t, kafka.Brokers(), fmt.Sprintf(replyRules, answers), fmt.Sprintf(replyConfig, b.topic, receipts))
	b.follow(receipts)
	return b, answers
}

// answerV5 does what MQTT 5 says: it publishes to the Response Topic with the Correlation Data.
func answerV5(_ int, m *load.Message) *load.Answer {
	return &load.Answer{Topic: m.ResponseTopic, Payload: m.Payload, CorrelationData: m.CorrelationData}
}

// answerV311 finds the correlation in the topic and puts it into that of the answer.
func answerV311(_ int, m *load.Message) *load.Answer {
	levels := strings.Split(m.Topic, "/")
	return &load.Answer{Topic: "devices/" + levels[1] + "/answers/" + levels[3], Payload: m.Payload}
}

// TestEveryRequestGetsItsOwnAnswer: requests written to Kafka, answers read from Kafka, each with the correlation data of
// its request, however many are under way.
func TestEveryRequestGetsItsOwnAnswer(t *testing.T) {
	besideOthers(t)
	b, answers := serveReplies(t)
	for version := byte(4); version <= 5; version++ {
		t.Run(fmt.Sprintf("v%d", version), func(t *testing.T) {
			answer, correlation := answerV311, "correlation"
			if version == 5 {
				answer, correlation = answerV5, "mqtt.correlation_data"
			}
			f, w := b.start(&load.CommandFleet{Devices: either(20, 100), QoS: 1, Version: version, Answer: answer})
			n := either(300, 10_000)
			start := time.Now()
			for i := range n {
				w.Write(i%f.Devices, header("mqtt", fmt.Sprint(version)), header("mqtt.correlation_data", fmt.Sprintf("%s-%d", f.Run, i)))
			}
			b.flush(w)
			want, got := requests(f, w.Written(nil), n), map[string]string{}
			for _, r := range answersOf(t, b.kafka, answers, f.Run, n) {
				id := headersOf(r)[correlation]
				require.NotContains(t, got, id, "answered twice")
				got[id] = string(r.Key) + " " + firstWords(r.Value)
			}
			require.Equal(t, want, got)
			t.Logf("%d requests and answers, MQTT level %d, all under way at once: %v", n, version, time.Since(start).Round(time.Millisecond))
			require.Equal(t, map[string]int{"delivered": n}, b.settled(w.Written(nil)).Outcomes)
			require.Empty(t, f.Failures())
			await(t, func() bool { return f.Answered() == n }, func() string { return fmt.Sprint(f.Answered()) })
		})
	}
}

// requests gives, for each correlation, the device and the payload's beginning that its answer must have.
func requests(f *load.CommandFleet, commands []load.Command, n int) map[string]string {
	want := map[string]string{}
	for i := range n {
		device := i % f.Devices
		want[fmt.Sprintf("%s-%d", f.Run, i)] = fmt.Sprintf("%s %s %d %d", f.ClientID(device), f.Run, device, i/f.Devices+1)
	}
	return want
}

// firstWords are the run, the device and the number of a payload.
func firstWords(payload []byte) string {
	return strings.Join(strings.SplitN(string(payload), " ", 4)[:3], " ")
}

// answersOf reads the n answers of a run.
func answersOf(t *testing.T, kafka *cluster.Cluster, topic, run string, n int) (found []*kgo.Record) {
	t.Helper()
	c, err := kgo.NewClient(kgo.SeedBrokers(kafka.Brokers()...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	require.NoError(t, err)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for len(found) < n {
		fetches := c.PollFetches(ctx)
		require.NoError(t, ctx.Err(), "%d of %d answers", len(found), n)
		fetches.EachRecord(func(r *kgo.Record) {
			if strings.HasPrefix(string(r.Value), run+" ") {
				found = append(found, r)
			}
		})
	}
	return found
}

// TestForeignClientsAnswer: clients not written here answer a request by MQTT 5's own rules.
func TestForeignClientsAnswer(t *testing.T) {
	besideOthers(t)
	b, answers := serveReplies(t)
	for name, obtain := range clients.All() {
		if name == "mosquitto_pub" {
			continue // its subscriber can't publish
		}
		t.Run(name, func(t *testing.T) {
			runner := obtain(t)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			runner.ClientID = "answers-" + name
			s, err := runner.Subscribe(ctx, b.address, clients.V5, clients.Subscription{Filters: []string{"devices/" + runner.ClientID + "/#"}, QoS: 1, Answer: true})
			require.NoError(t, err)
			id := "id \x00\xff of " + name
			b.produce(&kgo.Record{Key: []byte(runner.ClientID), Value: []byte(name + " please"),
				Headers: []kgo.RecordHeader{header("mqtt", "5"), header("mqtt.correlation_data", id)}})
			answer := answersOf(t, b.kafka, answers, name, 1)[0]
			require.Equal(t, id, headersOf(answer)["mqtt.correlation_data"], "byte for byte")
			require.Equal(t, runner.ClientID, string(answer.Key))
			_, err = s.Await(ctx, 1)
			require.NoError(t, err)
			require.NoError(t, s.Close())
		})
	}
}
