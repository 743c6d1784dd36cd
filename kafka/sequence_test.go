package kafka

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	"sluice/kafka/produce"
)

// TestOrderIsKeptPastTheLastSequenceNumber: a busy partition gets there in a day.
func TestOrderIsKeptPastTheLastSequenceNumber(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "t"))
	p := start(t, testConfig(c.ListenAddrs()))
	l := newLedger()
	p.Produce(l.record(0, "t", "k"))
	eventually(t, func() bool { return l.count() == 1 }, "it flows")
	p.mu.Lock()
	p.topics["t"].parts[0].numbers = produce.Partition{Ident: produce.Ident{ID: 4711}, Sequence: math.MaxInt32 - 1000}
	p.mu.Unlock()
	const n = 5000
	for i := 1; i < n; i++ {
		p.Produce(l.record(i, "t", "k"))
	}
	eventually(t, func() bool { return l.count() == n }, "all end")
	l.once(t, n)
	require.Zero(t, l.errs())
	inOrder(t, read(t, c.ListenAddrs(), "t", n))
	require.Less(t, p.topics["t"].parts[0].numbers.Sequence, int32(n))
}

// TestAnotherProducerIDFollowsTheLastEpoch: the broker has forgotten what it knew, so each partition begins anew, and one
// of them has no epoch left.
func TestAnotherProducerIDFollowsTheLastEpoch(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "t"))
	p := start(t, testConfig(c.ListenAddrs()))
	l := newLedger()
	p.Produce(l.record(0, "t", "k"))
	eventually(t, func() bool { return l.count() == 1 }, "it flows")
	p.mu.Lock()
	first := p.ident
	// The broker knows this ID by its first epoch and a batch, so number 77 is out of order for it.
	p.topics["t"].parts[0].numbers = produce.Partition{Ident: produce.Ident{ID: first.ID, Epoch: math.MaxInt16}, Sequence: 77}
	p.mu.Unlock()
	for i := 1; i < 100; i++ {
		p.Produce(l.record(i, "t", "k"))
	}
	eventually(t, func() bool { return l.count() == 100 }, "all end")
	require.Zero(t, l.errs())
	inOrder(t, read(t, c.ListenAddrs(), "t", 100))
	p.mu.Lock()
	defer p.mu.Unlock()
	require.NotEqual(t, first.ID, p.ident.ID)
	require.Equal(t, p.ident, p.topics["t"].parts[0].numbers.Ident)
}
