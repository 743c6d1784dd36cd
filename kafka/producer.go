package kafka

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"sluice/kafka/produce"
)

// A Producer writes records to Kafka and answers for each. DESIGN.md tells how, and why.
type Producer struct {
	cfg    Config
	log    zerolog.Logger // sampled: what a fleet of topics can trigger
	m      *metrics
	budget *Budget
	start  time.Time // of its clock
	admin  *Admin    // the verifier's
	finder *Admin    // asks for leaders and the producer ID
	pinger *Admin

	finishWake signal // finished is not empty, or there are notes
	verifyWake signal // a topic is to be asked for
	leaderWake signal // a leader is to be asked for
	identWake  signal // a producer ID is to be asked for
	aborted    chan struct{}
	drained    chan struct{} // closed when closing and nothing is pending
	stopped    chan struct{} // closed when Run returns
	up         atomic.Bool
	senders    sync.WaitGroup // of connections

	mu       sync.Mutex // guards what follows, and all topics, partitions, brokers and senders; no other lock is taken under it
	topics   map[string]*topic
	brokers  map[node]*broker
	ident    produce.Ident
	finished []*Record     // for the finisher, with their errors
	pending  int           // records that RecordDone was not called for
	notes    []func()      // log lines, written when mu is not held
	warned   bool          // that a limit may not be read
	progress time.Duration // when a record was last stored, or the first came after there was none
	running  bool
	closing  bool
	aborting bool
	ended    bool // no goroutine is left
}

// A signal wakes one goroutine; waking it twice before it looks is waking it once.
type signal chan struct{}

func newSignal() signal { return make(signal, 1) }

func (s signal) wake() {
	select {
	case s <- struct{}{}:
	default:
	}
}

// NewProducer checks cfg and registers the metrics. It starts nothing and connects to nothing.
func NewProducer(cfg Config) (*Producer, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("cannot make a producer: %w", err)
	}
	p := &Producer{
		cfg: cfg, log: cfg.Logger.Sample(&zerolog.BurstSampler{Burst: 10, Period: time.Second}), budget: cfg.budget(), start: time.Now(),
		admin: newAdmin(cfg), finder: newAdmin(cfg.forPings()), pinger: newAdmin(cfg.forPings()),
		finishWake: newSignal(), verifyWake: newSignal(), leaderWake: newSignal(), identWake: newSignal(),
		aborted: make(chan struct{}), drained: make(chan struct{}), stopped: make(chan struct{}),
		topics: map[string]*topic{}, brokers: map[node]*broker{}, ident: produce.Nobody,
	}
	p.m = newMetrics(p)
	if err := p.m.register(cfg.Registerer); err != nil {
		return nil, fmt.Errorf("cannot register the producer's metrics: %w", err)
	}
	return p, nil
}

// Budget gives the budget of bytes that the records' Reserved is taken from.
func (p *Producer) Budget() *Budget { return p.budget }

// now is the time on the Producer's clock.
func (p *Producer) now() time.Duration { return time.Since(p.start) }

// Run works until Close is called or ctx ends, and returns when RecordDone was called for every record. The
// end of ctx is a Close that waits for nothing. It returns nil, and is called once.
func (p *Producer) Run(ctx context.Context) error {
	if !p.begin() {
		return nil // closed before it began
	}
	stop := context.AfterFunc(ctx, p.abort)
	defer stop()
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var wg sync.WaitGroup
	for _, part := range []func(context.Context){p.runFinisher, p.runVerifier, p.runFinder, p.runIdent, p.runHealth} {
		wg.Go(func() { part(work) }) // ends with work
	}
	select {
	case <-p.drained:
		p.abort() // nothing is left that it could harm; it ends the connections
	case <-p.aborted:
	}
	cancel()
	for _, a := range []*Admin{p.admin, p.finder, p.pinger} {
		_ = a.Close() // it always gives nil
	}
	p.senders.Wait() // their connections are cut
	wg.Wait()
	p.dropAll()
	p.end()
	return nil
}

func (p *Producer) begin() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running || p.ended {
		return false
	}
	p.running = true
	return true
}

// Produce takes r, which it owns until RecordDone. It never blocks on Kafka: what can't be sent now waits, so
// the caller bounds what it produces by the Budget. Records of one topic and key stay in the order in which
// Produce was called.
func (p *Producer) Produce(r *Record) {
	now := p.now()
	r.prepare(now)
	p.mu.Lock()
	if p.pending == 0 {
		p.progress = max(p.progress, now)
	}
	p.pending++
	p.accept(r, now)
	w := p.due()
	ended := p.ended
	p.mu.Unlock()
	w.wake(p)
	if ended {
		go p.finish() // ends with RecordDone: no goroutine of ours is left to call it
	}
}

// accept puts r where it belongs. The caller holds mu.
func (p *Producer) accept(r *Record, now time.Duration) {
	if p.hasEnded() {
		p.fail(r, ErrClosed)
		return
	}
	t := p.topics[r.Topic]
	if t == nil {
		if !legalTopic(r.Topic) {
			p.fail(r, fmt.Errorf("%w: illegal topic name", ErrInvalidRecord))
			return
		}
		t = p.addTopic(r.Topic)
	}
	t.used = now
	if t.phase == refused && now >= t.due {
		p.ask(t, now)
	}
	switch t.phase {
	case asking:
		t.waiting = append(t.waiting, r)
	case refused:
		p.fail(r, t.verdict)
	default:
		p.route(t, r, now)
	}
}

func (p *Producer) addTopic(name string) *topic {
	t := &topic{name: name}
	p.topics[name] = t
	p.ask(t, p.now())
	return t
}

// ask makes the verifier look at t, whose records wait meanwhile.
func (p *Producer) ask(t *topic, now time.Duration) {
	t.phase, t.misses, t.due, t.verdict = asking, 0, now, nil
	p.verifyWake.wake()
}

// route gives r to its partition. The caller holds mu.
func (p *Producer) route(t *topic, r *Record, now time.Duration) {
	if err := t.judge(r, now, p.cfg.compresses()); err != nil {
		p.fail(r, err)
		return
	}
	if r.size > t.room {
		p.suspect(t, now, settingsHold) // it is sent if the limit was last seen long ago
	}
	if part := t.place(r); part.add(r) {
		p.arm(part, now)
	}
}

// fail ends r with err, soon. The caller holds mu.
func (p *Producer) fail(r *Record, err error) {
	r.err = err
	p.finished = append(p.finished, r)
}

// wakes is what has to be done when mu is not held any more.
type wakes struct {
	finish bool
	notes  []func()
}

// due is called under mu, wake after.
func (p *Producer) due() wakes {
	w := wakes{len(p.finished) > 0, p.notes}
	p.notes = nil
	return w
}

// note has a log line written when mu is not held.
func (p *Producer) note(f func()) { p.notes = append(p.notes, f) }

// write writes the log lines.
func (w wakes) write() {
	for _, note := range w.notes {
		note()
	}
}

func (w wakes) wake(p *Producer) {
	w.write()
	if w.finish {
		p.finishWake.wake()
	}
}
