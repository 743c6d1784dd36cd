package kafka

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/IBM/sarama"
)

// A lane is one AsyncProducer of sarama with its own client. There is one at a time; it is replaced when it
// knows many more topics than are in use, because it never forgets one, and when a topic was lost in it.
// The old one ends when its last record is done.
type lane struct {
	p      *Producer
	dial   *dialer
	client sarama.Client
	async  sarama.AsyncProducer
	input  chan<- *sarama.ProducerMessage
	drains sync.WaitGroup

	// Guarded by Producer.mu.
	records int // handed over and not done
	topics  int // that it ever had
	closed  bool
}

const (
	// laneTopics is how many topics a lane may have before it is worth replacing.
	laneTopics = 256
	// burst is how many completions are taken before RecordDone is called for them.
	burst = 256
)

// runLanes opens lanes as they are needed.
func (p *Producer) runLanes(ctx context.Context) {
	p.openLane(ctx)
	for {
		select {
		case <-ctx.Done():
			p.closeLanes()
			return
		case <-p.laneWake:
			p.openLane(ctx)
		}
	}
}

// openLane makes a lane the current one, however long Kafka is away.
func (p *Producer) openLane(ctx context.Context) {
	for wait := 100 * time.Millisecond; ctx.Err() == nil; wait = min(2*wait, time.Second) {
		l, err := p.newLane()
		if err == nil {
			p.switchTo(l)
			return
		}
		p.m.laneFailures.Inc()
		select {
		case <-ctx.Done():
		case <-p.aborted:
			<-ctx.Done()
		case <-time.After(wait):
		}
	}
}

// newLane connects to the cluster and gets a producer ID.
func (p *Producer) newLane() (*lane, error) {
	l := &lane{p: p, dial: newDialer(p.cfg.DialTimeout)}
	conf := p.cfg.producer(l.dial, p.isAborted)
	client, err := sarama.NewClient(p.cfg.Brokers, conf) // connects to nothing, as Metadata.Full is false
	if err != nil {
		return nil, fmt.Errorf("cannot make a Kafka client: %w", err)
	}
	p.adopt(l)
	l.client = laneClient{client, p}
	// sarama asks the first configured broker for a producer ID, dead or not; a round for metadata sorts out
	// which ones live. Nothing is created by it.
	if err = client.RefreshMetadata(probeTopic); err != nil && kerror(err) == sarama.ErrNoError && !isTopicError(err) {
		p.disown(l, client)
		return nil, err
	}
	if l.async, err = sarama.NewAsyncProducerFromClient(l.client); err != nil {
		p.disown(l, client)
		return nil, fmt.Errorf("cannot get a producer ID: %w", err)
	}
	l.input = l.async.Input()
	l.drains.Go(l.drainSuccesses) // ends when close has been called
	l.drains.Go(l.drainErrors)    // the same
	return l, nil
}
