package kafka

import (
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"

	"sluice/kafka/produce"
)

var benchHeaders = []Header{
	{[]byte("mqtt.topic"), []byte("devices/load-bare-12/telemetry")},
	{[]byte("mqtt.client_id"), []byte("load-bare-12")},
	{[]byte("mqtt.qos"), []byte("1")},
}

// byHand makes a producer whose only connection is worked by the test, with a topic t.
func byHand(t testing.TB, partitions int32) (*Producer, *sender) {
	t.Helper()
	p, err := NewProducer(Config{Brokers: []string{"127.0.0.1:1"}})
	require.NoError(t, err)
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.brokerAt(node{1, "127.0.0.1:1"})
	s := &sender{p: p, to: b, dial: newDialer(time.Second), wake: newSignal(), next: never, running: true}
	b.senders[0] = s
	p.ident = produce.Ident{ID: 1}
	state := topicState{name: "t", exists: true, partitions: partitions, limit: defaultLimit, limitKnown: true}
	for range partitions {
		state.leaders = append(state.leaders, leader{at: b.node})
	}
	p.openTopic(p.addTopic("t"), state, false, 0)
	return p, s
}

// next gives the request that the connection would send now, encoded.
func (s *sender) nextByHand() *request {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	now := s.p.now()
	s.look(now)
	req := s.take(now)
	for _, b := range req.batches {
		b.encode()
	}
	return req
}

// answers makes the answer that all of it is stored.
func (r *request) answers() *sarama.ProduceResponse {
	resp := &sarama.ProduceResponse{Blocks: map[string]map[int32]*sarama.ProduceResponseBlock{"t": {}}}
	for _, part := range r.parts {
		resp.Blocks["t"][part.id] = &sarama.ProduceResponseBlock{}
	}
	return resp
}

// TestProduceAndCompletionAllocateNothing runs records their whole way through this package, with sarama's part
// left out: what is allocated is for a request, not for each record. With the race detector pools forget a part of what they
// are given, the compressors' too.
func TestProduceAndCompletionAllocateNothing(t *testing.T) {
	p, s := byHand(t, 6)
	rs := make([]*Record, 1000)
	for i := range rs {
		rs[i] = &Record{Topic: "t", Key: []byte{byte(i)}, Value: make([]byte, 256), Headers: benchHeaders, Owner: discard{},
			Timestamp: time.Now(), Reserved: 500}
	}
	way := func() {
		for _, r := range rs {
			p.Budget().Take(Destination{}, 500)
			p.Produce(r)
		}
		req := s.nextByHand()
		p.answered(s, req, req.answers())
	}
	way()
	require.Less(t, testing.AllocsPerRun(100, way), float64(len(rs))/10)
	require.Zero(t, p.outstanding())
	require.Zero(t, p.Budget().InUse())
}

type discard struct{}

func (discard) RecordDone(*Record, error) {}

func BenchmarkProduceAndCompletionWithoutSarama(b *testing.B) {
	p, s := byHand(b, 6)
	rs := make([]*Record, 512)
	for i := range rs {
		rs[i] = &Record{Topic: "t", Key: []byte{byte(i)}, Value: make([]byte, 256), Headers: benchHeaders, Owner: discard{}, Timestamp: time.Now()}
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		p.Produce(rs[i%len(rs)])
		if i%len(rs) == len(rs)-1 {
			req := s.nextByHand()
			p.answered(s, req, req.answers())
		}
	}
}
