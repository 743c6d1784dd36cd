package test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/kafka"
	"sluice/test/cluster"
)

// A stateBench is an instance with its topics, which are filled from outside while it is away.
type stateBench struct {
	*instance
	kafka              *cluster.Cluster
	sessions, retained string
}

func newStateBench(t *testing.T, kafka *cluster.Cluster) *stateBench {
	b := &stateBench{kafka: kafka}
	name := cluster.TopicName(t)
	b.sessions, b.retained = "sluice-sessions-"+name, "sluice-retained-"+name
	state := fmt.Sprintf("sessions: {topic: %q, ledger: %q}\nretained: {topic: %q}\n", b.sessions, "sluice-ledger-"+name, b.retained)
	b.instance, _ = member(t, b.kafka.Brokers(), "publish:\n"+oneTopic(newTopic(t, b.kafka, 6))+state)
	b.start()
	b.awaitReady()
	require.Zero(t, b.terminate())
	return b
}

// fill writes records to a topic, in the partition of their key's part before a null character.
func (b *stateBench) fill(topic string, n int, record func(i int) *kgo.Record) {
	b.t.Helper()
	partitioner := kgo.BasicConsistentPartitioner(func(string) func(*kgo.Record, int) int {
		return func(r *kgo.Record, partitions int) int {
			client, _, _ := strings.Cut(string(r.Key), "\x00")
			return int(kafka.PartitionOf([]byte(client), int32(partitions)))
		}
	})
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.kafka.Brokers()...), kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(partitioner), kgo.ProducerLinger(20*time.Millisecond))
	require.NoError(b.t, err)
	defer cl.Close()
	for i := range n {
		cl.Produce(b.t.Context(), record(i), func(_ *kgo.Record, err error) {
			if err != nil {
				b.t.Error(err)
			}
		})
	}
	require.NoError(b.t, cl.Flush(b.t.Context()))
}

// restart starts the instance and gives how long it took to be ready, and its memory.
func (b *stateBench) restart() (took time.Duration, memory int64) {
	b.t.Helper()
	begin := time.Now()
	b.start()
	b.awaitReady()
	return time.Since(begin), b.rss()
}

// TestStartWithManyRetainedMessages: an instance is ready when it has read all of them.
func TestStartWithManyRetainedMessages(t *testing.T) {
	b := newStateBench(t, cluster.Shared(t))
	n := either(50_000, 1_000_000)
	empty, before := b.restart()
	require.Zero(t, b.terminate())
	payload := []byte(strings.Repeat("r", 100))
	b.fill(b.retained, n, func(i int) *kgo.Record {
		return &kgo.Record{Key: fmt.Appendf(nil, "plants/%d/machines/m%07d/state", i%100, i), Value: payload,
			Headers: []kgo.RecordHeader{header("sluice.v", "1"), header("mqtt.qos", "1")}}
	})
	took, memory := b.restart()
	t.Logf("%d retained messages: ready after %v, %v without any; %d MB of memory, %d without; %.0f bytes each",
		n, took.Round(10*time.Millisecond), empty.Round(10*time.Millisecond), memory>>20, before>>20, float64(memory-before)/float64(n))
	require.EqualValues(t, n, b.metric("sluice_retained_records_total", `kind="set"`))
}

// storedSession is the record of a session that an instance let go of, of one of three.
func storedSession(i int) *kgo.Record {
	offline := time.Now().UnixMilli()
	return &kgo.Record{Key: fmt.Appendf(nil, "sensor-%07d\x00%016x", i, i%3), Value: fmt.Appendf(nil,
		`{"v":1,"claim":1,"state":1,"began":1,"tx":"sluice-%016x-0","connected":%d,"released":true,"expiry":86400,"offline":%d,"subs":[{"f":"devices/sensor-%07d/commands/#","q":1}],"pos":{"commands":{"0":1,"1":2,"2":3,"3":4,"4":5,"5":6}},"remote":"10.1.2.3:40000","mqtt":"5"}`,
		i%3, offline-60_000, offline, i)}
}

// TestStartWithManyStoredSessions: an instance is ready when it has read all of them, and each can be resumed.
func TestStartWithManyStoredSessions(t *testing.T) {
	b := newStateBench(t, cluster.Shared(t))
	n := either(50_000, 1_000_000)
	empty, before := b.restart()
	require.Zero(t, b.terminate())
	b.fill(b.sessions, n, storedSession)
	took, memory := b.restart()
	t.Logf("%d stored sessions: ready after %v, %v without any; %d MB of memory, %d without; %.0f bytes each",
		n, took.Round(10*time.Millisecond), empty.Round(10*time.Millisecond), memory>>20, before>>20, float64(memory-before)/float64(n))
	require.GreaterOrEqual(t, b.metric("sluice_session_stored_records"), float64(n))
	d := connectRaw(t, b.address, rawConnect{id: fmt.Sprintf("sensor-%07d", n-1), expiry: 3600})
	require.True(t, d.present)
}
