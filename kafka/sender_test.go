package kafka

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/kafka/produce"
)

// TestAPartitionThatComesBackIsSentOnce: its leader goes away and comes back while the connection is busy, so it is twice
// in the list.
func TestAPartitionThatComesBackIsSentOnce(t *testing.T) {
	p, s := byHand(t, 1)
	p.mu.Lock()
	other := p.brokerAt(node{2, "127.0.0.1:2"})
	other.senders[0] = &sender{p: p, to: other, dial: newDialer(time.Second), wake: newSignal(), next: never, running: true}
	p.mu.Unlock()
	l := newLedger()
	p.Produce(l.record(0, "t", "k"))
	p.mu.Lock()
	for i, at := range []node{other.node, s.to.node} {
		p.lead(p.topics["t"], []leader{{at: at, epoch: int32(i + 1)}}, p.now())
	}
	p.mu.Unlock()
	req := s.nextByHand()
	require.Len(t, req.parts, 1)
	p.answered(s, req, req.answers())
	l.once(t, 1)
}

// TestASenderStaysWhileItsPartitionsWaitForAProducerID: what waits for a producer ID would have nobody to send it.
func TestASenderStaysWhileItsPartitionsWaitForAProducerID(t *testing.T) {
	p, s := byHand(t, 1)
	p.mu.Lock()
	p.ident = produce.Nobody
	p.mu.Unlock()
	p.Produce(newLedger().record(0, "t", "k"))
	p.mu.Lock()
	s.used = -2 * idleSender
	p.mu.Unlock()
	require.False(t, s.work().end)
	p.takeIdent(produce.Ident{ID: 2})
	require.True(t, s.work().connect)
}
