package kafka

import (
	"context"
	"fmt"
	"time"
)

// grace is how long sarama has to give back its records once its connections are cut, and to end.
const grace = 3 * time.Second

// Close takes no more records, waits until Kafka answered for those it has or ctx ends, and ends the rest with
// ErrClosed; the error says how many those were. When it returns, RecordDone was called for every record and
// nothing more is sent, which can take a moment longer than ctx. It is safe to call more than once.
func (p *Producer) Close(ctx context.Context) error {
	p.mu.Lock()
	p.closing = true
	idle := !p.running
	p.checkDrained()
	p.mu.Unlock()
	if idle {
		err := p.unacknowledged(ErrClosed)
		p.abort()
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

// abort gives up what Kafka has not acknowledged. The connections are cut first: a record whose owner was
// answered may change under sarama's hands, and must not be sent then.
func (p *Producer) abort() {
	p.mu.Lock()
	if p.aborting {
		p.mu.Unlock()
		return
	}
	p.closing, p.aborting = true, true
	close(p.aborted)
	for l := range p.lanes {
		l.dial.close()
	}
	if p.opening != nil {
		p.opening.dial.close()
	}
	for _, t := range p.topics {
		p.drop(t)
	}
	p.checkDrained()
	w := p.due()
	p.mu.Unlock()
	w.wake(p)
	force := time.AfterFunc(grace, p.force)
	go func() { // ends with the last RecordDone
		<-p.drained
		force.Stop()
	}()
}

// drop ends what waits for sarama. The caller holds mu.
func (p *Producer) drop(t *topic) {
	for r := t.waiting.pop(); r != nil; r = t.waiting.pop() {
		p.fail(r, ErrClosed)
	}
	for _, part := range t.parts {
		for r := part.fifo.pop(); r != nil; r = part.fifo.pop() {
			t.held--
			p.fail(r, ErrClosed)
		}
	}
}

// force ends what sarama did not give back in time. It has no connection left, so nothing can be sent.
func (p *Producer) force() {
	p.mu.Lock()
	p.forced = true
	for _, t := range p.topics {
		p.drop(t)
		for _, part := range t.parts {
			for r := part.inFlight.head; r != nil; r = part.inFlight.head {
				p.release(r)
				p.fail(r, ErrClosed)
			}
		}
	}
	w := p.due()
	p.mu.Unlock()
	w.wake(p)
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

// within says whether f returned in time.
func within(d time.Duration, f func()) bool {
	done := make(chan struct{})
	go func() { // ends with f
		defer close(done)
		f()
	}()
	select {
	case <-done:
		return true
	case <-time.After(d):
		return false
	}
}
