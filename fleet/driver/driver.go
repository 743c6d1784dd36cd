package driver

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"sluice/fleet"
	"sluice/kafka"
)

// A Producer writes records of the sessions topic. Of those of one partition an earlier one is never stored after a later
// one, save that the owner of a record that failed may produce it again. *kafka.Producer is one, beside its budget.
type Producer interface {
	Produce(r *kafka.Record)
}

// An Ender says where a partition ends that is read: what was acknowledged to anybody before the call is below it, also
// what an open transaction of somebody else hides still. What is read comes by HandleSession and HandleLedger.
// kafka.Consumer.Written is that.
type Ender interface {
	End(ctx context.Context, topic string, partition int32) (int64, error)
}

// A Fencer takes transactional ids away. *kafka.Fencer is one, and its documentation the contract.
type Fencer interface {
	Fence(ctx context.Context, transactionalID string) error
}

// A Transactor writes transactions under one transactional id. *kafka.Transactor is one, and its documentation the
// contract.
type Transactor interface {
	Run(ctx context.Context) error
	Renew(ctx context.Context) error
	Write(g *kafka.TxGroup)
	TryWrite(g *kafka.TxGroup) error
	Withdraw(match func(*kafka.TxGroup) bool)
}

// Ends are the offsets, by the numbers that the Host gave to the partitions of commands, below which the devices here had
// got everything at a moment.
type Ends map[int32]int64

// A Host is what is around the Driver. Its methods must not block, save LogEnds, and must not call the Driver.
type Host interface {
	// Connected says that a connection is open, Disconnected that it has ended at a time, and why. Both are called with a
	// lock held.
	Connected(c *Conn)
	Disconnected(c *Conn, reason string, at int64)
	// Died says that the connection which the dead incarnation inc had with a client, of the state st, has ended.
	Died(client, inc string, st *fleet.Session, at int64)
	// Ended says that the session state of a client has ended; ends is where. It is called without a lock.
	Ended(client string, state *fleet.Session, ends Ends)
	// Unwanted says that no session of a client was offered a command which was read here before, and that this instance tells
	// of it, unless it waits for the session, of this state; nil: there is none. It is called without a lock.
	Unwanted(client string, stream int32, offset int64, state *fleet.Session)
	// Mark is the place of a command as records have it. It must not block.
	Mark(stream int32, offset int64) fleet.Mark
	// Ends says where the devices here are now, Positions gives ends as a session's record has them. LogEnds says where the
	// topics end, which it may wait for a while; nil: that can't be known now.
	Ends() Ends
	LogEnds(ctx context.Context) Ends
	Positions(ends Ends) *fleet.Progress
	// Ahead says how far a session has got where that is farther than the devices here.
	Ahead(p *fleet.Progress) Ends
	// WillRecords makes the records of a client's Will, and says whether there are any. done is to be called with their
	// outcome.
	WillRecords(client string, w *fleet.Will) (records []*kafka.TxRecord, end fleet.WillEnd, done func(error))
	// Fail says that the process can't go on.
	Fail(err error)
}

// A Counter counts. A Prometheus counter is one.
type Counter interface{ Inc() }

// Metrics are what a Driver counts.
type Metrics struct {
	Records          Counter // written to the sessions topic
	Retries          Counter // of these, written once more
	Malformed        Counter // records that could not be read and were left out
	Fences           Counter // transactional ids that were taken away
	TransactionsLost Counter // times that the right to write transactions was lost
	WillsPublished   Counter
	WillsDropped     Counter
	VerdictsOwn      Counter // on this process
	VerdictsOther    Counter // by this process
}

// A Config says what a Driver works with. All fields but Name are needed.
type Config struct {
	Sessions, Ledger string // the Kafka topics
	DeadAfter        time.Duration
	Log              zerolog.Logger
	Lines            zerolog.Logger // sampled: a fleet can trigger these
	Refusals         zerolog.Logger // sampled: what Kafka says to records that are tried again
	Metrics          Metrics
	Host             Host
	TellDied         bool // Host.Died is wanted: it means looking at all sessions of who is declared dead
	State            Producer
	Table, Journal   Ender // of the sessions topic, and of the ledger
	Fencer           Fencer
	// Transactor makes what writes under a transactional id; fenced is its OnFenced.
	Transactor func(id string, fenced func(error)) (Transactor, error)
	// Name gives the next name of this process; left out, it is random.
	Name func() string
}

// A Driver keeps the sessions of this instance's devices in Kafka, as package fleet says.
type Driver struct {
	cfg      Config
	lines    zerolog.Logger
	refusals zerolog.Logger
	m        Metrics
	host     Host
	fences   fences

	parts   []*part
	ledgers []*ledgerPart
	pulse   pulse
	me      atomic.Pointer[incarnation]
	ctx     context.Context
	work    sync.WaitGroup // of goroutines that end by themselves or with ctx; see goes
	ending  sync.Mutex     // guards over
	over    bool           // no goroutine is started any more
	leaving atomic.Int64   // connections whose end is not stored
	lasting atomic.Int64   // sessions that outlive their connection, of all instances, as far as was read
	held    atomic.Int64   // bytes of all sessions' records
	moments atomic.Int64   // see apart
	rebirth sync.Mutex
	stopped atomic.Bool
	company atomic.Bool // a heartbeat of another one, or a verdict, was read since this process has begun
	joined  atomic.Bool // the group has given this process its partitions, if any
}

