package kafka

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/IBM/sarama"

	"sluice/kafka/produce"
)

const (
	// soonest to slowest is between tries to store a batch.
	soonest = 50 * time.Millisecond
	slowest = time.Second
	// slowestLeader is between tries to find who stores it, and slowestConnect between those to connect: a new leader is
	// to be written to within a second.
	slowestLeader  = 250 * time.Millisecond
	slowestConnect = 500 * time.Millisecond
	// slowAnswer is after how long without an answer it is asked whether the partition has another leader.
	slowAnswer = followersTime + time.Second
	// tellAgain is after how long the same fault of a topic is worth another line in the log.
	tellAgain = time.Minute
)

// retryAfter doubles from soonest, and is random by half.
func retryAfter(tries int, most time.Duration) time.Duration {
	d := min(soonest<<min(tries, 10), most)
	return d/2 + rand.N(d/2)
}

// answered settles all that a request has sent, under one lock, and tells the owners at once. It is called by the
// goroutine that reads the connection.
func (p *Producer) answered(s *sender, req *request, resp *sarama.ProduceResponse) {
	var stored []*batch
	p.mu.Lock()
	now := p.now()
	full := len(s.out) == mostOut
	s.remove(req)
	s.used = now
	if resp.ThrottleTime > 0 {
		s.notBefore = max(s.notBefore, now+resp.ThrottleTime)
		p.progress = max(p.progress, now+resp.ThrottleTime) // it is Kafka's will
		s.to.m.throttled.Add(resp.ThrottleTime.Seconds())
	}
	for i, part := range req.parts {
		block := resp.GetBlock(part.topic.name, part.id)
		if b := req.batches[i]; p.settle(s, part, b, block, resp.NodeEndpoints, req.sent, now) {
			stored = append(stored, b)
		}
	}
	if full {
		s.wake.wake()
	}
	w := p.due()
	p.mu.Unlock()
	s.to.m.answered(req, now-req.sent)
	w.wake(p)
	p.deliver(stored)
}

// settle acts on the answer for one partition, and says whether its batch is stored. The caller holds mu.
func (p *Producer) settle(s *sender, part *part, b *batch, block *sarama.ProduceResponseBlock, nodes []*sarama.ProduceResponseNodeEndpoint, sent, now time.Duration) bool {
	a := produce.Answer{Code: produce.Code(block.Err)}
	for _, e := range block.RecordErrors {
		a.Named = append(a.Named, e.BatchIndex)
	}
	if block.Err != sarama.ErrNoError {
		s.to.m.retried(block.Err)
		part.slow = part.slow || a.Code == produce.RequestTimedOut
	} else if now-sent < quick {
		part.slow = false
	}
	var d produce.Decision
	before := part.numbers.Ident
	part.numbers, b.Batch, d = produce.Settle(part.numbers, b.Batch, a)
	if part.numbers.Ident == produce.Nobody && before.ID == p.ident.ID {
		p.ident = produce.Nobody // it is used up, and must not begin again here
	}
	b.offset = block.Offset
	if a.Code == produce.DuplicateSequence {
		b.offset = -1
	}
	if d.Elsewhere {
		part.leader, part.in = p.named(part, block, nodes), nil
		d.Wait = part.leader == nil || part.tries > 0
	}
	if d.Complain {
		p.complain(part.topic, block, now)
	}
	if d.Verify {
		p.suspect(part.topic, now, verifySoon)
	}
	p.act(part, b, d, a.Named, block, now)
	return d.Action == produce.Store
}

// named gives the leader that an answer names, or nil (KIP-951).
func (p *Producer) named(part *part, block *sarama.ProduceResponseBlock, nodes []*sarama.ProduceResponseNodeEndpoint) *broker {
	l := block.CurrentLeader
	if l == nil || l.LeaderID < 0 || l.LeaderEpoch <= part.epoch {
		return nil
	}
	for _, n := range nodes {
		if n.NodeID == l.LeaderID {
			part.epoch = l.LeaderEpoch
			return p.brokerAt(node{n.NodeID, address(n.Host, n.Port)})
		}
	}
	return nil
}

// settleLost has a batch sent again that had no answer. The caller holds mu.
func (p *Producer) settleLost(part *part, b *batch, now time.Duration) {
	var d produce.Decision
	part.numbers, b.Batch, d = produce.Settle(part.numbers, b.Batch, produce.Answer{Lost: true})
	d.Wait = part.tries > 0
	p.act(part, b, d, nil, nil, now)
	p.wantLeader(part.topic, now)
}

