package test

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/test/load"
)

// TestQoS2IsStoredOnceThroughKills: devices publish with QoS 2 to a rule with exactly_once while one instance after the
// other is killed; they come back through HAProxy and send again what is unacknowledged. Who reads committed records
// finds every message once.
func TestQoS2IsStoredOnceThroughKills(t *testing.T) {
	besideOthers(t)
	b := serveFleet(t, fleetOptions{rule: "    exactly_once: true\n"})
	const devices = 20
	f := &load.Fleet{Run: runID(), Devices: devices, QoS: 2, Size: 128, Reconnect: true, Dialer: b.balance(devices), Drain: patience}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	result := make(chan *load.Result, 1)
	go func() { result <- f.Publish(ctx) }() // ends after cancel
	kills := either(3, 50)
	for range kills {
		enough := f.Acked() + 500 + rand.IntN(1000)
		await(t, func() bool { return f.Acked() > enough }, func() string { return "acknowledgements go on" })
		t.Logf("%d acknowledged", f.Acked())
		s := b.instances[rand.IntN(len(b.instances))]
		s.kill()
		s.start()
		s.awaitReady()
	}
	cancel()
	r := <-result
	require.Empty(t, r.Errors)
	b.closeOff(b.telemetry)
	report := verify(t, b.kafka.Brokers(), f.Run, r, b.telemetry)
	t.Logf("%d kills, %d messages in %v: %d lost, %d twice", kills, report.Expected, r.Elapsed.Round(time.Second), report.Lost, report.Twice)
	require.Zero(t, report.Lost)
	require.Zero(t, report.Twice)
	require.Zero(t, report.Spread)
	b.healthy()
}

// closeOff writes a last record to each partition: a reader of records never sees the end of a partition whose last
// entry is the mark of a transaction.
func (b *fleetBench) closeOff(topic string) {
	b.t.Helper()
	c, err := kgo.NewClient(kgo.SeedBrokers(b.kafka.Direct()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(b.t, err)
	defer c.Close()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	for partition := range int32(telemetryPartitions) {
		require.NoError(b.t, c.ProduceSync(ctx, &kgo.Record{Topic: topic, Partition: partition}).FirstErr())
	}
}
