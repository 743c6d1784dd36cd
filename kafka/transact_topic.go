package kafka

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// topicKnown is how long what is known of a topic is taken for true, and topicRefused how long a negative answer.
	topicKnown   = time.Minute
	topicRefused = 3 * time.Second
	// leadersFresh is how long it is taken for true which partitions have a leader. Half of it ahead they are asked for
	// again, so that nobody who writes all the time waits for the answer. If there is none for as long again, what was
	// known before has to do.
	leadersFresh = time.Second
	// topicAgain is between questions while records wait for a topic or a leader.
	topicAgain = 200 * time.Millisecond
	// doubtAfterFault is for how long a partition is left out that could not be written to though it has a leader. It
	// doubles each time, up to doubtMost, and ends at once when another broker leads.
	doubtAfterFault = time.Second
	doubtMost       = 8 * time.Second
)

// txTopics are the topics that a Transactor writes to. They are looked at in goroutines of their own, so that nobody
// waits for a topic that is not his.
type txTopics struct {
	admin *Admin
	sizes *sync.Map // of the Budget, to be told
	wake  func()    // something is known that was not
	ctx   context.Context
	work  sync.WaitGroup

	mu     sync.Mutex // guards what follows; what the maps hold is only replaced
	known  map[string]*txTopic
	asking map[string]time.Time // being looked at, since when
	doubts map[spot]doubt
}

// A txTopic is what has to be known of a topic before a transaction with it begins: a record that can't be written
// would abort it for all, and one whose partition has no leader would hold it up for as long.
type txTopic struct {
	topicState
	leaders []string // addresses by partition; "" is none
	until   time.Time
	looked  time.Time // when the leaders were
}

// A doubt is that a partition can't be written to.
type doubt struct {
	leader string
	until  time.Time
	length time.Duration
}

// get gives what is known of a topic; nil: nothing yet, or nothing that is true still. It sees to it that more is known
// soon. The caller holds mu.
func (ts *txTopics) get(name string, now time.Time) *txTopic {
	t := ts.known[name]
	if t == nil || now.After(t.until) {
		ts.look(name, now, ts.inspect)
		if t == nil || t.verdict != nil || now.Before(ts.asking[name].Add(leadersFresh)) {
			return nil
		}
		return t
	}
	if t.verdict != nil {
		return t
	}
	if age := now.Sub(t.looked); age > leadersFresh/2 {
		ts.look(name, now, ts.refresh)
		if age > leadersFresh && now.Before(ts.asking[name].Add(leadersFresh)) {
			return nil
		}
	}
	return t
}

// look has a topic looked at, unless somebody does. The caller holds mu.
func (ts *txTopics) look(name string, now time.Time, how func(name string) *txTopic) {
	if _, under := ts.asking[name]; under || ts.ctx == nil || ts.ctx.Err() != nil {
		return
	}
	ts.asking[name] = now
	ts.work.Go(func() { // ends with the answer, or ctx
		t := how(name)
		ts.mu.Lock()
		delete(ts.asking, name)
		if t != nil {
			ts.known[name] = t
			if t.exists {
				ts.sizes.Store(name, t.partitions)
			}
			ts.forget(time.Now())
		}
		ts.mu.Unlock()
		ts.wake()
	})
}

// forget drops verdicts that are over, which may be about any names, before there are many. The caller holds mu.
func (ts *txTopics) forget(now time.Time) {
	if len(ts.known)%256 != 0 {
		return
	}
	for name, t := range ts.known {
		if t.verdict != nil && now.After(t.until) {
			delete(ts.known, name)
		}
	}
	for at, d := range ts.doubts {
		if now.After(d.until.Add(d.length)) {
			delete(ts.doubts, at)
		}
	}
}

// inspect finds out all about a topic, and creates it if it is missing and that may be. nil: not yet.
func (ts *txTopics) inspect(name string) *txTopic {
	states, err := ts.admin.inspect(ts.ctx, []string{name})
	if err != nil || len(states) == 0 {
		_ = sleep(ts.ctx, topicAgain)
		return nil
	}
	s := states[0]
	if s.missing {
		if _, err := ts.admin.Ensure(ts.ctx, []string{name}); Final(err) {
			s.verdict = err
		}
	}
	switch {
	case s.verdict != nil:
		return &txTopic{topicState: s, until: time.Now().Add(topicRefused)}
	case s.exists:
		return ts.withLeaders(&txTopic{topicState: s, until: time.Now().Add(topicKnown)})
	}
	_ = sleep(ts.ctx, topicAgain)
	return nil
}

