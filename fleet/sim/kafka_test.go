package sim

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"sluice/fleet"
	"sluice/kafka"
)

// The topics. Of the sessions topic and the ledger there are as many partitions as the world has; of the others one.
const (
	sessionsTopic = "sessions"
	ledgerTopic   = "ledger"
	upTopic       = "up"    // what the device publishes
	willsTopic    = "wills" // where its Wills go
)

// A spot is a partition, which may be stalled: nothing is stored there, and nobody is told where it ends.
type spot struct {
	topic     string
	partition int32
}

// A sent is a record on its way to the sessions topic. Those of one process in one partition land in their order.
type sent struct {
	rec    *kafka.Record
	landed bool
	lost   bool // the process will not hear that it has landed
}

// producer is a process's way to the sessions topic.
type producer struct{ n *node }

// Produce has a record on its way.
func (p producer) Produce(r *kafka.Record) {
	w := p.n.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if !p.n.up {
		return
	}
	p.n.sent[r.To] = append(p.n.sent[r.To], w.rules.send(p.n, r))
}

// enabledLanding are the steps of records on their way from n.
func (n *node) enabledLanding(all []step) []step {
	for p := range n.w.partitions {
		queue := n.sent[p]
		if len(queue) == 0 {
			continue
		}
		next := slices.IndexFunc(queue, func(s *sent) bool { return !s.landed })
		if next >= 0 && !n.w.stalled[spot{sessionsTopic, p}] {
			all = append(all, step{n.name + " land", func() { n.land(p, queue[next]) }})
		}
		if next >= 0 && n.alive() && !n.w.quiet && n.w.chance(40) {
			all = append(all, step{n.name + " refused", func() { n.answer(p, queue[next], kafka.ErrUncertain) }})
		}
		if queue[0].landed && n.alive() {
			all = append(all, step{n.name + " acknowledged", func() { n.acknowledge(p, queue[0]) }})
		}
	}
	return all
}

// land appends a record to its partition.
func (n *node) land(p int32, s *sent) {
	w := n.w
	offset := int64(len(w.log[p]))
	s.landed, s.rec.Offset, s.rec.Partition = true, offset, p
	s.lost = !w.quiet && w.chance(40)
	rec := fleet.Record{Key: slices.Clone(s.rec.Key), Value: slices.Clone(s.rec.Value), Offset: offset, Time: time.Now().UnixMilli()}
	if w.rules.cleanAtOnce {
		rec.Value = cleanAtOnce(rec.Value, offset+1)
	}
	w.log[p] = append(w.log[p], rec)
	w.tracef("%s: %q lands at %d/%d: %s", n.name, rec.Key, p, offset, rec.Value)
	_, _, err := w.tables[p].Apply(rec)
	must(err)
	_, id, _, err := fleet.ParseKey(rec.Key)
	must(err)
	for _, c := range w.clients {
		if id == "" || id == c.id {
			c.ghost.landed(w, n, rec)
		}
	}
}

// acknowledge tells a process that its record has landed, or that this is not known.
func (n *node) acknowledge(p int32, s *sent) {
	var err error
	if s.lost {
		err = kafka.ErrUncertain
	}
	if n.w.rules.noRead && err == nil && isClaim(s.rec) {
		n.d.SessionsRead(p, s.rec.Offset+1)
	}
	n.answer(p, s, err)
}

func (n *node) answer(p int32, s *sent, err error) {
	n.w.mu.Lock()
	n.sent[p] = slices.DeleteFunc(n.sent[p], func(o *sent) bool { return o == s })
	n.w.mu.Unlock()
	s.rec.Owner.RecordDone(s.rec, err)
}

// read hands some records of a partition to the process.
func (n *node) read(p int32, records int) {
	for _, rec := range n.w.log[p][n.pos[p] : n.pos[p]+records] {
		n.pos[p]++
		n.d.HandleSession(fetched(sessionsTopic, p, rec))
	}
	n.d.SessionsRead(p, int64(n.pos[p]))
}

func (n *node) readLedger(p int32, records int) {
	for _, rec := range n.w.ledger[p][n.lpos[p] : n.lpos[p]+records] {
		n.lpos[p]++
		n.d.HandleLedger(fetched(ledgerTopic, p, rec))
	}
	n.d.LedgerRead(p, int64(n.lpos[p]))
}

func fetched(topic string, p int32, rec fleet.Record) *kafka.Fetched {
	return &kafka.Fetched{Topic: topic, Partition: p, Offset: rec.Offset, Key: rec.Key, Value: rec.Value, Timestamp: time.UnixMilli(rec.Time)}
}

// An ask is a call that waits for Kafka's answer.
type ask struct {
	name string
	at   spot        // it waits while that is stalled
	busy func() bool // and while that is so; nil: never
	run  func() (int64, error)
	done chan reply
}

type reply struct {
	n   int64
	err error
}