// unsent divides a request that can't be encoded, as if it is too large: the connection is well, and nothing of it was
// written. What can't be divided is refused.
func (p *Producer) unsent(s *sender, req *request, err error) {
	p.mu.Lock()
	now := p.now()
	s.remove(req)
	for i, part := range req.parts {
		b := req.batches[i]
		part.flying = false
		switch half := len(b.records) / 2; {
		case len(req.parts) > 1:
			part.alone = true
		case half > 0 && !b.InDoubt: // or it would have other numbers, and it was encoded before
			p.takeBack(part, b, b.records[:half], b.records[half:])
		default:
			p.outgrow(part)
			part.drop()
			p.failBatch(part.topic, b, fmt.Errorf("%w: %w", ErrTooLarge, err))
		}
		if part.topic.phase == refused {
			p.failWaiting(part.topic, part.topic.verdict)
		}
		p.arm(part, now)
	}
	w := p.due()
	p.mu.Unlock()
	s.to.m.out.Sub(float64(len(req.batches)))
	w.wake(p)
}

// act does what was decided about a batch. The caller holds mu.
func (p *Producer) act(part *part, b *batch, d produce.Decision, refusals []int32, block *sarama.ProduceResponseBlock, now time.Duration) {
	t := part.topic
	part.flying = false
	if d.Bumped {
		p.m.bumps.Inc()
	}
	if part.gone {
		p.outgrow(part) // there may be another in its place one day
	}
	if d.Wait {
		most := slowest
		if d.Elsewhere {
			most = slowestLeader
		}
		part.notBefore = now + retryAfter(part.tries, most)
	}
	part.tries++
	switch d.Action {
	case produce.Store:
		part.tries, part.notBefore, t.leaderAsks = 0, 0, 0
		p.progress = max(p.progress, now)
		part.out = nil
		t.held -= len(b.records)
		part.certain()
	case produce.SendAgain:
		p.keep(part, b, now)
	case produce.EncodeAgain:
		b.encoded, t.plain = false, t.plain || b.Plain
		p.keep(part, b, now)
	case produce.TakeBack:
		p.takeBack(part, b, b.records)
	case produce.Halve:
		p.m.splits.Inc()
		p.learn(t, b, d)
		half := len(b.records) / 2
		p.takeBack(part, b, b.records[:half], b.records[half:])
	case produce.RefuseNamed:
		p.takeBack(part, b, p.refuseNamed(t, b, d, refusals, block))
	case produce.Refuse:
		p.failAll(t, b, verdictOn(d, block))
		part.out = nil
	case produce.LeaveOpen:
		p.failAll(t, b, fmt.Errorf("%w: %w", ErrUncertain, block.Err))
		part.out = nil
		for len(part.waiting) > 0 && part.waiting[0].Inherited {
			p.failAll(t, part.waiting[0], fmt.Errorf("%w: %w", ErrUncertain, block.Err))
			part.waiting = part.waiting[1:]
		}
	}
	if t.phase == refused {
		p.failWaiting(t, t.verdict)
	}
	p.arm(part, now)
}

// keep has a batch sent again as it is, unless its topic or partition is another by now.
func (p *Producer) keep(part *part, b *batch, now time.Duration) {
	t := part.topic
	if differ(b.topicID, t.state.id) {
		p.outgrow(part)
		part.renew()
	}
	if !part.gone {
		return
	}
	p.leaveOpen(part)
	homeless := part.empty()
	t.held -= len(homeless)
	for i := len(homeless) - 1; i >= 0; i-- { // before those that came later
		to := t.place(homeless[i])
		n := newBatch()
		n.add(homeless[i])
		n.sealed = true
		to.putBack(n)
		t.held++
	}
	p.armAll(t, now)
}

// leaveOpen ends what may be stored in a partition that is gone: it can't be sent there again, and elsewhere it would be
// a second time. The caller holds mu.
func (p *Producer) leaveOpen(part *part) {
	if b := part.out; part.gone && b != nil && !part.flying && b.Unanswered {
		part.drop()
		p.failAll(part.topic, b, ErrUncertain)
	}
}

// takeBack has records of a batch sent in batches of their own, before those that wait.
func (p *Producer) takeBack(part *part, b *batch, groups ...[]*Record) {
	part.out = nil
	var front []*batch
	for _, records := range groups {
		if len(records) > 0 {
			front = append(front, b.anew(records))
		}
	}
	part.putBack(front...)
	b.free()
}

// learn lowers the size of batches where the limit may not be read.
func (p *Producer) learn(t *topic, b *batch, d produce.Decision) {
	if d.Verify && !t.state.limitKnown {
		t.room = max(min(t.room, b.bytes/2), 1)
	}
}

