package kafka

import (
	"context"
	"slices"
	"time"
)

const (
	// pingEvery is how often Kafka is asked for a sign of life.
	pingEvery = time.Second
	// pingTimeout is how long it may take to give it.
	pingTimeout = 2 * time.Second
	// stalledAfter is how old a record may be while none is stored, before Kafka counts as away.
	stalledAfter = 10 * time.Second
	// idleAfter is how long a topic without records is remembered.
	idleAfter = 10 * time.Minute
)

// forPings shortens the time-outs.
func (c Config) forPings() Config {
	c.DialTimeout = min(c.DialTimeout, pingTimeout)
	c.RequestTimeout = min(c.RequestTimeout, pingTimeout)
	return c
}

// Up says whether Kafka answers and stores what it gets, as of the last second or so. It is false before Run.
func (p *Producer) Up() bool { return p.up.Load() }

// runHealth asks Kafka for a sign of life, and forgets what is not used.
func (p *Producer) runHealth(ctx context.Context) {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for first := true; ; first = false {
		p.check(ctx, first)
		p.sweep()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// check asks once. The first time is worth a log line whatever comes of it: an identity of its own that Kafka does not
// know is seen nowhere else.
func (p *Producer) check(ctx context.Context, first bool) {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	err := p.pinger.Ping(ctx)
	up := err == nil && !p.stalled()
	switch was := p.up.Swap(up); {
	case (was || first) && !up && ctx.Err() == nil:
		p.cfg.Logger.Warn().Err(err).Msg("Kafka does not answer")
	case up && !was:
		p.cfg.Logger.Info().Msg("Kafka answers")
	}
}

// stalled says whether records wait that should not have to: none was stored for a while, and one of a topic
// that exists is older than that.
func (p *Producer) stalled() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	limit := p.now() - stalledAfter
	if p.pending == 0 || p.progress > limit {
		return false
	}
	for _, t := range p.topics {
		if t.phase == open && t.held > 0 && t.oldest() < limit {
			return true
		}
	}
	return false
}

// oldest is when the first record it holds was produced.
func (t *topic) oldest() time.Duration {
	first := time.Duration(1<<63 - 1)
	for _, part := range t.parts {
		if part.out != nil || len(part.waiting) > 0 {
			first = min(first, part.first().records[0].since)
		}
	}
	return first
}

// sweep forgets topics without records, and brokers that lead nothing any more.
func (p *Producer) sweep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	for name, t := range p.topics {
		unused := now-t.used > idleAfter || t.phase == refused && now >= t.due // a name is no topic
		if t.held == 0 && len(t.waiting) == 0 && unused {
			for _, part := range t.parts {
				p.outgrow(part)
			}
			delete(p.topics, name)
			p.budget.sizes.Delete(name)
		}
	}
	p.sweepBrokers()
}

// sweepBrokers forgets those that lead nothing and have no connection: a node that comes back at another address is another
// one. The caller holds mu.
func (p *Producer) sweepBrokers() {
	used := map[*broker]bool{}
	for _, t := range p.topics {
		for _, part := range t.parts {
			used[part.leader] = true
		}
	}
	for n, b := range p.brokers {
		if !used[b] && !b.runs() {
			delete(p.brokers, n)
		}
	}
}

// runs says whether there is a sender's goroutine.
func (b *broker) runs() bool {
	return slices.ContainsFunc(b.senders[:], func(s *sender) bool { return s != nil && s.running })
}