// ask waits until the world has it answered, or ctx ends.
func (n *node) ask(ctx context.Context, name string, at spot, busy func() bool, run func() (int64, error)) (int64, error) {
	a := &ask{name, at, busy, run, make(chan reply, 1)}
	n.w.mu.Lock()
	n.asks = append(n.asks, a)
	n.w.mu.Unlock()
	select {
	case r := <-a.done:
		return r.n, r.err
	case <-ctx.Done():
		n.w.mu.Lock()
		n.asks = slices.DeleteFunc(n.asks, func(o *ask) bool { return o == a })
		n.w.mu.Unlock()
		return 0, ctx.Err()
	}
}

func (n *node) enabledAsks(all []step) []step {
	for _, a := range n.asks {
		if n.w.stalled[a.at] || a.busy != nil && a.busy() {
			continue
		}
		all = append(all, step{n.name + " " + a.name, func() {
			n.w.mu.Lock()
			n.asks = slices.DeleteFunc(n.asks, func(o *ask) bool { return o == a })
			n.w.mu.Unlock()
			var r reply
			if !n.w.quiet && n.w.chance(30) {
				r.err = errors.New("Kafka does not answer")
			} else {
				r.n, r.err = a.run()
			}
			a.done <- r
		}})
	}
	return all
}

// End says where a partition ends.
func (n *node) End(ctx context.Context, topic string, p int32) (int64, error) {
	return n.ask(ctx, "end of "+topic, spot{topic, p}, nil, func() (int64, error) {
		switch {
		case topic == sessionsTopic:
			return int64(len(n.w.log[p])), nil
		case topic == ledgerTopic && n.w.rules.stable:
			return int64(n.w.readable(p)), nil
		case topic == ledgerTopic && !n.w.rules.noLedger:
			return int64(len(n.w.ledger[p])), nil
		}
		return 0, nil
	})
}

// Fence takes a transactional id away.
func (n *node) Fence(ctx context.Context, id string) error {
	_, err := n.ask(ctx, "fence "+id, spot{}, nil, func() (int64, error) {
		if !n.w.rules.noFence {
			n.w.fence(id)
		}
		return 0, nil
	})
	return err
}

// fence takes a new producer epoch, after which no transaction of an older one can commit, and those that have are marked.
func (w *world) fence(id string) int {
	w.epochs[id]++
	w.tracef("%s has the epoch %d", id, w.epochs[id])
	for w.markNext(id) {
	}
	return w.epochs[id]
}

// A decided transaction is committed, and not marked so in the ledger yet: neither its records there nor those behind them
// can be read.
type decided struct {
	id    string
	first map[int32]int // of its records, by partition
}

// decide commits a transaction.
func (w *world) decide(id string, n *node, groups []*kafka.TxGroup) {
	d := &decided{id: id, first: make(map[int32]int)}
	w.tracef("%s: a transaction of %s is committed", n.name, id)
	for _, g := range groups {
		for _, r := range g.Records {
			switch r.Topic {
			case ledgerTopic:
				w.append(d, r)
			case willsTopic:
				w.client(string(r.PartitionKey)).ghost.published(w, string(r.Key))
			case upTopic:
				w.client(string(r.PartitionKey)).dev.pub.recorded(w, r)
			}
		}
	}
	w.decided = append(w.decided, d)
}

// append adds a record of a transaction to the ledger.
func (w *world) append(d *decided, r *kafka.TxRecord) {
	p := kafka.PartitionOf(r.PartitionKey, w.partitions)
	rec := fleet.Record{Key: slices.Clone(r.Key), Value: slices.Clone(r.Value), Offset: int64(len(w.ledger[p])), Time: time.Now().UnixMilli()}
	if len(r.Value) == 0 {
		rec.Value = nil
	}
	if _, known := d.first[p]; !known {
		d.first[p] = len(w.ledger[p])
	}
	w.ledger[p] = append(w.ledger[p], rec)
	w.tracef("ledger: %q %s", rec.Key, rec.Value)
}

// markNext has the oldest transaction of an id marked; false: there is none.
func (w *world) markNext(id string) bool {
	i := slices.IndexFunc(w.decided, func(d *decided) bool { return d.id == id })
	if i < 0 {
		return false
	}
	w.decided = slices.Delete(w.decided, i, i+1)
	return true
}

// readable is how many records of the ledger can be read: those before the first of a transaction that is open, or not marked.
func (w *world) readable(p int32) int {
	end := len(w.ledger[p])
	for _, d := range w.decided {
		if first, known := d.first[p]; known {
			end = min(end, first)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.nodes {
		for _, t := range n.transactors {
			if t.flight != nil && !t.committed && w.epochs[t.id] == t.epoch && writes(t.flight, p, w.partitions) {
				end = min(end, t.since[p])
			}
		}
	}
	return end
}

// writes says whether groups have a record in a partition of the ledger.
func writes(groups []*kafka.TxGroup, p, partitions int32) bool {
	return slices.ContainsFunc(groups, func(g *kafka.TxGroup) bool {
		return slices.ContainsFunc(g.Records, func(r *kafka.TxRecord) bool {
			return r.Topic == ledgerTopic && kafka.PartitionOf(r.PartitionKey, partitions) == p
		})
	})
}

func isClaim(r *kafka.Record) bool {
	return r.Value != nil && !bytes.HasPrefix(r.Key, []byte("!")) && !bytes.Contains(r.Value, []byte(`"claim":`))
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
