package mqtt

import (
	"maps"
	"slices"
	"time"
)

// kept is the part of an outbox that makes its session survive this process. Guarded by outbox.mu.
type kept struct {
	keeper  Keeper
	durable bool   // the session outlives its connection, or comes from the store, so what happens to it is written down
	version uint64 // of the state
	saved   uint64 // the version that is stored
	asked   bool   // Changed was called for a version that is not saved
	acks    []savedAnswer
	behind  map[int32]lag   // streams whose commands wait in the store
	seen    map[int32]int64 // the offset after the last command that was taken, replayed, left in the store or told of, by stream
	past    map[int32]int64 // where another server had come with the session, or one before it, and this one had not, by stream
	before  map[int32]int64 // below which what is for everybody came before the session, by stream
	given   map[int32]int64 // below which the device may have got what has QoS 0 from a server that did not say so, by stream
	done    []Place         // settled, and perhaps above one that is not
	settled int             // since the last snapshot
	lagging bool            // Lagging is to be called when there is room
	cramped bool            // there was none for a command, and little of what is held was given back since
	final   *Snapshot       // the state when the connection left
}

// A lag is where a session is in a stream that it is behind on.
type lag struct {
	from   int64 // it has got what is below
	joined bool  // and gets everything from there on: a replay is under way that missed nothing since Join
}

// A savedAnswer is a packet that may go out when its version is stored.
type savedAnswer struct {
	version uint64
	packet  []byte
}

// mostDone bounds what is settled above the first that is not: it is in every snapshot.
const mostDone = 1024

// crowded says that so much is settled above what is in flight that no more may be sent until some of that is answered.
// With nothing in flight sending is what brings the first that is not settled on. mu is held.
func (o *outbox) crowded() bool {
	if len(o.done) < mostDone || o.flying() == 0 {
		return false
	}
	o.prune()
	return len(o.done) >= mostDone
}

// progressEvery is after how many settled commands the Keeper hears of it.
const progressEvery = 100

// change notes that the state differs from what is stored. mu is held.
func (o *outbox) change() uint64 {
	o.version++
	return o.version
}

// changed is change for who does not hold mu, and has it stored.
func (o *outbox) changed() uint64 {
	o.mu.Lock()
	version := o.change()
	o.unlock(nil)
	return version
}

// hasStored is isSaved for who does not hold mu.
func (o *outbox) hasStored(version uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.isSaved(version)
}

// isSaved says whether the state of a version is stored; one that is not kept always is. mu is held.
func (o *outbox) isSaved(version uint64) bool { return !o.durable || version <= o.saved }

// errands is what is to be done for the keeper when mu is not held any more.
type errands struct {
	keeper                       Keeper
	changed, progressed, lagging bool
}

// errands takes what is to be told. mu is held.
func (o *outbox) errands() (e errands) {
	if !o.durable || o.ended {
		return e
	}
	e.keeper = o.keeper
	if e.changed = o.version > o.saved && !o.asked; e.changed {
		o.asked = true
	}
	if e.progressed = o.settled >= progressEvery; e.progressed {
		o.settled = 0
	}
	if e.lagging = o.lagging && !o.cramped && o.conn != nil && len(o.queue) <= o.srv.cfg.CommandsQueued/2 && !o.crowded(); e.lagging {
		o.lagging = false
	}
	return e
}

// unlock gives mu up, then passes on what was settled and what the keeper is to know.
func (o *outbox) unlock(done []settlement) {
	e := o.errands()
	roomy := o.roomy()
	o.mu.Unlock()
	o.srv.report(o.session.clientID, done)
	e.run()
	for _, m := range roomy {
		m.share.welcome(m)
	}
}

func (e errands) run() {
	if e.changed {
		e.keeper.Changed()
	}
	if e.progressed {
		e.keeper.Progressed()
	}
	if e.lagging {
		e.keeper.Lagging()
	}
}

// keeps says whether a command waits in the store when there is no room for it. Those for connected devices alone are
// never replayed.
func (o *outbox) keeps(c *Command) bool { return o.durable && c.Place.Stream > 0 && !c.Connected }

// passes says whether a command that comes by Send is not for now: its stream is replayed, or was up to there, or another
// server had it, or it came before the session. mu is held.
func (o *outbox) passes(c *Command) bool {
	if o.isPast(c.Place) || c.To == "" && c.Place.Offset < o.before[c.Place.Stream] {
		return true
	}
	if c.Place.Stream == 0 || c.Connected {
		return false
	}
	_, behind := o.behind[c.Place.Stream]
	return behind || c.Place.Offset < o.seen[c.Place.Stream]
}