// refresh looks for the leaders of a topic that is known.
func (ts *txTopics) refresh(name string) *txTopic {
	ts.mu.Lock()
	known := ts.known[name]
	ts.mu.Unlock()
	if known == nil || known.verdict != nil {
		return nil
	}
	t := *known
	found := ts.withLeaders(&t)
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if now := ts.known[name]; found != nil && now != nil && now.until.IsZero() { // there is a doubt since
		found.until = time.Time{}
	}
	return found
}

// withLeaders fills in the leaders of t. nil: they can't be known now.
func (ts *txTopics) withLeaders(t *txTopic) *txTopic {
	now := time.Now()
	leaders, err := ts.leaders(ts.ctx, []string{t.name})
	if err != nil {
		_ = sleep(ts.ctx, topicAgain)
		return nil
	}
	if len(leaders[t.name]) != int(t.partitions) { // it was made anew, or is gone, or has grown
		t.until = time.Time{}
		return t
	}
	t.leaders, t.looked = leaders[t.name], now
	return t
}

// canWrite says whether the partition can be written to, as far as is known. The caller holds mu.
func (ts *txTopics) canWrite(t *txTopic, id int32, now time.Time) bool {
	if int(id) >= len(t.leaders) || t.leaders[id] == "" {
		return false
	}
	d, doubted := ts.doubts[spot{t.name, id}]
	return !doubted || d.leader != t.leaders[id] || now.After(d.until)
}

// lead has the leaders of partitions looked for, and gives them those that are known by now.
func (ts *txTopics) lead(shares []*share) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	now := time.Now()
	for _, s := range shares {
		ts.look(s.at.topic, now, ts.refresh)
		if t := ts.known[s.at.topic]; t != nil && int(s.at.id) < len(t.leaders) {
			s.leader = t.leaders[s.at.id]
		}
	}
}

// doubt has a partition left out for a while.
func (ts *txTopics) doubt(s *share) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	d := ts.doubts[s.at]
	if d.length = min(2*d.length, doubtMost); d.length == 0 || d.leader != s.leader {
		d.length = doubtAfterFault
	}
	d.leader, d.until = s.leader, time.Now().Add(d.length)
	ts.doubts[s.at] = d
	ts.staleLocked(s.at.topic)
}

// trust ends doubts, when the partitions were written to.
func (ts *txTopics) trust(shares []*share) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if len(ts.doubts) > 0 {
		for _, s := range shares {
			delete(ts.doubts, s.at)
		}
	}
}

// stale has a topic looked at again before it is used.
func (ts *txTopics) stale(name string) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.staleLocked(name)
}

func (ts *txTopics) staleLocked(name string) {
	if t := ts.known[name]; t != nil {
		old := *t
		old.until = time.Time{}
		ts.known[name] = &old
	}
}

// A readiness says what can be done with a group now.
type readiness int

const (
	waits    readiness = iota // it is not known yet whether it can be written, or it can't for now
	faulty                    // it can never be written; its fault is set
	writable                  // it can
)

// check says whether a group can be written. The caller holds mu.
func (ts *txTopics) check(g *TxGroup, now time.Time) readiness {
	ready := writable
	for _, r := range g.Records {
		if !legalTopic(r.Topic) {
			g.fault = fmt.Errorf("topic %q: %w: not a legal name", r.Topic, ErrInvalidRecord)
			return faulty
		}
		t := ts.get(r.Topic, now)
		if t == nil {
			ready = waits
			continue
		}
		if g.fault = r.judge(t); g.fault != nil {
			return faulty
		}
		r.topic = t
		if id, fixed := r.partition(t.partitions); fixed && !ts.canWrite(t, id, now) || !fixed && ts.any(t, now) < 0 {
			ready = waits
		}
	}
	return ready
}

// any gives a partition that can be written to, another one each time, or -1. The caller holds mu.
func (ts *txTopics) any(t *txTopic, now time.Time) int32 {
	first := rand.Int32N(t.partitions)
	for i := range t.partitions {
		if id := (first + i) % t.partitions; ts.canWrite(t, id, now) {
			return id
		}
	}
	return -1
}

// leaders gives the addresses of the leaders of all partitions.
func (ts *txTopics) leaders(ctx context.Context, names []string) (map[string][]string, error) {
	states, err := ts.admin.leadersIn(ctx, names)
	leaders := map[string][]string{}
	for _, s := range states {
		leaders[s.name] = s.addrs()
	}
	return leaders, err
}

// close ends what is under way.
func (ts *txTopics) close() {
	_ = ts.admin.Close() // it always gives nil
}
