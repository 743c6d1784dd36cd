package driver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"sluice/fleet"
	"sluice/kafka"
)

// A holder is what this instance does about one client ID: it carries out what the Claimer asks for. Guarded by
// part.mu.
type holder struct {
	p         *part
	id        string
	inc       *incarnation
	m         *fleet.Claimer
	refused   bool          // the machine is being told that Kafka does not take a record
	dueAsked  bool          // willDue is under way
	idles     bool          // the machine has nothing to do; the last word on a session before may be waited for
	refusals  int32         // how many records in a row Kafka did not take
	epoch     int64         // of the last connection that was open
	born      int64         // of the last one that began a session
	opening   *attempt      // a CONNECT that waits for its answer
	conn      *Conn         // of the connection that is open
	departing *Conn         // of one that has ended, and whose end is not given to the machine yet
	free      chan struct{} // closed when there is none of them; made by who waits for that
	pasts     []*past       // sessions that others here have taken the place of, in their order, until they are told of
	retaining []Line        // of connections that have ended
}

// An attempt is a CONNECT on its way.
type attempt struct {
	h      *holder
	conn   *Conn
	answer chan fleet.Action // one: ActOpened, ActRefused or ActLost
}

// freed gives a channel that is closed when another CONNECT may begin.
func (h *holder) freed() <-chan struct{} {
	if h.free == nil {
		h.free = make(chan struct{})
	}
	return h.free
}

// unused says that neither a connection nor an attempt is there.
func (h *holder) unused() bool { return h.opening == nil && h.conn == nil && h.departing == nil }

// waitsFor says in words what a CONNECT waits for. part.mu is held.
func (h *holder) waitsFor() string {
	c := h.departing
	switch {
	case h.opening != nil:
		return h.m.WaitsFor(h.p.view(h.id))
	case c == nil || c.left == nil:
		return "the connection before to end"
	case c.ids.underWay():
		return "a transaction with messages of the connection before"
	}
	return "the outcome of messages of the connection before"
}

// notNow is ErrNotNow with what was waited for.
func notNow(what string) error { return fmt.Errorf("%w: it waits for %s", ErrNotNow, what) }

// lasting says that a connection is here whose session outlives it, or has outlived another one.
func (h *holder) lasting() bool {
	c := cmp.Or(h.conn, h.departing)
	return c != nil && c.lasting
}

// shown gives the record that opens the session of an attempt which waits for nothing else but to hear that it is stored;
// nil: there is none.
func (h *holder) shown() *fleet.Session {
	if h.opening == nil {
		return nil
	}
	s := h.p.view(h.id).Session(h.inc.name)
	if s == nil || !s.Opened() || s.StateEpoch <= h.epoch || s.Released {
		return nil
	}
	return s
}

// sessionOnItsWay gives the epoch of the session whose first record is written for an attempt that is not answered yet; 0: there is
// none.
func (h *holder) sessionOnItsWay() int64 {
	if h == nil || h.opening == nil {
		return 0
	}
	return h.m.Begins()
}

// beginning and resumes say that the record of such an attempt begins a session, or goes on with one.
func (h *holder) beginning() bool { s := h.shown(); return s != nil && s.Began == s.Claim }
func (h *holder) resumes() bool   { s := h.shown(); return s != nil && s.Began != s.Claim }

// release lets the next CONNECT begin.
func (h *holder) release() {
	if h.free != nil {
		close(h.free)
		h.free = nil
	}
}

// event gives the machine an event from outside, with the client's view as it is then. One that was let go hears nothing
// any more: another may have written under its key.
func (h *holder) event(f func(v fleet.View) []fleet.Action) {
	h.p.lock()
	defer h.p.unlock()
	if h.p.clients[h.id] == h {
		h.do(f(h.p.view(h.id)))
	}
}