// forgoes says that the device may have got a delivery with QoS 0 already, so that it is not for it [MQTT-4.3.1-1]. mu is held.
func (o *outbox) forgoes(d *delivery) bool {
	return d.qos == 0 && d.cmd.Place.Offset < o.given[d.cmd.Place.Stream]
}

// forgo settles such a delivery. mu is held.
func (o *outbox) forgo(d delivery) []settlement {
	o.finish(d.cmd)
	return []settlement{{delivery: d, fate: Dropped, reason: reasonPerhapsSent, unheld: true}}
}

// isPast says that another server had a command that comes by Send: the session got it there, or gets it by the replay, or
// it is not for it. mu is held.
func (o *outbox) isPast(p Place) bool {
	to, ok := o.past[p.Stream]
	if ok && p.Offset >= to {
		delete(o.past, p.Stream) // what comes from now on is new
	}
	return p.Offset < to
}

// goPast notes that the commands of a stream below p were told of, or are given by the replay. mu is held.
func (o *outbox) goPast(p Place) {
	if o.past == nil {
		o.past = make(map[int32]int64)
	}
	o.past[p.Stream] = max(o.past[p.Stream], p.Offset)
	o.saw(p.Stream, p.Offset)
}

// fallBehind leaves the commands of a stream from p on in the store. mu is held.
func (o *outbox) fallBehind(p Place) {
	if o.behind == nil {
		o.behind = make(map[int32]lag)
	}
	o.behind[p.Stream] = lag{from: p.Offset}
	o.lagging = true
	o.list()
}

// saw notes that the commands of a stream below next were taken. mu is held.
func (o *outbox) saw(stream int32, next int64) {
	if o.seen == nil {
		o.seen = make(map[int32]int64)
	}
	o.seen[stream] = max(o.seen[stream], next)
}

// met notes that a command of a stream of the session's came. Of a session that is not kept those for it alone count: who reads
// them later must not tell of them once it has gone. mu is held.
func (o *outbox) met(c *Command) {
	if (o.durable || c.To != "") && !o.ended && c.Place.Stream > 0 {
		o.saw(c.Place.Stream, c.Place.Offset+1)
	}
}

// finish notes that a command is settled. mu is held.
func (o *outbox) finish(c *Command) {
	if c.Place.Stream < 0 {
		o.handed++
	}
	if !o.keeps(c) {
		return
	}
	o.settled++
	o.done = append(o.done, c.Place)
	if len(o.done)%128 == 0 {
		o.prune()
	}
}

// lows gives the lowest offset of each stream that is not settled. mu is held.
func (o *outbox) lows() map[int32]int64 {
	lows := make(map[int32]int64, len(o.behind)+1)
	note := func(p Place) {
		if low, ok := lows[p.Stream]; !ok || p.Offset < low {
			lows[p.Stream] = p.Offset
		}
	}
	hold := func(c *Command) {
		if o.keeps(c) {
			note(c.Place)
		}
	}
	for stream, l := range o.behind {
		note(Place{stream, l.from})
	}
	for i := range o.flight {
		hold(o.flight[i].cmd)
	}
	for i := range o.queue {
		hold(o.queue[i].cmd)
	}
	return lows
}

// prune drops what is settled below everything that is not. mu is held.
func (o *outbox) prune() map[int32]int64 {
	lows := o.lows()
	o.done = slices.DeleteFunc(o.done, func(p Place) bool {
		low, open := lows[p.Stream]
		return !open || p.Offset < low
	})
	return lows
}

// shed drops what others had come to, before or with the session, in the streams where it is as far: what is settled, and what
// Send is called with. mu is held.
func (o *outbox) shed(lows map[int32]int64, next func(stream int32) (int64, bool)) {
	for _, to := range []*map[int32]int64{&o.past, &o.before, &o.given} {
		maps.DeleteFunc(*to, func(stream int32, to int64) bool {
			at, ok := next(stream)
			if low, open := lows[stream]; open {
				at = min(at, low)
			}
			return ok && at >= to
		})
		if len(*to) == 0 {
			*to = nil // an empty map keeps its room
		}
	}
}

