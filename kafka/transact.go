package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"sluice/kafka/produce"
)

// What a group can fail with besides the final errors of a record and ErrClosed; test with errors.Is.
var (
	// ErrAborted: the transaction was aborted and no record of the group is in Kafka. The group may be written again.
	ErrAborted = errors.New("the Kafka transaction was aborted")
	// ErrFenced: the transactional id was taken away, by another producer or because a transaction of ours took longer
	// than its timeout, or it was never taken. Nothing of the group was committed. All groups fail until Renew.
	ErrFenced = errors.New("the transactional id belongs to another producer epoch")
	// ErrTransactionUnknown: Kafka was asked to commit and did not say whether it did, and Run ended before Renew could
	// ask the log, or the records are not to be found there any more.
	ErrTransactionUnknown = errors.New("unknown whether Kafka committed the transaction")
)

// A TransactorConfig says how to write transactions. Of Config it uses Brokers, ClientID, Compression, the time-outs,
// CreateTopics, Logger and Registerer.
type TransactorConfig struct {
	Config
	// TransactionalID names the right to write. Whoever renews it last has it.
	TransactionalID string
	// Timeout is for how long Kafka lets a transaction be open before it aborts it and takes the right away. Default
	// 15 s. A transaction that can't be written within two thirds of it is given up by the Transactor itself.
	Timeout time.Duration
	// Gather is how long the first group of a transaction waits for others when no transaction is under way. Default
	// 0: what comes while a transaction commits is the next one, and that is enough under load.
	Gather time.Duration
	// MostGroups is how many groups a transaction may have. Default 4096. Its records have 16 MiB at most, or are one
	// group.
	MostGroups int
	// OnFenced is told at once that groups fail until Renew, and why: ErrFenced, or ErrTransactionUnknown if the groups of
	// a transaction wait for Renew to find out about them. It is called once for each loss, by the goroutine of Run,
	// before any GroupDone because of it, and must not block. May be nil.
	OnFenced func(err error)
}

// A TxRecord is one record of a group. Nothing it refers to may change until GroupDone.
type TxRecord struct {
	Topic string
	// PartitionKey decides the partition, hashed as Kafka's Java clients hash keys. nil: Key decides, and without one
	// it is any.
	PartitionKey []byte
	// Among is how many of the topic's partitions keys are spread over, from the first on; 0: all.
	Among      int32
	Key, Value []byte // nil: null; a record without a value is a tombstone
	Headers    []Header
	Timestamp  time.Time // zero: when it is sent

	topic *txTopic // as it was when the record was found to be writable
	rec   Record   // what is sent
}

// A TxGroup is records of which Kafka gets all or none. It belongs to the Transactor from Write until GroupDone.
type TxGroup struct {
	Records []*TxRecord
	Owner   TxOwner
	// Order is what groups have in common that must be written in the order of Write: one that can't be written for now
	// holds back those of the same Order behind it, and no others. nil: none does.
	Order any
	// Prepare is called each time before the group is put into a transaction, when GroupDone was called for every group
	// before it that is not in the same one, so that a record can be made that depends on what they left. An error ends
	// the group with it. It is called by the goroutine of Run with no lock held. May be nil.
	Prepare func() error

	size  int   // upper bound of what it adds to batches
	fault error // the verdict on one of its records
}

// A TxOwner is told what became of its groups.
type TxOwner interface {
	// GroupDone is called exactly once for each group given to Write, in the order of Write for those that are
	// committed, from a goroutine of the Transactor that holds no lock; it must not block. It may call Write, also with
	// the same group. A nil error: committed. An error for which Final is true is a verdict about the group: it can
	// never be stored. ErrAborted, ErrFenced, ErrClosed: it is not in Kafka. ErrTransactionUnknown: who knows.
	GroupDone(g *TxGroup, err error)
}

// A Transactor writes groups of records to Kafka in transactions, each group whole, many groups in one transaction, one
// transaction after the other. The section on transactions in DESIGN.md tells how.
type Transactor struct {
	cfg      TransactorConfig
	log      zerolog.Logger
	told     zerolog.Logger // sampled: what may come again and again
	m        *transactMetrics
	net      *links
	topics   txTopics
	wake     signal
	renewals chan renewal
	ended    chan struct{} // closed when Run takes no more

	mu     sync.Mutex // guards what follows; nothing is called out under it
	queue  []*TxGroup
	refuse error // what Write's groups fail with; nil: they are taken

	// Of Run's goroutine.
	again    *time.Timer // wakes it
	id       produce.Ident
	seqs     map[spot]produce.Partition
	plain    map[string]bool // topics that take no compressed records
	stray    bool            // a request of this epoch to the coordinator had no answer, and may still be under way
	open     *openEnd        // of the epoch that was lost
	patience time.Duration   // how long the partitions of a transaction have to store it; doubled while they don't
	most     int             // groups of the next transaction; less than MostGroups while it is looked for who was refused
}

