package kafka

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/IBM/sarama"
)

const (
	// askTogether is how many topics one request asks for.
	askTogether = 200
	// verdictTime is how long a negative answer is given without asking again.
	verdictTime = 3 * time.Second
	// checkAgain is how often a topic in use is verified anew, for its limit and number of partitions.
	checkAgain = 5 * time.Minute
	// answerAgain is how often it is asked whether answers are still to come for what was sent before a topic was made anew.
	answerAgain = 50 * time.Millisecond
	// suspectAgain is how often it is while there is doubt.
	suspectAgain = 500 * time.Millisecond
	// settingsHold is for how long a record is judged by the settings of its topic as they were last seen. After that it
	// is for Kafka to refuse it: they may have been changed.
	settingsHold = 3 * time.Second
	// verifySoon is how often a topic is verified whose settings Kafka's answers contradict.
	verifySoon = 100 * time.Millisecond
	// mostFormer is how many former topics of a name are remembered.
	mostFormer = 16
	// lostAgain is how often a topic that is gone is looked for.
	lostAgain = time.Second
)

// runVerifier asks for topics before their first record and when there is doubt. Trouble with the network
// decides nothing: it asks again.
func (p *Producer) runVerifier(ctx context.Context) {
	backoff := 100 * time.Millisecond
	for {
		names, wait := p.dueTopics()
		if len(names) > 0 {
			if err := p.verify(ctx, names); err != nil {
				p.m.adminFailures.Inc()
				p.log.Debug().Err(err).Msg("cannot ask Kafka for topics")
				wait, backoff = backoff, min(2*backoff, 2*time.Second)
			} else {
				wait, backoff = 0, 100*time.Millisecond
			}
		}
		if !p.pause(ctx, wait, len(names) > 0) {
			return
		}
	}
}

// pause waits, or until woken unless it is a back-off. It is false at the end.
func (p *Producer) pause(ctx context.Context, d time.Duration, backoff bool) bool {
	wake := p.verifyWake
	if backoff {
		wake = nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	case <-wake:
	}
	return ctx.Err() == nil
}

// dueTopics gives the topics to ask for now, and the time until the next one.
func (p *Producer) dueTopics() (names []string, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	wait = time.Minute
	for name, t := range p.topics {
		switch {
		case t.phase == refused || len(names) == askTogether:
		case t.due <= now:
			names = append(names, name)
		default:
			wait = min(wait, t.due-now)
		}
	}
	return names, wait
}

// verify asks for topics, creates what is missing if that is wanted, and acts on the answers.
func (p *Producer) verify(ctx context.Context, names []string) error {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.RequestTimeout)
	defer cancel()
	states, err := p.admin.inspect(ctx, names)
	if err != nil {
		return err
	}
	missing := p.apply(states)
	if len(missing) == 0 || p.cfg.CreateTopics == nil {
		return nil
	}
	results, err := p.admin.create(ctx, missing, p.admin.detail)
	if err != nil {
		return err
	}
	p.applyCreation(results)
	return nil
}

// apply acts on what the cluster says, and gives the names of those that are missing.
func (p *Producer) apply(states []topicState) (missing []string) {
	p.mu.Lock()
	now := p.now()
	for _, s := range states {
		t := p.topics[s.name]
		if t == nil {
			continue // forgotten meanwhile
		}
		t.checked = now
		switch {
		case s.exists:
			p.found(t, s, now)
		case s.missing:
			missing = append(missing, s.name)
			p.missed(t, now)
		case s.verdict != nil:
			p.refuse(t, s.verdict, now)
		default:
			t.due = now + suspectAgain
		}
	}
	w := p.due()
	p.mu.Unlock()
	w.wake(p)
	return missing
}

// found opens a topic, or keeps it open. The caller holds mu.
func (p *Producer) found(t *topic, s topicState, now time.Duration) {
	if slices.Contains(t.former, s.id) {
		t.due = now + suspectAgain // the broker lags: an ID does not come back
		return
	}
	t.misses = 0
	if s.id == (sarama.Uuid{}) {
		s.id = t.state.id
	}
	madeAnew := differ(s.id, t.state.id)
	if madeAnew && int(s.partitions) != len(t.parts) && slices.ContainsFunc(t.parts, func(part *part) bool { return part.flying }) {
		// What is on its way belongs before what would be placed anew, perhaps in another partition.
		if t.phase == open {
			p.lose(t, "Kafka topic was made anew")
		}
		t.due = now + answerAgain
		return
	}
	if madeAnew {
		t.former = append(t.former[max(0, len(t.former)-mostFormer+1):], t.state.id)
	}
	records := t.held
	switch {
	case t.phase == lost:
		p.note(func() {
			p.log.Info().Str("kafka_topic", t.name).Int("records", records).Msg("Kafka topic is there again")
		})
	case t.phase == open && madeAnew:
		p.m.topicsLost.Inc()
		p.note(func() {
			p.log.Error().Str("kafka_topic", t.name).Int("records", records).Msg("Kafka topic was made anew")
		})
	}
	p.openTopic(t, s, madeAnew, now)
}

