package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"sluice/fleet/driver"
	"sluice/kafka"
)

// A transactor does what kafka.Transactor says it does, when the world says so.
type transactor struct {
	n      *node
	id     string
	fenced func(error)
	epoch  int
	refuse error
	queue  []*kafka.TxGroup
	ended  bool

	flight    []*kafka.TxGroup // in the transaction under way
	since     []int            // where the ledger ended, by partition, when it began
	committed bool             // which is committed, and that is not told yet
	late      bool             // the answer is lost, and it may still be committed
	open      []*kafka.TxGroup // of the transaction whose answer is lost
	stored    bool             // it is committed
	beaten    bool             // it can't be committed any more, and that is not told yet
}

func (n *node) transactor(id string, fenced func(error)) (driver.Transactor, error) {
	t := &transactor{n: n, id: id, fenced: fenced, refuse: kafka.ErrFenced}
	n.w.mu.Lock()
	n.transactors = append(n.transactors, t)
	n.w.mu.Unlock()
	return t, nil
}

// Run ends with ctx, and what is left with it.
func (t *transactor) Run(ctx context.Context) error {
	<-ctx.Done()
	t.n.w.mu.Lock()
	if !t.n.up { // it has crashed: nobody is told, and what it has asked for may still be done
		t.queue, t.refuse = nil, kafka.ErrClosed
		t.n.w.mu.Unlock()
		return nil
	}
	left, flight := t.queue, t.flight
	if t.late {
		flight = nil // what it has asked for may still be done
	} else {
		t.flight = nil
	}
	open, committed := t.open, t.committed
	t.queue, t.open, t.ended, t.refuse = nil, nil, true, kafka.ErrClosed
	t.n.w.mu.Unlock()
	finish(open, kafka.ErrTransactionUnknown)
	if committed {
		finish(flight, kafka.ErrTransactionUnknown)
	} else {
		finish(flight, kafka.ErrClosed)
	}
	finish(left, kafka.ErrClosed)
	return nil
}

func finish(groups []*kafka.TxGroup, err error) {
	for _, g := range groups {
		g.Owner.GroupDone(g, err)
	}
}

// Renew takes a new epoch, and asks the log how the transaction has ended whose answer was lost.
func (t *transactor) Renew(ctx context.Context) error {
	_, err := t.n.ask(ctx, "renew "+t.id, spot{}, func() bool { return t.flight != nil && !t.late }, func() (int64, error) {
		t.epoch = t.n.w.fence(t.id)
		open, err := t.open, kafka.ErrFenced
		switch {
		case t.n.w.trouble(10):
			err = kafka.ErrTransactionUnknown // its records are gone
		case t.stored:
			err = nil
		}
		t.flight, t.committed, t.late, t.beaten, t.open, t.stored = nil, false, false, false, nil, false
		finish(open, err)
		t.n.w.mu.Lock()
		t.refuse = nil
		t.n.w.mu.Unlock()
		return 0, nil
	})
	return err
}

// TryWrite takes a group, or says why not.
func (t *transactor) TryWrite(g *kafka.TxGroup) error {
	t.n.w.mu.Lock()
	defer t.n.w.mu.Unlock()
	if t.refuse == nil {
		t.queue = append(t.queue, g)
	}
	return t.refuse
}

// Write takes a group.
func (t *transactor) Write(g *kafka.TxGroup) {
	if refuse := t.TryWrite(g); refuse != nil {
		go g.Owner.GroupDone(g, refuse) // ends with the call
	}
}

// Withdraw ends groups that wait.
func (t *transactor) Withdraw(match func(*kafka.TxGroup) bool) {
	t.n.w.mu.Lock()
	defer t.n.w.mu.Unlock()
	var gone []*kafka.TxGroup
	t.queue = slices.DeleteFunc(t.queue, func(g *kafka.TxGroup) bool {
		if match(g) {
			gone = append(gone, g)
			return true
		}
		return false
	})
	if len(gone) > 0 {
		go finish(gone, kafka.ErrAborted) // ends with the last call
	}
}

