package test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/test/cluster"
	"sluice/test/load"
)

// A gap is the longest time in which nothing was acknowledged.
type gap struct {
	last    time.Time
	longest time.Duration
}

func (g *gap) acked(now time.Time) {
	g.longest = max(g.longest, now.Sub(g.last))
	g.last = now
}

// TestAKafkaNodeThatIsKilledHarmsNobody: three Kafka nodes with Kafka's own time-outs, and instances with devices that
// have wills. A node is killed, and comes back: no instance is declared dead, no device is cut off, no will is published.
// How long acknowledgements stayed out is told beside how long those of a bare producer did.
func TestAKafkaNodeThatIsKilledHarmsNobody(t *testing.T) {
	const nodes = 3
	kafka := cluster.Need(t, cluster.Config{Own: true, Nodes: nodes})
	b := serveFleetAt(t, kafka, fleetOptions{})
	devices := either(60, 300)
	f := newWillful(devices, func(ctx context.Context, device int) (net.Conn, error) {
		return dialDevice(ctx, b.instances[device%len(b.instances)].address, device)
	}, func(int) uint32 { return 0 })
	b.devices(f.CommandFleet)
	book := b.followWills()
	bare, err := kgo.NewClient(kgo.SeedBrokers(kafka.Brokers()...), kgo.DefaultProduceTopic(b.telemetry))
	require.NoError(t, err)
	t.Cleanup(bare.Close)
	p := &load.Fleet{Addr: b.instances[0].address, Run: runID(), Devices: 10, QoS: 1, Size: 64, Rate: 20}
	ctx, cancel := context.WithCancel(t.Context())
	published := make(chan *load.Result, 1)
	go func() { published <- p.Publish(ctx) }() // ends after cancel
	stop := func() *load.Result { cancel(); return <-published }
	defer cancel()
	require.Eventually(t, func() bool { return p.Acked() >= 10*p.Devices }, patience, 10*time.Millisecond, "all publish")

	for round := range either(1, 10*nodes) {
		node := round % nodes
		require.NoError(t, kafka.Kill(node))
		ours, theirs := watchAcks(t, bare, p)
		t.Logf("node %d killed: acknowledgements stayed out for %v, a bare producer's for %v", node, ours, theirs)
		b.unharmed(f, book)
		require.NoError(t, kafka.Restart(node))
	}
	r := stop()
	require.Empty(t, r.Errors)
	require.Zero(t, r.Reconnects)
	b.unharmed(f, book)
	b.healthy()
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

// watchAcks watches acknowledgements until a bare producer has had them for as long as an instance may be silent, and a
// while more, without a break. So long may a false verdict take.
func watchAcks(t *testing.T, bare *kgo.Client, p *load.Fleet) (ours, theirs time.Duration) {
	t.Helper()
	began := time.Now()
	own, other := gap{last: began}, gap{last: began}
	var acked atomic.Int64
	var waiting atomic.Bool
	count, stored := p.Acked(), int64(0)
	for calm := began; time.Since(calm) < 20*time.Second; {
		now := time.Now()
		if waiting.CompareAndSwap(false, true) {
			bare.Produce(t.Context(), &kgo.Record{Value: []byte("bare")}, func(_ *kgo.Record, err error) {
				if err == nil {
					acked.Add(1)
				}
				waiting.Store(false)
			})
		}
		if n := acked.Load(); n > stored {
			if stored = n; now.Sub(other.last) > time.Second {
				calm = now
			}
			other.acked(now)
		} else if now.Sub(other.last) > time.Second {
			calm = now
		}
		if n := p.Acked(); n > count {
			count = n
			own.acked(now)
		}
		require.Less(t, time.Since(began), 5*time.Minute, "acknowledgements do not come back")
		<-time.After(10 * time.Millisecond)
	}
	return own.longest.Round(time.Millisecond), other.longest.Round(time.Millisecond)
}
