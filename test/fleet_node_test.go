package test

import (
	"context"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/test/clients"
	"sluice/test/cluster"
	"sluice/test/load"
)

// Gaps are the longest times in which one of several streams had no acknowledgement.
type gaps struct {
	counts  []int
	last    []time.Time
	longest time.Duration
}

// watch takes the counts of acknowledgements of all streams, and says whether none has been without one for 2 s.
func (g *gaps) watch(counts []int) (calm bool) {
	now := time.Now()
	if g.counts == nil {
		g.counts, g.last = counts, slices.Repeat([]time.Time{now}, len(counts))
	}
	calm = true
	for i, n := range counts {
		g.longest = max(g.longest, now.Sub(g.last[i]))
		calm = calm && now.Sub(g.last[i]) < 2*time.Second
		if n > g.counts[i] {
			g.last[i] = now
		}
	}
	g.counts = counts
	return calm
}

// A bare is a librdkafka producer for each partition of a topic.
type bare []atomic.Int64

func (b bare) acked() []int {
	all := make([]int, len(b))
	for i := range b {
		all[i] = int(b[i].Load())
	}
	return all
}

// TestAKafkaNodeThatIsKilledHarmsNobody: three Kafka nodes with Kafka's own time-outs, and instances with devices that
// have wills. A node is killed, and comes back: no instance is declared dead, no device is cut off, no will is published.
// Acknowledgements stay out for hardly longer than those of librdkafka, which writes to each partition beside it.
func TestAKafkaNodeThatIsKilledHarmsNobody(t *testing.T) {
	besideOthers(t)
	const nodes, publishers = 3, 30
	kafka := cluster.Need(t, cluster.Config{Own: true, Nodes: nodes})
	b := serveFleetAt(t, kafka, fleetOptions{})
	devices := either(60, 300)
	f := newWillful(devices, func(ctx context.Context, device int) (net.Conn, error) {
		return dialDevice(ctx, b.instances[device%len(b.instances)].address, device)
	}, func(int) uint32 { return 0 })
	b.devices(f.CommandFleet)
	book := b.followWills()
	bare := make(bare, telemetryPartitions)
	kcat := clients.FindKcat(t)
	for partition := range bare {
		require.NoError(t, kcat.Stream(t.Context(), kafka.Brokers(), b.telemetry, partition, &bare[partition]))
	}
	p := &load.Fleet{Addr: b.instances[0].address, Run: runID(), Devices: publishers, QoS: 1, Size: 64, Rate: 150, Window: 1000}
	ctx, cancel := context.WithCancel(t.Context())
	published := make(chan *load.Result, 1)
	go func() { published <- p.Publish(ctx) }() // ends after cancel
	stop := func() *load.Result { cancel(); return <-published }
	defer cancel()
	require.Eventually(t, func() bool { return p.Acked() >= 10*publishers }, patience, 10*time.Millisecond, "all publish")
	require.Eventually(t, func() bool { return slices.Min(bare.acked()) > 0 }, patience, 10*time.Millisecond, "librdkafka writes to each partition")

	var longer []time.Duration
	for round := range either(1, 10*nodes) {
		node := round % nodes
		require.NoError(t, kafka.Kill(node))
		ours, theirs := watchAcks(t, bare, p)
		t.Logf("node %d killed: acknowledgements stayed out for %v, librdkafka's for %v", node, ours, theirs)
		longer = append(longer, ours-theirs)
		b.unharmed(f, book)
		require.NoError(t, kafka.Restart(node))
	}
	r := stop()
	require.Empty(t, r.Errors)
	require.Zero(t, r.Reconnects)
	b.unharmed(f, book)
	b.healthy()
	slices.Sort(longer)
	require.Less(t, longer[len(longer)/2], 2*time.Second, "acknowledgements stayed out for longer than librdkafka's, median of %v", longer)
}

// unharmed requires that nobody was declared dead, cut off, or spoken for by a will.
func (b *fleetBench) unharmed(f *willful, book *willBook) {
	b.t.Helper()
	for _, s := range b.instances {
		require.Zero(b.t, s.metric("sluice_session_verdicts_total"), "verdicts")
		require.NotContains(b.t, s.log.String(), "declared dead")
	}
	require.Empty(b.t, f.dropped(), "devices that were cut off")
	require.Zero(b.t, book.count(), "wills of the living")
}

// watchAcks watches acknowledgements until librdkafka has had them for as long as an instance may be silent, and a while
// more, without a break. So long may a false verdict take.
func watchAcks(t *testing.T, bare bare, p *load.Fleet) (ours, theirs time.Duration) {
	t.Helper()
	var own, other gaps
	for began, calm := time.Now(), time.Now(); time.Since(calm) < 20*time.Second; <-time.After(10 * time.Millisecond) {
		both := []bool{own.watch(p.AckedEach()), other.watch(bare.acked())}
		if slices.Contains(both, false) {
			calm = time.Now()
		}
		require.Less(t, time.Since(began), 5*time.Minute, "acknowledgements do not come back: ours %v, librdkafka's %v", own.counts, other.counts)
	}
	return own.longest.Round(time.Millisecond), other.longest.Round(time.Millisecond)
}
