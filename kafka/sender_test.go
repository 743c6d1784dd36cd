package kafka

import (
	"fmt"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

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

// lostByHand has a request that the connection would send now sent and not answered.
func (s *sender) lostByHand() *request {
	req := s.nextByHand()
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	s.remove(req)
	for i, part := range req.parts {
		s.p.settleLost(part, req.batches[i], s.p.now())
	}
	return req
}

// TestWhatFollowsADroppedBatchHasOtherNumbers: or it would be taken for the one that may be stored.
func TestWhatFollowsADroppedBatchHasOtherNumbers(t *testing.T) {
	p, s := byHand(t, 1)
	l := newLedger()
	p.Produce(l.record(0, "t", "k"))
	first := s.lostByHand().batches[0].Ident
	p.mu.Lock()
	tp := p.topics["t"]
	state := tp.state
	p.refuse(tp, ErrNotAuthorized, p.now())
	p.openTopic(tp, state, false, p.now())
	p.mu.Unlock()
	p.finish()
	require.ErrorIs(t, l.of(0)[0], ErrUncertain)
	p.Produce(l.record(1, "t", "k"))
	b := s.nextByHand().batches[0]
	require.NotEqual(t, first, b.Ident)
	require.Zero(t, b.First)
}

// TestWhatMayBeStoredIsNotSentElsewhere: the topic is made anew with another number of partitions, and may have the records
// already.
func TestWhatMayBeStoredIsNotSentElsewhere(t *testing.T) {
	p, s := byHand(t, 2)
	l := newLedger()
	for i := range 2 {
		p.Produce(&Record{Topic: "t", Fixed: true, To: int32(i), Value: fmt.Append(nil, i), Owner: l})
	}
	require.Len(t, s.lostByHand().parts, 2)
	for i := 2; i < 4; i++ {
		p.Produce(&Record{Topic: "t", Fixed: true, To: int32(i - 2), Value: fmt.Append(nil, i), Owner: l})
	}
	p.mu.Lock()
	tp := p.topics["t"]
	state := tp.state
	state.partitions, state.leaders = 1, state.leaders[:1]
	p.openTopic(tp, state, true, p.now())
	require.Len(t, tp.parts, 1)
	require.Equal(t, "0", string(tp.parts[0].out.records[0].Value), "it is sent again as it was")
	require.Len(t, tp.parts[0].waiting[0].records, 2)
	require.Equal(t, 3, tp.held)
	p.mu.Unlock()
	p.finish()
	require.Equal(t, 1, l.count())
	require.ErrorIs(t, l.of(1)[0], ErrUncertain)
}

// TestWhatIsOnItsWayComesFirstInATopicMadeAnew with another number of partitions: it may belong into another one there than
// that of what waits behind it, which is sent once the answer has come.
func TestWhatIsOnItsWayComesFirstInATopicMadeAnew(t *testing.T) {
	p, s := byHand(t, 3)
	l := newLedger()
	n := 0
	produce := func() {
		for key := range 20 {
			p.Produce(l.record(n, "t", fmt.Sprint("k", key)))
			n++
		}
	}
	produce()
	flying := s.nextByHand()
	produce()
	found := func() phase {
		p.mu.Lock()
		defer p.mu.Unlock()
		tp := p.topics["t"]
		state := tp.state
		state.id, state.partitions, state.leaders = sarama.Uuid{2}, 2, state.leaders[:2]
		p.found(tp, state, p.now())
		return tp.phase
	}
	p.mu.Lock()
	p.topics["t"].state.id = sarama.Uuid{1}
	p.mu.Unlock()
	require.Equal(t, lost, found())
	require.Empty(t, s.nextByHand().parts, "nothing overtakes it")
	gone := flying.answers()
	for _, block := range gone.Blocks["t"] {
		block.Err = sarama.ErrUnknownTopicOrPartition
	}
	p.answered(s, flying, gone)
	require.Equal(t, open, found())
	last := map[string]int{}
	eventually(t, func() bool {
		req := s.nextByHand()
		for _, b := range req.batches {
			for _, r := range b.records {
				got, err := strconv.Atoi(string(r.Value))
				require.NoError(t, err)
				before, seen := last[string(r.Key)]
				require.True(t, !seen || before < got, "key %s: %d after %d", r.Key, got, before)
				last[string(r.Key)] = got
			}
		}
		p.answered(s, req, req.answers())
		return p.outstanding() == 0
	}, "all is sent")
}

// TestWhoAcceptsAConnectionAndIsSilentHoldsNothingForLong: as a broker does whose machine is stuck.
func TestWhoAcceptsAConnectionAndIsSilentHoldsNothingForLong(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer silent.Close()
	c := fake(t, kfake.SeedTopics(1, "t"))
	cfg := testConfig(c.ListenAddrs())
	cfg.RequestTimeout = 10 * time.Second
	p := start(t, cfg)
	l := newLedger()
	p.Produce(l.record(0, "t", "k"))
	eventually(t, func() bool { return l.count() == 1 }, "it flows")
	p.mu.Lock()
	tp, at := p.topics["t"], node{7, silent.Addr().String()}
	p.lead(tp, []leader{{at: at, epoch: tp.parts[0].epoch}}, p.now())
	p.mu.Unlock()
	begun := time.Now()
	p.Produce(l.record(1, "t", "k"))
	eventually(t, func() bool { return l.count() == 2 }, "its leader is another by now")
	eventually(t, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.brokers[at].senders[0].fails > 0
	}, "the attempt ends")
	require.Less(t, time.Since(begun), cfg.RequestTimeout, "before sarama would end it")
	require.Zero(t, l.errs())
}

// TestBrokersThatLeadNothingAreForgotten once their connections have ended: at each restart a node may have another address.
func TestBrokersThatLeadNothingAreForgotten(t *testing.T) {
	p, s := byHand(t, 1)
	leads := s.to
	p.mu.Lock()
	for port := range 5 {
		p.brokerAt(node{2, fmt.Sprint("127.0.0.1:", 10+port)})
	}
	moved := p.brokerAt(node{3, "127.0.0.1:3"})
	p.lead(p.topics["t"], []leader{{at: moved.node, epoch: 1}}, p.now())
	p.mu.Unlock()
	p.sweep()
	require.Equal(t, map[node]*broker{leads.node: leads, moved.node: moved}, p.brokers, "one leads, one is connected")
	p.mu.Lock()
	s.running = false
	p.mu.Unlock()
	p.sweep()
	require.Equal(t, map[node]*broker{moved.node: moved}, p.brokers)
}
