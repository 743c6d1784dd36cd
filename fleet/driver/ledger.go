package driver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"sluice/fleet"
	"sluice/kafka"
)

// A ledgerPart is one partition of the ledger as far as it was read.
type ledgerPart struct {
	d    *Driver
	id   int32
	mark Watermark
	end  Joined[int64]

	mu    sync.Mutex
	table fleet.Ledger
}

func (l *ledgerPart) handle(r *kafka.Fetched) {
	l.mu.Lock()
	_, err := l.table.Apply(fleet.Record{Key: r.Key, Value: r.Value, Offset: r.Offset, Time: r.Timestamp.UnixMilli()})
	l.mu.Unlock()
	switch {
	case errors.Is(err, fleet.ErrNewerVersion):
		l.d.host.Fail(fmt.Errorf("cannot read the ledger: %w; a newer release of Sluice has written it", err))
	case err != nil:
		l.d.m.Malformed.Inc()
		l.d.lines.Error().Err(err).Int32("partition", l.id).Int64("offset", r.Offset).Msg("left out a record of the ledger")
	}
	l.mark.Reach(r.Offset + 1)
}

func (l *ledgerPart) progress(next int64) {
	l.mu.Lock()
	l.table.Advance(next)
	l.mu.Unlock()
	l.mark.Reach(next)
}

// ids gives the packet identifiers that were received from a client in a session that began with an epoch.
func (l *ledgerPart) ids(client string, began int64) []uint16 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.table.IDs(client, began)
}

// willDone says whether a will was published.
func (l *ledgerPart) willDone(client string, epoch int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.table.WillDone(client, epoch)
}

// stale gives the keys of a client that say nothing any more.
func (l *ledgerPart) stale(client string, began, lowest int64) [][]byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.table.Stale(client, began, lowest)
}

// An idSet is the packet identifiers of a connection in the ledger: those that are stored, and the changes that are on
// their way, in order. Guarded by part.mu.
type idSet struct {
	stored  []uint16 // ascending
	changes []*ingest
	open    int32 // changes under way
}

// all gives those that are stored.
func (s *idSet) all() []uint16 {
	if s == nil {
		return nil
	}
	return slices.Clone(s.stored)
}

// underWay says that it is not known of a change yet whether it is stored.
func (s *idSet) underWay() bool { return s != nil && s.open > 0 }

// has says whether an identifier is stored.
func (s *idSet) has(id uint16) bool {
	if s == nil {
		return false
	}
	_, found := slices.BinarySearch(s.stored, id)
	return found
}

// apply gives ids with a change made.
func apply(ids []uint16, in *ingest) []uint16 {
	at, found := slices.BinarySearch(ids, in.id)
	switch {
	case in.add && !found:
		return slices.Insert(ids, at, in.id)
	case !in.add && found:
		return slices.Delete(ids, at, at+1)
	}
	return ids
}

// An ingest is a change of a connection's packet identifiers, with the message it goes with; or a message with QoS 0 or 1
// alone, which changes none.
type ingest struct {
	c        *Conn
	qos      byte
	id       uint16
	add      bool
	records  []*kafka.TxRecord
	entry    kafka.TxRecord
	group    kafka.TxGroup
	turn     uint64          // its place among the groups of the shard
	told     func(err error) // of a message
	released func()          // of a PUBREL
}

// prepare writes down the whole set as it is with this change. It is called for each transaction that the change is
// in, when it is known of all before it whether they are stored, or are in the same transaction.
func (in *ingest) prepare() error {
	c := in.c
	c.p.lock()
	defer c.p.unlock()
	if in.qos == 0 {
		return nil // nobody sends it again, whatever has become of the connection
	}
	if c.broken {
		return kafka.ErrAborted // the device sends it again, after the one before it that failed
	}
	if in.qos < 2 {
		return nil
	}
	ids := slices.Clone(c.ids.stored)
	for _, change := range c.ids.changes {
		ids = apply(ids, change)
		if change == in {
			break
		}
	}
	value, err := fleet.LedgerIDs{Epoch: c.epoch, IDs: ids}.Encode()
	if err != nil { // numbers can be encoded
		return err
	}
	in.entry.Value = value
	return nil
}

// GroupDone takes the outcome. A change that is not stored leaves the set, so that those behind it don't have it.
func (in *ingest) GroupDone(_ *kafka.TxGroup, err error) {
	c := in.c
	switch sh := c.h.inc.shard(c.h.id); {
	case errors.Is(err, kafka.ErrTransactionUnknown):
		sh.afterRenewal(func() { in.finish(err) }) // decided then, and the connection is over
	case errors.Is(err, kafka.ErrFenced):
		// Nothing of it is stored. The right may be lost because of another device of the shard, or because Kafka forgets
		// who has written nothing for days; if it is because of this one, that is known once the right is ours again.
		sh.again(&in.group, in.turn)
	default:
		in.finish(err)
	}
}

func (in *ingest) finish(err error) {
	c := in.c
	c.p.lock()
	if err == nil && in.qos == 2 {
		c.ids.stored = apply(c.ids.stored, in)
	}
	// One with QoS 0 may be lost, and the connection lives on.
	c.broken = c.broken || in.qos > 0 && err != nil && !kafka.Final(err)
	if in.qos == 2 {
		c.ids.changes = slices.DeleteFunc(c.ids.changes, func(other *ingest) bool { return other == in })
		c.ids.open--
	}
	lost := c.lost
	c.p.unlock()
	if err != nil && lost != 0 {
		c.dev.Close(lost) // or it is closed because of this message
	}
	switch {
	case in.told != nil:
		in.told(err)
	case err == nil:
		in.released()
	default: // no PUBCOMP: the device sends PUBREL again, to whoever knows
		c.dev.Close(NotReleased)
	}
	c.p.lock()
	c.depart()
	c.p.unlock()
}

