package kafka

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
)

func TestOrderIsKeptWhileLanesAreReplaced(t *testing.T) {
	c := fake(t, kfake.NumBrokers(2), kfake.SeedTopics(4, "t"))
	p := start(t, testConfig(c.ListenAddrs()))
	l := newLedger()
	stop, sent := make(chan struct{}), make(chan int)
	go func() { sent <- flow(p, l, "t", stop) }() // ends with stop
	for range 10 {
		before := l.count()
		eventually(t, func() bool { return l.count() > before+300 }, "it flows")
		p.mu.Lock()
		was := p.lane
		p.replaceLane()
		p.mu.Unlock()
		eventually(t, func() bool {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.lane != was && was.closed && len(p.lanes) == 1
		}, "the old lane ends")
	}
	close(stop)
	n := <-sent
	eventually(t, func() bool { return l.count() == n }, "all end")
	l.once(t, n)
	require.Zero(t, l.errs())
	inOrder(t, read(t, c.ListenAddrs(), "t", n))
}

func TestStuckPartitionDoesNotHoldOthersWhenTheLaneIsReplaced(t *testing.T) {
	c, g := gated(t, kfake.SeedTopics(2, "t"))
	p := start(t, testConfig(c.ListenAddrs()))
	l := newLedger()
	keys := keysOf(2)
	p.Produce(l.record(0, "t", keys[0]))
	eventually(t, func() bool { return l.count() == 1 }, "it flows")
	g.set(down)
	p.Produce(l.record(1, "t", keys[0]))
	p.mu.Lock()
	p.replaceLane()
	p.mu.Unlock()
	g.set(passing)
	for i := 2; i < 100; i++ {
		p.Produce(l.record(i, "t", fmt.Sprint(keys[i%2])))
	}
	eventually(t, func() bool { return l.count() == 100 }, "all are stored")
	require.Zero(t, l.errs())
	inOrder(t, read(t, c.ListenAddrs(), "t", 100))
}