// A renewal is a call of Renew.
type renewal struct {
	ctx  context.Context
	done chan error
}

// NewTransactor checks cfg. It starts nothing and connects to nothing.
func NewTransactor(cfg TransactorConfig) (*Transactor, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("cannot make a transactor: %w", err)
	}
	m, err := newTransactMetrics(cfg.Registerer)
	if err != nil {
		return nil, fmt.Errorf("cannot register the transactor's metrics: %w", err)
	}
	t := &Transactor{cfg: cfg, m: m, net: newLinks(cfg.Config, cfg.Timeout/3),
		log:  cfg.Logger.With().Str("transactional_id", cfg.TransactionalID).Logger(),
		wake: newSignal(), renewals: make(chan renewal), ended: make(chan struct{}),
		refuse: fmt.Errorf("%w: it was not taken yet", ErrFenced), most: cfg.MostGroups, patience: min(storeTime, cfg.Timeout/3), plain: map[string]bool{}}
	t.told = t.log.Sample(&zerolog.BurstSampler{Burst: 3, Period: 10 * time.Second})
	t.again = time.AfterFunc(time.Hour, t.wake.wake)
	t.again.Stop()
	t.topics = txTopics{admin: newAdmin(cfg.forListings()), sizes: &cfg.budget().sizes, wake: t.wake.wake, known: map[string]*txTopic{},
		asking: map[string]time.Time{}, doubts: map[spot]doubt{}}
	return t, nil
}

func (cfg TransactorConfig) withDefaults() (TransactorConfig, error) {
	var errs []error
	var err error
	cfg.Config, err = cfg.Config.withDefaults()
	errs = append(errs, err)
	cfg.Timeout = or(cfg.Timeout, 15*time.Second)
	cfg.MostGroups = or(cfg.MostGroups, 4096)
	if cfg.TransactionalID == "" {
		errs = append(errs, errors.New("no transactional id"))
	}
	if cfg.Timeout < 0 || cfg.Gather < 0 || cfg.MostGroups < 0 {
		errs = append(errs, errors.New("a duration or number is negative"))
	}
	if cfg.OnFenced == nil {
		cfg.OnFenced = func(error) {}
	}
	return cfg, errors.Join(errs...)
}

// Write takes a group and never blocks on Kafka. Nothing bounds how many wait: the caller takes the bytes of a Budget
// first. Groups are written in the order of Write, save that one with
// a topic or a partition that can't be written to for now waits, and all others of its Order behind it. Before the first Renew, and after the right was lost until Renew has
// succeeded, each group ends with ErrFenced; a caller that repeats those after Renew has first read what it missed.
func (t *Transactor) Write(g *TxGroup) {
	if refuse := t.TryWrite(g); refuse != nil {
		go g.Owner.GroupDone(g, refuse) // ends with the call; the caller of Write may hold a lock that it needs
	}
}

// TryWrite is Write for who keeps the groups that are not taken: of those GroupDone is not called, and the error says why.
func (t *Transactor) TryWrite(g *TxGroup) error {
	g.fault, g.size = nil, 0
	t.mu.Lock()
	refuse := t.refuse
	if refuse == nil {
		t.queue = append(t.queue, g)
	}
	t.mu.Unlock()
	if refuse == nil {
		t.wake.wake()
	}
	return refuse
}

// Withdraw ends groups that wait for their turn, or for a topic or a partition, with ErrAborted: those that match, which is
// called with a lock held. GroupDone is called after it.
func (t *Transactor) Withdraw(match func(*TxGroup) bool) {
	t.mu.Lock()
	var gone []*TxGroup
	t.queue = slices.DeleteFunc(t.queue, func(g *TxGroup) bool {
		if match(g) {
			gone = append(gone, g)
			return true
		}
		return false
	})
	t.mu.Unlock()
	if len(gone) > 0 {
		go t.finish(gone, ErrAborted) // ends with the last call; the caller may hold a lock that it needs
	}
}

// Renew takes a new producer epoch: whoever had the transactional id loses it, and when Renew returns nil whatever
// transaction was under way is decided, a reader that goes on to what is Written now sees it, and GroupDone was called
// for its groups. It tries until ctx ends. It needs Run, and is the first thing to call.
func (t *Transactor) Renew(ctx context.Context) error {
	r := renewal{ctx, make(chan error, 1)}
	select {
	case t.renewals <- r:
	case <-ctx.Done():
		return fmt.Errorf("cannot take the transactional id %q: %w", t.cfg.TransactionalID, ctx.Err())
	case <-t.ended:
		return ErrClosed
	}
	return <-r.done
}

// Run writes until ctx ends and then returns nil; what is left ends with ErrClosed, or with ErrTransactionUnknown if
// Kafka was already asked to commit it. An open transaction is left for the next producer, or Kafka's timeout, to
// abort: to leave none, wait for the groups first. It is called once.
func (t *Transactor) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, t.net.close)
	defer stop()
	defer t.net.close()
	defer t.end()
	defer t.again.Stop()
	defer t.topics.work.Wait()
	defer t.topics.close()
	defer context.AfterFunc(ctx, t.topics.close)()
	t.topics.ctx = ctx
	for busy := false; ctx.Err() == nil; {
		select {
		case <-ctx.Done():
		case r := <-t.renewals:
			r.done <- t.renew(ctx, r.ctx)
		case <-t.wake:
			busy = t.work(ctx, busy)
		}
	}
	return nil
}