func (p *Producer) openTopic(t *topic, s topicState, madeAnew bool, now time.Duration) {
	if !s.limitKnown && !p.warned {
		p.warned = true
		p.note(func() {
			p.log.Warn().Str("kafka_topic", t.name).Int("assumed", s.limit).Msg("cannot read max.message.bytes of Kafka topics")
		})
	}
	if s.id == t.state.id && s.id != (sarama.Uuid{}) {
		s.partitions = max(s.partitions, int32(len(t.parts))) // a topic never has fewer: the broker lags
	}
	t.state, t.phase, t.due = s, open, now+checkAgain
	t.limitTo(s, p.cfg.compresses())
	if madeAnew {
		t.plain = false
		for _, part := range t.parts {
			part.epoch = noEpoch
			p.outgrow(part)
			part.renew()
		}
	}
	p.budget.sizes.Store(t.name, s.partitions) // another Producer may have dropped it
	old := t.parts
	for _, part := range old[min(int(s.partitions), len(old)):] {
		p.outgrow(part)
	}
	for _, r := range t.resize(s.partitions, madeAnew) {
		t.place(r).add(r)
	}
	for _, part := range old {
		p.leaveOpen(part)
	}
	p.lead(t, s.leaders, now)
	waiting := t.waiting
	t.waiting = nil
	for _, r := range waiting {
		p.route(t, r, now)
	}
	p.armAll(t, now)
}

// missed notes that the cluster does not know t, and believes it when it says so again. If topics are created
// the creation tells. The caller holds mu.
func (p *Producer) missed(t *topic, now time.Duration) {
	t.misses++
	t.due = now + missingAgain
	if p.cfg.CreateTopics != nil || t.misses < missesToBelieve {
		return
	}
	switch t.phase {
	case asking:
		p.refuse(t, ErrTopicMissing, now)
	case open:
		p.lose(t, "Kafka topic is gone; its records wait")
	case lost:
		t.due = now + lostAgain
	}
}

// lose has the records of a topic that is gone wait.
func (p *Producer) lose(t *topic, why string) {
	t.phase = lost
	p.m.topicsLost.Inc()
	records := t.held
	p.note(func() { p.log.Error().Str("kafka_topic", t.name).Int("records", records).Msg(why) })
}

// refuse ends what waits for t with a final error, and for a while what comes.
func (p *Producer) refuse(t *topic, verdict error, now time.Duration) {
	t.phase, t.verdict, t.due = refused, verdict, now+verdictTime
	p.failWaiting(t, verdict)
	p.note(func() {
		p.log.Error().Err(verdict).Str("kafka_topic", t.name).Msg("records for a Kafka topic are refused")
	})
}

// applyCreation acts on what came of creating topics. A topic that was open and could be created was gone.
func (p *Producer) applyCreation(results map[string]error) {
	p.mu.Lock()
	now := p.now()
	for name, err := range results {
		t := p.topics[name]
		if t == nil {
			continue
		}
		t.due = now + 100*time.Millisecond // metadata follows
		switch {
		case err == nil:
			p.note(func() { p.log.Info().Str("kafka_topic", name).Msg("created a Kafka topic") })
			p.m.topicsCreated.Inc()
			if t.phase == open {
				p.lose(t, "Kafka topic was gone and is made anew")
			}
		case errors.Is(err, sarama.ErrTopicAlreadyExists):
		case topicVerdict("Create", err) != nil && t.misses < missesToBelieve:
			t.due = now + missingAgain // it may be there, and unknown to the broker that was asked
		case topicVerdict("Create", err) != nil:
			p.refuse(t, topicVerdict("Create", err), now)
		default:
			t.due = now + lostAgain
			p.note(func() { p.log.Warn().Err(err).Str("kafka_topic", name).Msg("cannot create a Kafka topic yet") })
		}
	}
	w := p.due()
	p.mu.Unlock()
	w.wake(p)
}

// suspect has a topic verified that may not be what it was. The caller holds mu.
func (p *Producer) suspect(t *topic, now, again time.Duration) {
	if due := max(now, t.checked+again); t.phase == open && t.due > due {
		t.due = due
		p.verifyWake.wake()
	}
}