// do carries out what the machine asks for. part.mu is held.
func (h *holder) do(acts []fleet.Action) {
	d := h.p.d
	for _, a := range acts {
		switch a.Kind {
		case fleet.ActWrite:
			h.begins(a)
			h.write(a.Value)
		case fleet.ActFence:
			d.errand(func(ctx context.Context) error {
				return d.fence(ctx, a, func() { h.event(func(v fleet.View) []fleet.Action { return h.m.Fenced(a.Inc, v) }) })
			})
		case fleet.ActLedger:
			d.errand(h.readLedger)
		case fleet.ActWait:
			h.wait(a)
		case fleet.ActOpened:
			h.opened(a)
		case fleet.ActSaved:
			h.conn.saved(a.N)
		case fleet.ActReceived:
			if c := cmp.Or(h.conn, h.departing); c != nil { // nil: the connection is lost, and the machine is about to hear it
				c.settle(a.Received, a.Pending)
			}
		case fleet.ActLost, fleet.ActRefused:
			h.lost(a)
		case fleet.ActWill:
			d.errand(func(ctx context.Context) error { return h.publishWill(ctx, a) })
		case fleet.ActIdle:
			h.idle()
		}
	}
}

// idle lets go of a machine that has nothing to do.
func (h *holder) idle() {
	h.idles = true
	h.forgetPasts()
	h.letGo()
}

// letGo does so, unless the last word on a session before is waited for. part.mu is held.
func (h *holder) letGo() {
	if h.idles && len(h.pasts) == 0 && h.unused() && h.p.clients[h.id] == h {
		delete(h.p.clients, h.id)
		h.p.duty(h.id)
		if _, stored := h.p.table.Client(h.id); !stored && h.epoch > 0 {
			// Another instance may have begun a session since, of which only the ledger was read here yet.
			h.p.d.sweepLedger(h.id, h.epoch+1, h.epoch+1, h.inc.shard(h.id))
		}
	}
}

// wait tells the machine when takeoverWait is over. What it was for may be over before; the machine knows.
func (h *holder) wait(a fleet.Action) {
	wait := takeoverWait
	if a.Short {
		wait /= 2
	}
	time.AfterFunc(wait+h.p.d.apart(), func() { h.event(func(v fleet.View) []fleet.Action { return h.m.Waited(a.N, v) }) })
}

// opened answers the CONNECT.
func (h *holder) opened(a fleet.Action) {
	at := h.opening
	h.opening, h.conn = nil, at.conn
	at.conn.begin(a)
	h.epoch = a.Epoch
	if a.Present {
		h.p.advance(h.id, &a.State.Progress)
		if a.State.Begins != nil && !h.p.owner.Owns() { // else it is told of here
			h.p.advance(h.id, a.State.Begins)
		}
	} else {
		h.born = a.Epoch
	}
	for _, ends := range h.p.view(h.id).Ends() {
		h.p.advance(h.id, ends)
	}
	for _, past := range h.pasts {
		if past.ends == nil { // else it is another one's, or the session that took its place is resumed
			past.ends = h.p.ends(h.id) // before the device can subscribe again
		}
		at.conn.Unheard = at.conn.Unheard || past.inc != h.inc.name && !past.state.IsLast()
	}
	at.answer <- a
	h.tidy(a.State)
	h.p.d.host.Connected(at.conn)
	h.settleHeard(a)
	h.tellPasts()
}

// tidy removes from the ledger what says nothing any more about the client.
func (h *holder) tidy(state *fleet.Session) {
	h.p.d.sweepLedger(h.id, state.Began, h.p.view(h.id).Lowest(), h.inc.shard(h.id))
}

// sweepLedger writes tombstones for what the ledger says of a client's sessions before an epoch, and of wills below
// another. Nobody waits for it: what is left over goes the next time.
func (d *Driver) sweepLedger(client string, began, lowest int64, by interface{ write(*kafka.TxGroup) }) {
	keys := d.ledger(client).stale(client, began, lowest)
	if len(keys) == 0 {
		return
	}
	g := &kafka.TxGroup{Owner: groupDone(func(error) {})}
	for _, key := range keys {
		tombstone := d.entry(client, key, nil)
		g.Records = append(g.Records, &tombstone)
	}
	by.write(g)
}

