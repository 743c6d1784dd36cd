package kafka

import (
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"
)

// TestProduceAndCompletionAllocateNothing runs a record's whole way through this package, with sarama's part
// left out: its channel is emptied at once.
func TestProduceAndCompletionAllocateNothing(t *testing.T) {
	p, err := NewProducer(Config{Brokers: []string{"127.0.0.1:1"}})
	require.NoError(t, err)
	p.lane = &lane{p: p}
	tp := p.addTopic("t")
	p.openTopic(tp, topicState{name: "t", exists: true, partitions: 6, limit: defaultLimit, limitKnown: true}, 0)
	owner := discard{}
	r := &Record{Topic: "t", Key: []byte("device-1"), Value: make([]byte, 256), Headers: benchHeaders, Owner: owner,
		Timestamp: time.Now(), Reserved: 500}
	batch, queue := make([]*Record, 1), make([]fed, 0, 8)
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		p.Budget().Take(Destination{}, 500)
		p.Produce(r)
		queue = p.takeQueue(queue)
		for _, f := range queue {
			batch[0] = f.msg.Metadata.(*Record)
			p.stored(batch)
		}
	}))
	require.Zero(t, p.outstanding())
	require.Zero(t, p.Budget().InUse())
}

type discard struct{}

func (discard) RecordDone(*Record, error) {}

func BenchmarkProduceAndCompletionWithoutSarama(b *testing.B) {
	p, err := NewProducer(Config{Brokers: []string{"127.0.0.1:1"}})
	require.NoError(b, err)
	p.lane = &lane{p: p}
	tp := p.addTopic("t")
	p.openTopic(tp, topicState{name: "t", exists: true, partitions: 6, limit: defaultLimit, limitKnown: true}, 0)
	rs := make([]*Record, 64)
	for i := range rs {
		rs[i] = &Record{Topic: "t", Key: []byte("load-bare-12"), Value: make([]byte, 256), Headers: benchHeaders, Owner: discard{}, Timestamp: time.Now()}
	}
	var queue []fed
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		p.Produce(rs[i%len(rs)])
		if i%len(rs) == len(rs)-1 {
			queue = p.takeQueue(queue)
			p.stored(rs)
		}
	}
}

var _ sarama.Encoder = (*octets)(nil)
