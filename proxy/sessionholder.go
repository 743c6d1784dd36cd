package proxy

import (
	"cmp"
	"context"
	"errors"
	"time"

	"sluice/fleet"
	"sluice/kafka"
	"sluice/mqtt"
)

// A holder is what this instance does about one client ID: it carries out what the Claimer asks for. Guarded by
// part.mu.
type holder struct {
	p         *part
	id        string
	inc       *incarnation
	m         *fleet.Claimer
	refused   bool          // Kafka did not take the last record
	epoch     int64         // of the last connection that was open
	opening   *attempt      // a CONNECT that waits for its answer
	keeper    *keeper       // of the connection that is open
	departing *keeper       // of one that has ended, and whose end is not given to the machine yet
	free      chan struct{} // closed when there is none of them; made by who waits for that
	dueAsked  bool          // willDue is under way
	past      *past         // the session that the one being opened, or open, takes the place of
	ahead     streamEnds    // below these another instance has told the device's commands, which are still to be read here
}

// An attempt is a CONNECT on its way.
type attempt struct {
	h      *holder
	keeper *keeper
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
func (h *holder) unused() bool { return h.opening == nil && h.keeper == nil && h.departing == nil }

// release lets the next CONNECT begin.
func (h *holder) release() {
	if h.free != nil {
		close(h.free)
		h.free = nil
	}
}

// event gives the machine an event from outside, with the client's view as it is then.
func (h *holder) event(f func(v fleet.View) []fleet.Action) {
	h.p.lock()
	defer h.p.unlock()
	h.do(f(h.p.view(h.id)))
}

// do carries out what the machine asks for. part.mu is held.
func (h *holder) do(acts []fleet.Action) {
	s := h.p.s
	for _, a := range acts {
		switch a.Kind {
		case fleet.ActWrite:
			h.begins(a.Value)
			h.write(a.Value)
		case fleet.ActFence:
			s.errand(func(ctx context.Context) error {
				return s.fence(ctx, a, func() { h.event(func(v fleet.View) []fleet.Action { return h.m.Fenced(a.Inc, v) }) })
			})
		case fleet.ActLedger:
			s.errand(h.readLedger)
		case fleet.ActWait:
			h.wait(a)
		case fleet.ActOpened:
			h.opened(a)
		case fleet.ActSaved:
			h.keeper.saved(a.N)
		case fleet.ActReceived:
			if k := cmp.Or(h.keeper, h.departing); k != nil { // nil: the connection is lost, and the machine is about to hear it
				k.settle(a.Received, a.Pending)
			}
		case fleet.ActLost, fleet.ActRefused:
			h.lost(a)
		case fleet.ActWill:
			s.errand(func(ctx context.Context) error { return h.publishWill(ctx, a) })
		case fleet.ActIdle:
			h.idle()
		}
	}
}

// idle lets go of a machine that has nothing to do.
func (h *holder) idle() {
	if h.unused() && h.p.clients[h.id] == h {
		h.pastOver()
		delete(h.p.clients, h.id)
		h.p.duty(h.id)
		if _, stored := h.p.table.Client(h.id); !stored && h.epoch > 0 {
			// Another instance may have begun a session since, of which only the ledger was read here yet.
			h.p.s.sweepLedger(h.id, h.epoch+1, h.epoch+1, h.inc.shard(h.id))
		}
	}
}

// wait tells the machine when takeoverWait is over. What it was for may be over before; the machine knows.
func (h *holder) wait(a fleet.Action) {
	wait := takeoverWait
	if a.Short {
		wait /= 2
	}
	time.AfterFunc(wait, func() { h.event(func(v fleet.View) []fleet.Action { return h.m.Waited(a.N, v) }) })
}

// opened answers the CONNECT.
func (h *holder) opened(a fleet.Action) {
	at := h.opening
	h.opening, h.keeper = nil, at.keeper
	at.keeper.begin(a)
	h.epoch = a.Epoch
	if h.ahead = nil; a.Present {
		h.ahead = h.p.s.streams.ahead(&a.State.Progress)
	}
	if h.past != nil {
		h.past.ends = h.p.s.streams.ends() // before the device can subscribe again
	}
	at.answer <- a
	h.tidy(a.State)
	h.p.s.presence.connected(at.keeper, a.Present)
	h.tellPast()
}

// tidy removes from the ledger what says nothing any more about the client.
func (h *holder) tidy(state *fleet.Session) {
	h.p.s.sweepLedger(h.id, state.Began, h.p.view(h.id).Lowest(), h.inc.shard(h.id))
}

// sweepLedger writes tombstones for what the ledger says of a client's sessions before an epoch, and of wills below
// another. Nobody waits for it: what is left over goes the next time.
func (s *sessions) sweepLedger(client string, began, lowest int64, by interface{ write(*kafka.TxGroup) }) {
	keys := s.ledger(client).stale(client, began, lowest)
	if len(keys) == 0 {
		return
	}
	g := &kafka.TxGroup{Owner: groupDone(func(error) {})}
	for _, key := range keys {
		g.Records = append(g.Records, &kafka.TxRecord{Topic: s.cfg.Sessions.Ledger, Key: key, PartitionKey: []byte(client), Among: s.spread()})
	}
	by.write(g)
}

// lost ends the attempt or the connection: another one has the client ID, or it is not the device's to have.
func (h *holder) lost(a fleet.Action) {
	if at := h.opening; at != nil {
		h.opening = nil
		at.answer <- a
		h.p.later(func() { h.event(func(v fleet.View) []fleet.Action { return h.m.Gone(nil, millis(), v) }) })
		h.release()
		return
	}
	if k := h.keeper; k != nil {
		k.ids.broken = true // what the device sent here and was not answered for it sends again to whoever has it now
	}
	k, refused := h.keeper, h.refused
	h.refused = false
	switch {
	case k == nil:
	case h.inc.dead.Load():
		h.p.later(func() { k.opening.Session.Disconnect(mqtt.ServerBusy, "this instance was cut off from the others") })
	case refused:
		h.p.later(func() { k.opening.Session.Disconnect(mqtt.QuotaExceeded, "the session is larger than Kafka takes") })
	default:
		h.p.later(k.opening.Session.TakeOver)
	}
}

// giveUp ends an attempt that nobody waits for any more.
func (h *holder) giveUp() {
	h.opening = nil
	h.do(h.m.Gone(nil, millis(), h.p.view(h.id)))
	h.release()
}

// leave tells the machine that the connection has ended, and lets the next CONNECT begin. part.mu is held.
func (h *holder) leave(final *fleet.Session, at int64) {
	h.do(h.m.Gone(final, at, h.p.view(h.id)))
	h.release()
	if h.inc.dead.Load() && h.p.clients[h.id] == h {
		delete(h.p.clients, h.id)
	}
}

// readLedger reads the ledger to its end for the machine.
func (h *holder) readLedger(ctx context.Context) error {
	if err := h.p.s.readLedger(ctx, h.p.s.ledger(h.id)); err != nil {
		return err
	}
	h.event(h.m.LedgerRead)
	return nil
}

// willDue tells the machine that a delayed will is due, when the partition was read to an end that was fetched
// after that.
func (h *holder) willDue(ctx context.Context) error {
	if err := h.p.s.readEnd(ctx, h.p); err != nil {
		return err
	}
	h.event(func(v fleet.View) []fleet.Action {
		h.dueAsked = false
		return h.m.Due(millis(), v)
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
		h.p.s.errand(h.willDue)
	}
}

// publishWill publishes a will of a device that was connected here.
func (h *holder) publishWill(ctx context.Context, a fleet.Action) error {
	if h.inc.dead.Load() {
		return nil // it is the owner's now
	}
	w := &willing{s: h.p.s, client: h.id, epoch: a.Epoch, will: a.Will, by: h.inc.shard(h.id)}
	if err := w.publish(ctx); err != nil {
		return err
	}
	h.event(func(v fleet.View) []fleet.Action { return h.m.WillDone(a.Epoch, v) })
	return nil
}

// A stateRecord is a record of the sessions topic on its way.
type stateRecord struct {
	kafka.Record
	s     *sessions
	tries int // that failed
	done  func(offset int64, err error)
}

// stateOverhead is the memory of such a record in flight beside its key and value, in bytes.
const stateOverhead = 1024

// write writes under the client's key; nil is a tombstone. part.mu is held.
func (h *holder) write(v *fleet.Session) {
	value, err := v.Encode()
	if err != nil { // a Session can be encoded
		h.p.s.fail(err)
		return
	}
	h.p.produce(fleet.SessionKey(h.id, h.inc.name), value, func(offset int64, err error) {
		h.p.lock()
		defer h.p.unlock()
		if v := h.p.view(h.id); err == nil {
			h.do(h.m.Wrote(offset, v))
		} else {
			h.p.s.lines.Error().Err(err).Str("client_id", h.id).Msg("Kafka does not take the session")
			h.refused = true
			h.do(h.m.Failed(v))
		}
		h.awaitWill() // the record may have been read back before, when the machine could not take a will for due yet
	})
}

// produce writes a record into the partition. done is called once it is known whether it is there; err is final.
func (p *part) produce(key, value []byte, done func(offset int64, err error)) {
	r := &stateRecord{s: p.s, done: done}
	r.Topic, r.Key, r.Value, r.Fixed, r.To = p.s.cfg.Sessions.Topic, key, value, true, p.id
	r.Owner = r
	r.send()
}

func (r *stateRecord) send() {
	r.Timestamp = time.Now()
	r.Reserved = stateOverhead + len(r.Key) + len(r.Value)
	r.ReservedFor = kafka.Destination{Topic: r.Topic, Partition: r.To}
	r.s.state.Budget().Take(r.ReservedFor, r.Reserved)
	r.s.m.records.Inc()
	r.s.state.Produce(&r.Record)
}

// RecordDone passes the outcome on. A record of which it is not known whether it is there is written again, after a
// while that grows: it has one writer, so that twice is as good as once.
func (r *stateRecord) RecordDone(_ *kafka.Record, err error) {
	switch {
	case err == nil || kafka.Final(err):
		r.done(r.Offset, err)
	case !errors.Is(err, kafka.ErrClosed):
		wait := min(minStateRetry<<min(r.tries, 10), maxStateRetry)
		r.tries++
		r.s.m.retries.Inc()
		r.s.refusals.Warn().Err(err).Str("kafka_topic", r.Topic).Int32("partition", r.To).Int("tries", r.tries).Stringer("retry_in", wait).
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
func (s *sessions) errand(f func(ctx context.Context) error) {
	s.work.Go(func() { // ends with s.ctx at the latest
		for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
			err := f(s.ctx)
			if err == nil || s.ctx.Err() != nil {
				return
			}
			s.lines.Warn().Err(err).Stringer("retry_in", wait).Msg("cannot go on with a session yet")
			pause(s.ctx, wait)
		}
	})
}

// fence takes transactional ids away from those who had them and calls done.
func (s *sessions) fence(ctx context.Context, a fleet.Action, done func()) error {
	for _, id := range a.TxIDs {
		if _, err := s.fences.of(id).ask(ctx, s.work.Go, func() (struct{}, error) {
			s.m.fences.Inc()
			return struct{}{}, s.fencer.Fence(s.ctx, id)
		}); err != nil {
			return err
		}
	}
	done()
	return nil
}