// refuseNamed ends the records that Kafka names, and gives the others.
func (p *Producer) refuseNamed(t *topic, b *batch, d produce.Decision, named []int32, block *sarama.ProduceResponseBlock) (rest []*Record) {
	verdict := verdictOn(d, block)
	refused := make(map[int32]bool, len(named))
	for _, i := range named {
		refused[i] = true
	}
	for i, r := range b.records {
		if refused[int32(i)] {
			t.held--
			p.fail(r, verdict)
		} else {
			rest = append(rest, r)
		}
	}
	return rest
}

// failAll ends the records of a batch, which is used again.
func (p *Producer) failAll(t *topic, b *batch, err error) {
	t.held -= len(b.records)
	for _, r := range b.records {
		p.fail(r, err)
	}
	b.free()
}

// verdictOn gives what the owners of refused records are told.
func verdictOn(d produce.Decision, block *sarama.ProduceResponseBlock) error {
	if d.Open {
		return fmt.Errorf("%w: %w", ErrUncertain, block.Err)
	}
	return recordVerdict(block.Err)
}

// complain logs what Kafka says of a topic whose records it does not take, once in a while. The caller holds mu.
func (p *Producer) complain(t *topic, block *sarama.ProduceResponseBlock, now time.Duration) {
	code := produce.Code(block.Err)
	if now < t.told && t.toldOf == code {
		return
	}
	t.told, t.toldOf = now+tellAgain, code
	says := said(block)
	what, held, verdict := "records for a Kafka topic wait", t.held, recordVerdict(block.Err)
	if Final(verdict) {
		what = "records for a Kafka topic are refused"
	} else {
		verdict = nil
	}
	p.note(func() {
		p.log.Error().Err(verdict).Str("kafka_topic", t.name).Int16("code", int16(code)).Str("kafka_says", says).Str("setting", settingOf[code]).Int("records", held).Msg(what)
	})
}

// said gives Kafka's own words.
func said(block *sarama.ProduceResponseBlock) string {
	if block.ErrorMessage != nil {
		return *block.ErrorMessage
	}
	return block.Err.Error()
}

// settingOf are the settings that are the cause of an answer.
var settingOf = map[produce.Code]string{
	produce.NotEnoughReplicas:           "min.insync.replicas",
	produce.PolicyViolation:             "the policies of the cluster",
	produce.InvalidTimestamp:            "message.timestamp.before.max.ms, message.timestamp.after.max.ms, or a clock",
	produce.UnsupportedCompressionType:  "kafka.producer.compression",
	produce.UnsupportedForMessageFormat: "kafka.producer.compression, or log.message.format.version",
	produce.TopicAuthorizationFailed:    "the ACLs: Write",
	produce.ClusterAuthorizationFailed:  "the ACLs: IdempotentWrite",
}

// runFinisher ends the records that did not end as stored.
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
		ended := p.finished
		p.finished = nil
		w := p.due()
		p.mu.Unlock()
		w.write()
		if len(ended) == 0 {
			return
		}
		var back refund
		for _, r := range ended {
			p.m.failed(r.err)
			back.add(p.budget, r)
			r.end(r.err)
		}
		p.delivered(len(ended), back)
	}
}

// deliver tells the owners of records that are stored, and holds no lock meanwhile.
func (p *Producer) deliver(stored []*batch) {
	if len(stored) == 0 {
		return
	}
	now, n := p.now(), 0
	var back refund
	var took latencies
	for _, b := range stored {
		for i, r := range b.records {
			if r.Offset = -1; b.offset >= 0 {
				r.Offset = b.offset + int64(i)
			}
			r.Partition = b.partition
			took.add(now - r.since)
			back.add(p.budget, r)
			r.end(nil)
		}
		n += len(b.records)
		b.free()
	}
	p.m.latency.add(&took)
	p.m.records[0].Add(float64(n))
	p.delivered(n, back)
}

// A refund is what is given back to a Budget, at once for records in a row that have the same Destination: most do.
type refund struct {
	to    Destination
	bytes int
}

func (f *refund) add(b *Budget, r *Record) {
	if r.ReservedFor != f.to {
		b.Give(f.to, f.bytes)
		*f = refund{to: r.ReservedFor}
	}
	f.bytes += r.Reserved
}

// end tells the owner. After it the record is not ours: all that is needed of it is read before.
func (r *Record) end(err error) {
	if r.Owner != nil {
		r.Owner.RecordDone(r, err)
	}
}

// delivered gives back what records had, once for many.
func (p *Producer) delivered(n int, back refund) {
	p.budget.Give(back.to, back.bytes)
	p.cfg.Burst()
	p.mu.Lock()
	p.pending -= n
	p.checkDrained()
	p.mu.Unlock()
}