// A shard writes the transactions of one transactional id.
type shard struct {
	d      *Driver
	inc    *incarnation
	tx     Transactor
	writer fleet.Writer
	lost   chan struct{} // signalled when the right was lost

	mu      sync.Mutex // guards what follows
	turn    int        // how often the right was taken
	held    bool       // it is ours, and what was written before we took it was read
	given   uint64     // places given out
	waiting []txWaiter // for the right
	ended   bool       // nobody takes it any more
	after   []func()   // to be called when the right was taken again
}

// A txWaiter is a group that waits for the right to be taken.
type txWaiter struct {
	turn  uint64
	group *kafka.TxGroup
}

func (d *Driver) newShard(inc *incarnation, n int) (*shard, error) {
	sh := &shard{d: d, inc: inc, lost: make(chan struct{}, 1), writer: fleet.Writer{Inc: inc.name, TxID: inc.txids[n]}}
	tx, err := d.cfg.Transactor(sh.writer.TxID, func(error) {
		d.m.TransactionsLost.Inc()
		sh.drop()
		select {
		case sh.lost <- struct{}{}:
		default:
		}
	})
	sh.tx = tx
	return sh, err
}

// run writes until ctx ends. Whenever the right is lost it takes it again: for who is alive to it is only a matter of
// a new producer epoch, and what was under way is decided then.
func (sh *shard) run(ctx context.Context) {
	var running sync.WaitGroup
	running.Go(func() { _ = sh.tx.Run(ctx) }) // gives nil
	for sh.renew(ctx) {
		select {
		case <-ctx.Done():
		case <-sh.lost:
		}
	}
	running.Wait() // or what it ends last would wait for ever
	sh.mu.Lock()
	sh.ended = true
	sh.mu.Unlock()
	sh.renewed() // nothing will be decided here any more, and nobody shall wait
}

// renew takes the right; false: ctx has ended.
func (sh *shard) renew(ctx context.Context) bool {
	for ctx.Err() == nil {
		sh.drop()
		err := sh.take(ctx)
		if err == nil {
			sh.renewed()
			return true
		}
		if errors.Is(err, errJudged) {
			<-ctx.Done()
		}
		if ctx.Err() == nil {
			sh.d.lines.Warn().Err(err).Msg("cannot write transactions yet")
			pause(ctx, 500*time.Millisecond+sh.d.apart())
		}
	}
	return false
}

// take takes the right, and reads what was written until then: whoever had taken it from us, perhaps before we could take it
// for the first time, has a device of ours, and until its claim is read what that device sent here, perhaps long ago, must
// not be written under the new epoch. Or it has judged us, and then the wills of our devices are its own to publish.
func (sh *shard) take(ctx context.Context) error {
	if err := sh.tx.Renew(ctx); err != nil {
		return err
	}
	if err := sh.d.catchUp(ctx); err != nil {
		return err
	}
	if _, judged := sh.d.verdict(sh.inc); judged {
		return errJudged
	}
	return nil
}

var errJudged = errors.New("this instance was declared dead")

// catchUp reads everything to ends that are fetched now.
func (d *Driver) catchUp(ctx context.Context) error {
	for i, p := range d.parts {
		if err := d.readEnd(ctx, p); err != nil {
			return err
		}
		if err := d.readLedger(ctx, d.ledgers[i]); err != nil {
			return err
		}
	}
	return nil
}

// right says whether transactions are written now, and how often the right was taken until then: who has read something
// to decide by it what to write must still have the same right when it is written.
func (sh *shard) right() (turn int, held bool) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.turn, sh.held
}

func (sh *shard) drop() {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.held = false
}

func (sh *shard) renewed() {
	sh.mu.Lock()
	sh.turn++
	sh.held = true
	after := sh.after
	sh.after = nil
	slices.SortFunc(sh.waiting, func(a, b txWaiter) int { return cmp.Compare(a.turn, b.turn) })
	for len(sh.waiting) > 0 && sh.pass(sh.waiting[0].group) {
		sh.waiting = sh.waiting[1:]
	}
	sh.mu.Unlock()
	for _, f := range after {
		f()
	}
}

// afterRenewal has f called when the transactions that were lost are decided.
func (sh *shard) afterRenewal(f func()) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.after = append(sh.after, f)
}

// pass gives a group to the transactor. false: the right is lost, which we are about to be told. mu is held.
func (sh *shard) pass(g *kafka.TxGroup) bool {
	if sh.ended {
		sh.tx.Write(g) // it ends; nobody is called meanwhile
		return true
	}
	return sh.tx.TryWrite(g) == nil
}

// write writes a group, once the right is ours.
func (sh *shard) write(g *kafka.TxGroup) { sh.enqueue(g, new(uint64)) }

// enqueue is write that notes the group's place among all, for again.
func (sh *shard) enqueue(g *kafka.TxGroup, turn *uint64) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.given++
	*turn = sh.given
	if !sh.held && !sh.ended || !sh.pass(g) {
		sh.waiting = append(sh.waiting, txWaiter{*turn, g})
	}
}

// again writes a group that was not stored because the right was lost, in its old place.
func (sh *shard) again(g *kafka.TxGroup, turn uint64) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if !sh.ended || !sh.pass(g) {
		sh.waiting = append(sh.waiting, txWaiter{turn, g})
	}
}
