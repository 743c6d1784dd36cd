package kafka

import (
	"errors"
	"time"

	"github.com/IBM/sarama"
)

const (
	// mostOut is how many requests a sender has out.
	mostOut = 5
	// mostRequest is how many bytes are in a request, unless it has a single batch.
	mostRequest = 4 << 20
	// followersTime is how long a leader waits for its followers before it says so and the partition goes to a
	// connection where it delays only those like it: a request is answered when the last of its partitions is.
	followersTime = 1500 * time.Millisecond
	// quick is how soon a partition must be stored to come back from there.
	quick = 500 * time.Millisecond
	// idleSender is how long a connection is kept that nothing is sent on.
	idleSender = time.Minute
	// never is later than everything.
	never = time.Duration(1<<63 - 1)
)

// A broker is where partitions are led.
type broker struct {
	node
	senders [2]*sender // the usual one, and the one for slow partitions
	m       brokerMetrics
}

// A sender is one connection to a broker, made when it is needed, and a goroutine that sends on it. While a connection
// breaks or can't be made it is only this broker's partitions that wait, and those that get another leader leave.
type sender struct {
	p      *Producer
	to     *broker
	slow   bool
	dial   *dialer
	wake   signal
	broker *sarama.Broker // of its goroutine; nil: not connected

	// Guarded by Producer.mu.
	todo      []*part // may have something to send; those whose in is another are left over
	next      time.Duration
	out       []*request
	lost      []*request // their answers will not come; none of them is sent again before the connection is closed
	broken    bool
	running   bool
	notBefore time.Duration
	fails     int           // attempts to connect, in a row
	opening   bool          // an attempt is under way
	opened    time.Duration // since when
	used      time.Duration
}

// A request is batches on their way to a broker.
type request struct {
	parts   []*part
	batches []*batch
	bytes   int
	records int
	sent    time.Duration
}

// sender gives the one of a partition that has a leader. The caller holds mu.
func (p *Producer) sender(part *part) *sender {
	i := 0
	if part.slow {
		i = 1
	}
	s := part.leader.senders[i]
	if s == nil {
		s = &sender{p: p, to: part.leader, slow: part.slow, dial: newDialer(p.cfg.DialTimeout), wake: newSignal(), next: never}
		part.leader.senders[i] = s
	}
	return s
}

// arm has part sent when it is due. The caller holds mu.
func (p *Producer) arm(part *part, now time.Duration) {
	if part.idle() || part.topic.phase != open || p.aborting {
		return
	}
	if part.leader == nil {
		p.wantLeader(part.topic, now)
		return
	}
	s := p.sender(part)
	if part.in != s {
		part.in = s
		s.todo = append(s.todo, part)
	}
	if due := part.due(p.linger()); due < s.next {
		s.next = due
		s.wake.wake()
	}
	if !s.running {
		s.running, s.used = true, now
		p.senders.Go(s.run) // ends when it is not used, or with abort
	}
}

func (p *Producer) armAll(t *topic, now time.Duration) {
	for _, part := range t.parts {
		p.arm(part, now)
	}
}

// linger is how long records wait for others.
func (p *Producer) linger() time.Duration {
	if p.closing {
		return 0
	}
	return p.cfg.Linger
}

// run sends until there is nothing to send for a while, or the producer aborts.
func (s *sender) run() {
	for {
		w := s.work()
		switch {
		case w.end:
			return
		case w.close:
			s.disconnect()
			s.sendAgain()
		case w.connect:
			s.connect()
		case w.req != nil:
			s.send(w.req)
		default:
			s.sleep(w.wait)
		}
	}
}

// work is what a sender has to do next.
type work struct {
	end, close, connect bool
	req                 *request
	wait                time.Duration
}

// work looks for it.
func (s *sender) work() work {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	now := s.p.now()
	if s.broken {
		return work{close: true}
	}
	if s.p.aborting {
		return s.finish()
	}
	at := max(s.look(now), s.notBefore)
	if len(s.out) >= mostOut {
		at = never
	}
	s.next = at
	if at > now {
		return s.rest(at, now)
	}
	if s.broker == nil {
		return work{connect: true}
	}
	return work{req: s.take(now)}
}

// rest waits for what is due at a time, or ends what was not used for long. What it still has waits for a
// producer ID, and would have nobody to send it. The caller holds mu.
func (s *sender) rest(at, now time.Duration) work {
	if at == never && len(s.out) == 0 && len(s.todo) == 0 && now >= s.used+idleSender {
		return s.finish()
	}
	return work{wait: min(at-now, idleSender)}
}

// finish ends the goroutine, once there is no connection. The caller holds mu.
func (s *sender) finish() work {
	if s.broker != nil {
		return work{close: true}
	}
	s.running = false
	return work{end: true}
}

// look gives when the first of its partitions is due. The caller holds mu.
func (s *sender) look(now time.Duration) time.Duration {
	linger, at := s.p.linger(), never
	left := s.todo[:0]
	for _, part := range s.todo {
		if part.in != s {
			continue
		}
		if part.idle() || part.topic.phase != open {
			part.in = nil
			continue
		}
		left = append(left, part)
		if s.p.identify(part) {
			at = min(at, part.due(linger))
		}
	}
	clear(s.todo[len(left):])
	s.todo = left
	return at
}