// work writes one transaction, and says whether there is more to write.
func (t *Transactor) work(ctx context.Context, busy bool) (more bool) {
	if !busy && t.cfg.Gather > 0 && sleep(ctx, t.cfg.Gather) != nil {
		return false
	}
	ready, refused := t.take()
	for _, g := range refused {
		t.finish([]*TxGroup{g}, g.fault)
	}
	if len(ready) > 0 {
		t.transact(ctx, ready)
	}
	t.mu.Lock()
	more = len(t.queue) > 0
	t.mu.Unlock()
	switch {
	case more && len(ready) > 0:
		t.wake.wake()
	case more: // all that is left waits for topics or leaders
		t.again.Reset(topicAgain)
	}
	return more && len(ready) > 0
}

// take takes the groups of the next transaction from the queue, and those that can never be written. Those that can't be
// written for now stay, and with them all that must not be written before them.
func (t *Transactor) take() (ready, refused []*TxGroup) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.topics.mu.Lock()
	defer t.topics.mu.Unlock()
	now, size := time.Now(), 0
	var held map[any]bool
	kept := 0
	for i, g := range t.queue {
		if len(ready) == t.most || len(ready) > 0 && size+g.measure() > mostBytes {
			kept += copy(t.queue[kept:], t.queue[i:])
			break
		}
		is := waits
		if g.Order == nil || !held[g.Order] {
			is = t.topics.check(g, now)
		}
		switch is {
		case writable:
			ready, size = append(ready, g), size+g.measure()
			continue
		case faulty:
			refused = append(refused, g)
			continue
		}
		if g.Order != nil {
			if held == nil {
				held = map[any]bool{}
			}
			held[g.Order] = true
		}
		t.queue[kept] = g
		kept++
	}
	clear(t.queue[kept:])
	t.queue = t.queue[:kept]
	return ready, refused
}

// putBack has groups written before all others.
func (t *Transactor) putBack(groups []*TxGroup) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.queue = append(groups, t.queue...)
}

// lose has all groups fail from now on, those that wait first.
func (t *Transactor) lose(err error) {
	t.mu.Lock()
	if t.refuse != nil {
		t.mu.Unlock()
		return
	}
	t.refuse = ErrFenced // whatever err is: none of those that wait was sent
	left := t.queue
	t.queue = nil
	t.mu.Unlock()
	t.m.fenced.Inc()
	t.log.Warn().Err(err).Msg("the transactional id is lost")
	t.cfg.OnFenced(err)
	t.finish(left, t.refuse)
}

// renew is Renew, on Run's goroutine.
func (t *Transactor) renew(run, caller context.Context) error {
	ctx, cancel := context.WithCancel(caller)
	defer cancel()
	defer context.AfterFunc(run, cancel)()
	id, err := t.net.initProducer(ctx, t.cfg.TransactionalID, t.cfg.Timeout, produce.Nobody)
	if run.Err() != nil {
		return ErrClosed
	}
	if err != nil {
		return fmt.Errorf("cannot take the transactional id %q: %w", t.cfg.TransactionalID, err)
	}
	t.begin(id)
	if err := t.settleOpen(ctx); run.Err() != nil {
		return ErrClosed
	} else if err != nil {
		return fmt.Errorf("cannot find out how the last transaction of %q has ended: %w", t.cfg.TransactionalID, err)
	}
	t.mu.Lock()
	t.refuse = nil
	t.mu.Unlock()
	t.log.Debug().Int64("producer_id", id.ID).Int16("epoch", id.Epoch).Msg("the transactional id is taken")
	return nil
}

// begin starts with a new epoch, in which each partition counts from 0.
func (t *Transactor) begin(id produce.Ident) {
	t.id, t.seqs, t.stray = id, map[spot]produce.Partition{}, false
}

// at gives where the next batch to a partition is numbered from.
func (t *Transactor) at(at spot) produce.Partition {
	if p, ok := t.seqs[at]; ok {
		return p
	}
	return produce.Partition{Ident: t.id}
}

// end has all groups fail for good.
func (t *Transactor) end() {
	t.mu.Lock()
	left := t.queue
	t.queue, t.refuse = nil, ErrClosed
	t.mu.Unlock()
	close(t.ended)
	if t.open != nil {
		t.finish(t.open.groups, ErrTransactionUnknown)
	}
	t.finish(left, ErrClosed)
}

func (t *Transactor) finish(groups []*TxGroup, err error) {
	for _, g := range groups {
		t.m.groups(err).Inc()
		g.Owner.GroupDone(g, err)
	}
}
