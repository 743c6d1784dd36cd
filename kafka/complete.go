package kafka

import (
	"context"
	"errors"
	"time"

	"github.com/IBM/sarama"
)

// carefulTime is how long the records of a topic go alone after Kafka refused a batch for one of them.
const carefulTime = 30 * time.Second

// stored ends records that Kafka acknowledged.
func (p *Producer) stored(batch []*Record) {
	now := p.now()
	p.mu.Lock()
	if p.forced {
		p.mu.Unlock()
		return // answered for, and perhaps in use again
	}
	p.progress = now
	for _, r := range batch {
		r.Partition, r.Offset = r.msg.Partition, r.msg.Offset
		p.release(r)
	}
	p.settle(batch, now)
	w := p.due()
	p.mu.Unlock()
	w.wake(p)
	p.deliver(batch)
}

// release takes r out of its partition. The caller holds mu.
func (p *Producer) release(r *Record) {
	r.part.take(r)
	r.part.topic.held--
}

// settle feeds what the end of these records made room for. The caller holds mu.
func (p *Producer) settle(batch []*Record, now time.Duration) {
	var last *part
	for _, r := range batch {
		if r.part != last { // mostly runs of one partition
			p.settlePart(r.part, now)
			last = r.part
		}
	}
}

func (p *Producer) settlePart(part *part, now time.Duration) {
	t := part.topic
	was := part.lane
	part.rewind()
	p.pump(part, now)
	p.closeIfDone(was)
	if t.feeding == 0 && t.phase == lost {
		was.skips.Store(0)
		t.due = now // it can be opened again
		p.verifyWake.wake()
	}
}

// failed ends, or puts back, a record that sarama gave back with an error.
func (p *Producer) failed(r *Record, err error) {
	p.mu.Lock()
	if !p.forced {
		p.failedLocked(r, err)
	}
	w := p.due()
	p.mu.Unlock()
	w.wake(p)
}

func (p *Producer) failedLocked(r *Record, err error) {
	now, part := p.now(), r.part
	r.renew()
	t := part.topic
	verdict, doubt := batchVerdict(err, r.alone)
	switch {
	case p.aborting:
		p.release(r)
		p.fail(r, ErrClosed)
	case t.phase == lost && !Final(verdict):
		// The topic is gone, and what was in it too. These records go to the topic of the same name, if there
		// is one again, in their order: they are put back when sarama has let go of the last of them.
		r.returned, r.tried = true, true
		part.returned++
		if kerror(err) == sarama.ErrNoError { // said by us and not by Kafka
			part.lane.skips.Add(1)
		}
	default:
		p.release(r)
		p.fail(r, verdict)
		p.tellDenied(t, verdict, now)
		if doubt {
			t.careful, t.due = now+carefulTime, now
			p.verifyWake.wake()
		}
	}
	p.settlePart(part, now)
}

// tellDenied logs that the principal may not write to a topic, once in a while: the topic itself looks well. The caller
// holds mu.
func (p *Producer) tellDenied(t *topic, verdict error, now time.Duration) {
	if !errors.Is(verdict, ErrNotAuthorized) || now < t.told {
		return
	}
	t.told = now + verdictTime
	p.note(func() {
		p.log.Error().Err(verdict).Str("kafka_topic", t.name).Msg("records for a Kafka topic are refused")
	})
}

// runFinisher ends the records that did not come back from sarama as stored.
func (p *Producer) runFinisher(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.finishWake:
			p.finish()
		}
	}
}

// finish calls RecordDone for all that finished.
func (p *Producer) finish() {
	for {
		p.mu.Lock()
		batch := p.finished
		p.finished = nil
		p.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		p.deliver(batch)
	}
}

// deliver calls RecordDone, and holds no lock meanwhile. After it the records are not ours: all that is needed
// of them is read before.
func (p *Producer) deliver(batch []*Record) {
	now, ok := p.now(), 0
	var reserved int // for one Destination: most records in a row have the same
	var of Destination
	for _, r := range batch {
		if r.ReservedFor != of {
			p.budget.Give(of, reserved)
			reserved, of = 0, r.ReservedFor
		}
		reserved += r.Reserved
		err, owner := r.err, r.Owner
		if err == nil {
			ok++
			p.m.latency.Observe((now - r.since).Seconds())
		} else {
			p.m.failed(err)
		}
		r.forget()
		if owner != nil {
			owner.RecordDone(r, err)
		}
	}
	p.m.records[stored].Add(float64(ok))
	p.budget.Give(of, reserved)
	p.cfg.Burst()
	p.mu.Lock()
	p.pending -= len(batch)
	p.checkDrained()
	p.mu.Unlock()
}