// An incarnation is this process under one name. One that was declared dead is followed by another.
type incarnation struct {
	name   string
	began  int64
	shards []*shard
	txids  []string // of shards: each of them has many clients
	dead   atomic.Bool
	stop   context.CancelFunc // of its heart and shards

	beating []atomic.Bool // by partition: a heartbeat is under way
	beaten  chan error    // has the outcome of the first one
}

// shardCount is how many transactional ids an incarnation has. Who fences one of them, to take over a device, stops
// the transactions of the devices of that one for a moment.
const shardCount = 4

// The times of the protocol; package fleet tells why.
const (
	heartbeatSeconds = 2
	heartbeat        = heartbeatSeconds * time.Second
	takeoverWait     = 2 * time.Second
)

// ErrNotNow: Kafka, or who has the session, does not let go of it in time, or this instance is about to stop.
var ErrNotNow = errors.New("the session can't be had now")

// New makes a Driver. It starts nothing and connects to nothing.
func New(cfg Config) *Driver {
	if cfg.Name == nil {
		cfg.Name = newName
	}
	return &Driver{cfg: cfg, lines: cfg.Lines, refusals: cfg.Refusals, m: cfg.Metrics, host: cfg.Host}
}

// Lay makes room for the partitions that the fleet was laid out with. It is called before anything else.
func (d *Driver) Lay(partitions int32) {
	for id := range partitions {
		p := &part{d: d, id: id, clients: map[string]*holder{}, owner: fleet.NewOwner("")}
		p.table.Name = p.named
		d.parts = append(d.parts, p)
		d.ledgers = append(d.ledgers, &ledgerPart{d: d, id: id})
	}
}

// newName gives the name of an incarnation.
func newName() string {
	random := make([]byte, 8)
	_, _ = rand.Read(random) // never fails
	return hex.EncodeToString(random)
}

func (i *incarnation) shard(clientID string) *shard {
	return i.shards[int(kafka.PartitionOf([]byte(clientID), shardCount))]
}

// Partitions is how many partitions of the sessions topic, and of the ledger, client IDs are divided among.
func (d *Driver) Partitions() int32 { return int32(len(d.parts)) }

// PartitionOf is the partition that a client ID belongs to.
func (d *Driver) PartitionOf(clientID string) int32 {
	return kafka.PartitionOf([]byte(clientID), d.Partitions())
}

// part gives the part of the sessions topic that has a client ID.
func (d *Driver) part(clientID string) *part { return d.parts[d.PartitionOf(clientID)] }

func (d *Driver) ledger(clientID string) *ledgerPart { return d.ledgers[d.PartitionOf(clientID)] }

// Start takes a name and begins to beat; it returns when the first heartbeat is stored, or with ctx. Everything that was
// ever written must have been read. What it starts ends with life, and is waited for by Wait.
func (d *Driver) Start(ctx, life context.Context) error {
	d.ctx = life
	d.rebirth.Lock()
	defer d.rebirth.Unlock()
	return d.incarnate(ctx)
}

// Wait waits for what Start has started, once its life is over.
func (d *Driver) Wait() {
	d.ending.Lock()
	d.over = true
	d.ending.Unlock()
	d.work.Wait()
}

// goes starts a goroutine that ends by itself or with ctx. Once that is over, and is waited for, it starts none: a timer
// may still call.
func (d *Driver) goes(f func()) {
	d.ending.Lock()
	defer d.ending.Unlock()
	if !d.over {
		d.work.Go(f)
	}
}

// incarnate takes a new name. rebirth is held.
func (d *Driver) incarnate(ctx context.Context) error {
	inc := &incarnation{name: d.cfg.Name(), began: millis(), beating: make([]atomic.Bool, len(d.parts)), beaten: make(chan error, 1)}
	own, stop := context.WithCancel(d.ctx)
	inc.stop = stop
	for n := range shardCount {
		inc.txids = append(inc.txids, "sluice-"+inc.name+"-"+strconv.Itoa(n))
		sh, err := d.newShard(inc, n)
		if err != nil {
			stop()
			return err
		}
		inc.shards = append(inc.shards, sh)
	}
	for _, sh := range inc.shards {
		d.goes(func() { sh.run(own) }) // ends with own
	}
	d.pulse.begin(inc.name, d.cfg.DeadAfter, len(d.parts))
	d.recallInstances()
	if err := d.firstBeat(ctx, inc); err != nil {
		stop()
		return err
	}
	for _, p := range d.parts {
		p.lock()
		p.owner = fleet.NewOwner(inc.name)
		p.unlock()
	}
	d.me.Store(inc)
	d.goes(func() { d.runHeart(own, inc) }) // ends with own
	d.cfg.Log.Info().Str("incarnation", inc.name).Msg("sessions are shared with the other instances")
	// Who was held up after its first heartbeat may have a verdict, which was read as long as the name was not known here.
	if by, judged := d.verdict(inc); judged {
		d.judged(inc, by)
	}
	return nil
}

