package kafka

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
)

// A lane is one AsyncProducer of sarama with its own client. There is one at a time. It is replaced when it
// knows many more topics than are in use, because sarama never forgets one, and when a topic it knows was made
// anew, because there its sequence numbers are wrong. The old one ends when its last record is done.
type lane struct {
	p      *Producer
	dial   *dialer
	client sarama.Client
	async  sarama.AsyncProducer
	input  chan<- *sarama.ProducerMessage
	drains sync.WaitGroup

	// skips is how many waits to leave out. When sarama gives back the records of a partition that has no
	// leader, it does so one by one and waits after each as it would before a retry; a thousand would take
	// minutes. So each such record leaves a skip for the wait that follows it.
	skips atomic.Int64

	// Guarded by Producer.mu.
	records int // handed over and not done
	parts   int // partitions that it ever had
	closed  bool
}

// burst is how many completions are taken before RecordDone is called for them.
const burst = 256

// runLanes opens lanes as they are needed.
func (p *Producer) runLanes(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.laneWake:
			if p.wantsLane() {
				p.openLane(ctx)
			}
		}
	}
}

// replaceLane has a new lane opened. The caller holds mu.
func (p *Producer) replaceLane() {
	p.laneWanted = true
	p.laneWake.wake()
}

// wantsLane says whether that is still to be done.
func (p *Producer) wantsLane() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.laneWanted
}

// openLane makes a new lane the current one, however long Kafka is away.
func (p *Producer) openLane(ctx context.Context) {
	told := false
	for wait := 100 * time.Millisecond; !p.isAborted(); wait = min(2*wait, time.Second) {
		l, err := p.newLane()
		if err == nil {
			p.switchTo(l)
			return
		}
		p.m.laneFailures.Inc()
		if err = denied("Write", err); errors.Is(err, ErrNotAuthorized) && !told {
			told = true // a principal that may write to no topic gets no producer ID
			p.cfg.Logger.Error().Err(err).Msg("cannot start to produce to Kafka")
		}
		p.cfg.Logger.Debug().Err(err).Dur("retry_in", wait).Msg("cannot start to produce to Kafka")
		select {
		case <-ctx.Done():
			return
		case <-p.aborted:
			return
		case <-time.After(wait):
		}
	}
}

// newLane connects to the cluster and gets a producer ID.
func (p *Producer) newLane() (*lane, error) {
	l := &lane{p: p, dial: newDialer(p.cfg.DialTimeout)}
	client, err := sarama.NewClient(p.cfg.Brokers, p.cfg.producer(l.dial, l.skip)) // connects to nothing yet
	if err != nil {
		return nil, fmt.Errorf("cannot make a Kafka client: %w", err)
	}
	p.setOpening(l)
	defer p.setOpening(nil)
	l.client = laneClient{client, p}
	// sarama asks the first configured broker for a producer ID and no other, dead or not. A round for metadata
	// sorts out which ones live.
	if err = client.RefreshMetadata(p.anyTopic()); err == nil || kerror(err) != sarama.ErrNoError {
		l.async, err = sarama.NewAsyncProducerFromClient(l.client)
	}
	if err != nil {
		l.dial.close()
		_ = client.Close()
		return nil, fmt.Errorf("cannot get a producer ID: %w", err)
	}
	l.input = l.async.Input()
	l.drains.Go(l.drainSuccesses) // ends after close
	l.drains.Go(l.drainErrors)    // ends after close
	return l, nil
}

// skip takes a skip if there is one.
func (l *lane) skip() bool {
	if l.p.isAborted() {
		return true
	}
	for n := l.skips.Load(); n > 0; n = l.skips.Load() {
		if l.skips.CompareAndSwap(n, n-1) {
			return true
		}
	}
	return false
}

// setOpening notes whose connections abort has to cut too.
func (p *Producer) setOpening(l *lane) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.opening = l
	if l != nil && p.aborting {
		l.dial.close()
	}
}

// anyTopic gives a topic that exists; there is one when a lane is opened.
func (p *Producer) anyTopic() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, t := range p.topics {
		if t.phase == open {
			return name
		}
	}
	return "sluice" // all are gone again; asking for it creates nothing
}

// switchTo makes l the current lane.
func (p *Producer) switchTo(l *lane) {
	p.mu.Lock()
	old := p.lane
	p.lane, p.laneWanted = l, false
	p.lanes[l] = struct{}{}
	if p.aborting {
		l.dial.close()
	}
	if old != nil {
		p.closeIfDone(old)
	}
	now := p.now()
	for _, t := range p.topics {
		p.pumpTopic(t, now)
	}
	w := p.due()
	p.mu.Unlock()
	w.wake(p)
}

// closeIfDone ends a lane that was replaced and has no record left. Nothing is sent to its input any more.
// The caller holds mu.
func (p *Producer) closeIfDone(l *lane) {
	if l == p.lane || l.records > 0 || l.closed {
		return
	}
	l.closed = true
	delete(p.lanes, l)
	p.closers.Go(l.close) // ends when sarama has ended
}

// closeLanes ends all lanes, at the end.
func (p *Producer) closeLanes() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lane = nil
	for l := range p.lanes {
		p.closeIfDone(l)
	}
}

func (l *lane) close() {
	l.async.AsyncClose()
	l.drains.Wait()
	_ = l.client.Close() // all that was asked of it is done
	l.dial.close()
}

// drainSuccesses takes completions in bursts, so that locks, budget and the caller's flush cost once for many.
// sarama hands them over one by one on a channel without a buffer: its goroutine needs the processor to offer
// the next, so an empty channel means the end of the burst only after it had a chance to run.
func (l *lane) drainSuccesses() {
	from := l.async.Successes()
	batch := make([]*Record, 0, burst)
	for msg := range from {
		for more := true; more; {
			if r, ok := msg.Metadata.(*Record); ok { // not, if it was answered for by force
				batch = append(batch, r)
			}
			if len(batch) == burst {
				break
			}
			msg, more = poll(from)
		}
		l.p.stored(batch)
		batch = batch[:0]
	}
}

// poll takes a message if there is one or will be at once.
func poll(from <-chan *sarama.ProducerMessage) (*sarama.ProducerMessage, bool) {
	for range 2 {
		select {
		case msg, ok := <-from:
			return msg, ok
		default:
			runtime.Gosched()
		}
	}
	return nil, false
}

func (l *lane) drainErrors() {
	for e := range l.async.Errors() {
		if r, ok := e.Msg.Metadata.(*Record); ok {
			l.p.failed(r, e.Err)
		}
	}
}
