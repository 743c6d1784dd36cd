package test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/test/cluster"
	"sluice/test/load"
)

// streaming writes commands until the function it gives is called, which waits for Kafka's answers.
func (b *commandBench) streaming(w *load.CommandWriter, rate int) (stop func()) {
	ctx, cancel := context.WithCancel(b.t.Context())
	done := make(chan struct{})
	go func() { // ends with ctx
		defer close(done)
		w.Stream(ctx, rate, nil)
	}()
	return func() {
		b.t.Helper()
		cancel()
		<-done
		b.flush(w)
	}
}

// TestCommandsSurviveKafkaKill: kill -9 of the only broker in the middle of a stream. No command is lost, none comes
// twice with QoS 2, and each has its one receipt.
func TestCommandsSurviveKafkaKill(t *testing.T) {
	besideOthers(t)
	kafka := cluster.Need(t, cluster.Config{Own: true})
	b := serveCommands(t, kafka, "    qos: 2", "")
	once, toOnce := b.start(&load.CommandFleet{Devices: 50, QoS: 2})
	atLeast, toAtLeast := b.start(&load.CommandFleet{Devices: 50, QoS: 1, Version: 4})
	stopOnce, stopAtLeast := b.streaming(toOnce, 300), b.streaming(toAtLeast, 300)
	for range either(1, 3) {
		some := once.Received() + 300
		await(t, func() bool { return once.Received() > some && atLeast.Received() > some }, func() string { return fmt.Sprint(once.Received()) })
		require.NoError(t, kafka.Kill(0))
		<-time.After(either(4*time.Second, 20*time.Second)) // the length of the outage is what is tested
		require.NoError(t, kafka.Restart(0))
	}
	some := once.Received() + 300
	await(t, func() bool { return once.Received() > some }, func() string { return fmt.Sprint(once.Received()) })
	stopOnce()
	stopAtLeast()
	commands := append(toOnce.Written(nil), toAtLeast.Written(nil)...)
	t.Logf("QoS 2: %s; QoS 1: %s", delivered(t, once, toOnce.Written(nil)), delivered(t, atLeast, toAtLeast.Written(nil)))
	r := b.settled(commands)
	t.Log(r)
	require.Equal(t, map[string]int{"delivered": len(commands)}, r.Outcomes)
	require.Zero(t, once.Reconnects()+atLeast.Reconnects(), "devices don't notice")
}

// TestCommandsSurviveLostConnections: devices lose their connections at any moment, and just before and after an
// acknowledgement, and come back at once with their sessions. Every command comes in order, with QoS 2 once, and has its one receipt.
func TestCommandsSurviveLostConnections(t *testing.T) {
	besideOthers(t)
	b := serveCommands(t, cluster.Shared(t), "    qos: 2", "")
	for _, f := range []*load.CommandFleet{
		{QoS: 1, Version: 4}, {QoS: 1, Version: 5, ReceiveMaximum: 5}, {QoS: 2, Version: 4}, {QoS: 2, Version: 5, ReceiveMaximum: 5},
	} {
		f.Devices, f.Reconnect, f.CutOneIn = 20, true, 50
		f, w := b.start(f)
		stop := b.streaming(w, 1000)
		cut(f, either(2*time.Second, time.Minute))
		stop()
		commands := w.Written(nil)
		r := delivered(t, f, commands)
		t.Logf("QoS %d, MQTT level %d, %d connections lost: %s", f.QoS, f.Version, f.Reconnects(), r)
		require.Equal(t, map[string]int{"delivered": len(commands)}, b.settled(commands).Outcomes)
		require.Positive(t, f.Reconnects())
		require.Zero(t, f.NewSessions(), "every session was present")
		if f.ReceiveMaximum > 0 {
			for i := range f.Devices {
				require.LessOrEqual(t, f.MaxUnacked(i), int(f.ReceiveMaximum))
			}
		}
	}
	require.Zero(t, b.metric("sluice_mqtt_recovered_panics_total"))
}

// cut cuts connections of f for d; about a hundred a second, every device's now and then.
func cut(f *load.CommandFleet, d time.Duration) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(d); time.Now().Before(end); {
		<-tick.C
		f.Cut(rand.IntN(f.Devices))
	}
}

