package kafka

import (
	"context"
	"errors"
	"math"
	"net"
	"strconv"
	"time"

	"github.com/IBM/sarama"

	"sluice/kafka/produce"
)

const (
	// noEpoch is less than every leader's epoch.
	noEpoch = -1
	// watchEvery is how often it is looked for requests that have no answer yet.
	watchEvery = 500 * time.Millisecond
	// identAgain to identAgainMax is between attempts to get a producer ID.
	identAgain, identAgainMax = 100 * time.Millisecond, time.Second
)

func address(host string, port int32) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// brokerAt gives the broker. The caller holds mu.
func (p *Producer) brokerAt(n node) *broker {
	b := p.brokers[n]
	if b == nil {
		b = &broker{node: n, m: p.m.broker(n.id)}
		p.brokers[n] = b
	}
	return b
}

// lead notes who leads the partitions of a topic. What an older listing says is passed over. The caller holds mu.
func (p *Producer) lead(t *topic, leaders []leader, now time.Duration) {
	for i, l := range leaders {
		if i >= len(t.parts) {
			return
		}
		part := t.parts[i]
		if l.at == (node{}) || l.epoch < part.epoch {
			continue
		}
		part.epoch = l.epoch
		to := p.brokerAt(l.at)
		if part.leader == to {
			continue
		}
		if part.flying {
			part.leader.cutIfSilent(now)
		}
		part.leader, part.in = to, nil
		p.arm(part, now)
	}
}

// cutIfSilent cuts the connections on which an answer is waited for too long. The caller holds mu.
func (b *broker) cutIfSilent(now time.Duration) {
	for _, s := range b.senders {
		if s != nil && len(s.out) > 0 && now-s.out[0].sent > slowAnswer {
			s.dial.cut()
		}
	}
}

// wantLeader has the leaders of a topic asked for. The caller holds mu.
func (p *Producer) wantLeader(t *topic, now time.Duration) {
	if t.leaderless || t.phase != open {
		return
	}
	t.leaderless = true
	t.leaderDue = now
	if t.leaderAsks > 0 {
		t.leaderDue += retryAfter(t.leaderAsks-1, slowestLeader)
	}
	t.leaderAsks++
	p.leaderWake.wake()
}

// runFinder asks for leaders, of many topics at once, and looks for requests that were sent to one who is silent.
func (p *Producer) runFinder(ctx context.Context) {
	watch := time.NewTicker(watchEvery)
	defer watch.Stop()
	for ctx.Err() == nil {
		names, wait := p.dueLeaders()
		if len(names) > 0 {
			p.findLeaders(ctx, names)
			continue
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-p.leaderWake:
		case <-t.C:
		case <-watch.C:
			p.watch()
		}
		t.Stop()
	}
}

// dueLeaders gives the topics to ask for now, and the time until the next.
func (p *Producer) dueLeaders() (names []string, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	wait = time.Minute
	for name, t := range p.topics {
		switch {
		case !t.leaderless:
		case t.leaderDue > now:
			wait = min(wait, t.leaderDue-now)
		case len(names) < askTogether:
			names = append(names, name)
			t.leaderless = false
		}
	}
	return names, wait
}

// findLeaders asks once. What has no leader is asked for again.
func (p *Producer) findLeaders(ctx context.Context, names []string) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.RequestTimeout)
	defer cancel()
	states, err := p.finder.leadersIn(ctx, names)
	p.mu.Lock()
	now := p.now()
	for _, s := range states {
		if t := p.topics[s.name]; t != nil && t.phase == open {
			if s.missing || differ(s.id, t.state.id) || int(s.partitions) != len(t.parts) {
				p.suspect(t, now, suspectAgain)
			}
			if !differ(s.id, t.state.id) {
				p.lead(t, s.leaders, now)
			}
		}
	}
	for _, name := range names {
		if t := p.topics[name]; t != nil {
			p.armAll(t, now)
		}
	}
	w := p.due()
	p.mu.Unlock()
	w.wake(p)
	if err != nil {
		p.m.adminFailures.Inc()
		p.log.Debug().Err(err).Msg("cannot ask Kafka for leaders")
	}
}

// watch asks for the leaders of partitions whose broker does not answer, not even who connects to it.
func (p *Producer) watch() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	for _, b := range p.brokers {
		for _, s := range b.senders {
			if s == nil {
				continue
			}
			if took := now - s.opened; s.opening && took > slowAnswer {
				s.leave(now)
			}
			for _, req := range s.out {
				if now-req.sent < s.patience()+time.Second {
					continue
				}
				for _, part := range req.parts {
					p.wantLeader(part.topic, now)
				}
			}
		}
	}
}

// identify says whether the next batch of a partition can have sequence numbers: it has its own producer ID, with an epoch
// left to go to, or takes another one. The caller holds mu.
func (p *Producer) identify(part *part) bool {
	own := part.numbers.Ident
	switch {
	case part.out != nil && part.out.begun, own != produce.Nobody && own.Epoch < math.MaxInt16:
		return true
	case own != produce.Nobody && own.ID == p.ident.ID:
		p.ident = produce.Nobody // it is used up
	}
	if p.ident != produce.Nobody {
		return true
	}
	p.identWake.wake()
	return false
}

// outgrow has partitions begin above the epoch of one that is forgotten, or whose next epoch may be none. Kafka remembers
// its last batches for a day: it would take the first ones after it is made again for those, and say that they are
// stored. The caller holds mu.
func (p *Producer) outgrow(part *part) { p.ident = produce.Above(p.ident, part.numbers) }

// runIdent gets a producer ID whenever one is needed.
func (p *Producer) runIdent(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.identWake:
			p.getIdent(ctx)
		}
	}
}

// getIdent asks until there is an answer.
func (p *Producer) getIdent(ctx context.Context) {
	told := false
	for wait := identAgain; p.needsIdent(); wait = min(2*wait, identAgainMax) {
		id, err := p.initProducerID(ctx)
		if err == nil {
			p.takeIdent(id)
			return
		}
		p.m.startFailures.Inc()
		if err = denied("Write", err); errors.Is(err, ErrNotAuthorized) && !told {
			told = true // a principal that may write to no topic gets no producer ID
			p.cfg.Logger.Error().Err(err).Msg("cannot start to produce to Kafka")
		}
		p.cfg.Logger.Debug().Err(err).Dur("retry_in", wait).Msg("cannot start to produce to Kafka")
		if sleep(ctx, wait) != nil {
			return
		}
	}
}

func (p *Producer) needsIdent() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ident == produce.Nobody && !p.aborting
}

func (p *Producer) initProducerID(ctx context.Context) (id produce.Ident, err error) {
	var answer error // the connection is well then
	err = p.finder.ask(ctx, func(b *sarama.Broker) error {
		resp, err := b.InitProducerID(&sarama.InitProducerIDRequest{Version: 4, ProducerID: -1, ProducerEpoch: -1})
		if err != nil {
			return err
		}
		id = produce.Ident{ID: resp.ProducerID, Epoch: resp.ProducerEpoch}
		if resp.Err != sarama.ErrNoError {
			answer = resp.Err
		}
		return nil
	})
	return id, errors.Join(err, answer)
}

// takeIdent has partitions that have no producer ID begin with this one.
func (p *Producer) takeIdent(id produce.Ident) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ident = id
	p.wakeSenders()
}
