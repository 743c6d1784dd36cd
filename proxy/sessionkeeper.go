package proxy

import (
	"context"
	"slices"
	"time"

	"sluice/fleet"
	"sluice/kafka"
	"sluice/mqtt"
)

// A keeper keeps the session of one connection. It is its mqtt.Keeper.
type keeper struct {
	s       *sessions
	p       *part
	h       *holder
	opening *mqtt.Opening
	will    *fleet.Will

	// Guarded by part.mu, and set before the connection is open.
	epoch    int64
	began    time.Time
	lasting  bool     // the session outlives this connection, or has outlived another one
	session  int64    // the epoch that the session began with
	received []uint16 // QoS 2 ids that the session had at its opening
	pending  []uint16 // those that the end has left without an outcome
	ids      idSet    // those of the ledger
	reading  bool     // the ledger is read back
	saving   bool     // a snapshot is on its way
	again    bool     // and there are changes that it does not have
	number   int64    // of the save under way
	version  uint64   // of its snapshot
	left     *departure
}

// A departure is a connection that has ended, until all that it had under way is decided.
type departure struct {
	*mqtt.Leaving
	late  bool // outcomes that are not known yet are not waited for any more
	timer *time.Timer
}

// releaseWait is how long the end of a connection waits for the outcomes of its messages with QoS 2. What is not known
// by then is left as pending, so that the device can go on elsewhere: one message may wait for its partition for long.
const releaseWait = takeoverWait / 4

// begin takes over the state that the session was opened with. part.mu is held.
func (k *keeper) begin(a fleet.Action) {
	k.epoch, k.began, k.lasting = a.Epoch, time.Now().UTC(), a.Present || k.opening.Expiry > 0
	k.session = a.State.Began
	if !a.Present {
		return
	}
	k.settle(nil, a.State.Pending)
	k.ids.stored = k.s.ledger(k.h.id).ids(k.h.id, a.State.Began)
	k.received = slices.Clone(k.ids.stored)
	if a.State.Received != nil {
		k.received = append(k.received, a.State.Received...)
		slices.Sort(k.received)
		k.received = slices.Compact(k.received)
	}
}

// settle passes on what is known now of the messages that other connections of the session have left without an outcome.
// part.mu is held.
func (k *keeper) settle(stored []uint16, pending []fleet.Pending) {
	var ids []uint16
	unsure := false
	for _, p := range pending {
		if ids = append(ids, p.ID); p.ID == 0 {
			unsure = true
		}
	}
	k.p.later(k.opening.Session.Settle(stored, ids, unsure))
}

// Changed writes the session down.
func (k *keeper) Changed() {
	k.p.lock()
	defer k.p.unlock()
	k.save()
}

// Progressed writes the session down too; nobody waits for it.
func (k *keeper) Progressed() { k.Changed() }

// checkpoint writes down what was settled, some of the sessions each second. part.mu is held.
func (k *keeper) checkpoint(at time.Time) {
	if k.lasting && at.Unix()%checkpointSeconds == k.epoch%checkpointSeconds && k.opening.Session.HasProgressed() {
		k.save()
	}
}

// checkpointSeconds is how often what was settled is written down, if nothing else was.
const checkpointSeconds = 5

// save writes a snapshot of the session, unless one is on its way; then the next follows it. part.mu is held.
func (k *keeper) save() {
	if k.h.keeper != k {
		return
	}
	if k.saving {
		k.again = true
		return
	}
	snap := k.opening.Session.Snapshot(k.s.streams.ids(), k.s.streams.next)
	k.saving, k.again, k.version = true, false, snap.Version
	var acts []fleet.Action
	k.number, acts = k.h.m.Save(k.state(&snap), k.p.view(k.h.id))
	k.h.do(acts)
}

// saved says that a save and all before it are stored. part.mu is held.
func (k *keeper) saved(n int64) {
	if k == nil || n < k.number {
		return
	}
	k.saving = false
	version := k.version
	k.p.later(func() { k.opening.Session.Saved(version) })
	if k.again {
		k.save()
	}
}

// state makes the record of a snapshot.
func (k *keeper) state(snap *mqtt.Snapshot) *fleet.Session {
	s := stateOf(snap, k.s.streams)
	s.Expiry, s.Will = k.opening.Expiry, k.will
	return s
}

// Lagging replays what waits for the session.
func (k *keeper) Lagging() {
	if k.s.replayer != nil {
		k.s.replayer.want(k.opening.Session)
	}
}

// Streams says how to make the snapshot of the end.
func (k *keeper) Streams() ([]int32, func(int32) (int64, bool)) {
	return k.s.streams.ids(), k.s.streams.next
}

// Left takes the end of the connection. What is still under way for it is waited for: messages with QoS 2 whose
// outcome decides whether their packet identifiers are part of the session, for a while, and transactions.
func (k *keeper) Left(l *mqtt.Leaving) {
	k.s.leaving.Add(1)
	d := &departure{Leaving: l}
	k.p.lock()
	defer k.p.unlock()
	k.h.keeper, k.h.departing, k.left = nil, k, d
	d.timer = time.AfterFunc(releaseWait, func() {
		k.p.lock()
		defer k.p.unlock()
		d.late = true
		k.depart()
	})
	time.AfterFunc(takeoverWait, k.withdraw)
	k.depart()
}