// lost ends the attempt or the connection: another one has the client ID, or it is not the device's to have.
func (h *holder) lost(a fleet.Action) {
	if at := h.opening; at != nil {
		h.met(at.conn)
		h.opening = nil
		at.answer <- a
		h.p.later(func() { h.event(func(v fleet.View) []fleet.Action { return h.m.Gone(nil, millis(), v) }) })
		h.release()
		return
	}
	why := TakenOver
	switch {
	case h.inc.dead.Load():
		why = Judged
	case h.refused:
		why = TooLarge
	}
	if c := cmp.Or(h.conn, h.departing); c != nil {
		c.broken = true // what the device sent here and was not answered for it sends again to whoever has it now
		c.lost = why
	}
	if c := h.conn; c != nil {
		h.p.later(func() { c.dev.Close(why) })
	}
}

// giveUp ends an attempt that nobody waits for any more.
func (h *holder) giveUp() {
	h.met(h.opening.conn)
	h.opening = nil
	h.do(h.m.Gone(nil, millis(), h.p.view(h.id)))
	h.release()
}

// met passes on what somebody was told here though the device is not told of its session. part.mu is held.
func (h *holder) met(c *Conn) {
	if c.told != nil {
		h.m.Met(h.p.d.host.Positions(c.told))
	}
}

// leave tells the machine that the connection has ended, and lets the next CONNECT begin. part.mu is held.
func (h *holder) leave(final *fleet.Session, at int64) {
	h.refusals = 0 // in a row are those that nobody but the machine asks for
	h.do(h.m.Gone(final, at, h.p.view(h.id)))
	h.release()
	if h.inc.dead.Load() && h.p.clients[h.id] == h {
		delete(h.p.clients, h.id)
	}
}

// readLedger reads the ledger to its end for the machine.
func (h *holder) readLedger(ctx context.Context) error {
	if err := h.p.d.readLedger(ctx, h.p.d.ledger(h.id)); err != nil {
		return err
	}
	h.event(h.m.LedgerRead)
	return nil
}

// willDue tells the machine that a delayed will is due, when the partition was read to an end that was fetched
// after that.
func (h *holder) willDue(ctx context.Context) error {
	if err := h.p.d.readEnd(ctx, h.p); err != nil {
		return err
	}
	h.event(func(v fleet.View) []fleet.Action {
		h.dueAsked = false
		now := millis()
		if duty, at := v.Duty(h.inc.name, now); duty == fleet.DutyWill && at > now { // another, meanwhile
			h.p.due.add(at, h.id)
		}
		return h.m.Due(now, v)
	})
	return nil
}

// awaitWill sees to it that the will of a connection which has ended is published at its time. part.mu is held.
func (h *holder) awaitWill() {
	if !h.unused() || h.dueAsked {
		return
	}
	now := millis()
	switch duty, at := h.p.view(h.id).Duty(h.inc.name, now); {
	case duty != fleet.DutyWill:
	case at > now:
		h.p.due.add(at, h.id)
	default:
		h.dueAsked = true
		h.p.d.errand(h.willDue)
	}
}

// publishWill publishes a will of a device that was connected here.
func (h *holder) publishWill(ctx context.Context, a fleet.Action) error {
	if h.inc.dead.Load() {
		return nil // it is the owner's now
	}
	if a.Will.Retain {
		if err := h.awaitRetained(ctx, a.Will.Topic); err != nil {
			return err
		}
	}
	w := &willing{d: h.p.d, client: h.id, epoch: a.Epoch, will: a.Will, by: h.inc.shard(h.id)}
	if err := w.publish(ctx); err != nil {
		return err
	}
	h.event(func(v fleet.View) []fleet.Action { return h.m.WillDone(a.Epoch, v) })
	return nil
}