// verdict says who has declared an incarnation dead, if that was read.
func (d *Driver) verdict(inc *incarnation) (by string, dead bool) {
	for _, p := range d.parts {
		p.lock()
		i, _ := p.table.Instance(inc.name)
		p.unlock()
		if i.Dead {
			return i.By, true
		}
	}
	return "", false
}

// judged is called when a verdict on an incarnation of ours was read: the others act as if it were dead, so it has to
// be. Its devices come back to a new one.
func (d *Driver) judged(inc *incarnation, by string) {
	if inc.dead.Swap(true) {
		return
	}
	d.cfg.Log.Error().Str("incarnation", inc.name).Str("by", by).
		Msg("this instance was silent for too long and was declared dead; its devices are disconnected and it goes on under a new name")
	d.m.VerdictsOwn.Inc()
	d.goes(func() { // ends with d.ctx at the latest
		inc.stop()
		for _, p := range d.parts {
			p.bury(inc)
		}
		d.rebirth.Lock()
		defer d.rebirth.Unlock()
		for d.ctx.Err() == nil {
			err := d.incarnate(d.ctx)
			if err == nil {
				d.claimOwnership()
				return
			}
			d.cfg.Log.Warn().Err(err).Msg("cannot go on under a new name, trying again")
			pause(d.ctx, time.Second)
		}
	})
}

// claimOwnership makes the new incarnation the owner of what the group has given to this process.
func (d *Driver) claimOwnership() {
	for _, p := range d.parts {
		p.lock()
		if p.assigned && !d.me.Load().dead.Load() {
			p.own()
		}
		p.unlock()
	}
}

// Name is the name of this process now, "" if it has none yet.
func (d *Driver) Name() string {
	if inc := d.me.Load(); inc != nil {
		return inc.name
	}
	return ""
}

// Ready says why no device can be taken now.
func (d *Driver) Ready() error {
	inc := d.me.Load()
	switch {
	case inc == nil:
		return errors.New("the sessions are not read yet")
	case inc.dead.Load():
		return errors.New("this instance was declared dead and takes a new name")
	}
	return nil
}

// millis is the wall clock of records.
func millis() int64 { return time.Now().UnixMilli() }

// pause waits, for a while or until ctx ends.
func pause(ctx context.Context, wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// apart is a moment, another one for each call: of timers that are due at one time it would be chance which comes first.
func (d *Driver) apart() time.Duration { return time.Duration(d.moments.Add(1) % 1000) }

// readEnd waits until a part of the table has been read up to an end that is fetched now.
func (d *Driver) readEnd(ctx context.Context, p *part) error {
	end, err := p.end.Ask(ctx, d.goes, func() (int64, error) { return d.cfg.Table.End(d.ctx, d.cfg.Sessions, p.id) })
	if err != nil {
		return fmt.Errorf("cannot read the sessions to their end: %w", err)
	}
	return p.mark.Wait(ctx, end)
}

// readLedger waits until a part of the ledger has been read up to an end that is fetched now.
func (d *Driver) readLedger(ctx context.Context, l *ledgerPart) error {
	end, err := l.end.Ask(ctx, d.goes, func() (int64, error) { return d.cfg.Journal.End(d.ctx, d.cfg.Ledger, l.id) })
	if err != nil {
		return fmt.Errorf("cannot read the ledger to its end: %w", err)
	}
	return l.mark.Wait(ctx, end)
}

// HandleSession takes a record of the sessions topic, of a partition in the order of offsets, and SessionsRead says that
// everything below an offset was handed over. Records of partitions that were added later are ignored.
func (d *Driver) HandleSession(r *kafka.Fetched) {
	if r.Partition < d.Partitions() {
		d.parts[r.Partition].handle(r)
	}
}

// SessionsRead is told at HandleSession.
func (d *Driver) SessionsRead(partition int32, next int64) {
	if partition < d.Partitions() {
		d.parts[partition].progress(next)
	}
}

// HandleLedger is HandleSession for the ledger, whose records are those of committed transactions.
func (d *Driver) HandleLedger(r *kafka.Fetched) {
	if r.Partition < d.Partitions() {
		d.ledgers[r.Partition].handle(r)
	}
}

// LedgerRead is SessionsRead for the ledger.
func (d *Driver) LedgerRead(partition int32, next int64) {
	if partition < d.Partitions() {
		d.ledgers[partition].progress(next)
	}
}

// Produce writes a record into a partition of the sessions topic. done is called once it is known whether it is there;
// err is final.
func (d *Driver) Produce(partition int32, key, value []byte, done func(offset int64, err error)) {
	d.parts[partition].produce(key, value, done)
}

// ReadEnd waits until the partition of a client ID was read up to an end that is fetched now.
func (d *Driver) ReadEnd(ctx context.Context, clientID string) error {
	return d.readEnd(ctx, d.part(clientID))
}

// Errand does something that takes a while, and tries again until it succeeds or the life of the Driver ends.
func (d *Driver) Errand(f func(ctx context.Context) error) { d.errand(f) }
