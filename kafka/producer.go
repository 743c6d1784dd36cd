package kafka

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"github.com/rs/zerolog"
)

// A Producer writes records to Kafka and answers for each. DESIGN.md tells how, and why.
type Producer struct {
	cfg    Config
	log    zerolog.Logger // sampled: what a fleet of topics can trigger
	m      *metrics
	budget *Budget
	start  time.Time // of its clock
	admin  *Admin    // the verifier's
	pinger *Admin

	views sync.Map // topic name -> *view, for sarama's goroutines

	feedWake   signal // the queue is not empty
	finishWake signal // finished is not empty
	verifyWake signal // a topic is to be asked for
	laneWake   signal // the current lane is to be replaced
	aborted    chan struct{}
	drained    chan struct{} // closed when closing and nothing is pending
	stopped    chan struct{} // closed when Run returns
	up         atomic.Bool
	closers    sync.WaitGroup // of lanes that end

	mu         sync.Mutex // guards what follows and all topics; no other lock is taken under it
	topics     map[string]*topic
	queue      []fed     // for the feeder
	finished   []*Record // for the finisher, with their errors
	pending    int       // records that RecordDone was not called for
	lane       *lane     // where new topics go; nil: none open yet
	lanes      map[*lane]struct{}
	opening    *lane         // that is to be the next
	laneWanted bool          // a new one is to be opened
	notes      []func()      // log lines, written when mu is not held
	warned     bool          // that a limit may not be read
	progress   time.Duration // when a record was last stored, or the first came after there was none
	running    bool
	closing    bool
	aborting   bool
	forced     bool // what sarama still has was answered for, and is ignored when it comes
	ended      bool // no goroutine is left
}

// A fed record is on its way to the input of a lane.
type fed struct {
	lane *lane
	msg  *sarama.ProducerMessage
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
		admin: newAdmin(cfg), pinger: newAdmin(cfg.forPings()),
		feedWake: newSignal(), finishWake: newSignal(), verifyWake: newSignal(), laneWake: newSignal(),
		aborted: make(chan struct{}), drained: make(chan struct{}), stopped: make(chan struct{}),
		topics: map[string]*topic{}, lanes: map[*lane]struct{}{},
	}
	p.m = newMetrics(p)
	if err := p.m.register(cfg.Registerer); err != nil {
		return nil, fmt.Errorf("cannot register the producer's metrics: %w", err)
	}
	return p, nil
}

// Budget gives the budget of bytes that the records' Reserved is taken from.
func (p *Producer) Budget() *Budget { return p.budget }

// Destination gives where a record with this key, nil for none, is stuck if it is: the partition of a topic that is in
// use, or the topic.
func (p *Producer) Destination(topic string, key []byte) Destination {
	if key != nil {
		if v, ok := p.views.Load(topic); ok {
			if ids := v.(*view).partitions.Load(); ids != nil {
				return Destination{topic, PartitionOf(key, int32(len(*ids)))}
			}
		}
	}
	return Destination{topic, AnyPartition}
}

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
	for _, part := range []func(context.Context){p.runFeeder, p.runFinisher, p.runVerifier, p.runLanes, p.runHealth} {
		wg.Go(func() { part(work) }) // ends with work
	}
	<-p.drained
	p.abort() // nothing is left that it could harm; it ends attempts to connect
	cancel()
	_ = p.admin.Close()
	_ = p.pinger.Close()
	ended := within(grace, wg.Wait)
	p.closeLanes()
	if !ended || !within(grace, p.closers.Wait) {
		p.cfg.Logger.Error().Msg("the Kafka client did not end; some of its goroutines are left")
	}
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
		p.progress = now
	}
	p.pending++
	p.accept(r, now)
	wakes := p.due()
	ended := p.ended
	p.mu.Unlock()
	wakes.wake(p)
	if ended {
		go p.finish() // ends with RecordDone: no goroutine of ours is left to call it
	}
}

// accept puts r where it belongs. The caller holds mu.
func (p *Producer) accept(r *Record, now time.Duration) {
	if p.closing {
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
		t.waiting.push(r)
	case refused:
		p.fail(r, t.verdict)
	default:
		p.route(t, r, now)
	}
}

func (p *Producer) addTopic(name string) *topic {
	t := &topic{name: name, view: new(view)}
	p.topics[name] = t
	p.views.Store(name, t.view)
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
	if err := t.judge(r); err != nil {
		p.fail(r, err)
		return
	}
	part := t.place(r)
	t.held++
	if part.fifo.n == 0 && p.admits(part, r, now) {
		p.feed(part, r, now)
	} else {
		part.fifo.push(r)
	}
}

// admits says whether r can go to sarama now. A partition changes its lane only while it has no record in one,
// so that the order is kept.
func (p *Producer) admits(part *part, r *Record, now time.Duration) bool {
	if p.lane == nil || p.lane == part.topic.avoid || p.aborting || !part.takes(r, now) {
		return false
	}
	if part.lane != p.lane {
		if part.inFlight.n > 0 {
			return false
		}
		part.lane = p.lane
		part.lane.parts++
	}
	return true
}

func (p *Producer) feed(part *part, r *Record, now time.Duration) {
	part.put(r, now)
	p.queue = append(p.queue, fed{part.lane, r.msg})
}

// pump feeds what waits in part, as far as there is room. The caller holds mu.
func (p *Producer) pump(part *part, now time.Duration) {
	for r := part.fifo.head; r != nil && p.admits(part, r, now); r = part.fifo.head {
		part.fifo.pop()
		p.feed(part, r, now)
	}
}

func (p *Producer) pumpTopic(t *topic, now time.Duration) {
	for _, part := range t.parts {
		p.pump(part, now)
	}
}

// fail ends r with err, soon. The caller holds mu.
func (p *Producer) fail(r *Record, err error) {
	r.err = err
	p.finished = append(p.finished, r)
}

// wakes is what has to be done when mu is not held any more.
type wakes struct {
	feed, finish bool
	notes        []func()
}

// due is called under mu, wake after.
func (p *Producer) due() wakes {
	w := wakes{len(p.queue) > 0, len(p.finished) > 0, p.notes}
	p.notes = nil
	return w
}

// note has a log line written when mu is not held.
func (p *Producer) note(f func()) { p.notes = append(p.notes, f) }

func (w wakes) wake(p *Producer) {
	for _, note := range w.notes {
		note()
	}
	if w.feed {
		p.feedWake.wake()
	}
	if w.finish {
		p.finishWake.wake()
	}
}

// runFeeder hands records to sarama. Its input is only ever blocked for moments, see maxInFlight.
func (p *Producer) runFeeder(ctx context.Context) {
	var batch []fed
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.feedWake:
		}
		for batch = p.takeQueue(batch); len(batch) > 0; batch = p.takeQueue(batch) {
			for _, f := range batch {
				f.lane.input <- f.msg
			}
		}
	}
}

// takeQueue swaps the queue for the one that was worked off.
func (p *Producer) takeQueue(done []fed) []fed {
	clear(done)
	p.mu.Lock()
	defer p.mu.Unlock()
	batch := p.queue
	p.queue = done[:0]
	return batch
}
