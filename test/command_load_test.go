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

// TestCommandsReachTheirDevicesUnderLoad: 1 000 commands a second; each comes to its own device, in order, and with QoS 2
// once, and each has one receipt.
func TestCommandsReachTheirDevicesUnderLoad(t *testing.T) {
	kafka := cluster.Shared(t)
	for _, qos := range []byte{1, 2} {
		t.Run(fmt.Sprintf("qos%d", qos), func(t *testing.T) {
			b := serveCommands(t, kafka, fmt.Sprintf("    qos: %d", qos), "")
			f, w := b.start(&load.CommandFleet{Devices: either(500, 10_000), QoS: qos, Version: 4 + qos%2})
			b.stream(w, 200, time.Second, nil) // Kafka is slow at first
			warm := len(w.Written(nil))
			before, start := b.cpu(), time.Now()
			b.stream(w, 1000, either(2*time.Second, time.Minute), nil)
			elapsed, commands := time.Since(start), w.Written(nil)
			r := delivered(t, f, commands)
			require.Equal(t, load.CommandReport{Written: len(commands), Received: len(commands)}, r)
			receipts := b.settled(commands)
			used := b.cpu() - before
			require.Equal(t, map[string]int{"delivered": len(commands)}, receipts.Outcomes)
			require.Zero(t, receipts.Strange)
			measured := commands[warm:]
			all, behind := f.LatenciesOf(measured)
			t.Logf("%d devices, QoS %d, %.0f commands/s: from before the Kafka client to the device %s; Kafka's acknowledgement to the writer %s; device behind that %s; %.0f µs CPU a command of the instance, %.0f MB resident",
				f.Devices, qos, float64(len(measured))/elapsed.Seconds(), all, stored(measured), behind, used.Seconds()*1e6/float64(len(measured)), float64(b.rss())/(1<<20))
		})
	}
}

// stored gives how long Kafka took to acknowledge the commands.
func stored(commands []load.Command) load.Latencies {
	var l load.Latencies
	for _, c := range commands {
		l = append(l, c.Stored)
	}
	return l.Sorted()
}

// TestADeviceThatDoesNotReadHarmsNobodyElse: one device stops reading while it is sent much. The others lose nothing
// and wait no longer, memory stays in its bound, and each of its own commands has a receipt in the end.
func TestADeviceThatDoesNotReadHarmsNobodyElse(t *testing.T) {
	kafka := cluster.Shared(t)
	b := serveCommands(t, kafka, "", "limits: {commands_memory: 32MiB, commands_queued: 100}")
	f, w := b.start(&load.CommandFleet{Devices: either(50, 500), QoS: 1, Reconnect: true, SessionExpiry: 10 * time.Second})
	deaf, toDeaf := b.start(&load.CommandFleet{Devices: 1, QoS: 1, Reconnect: true, SessionExpiry: time.Second})
	toDeaf.Size = 100_000 // so that the window is more than the socket takes
	soon, often := header("mqtt.expiry", "3"), either(150, 40)
	before, length := b.rss(), either(2*time.Second, 15*time.Second)
	peak := before
	var calm, beside []load.Command
	for range either(2, 4) {
		calm = append(calm, b.round(w, f, length)...)
		deaf.Stall(0)
		ctx, cancel := context.WithTimeout(t.Context(), length)
		done := make(chan struct{})
		go func() { // ends with ctx
			defer close(done)
			toDeaf.Stream(ctx, often, nil, soon)
		}()
		beside = append(beside, b.round(w, f, length)...)
		cancel()
		<-done
		peak = max(peak, b.rss())
		deaf.Resume(0)
		b.flush(toDeaf)
		b.settled(toDeaf.Written(nil)) // what waits or is under way expires or is delivered, before the next round
	}
	deaf.Stall(0)
	b.stream(toDeaf, often, length, nil, soon)
	deaf.Vanish(0)
	r := b.settled(toDeaf.Written(nil))
	calmly, _ := f.LatenciesOf(calm)
	besides, _ := f.LatenciesOf(beside)
	t.Logf("others alone: %s; beside a device that reads nothing: %s; its own %s; memory %d MB before, %d MB at most", calmly, besides, r, before>>20, peak>>20)
	require.Less(t, besides.Quantile(.5), 20*calmly.Quantile(.5)+time.Second, "far from every measurement")
	require.Less(t, peak-before, int64(32+64)<<20)
	require.Positive(t, r.Outcomes["dropped"]+r.Outcomes["offline"]+r.Outcomes["expired"], "it was sent more than it took")
	require.Equal(t, map[string]int{"delivered": len(calm) + len(beside)}, b.settled(w.Written(nil)).Outcomes)
	require.Empty(t, deaf.Failures())
}

// round streams to all devices of f and waits until they have it; it gives the commands of the round.
func (b *commandBench) round(w *load.CommandWriter, f *load.CommandFleet, d time.Duration) []load.Command {
	b.t.Helper()
	before := len(w.Written(nil))
	b.stream(w, 500, d, nil)
	all := w.Written(nil)
	delivered(b.t, f, all)
	return all[before:]
}