// awaitRetained waits until what was retained in a topic is stored, and forgets the lines that are empty.
func (h *holder) awaitRetained(ctx context.Context, topic string) error {
	h.p.lock()
	lines := slices.Clone(h.retaining)
	h.p.unlock()
	for _, l := range lines {
		stored := l.Stored(topic)
		if stored == nil {
			continue
		}
		select {
		case <-stored:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	lines = slices.DeleteFunc(lines, func(l Line) bool { return !l.Empty() })
	h.p.lock()
	defer h.p.unlock()
	h.retaining = slices.DeleteFunc(h.retaining, func(l Line) bool { return slices.Contains(lines, l) })
	return nil
}

// A stateRecord is a record of the sessions topic on its way.
type stateRecord struct {
	kafka.Record
	d     *Driver
	tries int // that failed
	done  func(offset int64, err error)
}

// write writes under the client's key; nil is a tombstone. part.mu is held.
func (h *holder) write(v *fleet.Session) {
	value, err := v.Encode()
	if err != nil { // a Session can be encoded
		h.p.d.host.Fail(err)
		return
	}
	h.p.produce(fleet.SessionKey(h.id, h.inc.name), value, func(offset int64, err error) {
		h.p.lock()
		defer h.p.unlock()
		if err != nil {
			h.notTaken(err)
			return
		}
		h.refusals = 0
		h.do(h.m.Wrote(offset, h.p.view(h.id)))
		h.awaitWill() // the record may have been read back before, when the machine could not take a will for due yet
	})
}

// notTaken tells the machine that Kafka refuses a record. What that asks for then is often refused too: of such a row it hears
// later and later.
func (h *holder) notTaken(err error) {
	h.p.d.lines.Error().Err(err).Str("client_id", h.id).Msg("Kafka does not take the session")
	failed := func() {
		if h.p.clients[h.id] != h {
			return // as in event
		}
		h.refused = true
		h.do(h.m.Failed(h.p.view(h.id)))
		h.refused = false
		h.awaitWill()
	}
	if h.refusals++; h.refusals == 1 {
		failed()
		return
	}
	time.AfterFunc(retryAfter(int(h.refusals-2))+h.p.d.apart(), func() {
		h.p.lock()
		defer h.p.unlock()
		failed()
	})
}

// retryAfter is how long to wait for the next try, after so many waits.
func retryAfter(waits int) time.Duration { return min(minStateRetry<<min(waits, 10), maxStateRetry) }

// produce writes a record into the partition. done is called once it is known whether it is there; err is final.
func (p *part) produce(key, value []byte, done func(offset int64, err error)) {
	r := &stateRecord{d: p.d, done: done}
	r.Topic, r.Key, r.Value, r.Fixed, r.To = p.d.cfg.Sessions, key, value, true, p.id
	r.Owner = r
	r.send()
}

func (r *stateRecord) send() {
	r.Timestamp = time.Now()
	r.d.m.Records.Inc()
	r.d.cfg.State.Produce(&r.Record)
}

// RecordDone passes the outcome on. A record of which it is not known whether it is there is written again, after a
// while that grows: it has one writer, so that twice is as good as once.
func (r *stateRecord) RecordDone(_ *kafka.Record, err error) {
	switch {
	case err == nil || kafka.Final(err):
		r.done(r.Offset, err)
	case !errors.Is(err, kafka.ErrClosed):
		wait := retryAfter(r.tries)
		r.tries++
		r.d.m.Retries.Inc()
		r.d.refusals.Warn().Err(err).Str("kafka_topic", r.Topic).Int32("partition", r.To).Int("tries", r.tries).Stringer("retry_in", wait).
			Msg("Kafka does not take a record of the sessions, trying again")
		time.AfterFunc(wait, r.send)
	}
}

// The times until a record of the sessions that was not taken is written again. The longest is less than what others
// allow us to be silent.
const (
	minStateRetry = 50 * time.Millisecond
	maxStateRetry = time.Second
)

// errand does something that takes a while, and tries again until it succeeds or the process stops.
func (d *Driver) errand(f func(ctx context.Context) error) {
	d.goes(func() { // ends with d.ctx at the latest
		for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
			err := f(d.ctx)
			if err == nil || d.ctx.Err() != nil {
				return
			}
			d.lines.Warn().Err(err).Stringer("retry_in", wait).Msg("cannot go on with a session yet")
			pause(d.ctx, wait+d.apart())
		}
	})
}

// fence takes transactional ids away from those who had them and calls done.
func (d *Driver) fence(ctx context.Context, a fleet.Action, done func()) error {
	for _, id := range a.TxIDs {
		if _, err := d.fences.of(id).Ask(ctx, d.goes, func() (struct{}, error) {
			d.m.Fences.Inc()
			return struct{}{}, d.cfg.Fencer.Fence(d.ctx, id)
		}); err != nil {
			return err
		}
	}
	done()
	return nil
}