// hasPassed says that the session has come past all that a server without a last word may have given, which is in its record.
// mu is held.
func (o *outbox) hasPassed() bool {
	given := len(o.given)
	if len(o.past)+len(o.before)+given == 0 || o.ended || !o.durable {
		return false
	}
	_, next := o.keeper.Streams()
	o.shed(o.lows(), next)
	return given > 0 && o.given == nil
}

// restore fills the outbox of a session that comes from the store.
func (o *outbox) restore(state *State) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range state.Subscriptions {
		o.resubscribe(filterRequest{s.Filter, subscription{
			id: s.ID, qos: s.QoS, noLocal: s.NoLocal, retainAsPublished: s.RetainAsPublished, retainHandling: s.RetainHandling, origin: s.Origin,
		}})
		if x := o.srv.cfg.Retained; x != nil && s.Owed != nil {
			o.handouts = append(o.handouts, &handout{Retained: x, filter: s.Filter, next: *s.Owed})
		}
	}
	o.done = slices.Clone(state.Done)
	for _, p := range state.Past {
		o.goPast(p)
	}
	o.given, o.before = byStream(state.Given), byStream(state.Before)
	for _, p := range state.Behind {
		o.fallBehind(p)
	}
	absent := 0
	for _, u := range state.Flight {
		if u.Unread = u.Unread && absent < mostAbsent; u.Unread {
			absent++
		}
		o.reenter(u)
	}
	o.lagging = o.lagging || absent > 0
}

// byStream gives the offsets of places.
func byStream(places []Place) (offsets map[int32]int64) {
	for _, p := range places {
		if offsets == nil {
			offsets = make(map[int32]int64)
		}
		offsets[p.Stream] = p.Offset
	}
	return offsets
}

// mostAbsent bounds what waits in flight for a connection that can read it: each one may leave a window more behind, and
// packet identifiers are not endless. What is above it is treated as gone.
const mostAbsent = 1024

// flying is how many are in flight with their message. mu is held.
func (o *outbox) flying() int { return len(o.flight) - o.absent }

// resubscribe enters a subscription that was granted on an earlier connection, so no bound refuses it. mu is held.
func (o *outbox) resubscribe(r filterRequest) {
	o.subs = append(o.subs, r)
	o.srv.filters.Add(int64(len(r.filter) + subscriptionOverhead))
	if !isShared(r.filter) { // the others join their shares with the connection
		o.srv.index.add(r.filter, o.session, r.subscription)
	}
}

// reenter puts a delivery of an earlier connection in flight. What can't be had any more is completed with PUBREL,
// which ends the exchange on both sides; QoS 1 then is simply over. What can't be read now keeps its place. mu is held.
func (o *outbox) reenter(u Unfinished) {
	cmd := u.Command
	if cmd == nil {
		if u.QoS < 2 && !u.Unread {
			return
		}
		cmd, u.Received = &Command{Place: u.Place, Owner: unowned{}}, u.Received || !u.Unread
	}
	retained := u.Place.Stream < 0
	foreign := !retained && o.isForeign(u.Place)
	cmd.Connected = cmd.Connected || foreign // it counts for no position of the session
	d := delivery{cmd: cmd, qos: u.QoS, retain: retained}
	for _, s := range o.subs {
		_, filter, shared := splitShare(s.filter)
		if len(cmd.Topic) > 0 && shared == foreign && filterMatches(filter, string(cmd.Topic)) &&
			(shared || !(&subscriber{o.session, s.subscription}).excludes(cmd)) { // a share gives its members what came before too
			d.retain = d.retain || cmd.Retain && s.retainAsPublished
			if s.id != 0 {
				d.ids = append(d.ids, s.id)
			}
		}
	}
	o.srv.forceHold(&d)
	o.held += d.weight()
	o.flight = append(o.flight, flying{delivery: d, id: u.ID, received: u.Received, sent: true, absent: u.Unread && !u.Received})
}

// found puts what could not be read behind what was sent on this connection: it goes next, where there is room.
func (o *outbox) found(u Unfinished) {
	o.mu.Lock()
	i := o.find(u.ID)
	if i < 0 || !o.flight[i].absent || o.flight[i].cmd.Place != u.Place { // completed meanwhile, or the session has left
		o.mu.Unlock()
		return
	}
	unread := settlement{delivery: o.flight[i].delivery, fate: Kept}
	o.land(i)
	o.reenter(u)
	if last := len(o.flight) - 1; last > o.resent {
		f := o.flight[last]
		copy(o.flight[o.resent+1:], o.flight[o.resent:last])
		o.flight[o.resent] = f
	}
	o.unlock(append(o.pump(time.Now()), unread))
	o.srv.Flush()
}

