package test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/test/cluster"
	"sluice/test/load"
)

// TestAStuckPartitionHoldsUpNobodyElse: a third of a topic's partitions has no leader, and their devices publish on
// into a small memory budget. The devices of its other partitions and those of another topic go on at their speed,
// with each QoS, and after the return of the leader everything acknowledged is there once and in order.
func TestAStuckPartitionHoldsUpNobodyElse(t *testing.T) {
	besideOthers(t)
	kafka := cluster.Need(t, cluster.Config{Nodes: 3, Own: true})
	healthy, stuck := cluster.TopicName(t), cluster.TopicName(t)+"-stuck"
	require.NoError(t, kafka.CreateTopic(healthy, 6, 3, nil))
	require.NoError(t, kafka.CreateTopic(stuck, 12, 1, map[string]string{"min.insync.replicas": "1"}))
	rules := fmt.Sprintf("  - match: healthy/{device}\n    topic: %q\n    key: \"{device}\"\n  - match: stuck/{device}\n    topic: %q\n    key: \"{device}\"\n", healthy, stuck)
	s := serve(t, kafka.Brokers(), rules, "  producer: {max_in_flight_bytes: 4MiB}")

	fleet := func(topic string, qos byte, devices, window, rate int) *load.Fleet {
		return &load.Fleet{Addr: s.address, Run: runID(), Devices: devices, QoS: qos, Version: 4 + qos%2, Window: window, Size: 256,
			Topic: topic + "/%d", Rate: rate, Drain: 2 * time.Minute}
	}
	fleets := []*load.Fleet{fleet("healthy", 1, 10, 100, 500), fleet("healthy", 2, 10, 100, 500), fleet("stuck", 1, 150, 100, 3000)}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	results := make([]chan *load.Result, len(fleets))
	publish := func(f *load.Fleet) chan *load.Result {
		done := make(chan *load.Result, 1)
		go func() { done <- f.Publish(ctx) }() // ends after cancel
		return done
	}
	for i, f := range fleets {
		results[i] = publish(f)
	}
	waiting := func() float64 { return s.metric("sluice_kafka_budget_waiters") }
	// rates of all fleets while it is measured
	rates := func() (perSecond [3]float64) {
		var before [3]int
		for i, f := range fleets {
			before[i] = f.Acked()
		}
		const length = 5 * time.Second
		<-time.After(length)
		for i, f := range fleets {
			perSecond[i] = float64(f.Acked()-before[i]) / length.Seconds()
		}
		return perSecond
	}
	require.Eventually(t, func() bool { return fleets[2].Acked() > 2000 }, 60*time.Second, 10*time.Millisecond)
	well := rates()
	require.NoError(t, kafka.Kill(2))
	require.Eventually(t, func() bool { return waiting() >= 20 }, 60*time.Second, 50*time.Millisecond, "devices wait for room")
	for i, f := range fleets { // they go on, perhaps only once there are other leaders
		acked := f.Acked()
		require.Eventually(t, func() bool { return f.Acked() > acked+200 }, 60*time.Second, 10*time.Millisecond, "fleet %d", i)
	}
	dropped := s.metric("sluice_mqtt_dropped_messages_total")
	unanswered := publish(fleet("healthy", 0, 10, 1, 500))
	beside := rates()
	t.Logf("acknowledged per second of healthy QoS 1, healthy QoS 2, the topic with stuck partitions: %.0f before, %.0f beside them, %.0f connections wait", well, beside, waiting())
	require.Positive(t, waiting(), "still stuck")
	require.Equal(t, dropped, s.metric("sluice_mqtt_dropped_messages_total"), "QoS 0 of a healthy topic is not dropped")
	require.Greater(t, beside[0], well[0]*3/4)
	require.Greater(t, beside[1], well[1]*3/4)
	require.Greater(t, beside[2], well[2]/2, "two thirds of the partitions have a leader")

	require.NoError(t, kafka.Restart(2))
	require.Eventually(t, func() bool { return waiting() == 0 }, 60*time.Second, 50*time.Millisecond, "nobody waits any more")
	cancel()
	<-unanswered
	for i, f := range fleets {
		r := <-results[i]
		require.Empty(t, r.Errors)
		exact(t, verify(t, kafka.Brokers(), f.Run, r, []string{healthy, healthy, stuck}[i]))
	}
	require.Eventually(t, func() bool { return s.metric("sluice_kafka_budget_used_bytes") == 0 }, patience, 50*time.Millisecond)
}