// withdraw gives up what can't be written though the connection is over for a while: whoever comes next must not wait for
// a Kafka topic that is in trouble. The device sends it again.
func (k *keeper) withdraw() {
	k.p.lock()
	defer k.p.unlock()
	broken := k.ids.broken
	if k.ids.open > 0 || broken {
		k.h.inc.shard(k.h.id).tx.Withdraw(func(g *kafka.TxGroup) bool {
			in, ok := g.Owner.(*ingest)
			return ok && in.k == k && (in.qos == 2 || broken)
		})
	}
	if k.left != nil {
		time.AfterFunc(takeoverWait, k.withdraw) // some may have been in a transaction
	}
}

// quit leaves a session that the device was not told of, as it was found.
func (k *keeper) quit() {
	k.p.lock()
	defer k.p.unlock()
	h, at := k.h, millis()
	h.keeper = nil
	h.leave(nil, at)
	k.p.later(func() { k.s.presence.disconnected(k, reasonNotResumed, at) })
}

// outcome takes that of a message with QoS 2, after the end of the connection.
func (k *keeper) outcome(id uint16, stored bool) {
	k.p.lock()
	defer k.p.unlock()
	k.depart()
	if i := slices.Index(k.pending, id); i >= 0 {
		k.pending = slices.Delete(k.pending, i, i+1)
		k.h.do(k.h.m.Outcome(k.session, id, stored, k.p.view(k.h.id)))
	}
}

// depart gives the end of the connection to the machine, when nothing is under way. part.mu is held.
func (k *keeper) depart() {
	d := k.left
	if d == nil || k.ids.open > 0 || k.reading {
		return
	}
	received, pending := d.Session.Received(k.outcome)
	if len(pending) > 0 && !d.late {
		return
	}
	if k.ids.wrote {
		// Kafka acknowledges a commit before those who read see it. Who comes after our release reads the ledger to the
		// end that it sees, and must find there what we told the device.
		k.ids.wrote, k.reading = false, true
		k.s.errand(k.readBack)
		return
	}
	d.timer.Stop()
	k.left, k.pending = nil, pending
	h := k.h
	h.departing = nil
	at := millis()
	final := k.state(&d.State)
	final.Expiry, final.OfflineSince = d.Expiry, at
	final.Received = slices.DeleteFunc(received, k.ids.has)
	for _, id := range pending {
		final.Pending = append(final.Pending, fleet.Pending{ID: id, Inc: h.inc.name})
	}
	if d.Tidy {
		final.Will = nil
	} else if k.will != nil {
		w := *k.will
		w.Due = at + 1000*int64(min(w.Delay, d.Expiry))
		final.Will = &w
	}
	h.leave(final, at)
	k.p.later(func() {
		k.s.presence.disconnected(k, d.Reason, at)
		k.s.leaving.Add(-1)
	})
	if d.Expiry == 0 && k.lasting {
		k.p.later(func() { k.s.endedState(h.id, final) })
	}
}

// readBack waits until the ledger shows what this connection wrote last.
func (k *keeper) readBack(ctx context.Context) error {
	k.p.lock()
	ids := slices.Clone(k.ids.stored)
	k.p.unlock()
	l, inc, began := k.s.ledger(k.h.id), k.h.inc, time.Now()
	for !inc.dead.Load() && !l.shows(k.h.id, inc.name, k.epoch, ids) {
		if time.Since(began) > takeoverWait {
			// Whoever has the device now may have removed it before we looked. A new epoch decides everything too.
			if err := k.s.fencer.Fence(ctx, inc.txid(inc.shard(k.h.id).n)); err != nil {
				return err
			}
			break
		}
		if pause(ctx, readBackPause); ctx.Err() != nil {
			return ctx.Err()
		}
	}
	k.p.lock()
	defer k.p.unlock()
	k.reading = false
	k.depart()
	return nil
}

// readBackPause is between looks at the ledger.
const readBackPause = 2 * time.Millisecond

// Released frees the packet identifier of a message that a transaction has stored.
func (k *keeper) Released(id uint16, done func()) bool {
	k.p.lock()
	defer k.p.unlock()
	if !k.ids.has(id) {
		return false
	}
	k.write(&ingest{k: k, qos: 2, id: id, released: done})
	return true
}

// ingest stores a message, and with QoS 2 its packet identifier with it. owner is told what became of it.
func (k *keeper) ingest(qos byte, id uint16, records []*kafka.TxRecord, owner func(err error)) {
	k.p.lock()
	defer k.p.unlock()
	k.write(&ingest{k: k, qos: qos, id: id, add: true, records: records, told: owner})
}

// write queues a change of the packet identifiers. part.mu is held.
func (k *keeper) write(in *ingest) {
	in.group.Owner, in.group.Prepare, in.group.Order = in, in.prepare, k
	in.group.Records = in.records
	if in.qos < 2 {
		k.h.inc.shard(k.h.id).enqueue(&in.group, &in.turn)
		return
	}
	k.ids.open++
	k.ids.changes = append(k.ids.changes, in)
	in.entry = kafka.TxRecord{Topic: k.s.cfg.Sessions.Ledger, Key: fleet.LedgerIDsKey(k.h.id, k.h.inc.name), PartitionKey: []byte(k.h.id), Among: k.s.spread(), Value: noBytes}
	in.group.Records = append(in.records, &in.entry)
	k.h.inc.shard(k.h.id).enqueue(&in.group, &in.turn)
}