// unowned does not care what becomes of a command.
type unowned struct{}

// CommandSent does nothing.
func (unowned) CommandSent(*Command) {}

// CommandSettled does nothing.
func (unowned) CommandSettled(*Command, string, Fate, Code, string) {}

// part ends the connection's use of a kept session and gives what is to be stored: it goes on elsewhere, or later.
func (o *outbox) part() (s Snapshot) {
	o.mu.Lock()
	s = o.snapshot(o.keeper.Streams())
	o.final, o.ended, o.conn = &s, true, nil
	now := time.Now()
	var over []settlement
	for i := range o.flight {
		over = append(over, settlement{delivery: o.flight[i].delivery, fate: Kept})
	}
	for i := range o.queue {
		if cmd := o.queue[i].cmd; o.keeps(cmd) || handoutOf(cmd) != nil {
			over = append(over, settlement{delivery: o.queue[i], fate: Kept})
		} else {
			over = append(over, o.queue[i].unsent(now, reasonNotSent))
		}
	}
	o.clear()
	o.mu.Unlock()
	o.srv.report(o.session.clientID, over)
	return s
}

// snapshot gives the whole state. next says up to where the commands of a stream went by. A Keeper that asks while the
// connection leaves must not get, and store, a session with nothing in it. mu is held.
func (o *outbox) snapshot(streams []int32, next func(stream int32) (int64, bool)) Snapshot {
	if o.final != nil {
		return *o.final
	}
	lows := o.prune()
	o.shed(lows, next)
	o.settled, o.handed = 0, 0
	s := Snapshot{Version: o.version, Done: slices.Clone(o.done)}
	for _, stream := range streams {
		at, open := lows[stream]
		if !open {
			var ok bool
			if at, ok = next(stream); !ok {
				continue
			}
			at = max(at, o.seen[stream])
		}
		s.Next = append(s.Next, Place{stream, at})
		if seen := o.seen[stream]; seen > at || seen > 0 && len(o.subs) == 0 { // without subscriptions there is nothing next
			s.Met = append(s.Met, Place{stream, seen})
		}
		if given := o.given[stream]; given > at {
			s.Given = append(s.Given, Place{stream, given})
		}
	}
	origins, debts := o.dating(lows), o.debts()
	for _, sub := range o.subs {
		s.Subscriptions = append(s.Subscriptions, Subscription{sub.filter, sub.id, sub.qos, sub.noLocal, sub.retainAsPublished, sub.retainHandling, origins.of(sub.origin), debts[sub.filter]})
	}
	for i := range o.flight {
		f := &o.flight[i]
		if f.cmd.Place.Stream != 0 && !isTurn(f.cmd) || f.qos == 2 {
			s.Flight = append(s.Flight, Unfinished{Place: f.cmd.Place, ID: f.id, QoS: f.qos, Received: f.received})
		}
	}
	return s
}

// stored takes note that the state of a version is in the store, and sends what waited for that.
func (o *outbox) stored(version uint64) {
	o.mu.Lock()
	o.saved, o.asked = max(o.saved, version), false
	c := o.conn
	if c != nil {
		o.answerSaved(c)
	}
	o.unlock(o.pump(time.Now()))
	if c != nil {
		o.srv.Flush()
	}
}

// answerSaved sends the answers whose version is stored. mu is held.
func (o *outbox) answerSaved(c *Conn) {
	n := 0
	c.mu.Lock()
	before := len(c.out)
	for ; n < len(o.acks) && o.isSaved(o.acks[n].version); n++ {
		if !c.silent {
			c.out = append(c.out, o.acks[n].packet...)
		}
	}
	for i := range o.flight[:o.resent] {
		if f := &o.flight[i]; f.owed && o.isSaved(f.version) {
			f.owed = false
			c.appendPubrel(f.id, Success)
		}
	}
	enlist := len(c.out) > before && !c.dirty
	c.dirty = c.dirty || enlist
	c.mu.Unlock()
	o.acks = o.acks[n:]
	if enlist {
		o.srv.enlist(c)
	}
}