// take makes a request of what its partitions have: once one of them is due, as it is here, the others may as well come
// along. The caller holds mu.
func (s *sender) take(now time.Duration) *request {
	req := &request{sent: now}
	left := s.todo[:0]
	for _, part := range s.todo {
		if part.in != s {
			continue // it went to another broker and came back, is in the list twice, and was taken
		}
		b := part.first()
		if part.notBefore > now || len(req.parts) > 0 && !req.takes(part, b) || !s.p.identify(part) {
			left = append(left, part)
			continue
		}
		b = part.begin(s.p.ident)
		b.codec = part.topic.codec(b, codecs[s.p.cfg.Compression])
		part.flying, part.in = true, nil
		req.parts, req.batches = append(req.parts, part), append(req.batches, b)
		req.bytes += b.bytes
		req.records += len(b.records)
	}
	for _, part := range req.parts {
		part.alone = false
	}
	clear(s.todo[len(left):])
	s.todo = left
	s.used = now
	s.out = append(s.out, req)
	s.next = never
	return req
}

// takes says whether a request that has a batch may have another.
func (r *request) takes(part *part, b *batch) bool {
	return r.bytes+b.bytes <= mostRequest && !part.alone && !r.parts[0].alone
}

// send sends a request. sarama keeps nothing of the records once it has encoded them, which it does before it returns.
func (s *sender) send(req *request) {
	produce := &sarama.ProduceRequest{Version: 10, RequiredAcks: sarama.WaitForAll, Timeout: int32(s.patience().Milliseconds())}
	for i, part := range req.parts {
		b := req.batches[i]
		produce.AddBatch(part.topic.name, part.id, b.encode())
	}
	s.to.m.sent(req)
	err := s.broker.AsyncProduce(produce, func(resp *sarama.ProduceResponse, err error) {
		if err == nil && !req.answeredBy(resp) {
			err = sarama.ErrIncompleteResponse
		}
		if err != nil {
			s.lose(req, err)
			return
		}
		s.p.answered(s, req, resp)
	})
	if _, unsent := errors.AsType[sarama.PacketEncodingError](err); unsent {
		s.p.unsent(s, req, err)
	} else if err != nil {
		s.lose(req, err)
	}
}

// patience is how long the leader waits for the followers.
func (s *sender) patience() time.Duration {
	if s.slow {
		return s.p.cfg.RequestTimeout
	}
	return min(s.p.cfg.RequestTimeout, followersTime)
}

// answeredBy says whether there is an answer for each partition.
func (r *request) answeredBy(resp *sarama.ProduceResponse) bool {
	for _, part := range r.parts {
		if resp.GetBlock(part.topic.name, part.id) == nil {
			return false
		}
	}
	return true
}

// lose notes that a request has no answer. The connection is closed before it is sent again: what is not read by the
// broker then is not stored later than what follows.
func (s *sender) lose(req *request, err error) {
	s.p.mu.Lock()
	s.remove(req)
	s.lost = append(s.lost, req)
	s.broken = true
	s.p.mu.Unlock()
	s.to.m.missed(req)
	s.p.log.Debug().Err(err).Str("broker", s.to.addr).Msg("no answer from a Kafka broker")
	s.wake.wake()
}

func (s *sender) remove(req *request) {
	for i, r := range s.out {
		if r == req {
			s.out = append(s.out[:i], s.out[i+1:]...)
			return
		}
	}
}

// connect connects, or has the next attempt wait and the leaders looked for meanwhile.
func (s *sender) connect() {
	conf := s.p.cfg.base(s.dial)
	conf.Net.MaxOpenRequests = mostOut + 1 // of a callback that runs the request is not out any more, by our count
	b := sarama.NewBroker(s.to.addr)
	s.p.mu.Lock()
	s.opening, s.opened = true, s.p.now()
	s.p.mu.Unlock()
	err := s.dial.open(b, conf)
	if err != nil {
		_ = b.Close() // it may not be open
	}
	now := s.p.now()
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	s.opening = false
	if err == nil {
		s.broker, s.fails = b, 0
		return
	}
	s.to.m.unreachable.Inc()
	s.notBefore = now + retryAfter(s.fails, slowestConnect)
	if s.fails++; s.fails == 1 && !s.p.aborting {
		err = s.p.cfg.Security.explain("cannot connect to", s.to.addr, err)
		s.p.note(func() { s.p.log.Warn().Err(err).Msg("records wait for a Kafka broker") })
		s.p.finishWake.wake() // writes the line
	}
	s.leave(now)
}

// leave has other leaders looked for. The caller holds mu.
func (s *sender) leave(now time.Duration) {
	for _, part := range s.todo {
		if part.in == s {
			s.p.wantLeader(part.topic, now)
		}
	}
}

// disconnect closes the connection, and returns when every request on it was answered or lost.
func (s *sender) disconnect() {
	if s.broker != nil {
		if err := s.broker.Close(); err != nil && !errors.Is(err, sarama.ErrNotConnected) {
			s.p.log.Debug().Err(err).Str("broker", s.to.addr).Msg("cannot close a connection to Kafka")
		}
		s.broker = nil
	}
}

// sendAgain has the requests sent again whose answers were lost with the connection.
func (s *sender) sendAgain() {
	s.p.mu.Lock()
	now := s.p.now()
	for _, req := range s.lost {
		for i, part := range req.parts {
			s.p.settleLost(part, req.batches[i], now)
		}
	}
	s.lost, s.broken = nil, false
	w := s.p.due()
	s.p.mu.Unlock()
	w.wake(s.p)
}

func (s *sender) sleep(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.wake:
	case <-s.p.aborted:
	}
}