// TestCommandsOfNewPartitionsAndTopics: what is written to a partition or a topic that came after the start is delivered
// from its first record, also what was written before it was noticed.
func TestCommandsOfNewPartitionsAndTopics(t *testing.T) {
	besideOthers(t)
	kafka := cluster.Shared(t)
	prefix, receipts := cluster.TopicName(t), newTopic(t, kafka, 1)
	require.NoError(t, kafka.CreateTopic(prefix+"-a", 1, 1, nil))
	b := &commandBench{t: t, kafka: kafka, topic: prefix + "-a"}
	b.instance = serve(t, kafka.Brokers(), oneTopic(newTopic(t, kafka, 1)), fmt.Sprintf(
		"commands:\n  - pattern: '^%s-(?P<suffix>[a-z])$'\n    publish: devices/{key}/{suffix}\n    receipts: %q", prefix, receipts))
	b.follow(receipts)
	f, _ := b.start(&load.CommandFleet{QoS: 1, Keep: true})
	b.produce(&kgo.Record{Key: []byte(f.ClientID(0)), Value: []byte("old")})
	addPartitions(t, kafka, b.topic, 2)
	c, err := kgo.NewClient(kgo.SeedBrokers(kafka.Brokers()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, kafka.CreateTopic(prefix+"-b", 2, 1, nil))
	want := map[string]bool{"/a old": true}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for i := range 20 {
		for partition := range int32(3) {
			for _, topic := range []string{"a", "b"} {
				if topic == "b" && partition == 2 {
					continue
				}
				value := fmt.Sprintf("%d %d", partition, i)
				want["/"+topic+" "+value] = true
				require.NoError(t, c.ProduceSync(ctx, &kgo.Record{Topic: prefix + "-" + topic, Partition: partition, Key: []byte(f.ClientID(0)), Value: []byte(value)}).FirstErr())
			}
		}
	}
	await(t, func() bool { return len(f.Messages(0)) >= len(want) }, func() string { return fmt.Sprintf("%d of %d", len(f.Messages(0)), len(want)) })
	got := map[string]bool{}
	for _, m := range f.Messages(0) {
		got[m.Topic[len(m.Topic)-2:]+" "+string(m.Payload)] = true
	}
	require.Equal(t, want, got)
	require.Len(t, f.Messages(0), len(want), "none came twice")
	await(t, func() bool { return len(b.receipts.All()) == len(want) }, func() string { return fmt.Sprint(len(b.receipts.All())) })
}

func addPartitions(t *testing.T, kafka *cluster.Cluster, topic string, more int) {
	t.Helper()
	c, err := kgo.NewClient(kgo.SeedBrokers(kafka.Direct()...))
	require.NoError(t, err)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := kadm.NewClient(c).CreatePartitions(ctx, more, topic)
	require.NoError(t, err)
	require.NoError(t, r.Error())
}

// TestCommandsAtTwoInstances: devices spread over two instances get each command once, from the instance they are at.
func TestCommandsAtTwoInstances(t *testing.T) {
	besideOthers(t)
	kafka := cluster.Shared(t)
	a := serveCommands(t, kafka, "    qos: 2", "")
	b := serve(t, kafka.Brokers(), oneTopic(newTopic(t, kafka, 1)), fmt.Sprintf("commands:\n  - topic: %q\n    publish: devices/{key}/commands\n    qos: 2", a.topic))
	f, w := a.start(&load.CommandFleet{Addrs: []string{a.address, b.address}, Devices: 40, QoS: 2})
	a.stream(w, 500, either(2*time.Second, 20*time.Second), nil)
	commands := w.Written(nil)
	r := delivered(t, f, commands)
	require.Equal(t, load.CommandReport{Written: len(commands), Received: len(commands)}, r)
	at := w.Written(func(device int) bool { return device%2 == 0 })
	require.Equal(t, map[string]int{"delivered": len(at)}, a.settled(at).Outcomes)
	require.Zero(t, a.receipts.Report(at).Strange, "only the instance that has the device writes a receipt")
}