func (t *transactor) enabled(all []step) []step {
	w, n := t.n.w, t.n
	name := n.name + " " + t.id
	switch {
	case t.late && w.held(w.slow):
	case t.late:
		all = append(all, step{name + " commits late", func() {
			t.late = false
			if w.epochs[t.id] == t.epoch {
				w.decide(t.id, n, t.flight)
				t.stored = true
			}
			t.flight = nil
		}})
	case t.ended:
	case (t.committed || t.beaten) && !n.alive():
	case t.beaten:
		all = append(all, step{name + " hears that it is fenced", func() { t.lose(fmt.Errorf("%w: by another", kafka.ErrFenced)) }})
	case t.committed:
		all = append(all, step{name + " hears", func() { t.answer(nil) }})
		if w.trouble(60) {
			all = append(all, step{name + " hears nothing", func() { t.stored = true; t.lose(kafka.ErrTransactionUnknown) }})
		}
	case t.flight != nil && w.held(w.slow):
	case t.flight != nil:
		all = append(all, step{name + " commits", t.commit})
		if n.alive() && w.trouble(60) {
			all = append(all, step{name + " is aborted", t.abort}, step{name + " does not know", t.doubt})
		}
	case n.alive() && len(t.queue) > 0 && t.refuse == nil && len(t.ready()) > 0 &&
		!slices.ContainsFunc(w.decided, func(d *decided) bool { return d.id == t.id }):
		all = append(all, step{name + " begins", t.begin})
	}
	return all
}

// ready are the groups that can be written now.
func (t *transactor) ready() (ready []*kafka.TxGroup) {
	held := map[any]bool{}
	for _, g := range t.queue {
		stuck := g.Order != nil && held[g.Order] || slices.ContainsFunc(g.Records, func(r *kafka.TxRecord) bool {
			at := spot{topic: r.Topic}
			if r.Topic == ledgerTopic {
				at.partition = kafka.PartitionOf(r.PartitionKey, t.n.w.partitions)
			}
			return t.n.w.stalled[at]
		})
		if !stuck {
			ready = append(ready, g)
		} else if g.Order != nil {
			held[g.Order] = true
		}
	}
	return ready
}

// begin begins a transaction.
func (t *transactor) begin() {
	ready := t.ready()
	t.n.w.mu.Lock()
	t.queue = slices.DeleteFunc(t.queue, func(g *kafka.TxGroup) bool { return slices.Contains(ready, g) })
	t.n.w.mu.Unlock()
	var faults []error
	for _, g := range ready {
		var err error
		if g.Prepare != nil {
			err = g.Prepare()
		}
		faults = append(faults, err)
	}
	var flight []*kafka.TxGroup
	for i, g := range ready {
		if faults[i] == nil {
			flight = append(flight, g)
		} else {
			g.Owner.GroupDone(g, faults[i])
		}
	}
	t.flight, t.since = flight, nil
	for _, records := range t.n.w.ledger {
		t.since = append(t.since, len(records))
	}
}

// commit decides the transaction, unless somebody has taken the id.
func (t *transactor) commit() {
	w := t.n.w
	if w.epochs[t.id] != t.epoch {
		w.tracef("%s: the transaction of %s is fenced", t.n.name, t.id)
		t.beaten = true
		return
	}
	w.decide(t.id, t.n, t.flight)
	t.committed = true
}

// answer tells what became of the transaction.
func (t *transactor) answer(err error) {
	flight := t.flight
	t.flight, t.committed = nil, false
	finish(flight, err)
}

// doubt loses the right, and the transaction may still be committed.
func (t *transactor) doubt() {
	asked := &kafka.TxGroup{}
	for _, g := range t.flight {
		for _, r := range g.Records {
			own := *r
			asked.Records = append(asked.Records, &own)
		}
	}
	t.lose(kafka.ErrTransactionUnknown)
	t.flight, t.late = []*kafka.TxGroup{asked}, true
}

// abort has the transaction written again.
func (t *transactor) abort() {
	t.n.w.mu.Lock()
	t.queue = append(t.flight, t.queue...)
	t.n.w.mu.Unlock()
	t.flight = nil
}

// lose has all groups fail until Renew, and those wait for it whose outcome is unknown.
func (t *transactor) lose(err error) {
	w := t.n.w
	w.mu.Lock()
	left, flight := t.queue, t.flight
	t.queue, t.flight, t.refuse, t.committed, t.beaten = nil, nil, kafka.ErrFenced, false, false
	if errors.Is(err, kafka.ErrTransactionUnknown) {
		t.open, flight = flight, nil
	}
	w.mu.Unlock()
	w.tracef("%s: %s is lost: %v", t.n.name, t.id, err)
	t.fenced(err)
	finish(left, kafka.ErrFenced)
	finish(flight, err)
}
