package kafka

import (
	"context"
	"fmt"
)

// Close waits until Kafka answered for all records or ctx ends, takes no more from then on, and ends the rest with
// ErrClosed; the error says how many those were. What an owner produces because of an outcome, as a dead letter, is waited
// for too. When it returns, RecordDone was called for every record and nothing more is sent, which can take a moment longer
// than ctx. It is safe to call more than once.
func (p *Producer) Close(ctx context.Context) error {
	p.mu.Lock()
	p.closing = true
	idle := !p.running
	p.wakeSenders() // nothing lingers any more
	p.checkDrained()
	p.mu.Unlock()
	if idle {
		err := p.unacknowledged(ErrClosed)
		p.abort()
		p.dropAll()
		p.end()
		return err
	}
	var err error
	select {
	case <-p.drained:
	case <-ctx.Done():
		err = p.unacknowledged(ctx.Err())
		p.abort()
	}
	<-p.stopped
	return err
}

// unacknowledged says how many records are given up, and why; nil if none.
func (p *Producer) unacknowledged(why error) error {
	if left := p.outstanding(); left > 0 {
		return fmt.Errorf("%d records were not acknowledged by Kafka: %w", left, why)
	}
	return nil
}

// outstanding gives how many records RecordDone was not called for.
func (p *Producer) outstanding() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pending
}

// hasEnded says that Close waits for nothing any more. The caller holds mu.
func (p *Producer) hasEnded() bool {
	if !p.closing || p.aborting {
		return p.closing
	}
	select {
	case <-p.drained:
		return true
	default:
		return false
	}
}

// checkDrained announces that nothing is left. The caller holds mu.
func (p *Producer) checkDrained() {
	if !p.closing || p.pending > 0 {
		return
	}
	select {
	case <-p.drained:
	default:
		close(p.drained)
	}
}

// abort gives up what Kafka has not acknowledged. The connections are cut, and what was sent on them is answered for when
// their goroutines have ended: a record whose owner was answered may change, and must not be sent then.
func (p *Producer) abort() {
	p.mu.Lock()
	if p.aborting {
		p.mu.Unlock()
		return
	}
	p.closing, p.aborting = true, true
	close(p.aborted)
	for _, b := range p.brokers {
		for _, s := range b.senders {
			if s != nil {
				s.dial.close()
			}
		}
	}
	p.mu.Unlock()
}

// wakeSenders has each look again at what it has to do. The caller holds mu.
func (p *Producer) wakeSenders() {
	for _, b := range p.brokers {
		for _, s := range b.senders {
			if s != nil {
				s.wake.wake()
			}
		}
	}
}

// dropAll ends what is left. No connection is.
func (p *Producer) dropAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.topics {
		p.failWaiting(t, ErrClosed)
	}
}

// failWaiting ends what is not on its way. The caller holds mu.
func (p *Producer) failWaiting(t *topic, err error) {
	for _, r := range t.waiting {
		p.fail(r, err)
	}
	t.waiting = nil
	for _, part := range t.parts {
		if b := part.out; b != nil && !part.flying {
			p.outgrow(part)
			part.drop()
			p.failBatch(t, b, err)
		}
		for _, b := range part.waiting {
			p.failBatch(t, b, err)
		}
		part.waiting = nil
	}
}

// failBatch ends the records of a batch. A verdict is none if they may be stored.
func (p *Producer) failBatch(t *topic, b *batch, err error) {
	if Final(err) && (b.InDoubt || b.Inherited) {
		err = ErrUncertain
	}
	p.failAll(t, b, err)
}

// end answers for what came while the goroutines ended, and lets Produce answer for what comes later.
func (p *Producer) end() {
	p.mu.Lock()
	again := p.ended
	p.ended = true
	p.mu.Unlock()
	p.finish()
	p.up.Store(false)
	if !again {
		close(p.stopped)
	}
}
