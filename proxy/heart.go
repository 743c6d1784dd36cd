package proxy

import (
	"context"
	"time"

	"sluice/fleet"
	"sluice/kafka"
)

// runHeart writes heartbeats, and looks after the partitions once a second, until ctx ends.
func (s *sessions) runHeart(ctx context.Context, inc *incarnation) {
	beat, second := time.NewTicker(heartbeat), time.NewTicker(time.Second)
	defer beat.Stop()
	defer second.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-beat.C:
			s.beat(inc)
		case at := <-second.C:
			for _, p := range s.parts {
				p.sweep(at)
			}
		}
	}
}

func (s *sessions) instance(inc *incarnation) *fleet.Instance {
	return &fleet.Instance{Started: inc.began, TxIDs: inc.txids(), Alive: millis(), Beat: s.pulse.mono()}
}

// write writes what is said of an incarnation.
func (s *sessions) write(p *part, key []byte, v *fleet.Instance, done func(error)) {
	value, err := v.Encode()
	if err != nil { // an Instance can be encoded
		s.fail(err)
		return
	}
	p.produce(key, value, func(_ int64, err error) { done(err) })
}

// beat writes a heartbeat into each partition in which none is under way: one that Kafka does not take now is one
// record that waits, however long that is.
func (s *sessions) beat(inc *incarnation) {
	for i, p := range s.parts {
		if inc.beating[i].Swap(true) {
			continue
		}
		s.write(p, fleet.InstanceKey(inc.name), s.instance(inc), func(err error) {
			inc.beating[i].Store(false)
			select {
			case inc.beaten <- err:
			default:
			}
		})
	}
}

// firstBeat writes the first heartbeats and waits until Kafka has one: from then on the others can judge us.
func (s *sessions) firstBeat(ctx context.Context, inc *incarnation) error {
	s.beat(inc)
	select {
	case err := <-inc.beaten:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// stop ends the incarnation in order, when all connections have ended: their sessions are released, and the verdict on
// itself, the last word, gives what is left to do for them to the owners.
func (s *sessions) stop(ctx context.Context) {
	s.stopped.Store(true)
	inc := s.me.Load()
	if inc == nil || inc.dead.Load() {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)() // a part has failed, and nothing is written any more
	releases, done := beforeVerdicts(ctx)
	s.awaitReleases(releases)
	released := releases.Err() == nil
	done()
	if !released {
		s.log.Warn().Msg("stopped before all sessions were released")
	}
	verdict := s.instance(inc)
	verdict.Dead, verdict.By, verdict.At = true, inc.name, millis()
	written := make(chan error, len(s.parts))
	for _, p := range s.parts {
		s.write(p, fleet.VerdictKey(inc.name), verdict, func(err error) { written <- err })
	}
	for range s.parts {
		select {
		case err := <-written:
			if err != nil {
				s.log.Error().Err(err).Msg("cannot say that this instance has ended")
			}
		case <-ctx.Done():
			s.log.Warn().Msg("stopped before it was told that this instance has ended; the other instances notice within seconds")
			return
		}
	}
}

// verdictTime is the most that is kept of the time of a stop for the verdicts: they are one record for each partition.
const verdictTime = 2 * time.Second

// beforeVerdicts ends so much before ctx that the verdicts can still be written. A message that is stuck in Kafka may
// have releases wait to the end; without a verdict the others would take over only when they have missed our heartbeats.
func beforeVerdicts(ctx context.Context) (context.Context, context.CancelFunc) {
	end, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, end.Add(-min(verdictTime, time.Until(end)/4)))
}

// awaitReleases waits until the ends of all connections are written, and the wills that are due are published.
func (s *sessions) awaitReleases(ctx context.Context) {
	for s.leaving.Load() > 0 || s.busy() {
		select {
		case <-ctx.Done():
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// busy says whether there is anything to write for a device that was here, or to tell of one that is nowhere.
func (s *sessions) busy() bool {
	for _, p := range s.parts {
		if p.busy() {
			return true
		}
	}
	return false
}

func (p *part) busy() bool {
	p.lock()
	defer p.unlock()
	if len(p.doubts.waiting) > 0 {
		return true
	}
	for _, h := range p.clients {
		if !h.m.Settled(p.view(h.id)) {
			return true
		}
	}
	return false
}

// endedState tells the receipts of the commands that waited for a session which ends now: nobody will get them. nil: there is
// no such session.
func (s *sessions) endedState(client string, state *fleet.Session) {
	s.endedAt(client, state, s.streams.ends())
}

// endedAt is endedState for a session that has ended before.
func (s *sessions) endedAt(client string, state *fleet.Session, ends streamEnds) {
	if s.replayer != nil && state != nil && len(state.Subs) > 0 {
		s.forfeits.add(forfeit{client, state, ends})
	}
}

// tableConfig and journalConfig give the records of a topic to its parts.
func (s *sessions) tableConfig(cfg kafka.Config) kafka.ConsumerConfig {
	return kafka.ConsumerConfig{
		Config: cfg, Topics: []string{s.cfg.Sessions.Topic}, From: kafka.FromBeginning,
		Begin: s.layout.begin,
		Handle: func(r *kafka.Fetched) {
			if r.Partition < s.spread() {
				s.parts[r.Partition].handle(r)
			}
		},
		Progress: func(_ string, partition int32, next int64) {
			if partition < s.spread() {
				s.parts[partition].progress(next)
			}
		},
	}
}

func (s *sessions) journalConfig(cfg kafka.Config) kafka.ConsumerConfig {
	return kafka.ConsumerConfig{
		Config: cfg, Topics: []string{s.cfg.Sessions.Ledger}, From: kafka.FromBeginning,
		Begin: s.layout.begin,
		Handle: func(r *kafka.Fetched) {
			if r.Partition < s.spread() {
				s.ledgers[r.Partition].handle(r)
			}
		},
		Progress: func(_ string, partition int32, next int64) {
			if partition < s.spread() {
				s.ledgers[partition].progress(next)
			}
		},
	}
}
