package mqtt

import (
	"slices"
	"sync"
	"time"
)

// An outbox is what a session has to do with commands: its subscriptions, the commands that wait, and the
// deliveries with QoS 1 and 2 that are not completed. It lives as long as its session; connections come and go.
type outbox struct {
	srv     *Server
	session *session

	mu     sync.Mutex // guards all below; taken before Conn.mu
	conn   *Conn      // nil while the session has none
	ended  bool       // the session is no more
	subs   []filterRequest
	queue  []delivery // waits to be sent
	flight []flying   // in the order of their first PUBLISH [MQTT-4.4.0-1]
	resent int        // how many of flight were sent on this connection; those behind go first
	absent int        // how many of those were not, because they can't be read: the device has none of them in its window
	window int        // most that resent may be when a PUBLISH is sent (section 4.9)
	nextID uint16     // packet identifiers, apart from those of the device
	held   int64      // bytes of queue and flight
	listed bool       // in Server.backlog
	handing
	sharing
	kept
}

// A flying is a delivery with QoS 1 or 2 from its first PUBLISH to its PUBACK or PUBCOMP.
type flying struct {
	delivery
	id       uint16
	received bool   // PUBREC came: PUBREL is what is sent again
	sent     bool   // the PUBLISH was, once
	absent   bool   // the message can't be read; it is sent when it is found, or on a later connection
	owed     bool   // PUBREL waits for the state to be stored
	version  uint64 // of the state that must be stored before what is to be sent
}

func newOutbox(s *Server, session *session) *outbox { return &outbox{srv: s, session: session} }

// subscriptionOverhead is what a subscription costs beside its filter: its places in the outbox and the index.
const subscriptionOverhead = 400

// subscribe adds or replaces a subscription; false if the session or all of them have too many.
func (o *outbox) subscribe(r filterRequest) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	at := o.place(r.filter)
	switch {
	case at >= 0:
		r.filter = o.subs[at].filter // the string that the index has
		r.origin = o.subs[at].origin // what it is to get is not interrupted
		o.subs[at] = r               // [MQTT-3.8.4-3]
	case o.durable && o.srv.cfg.Store.Full(), len(o.subs) >= o.srv.cfg.MaxSubscriptions || o.refusesShare(r.filter) || !o.srv.holdFilter(r.filter):
		return false
	default:
		o.subs = append(o.subs, r)
	}
	o.owe(&r, at >= 0)
	if isShared(r.filter) {
		o.join(r, nil)
		return true
	}
	o.srv.index.add(r.filter, o.session, r.subscription)
	return true
}

// place gives the place of a filter in subs, or -1. mu is held.
func (o *outbox) place(filter string) int {
	return slices.IndexFunc(o.subs, func(s filterRequest) bool { return s.filter == filter })
}

// holdFilter counts the memory of a subscription; false if there is none left.
func (s *Server) holdFilter(filter string) bool {
	n := int64(len(filter) + subscriptionOverhead)
	if s.filters.Add(n) <= s.cfg.SubscriptionMemory {
		return true
	}
	s.filters.Add(-n)
	return false
}

func (s *Server) unholdFilter(filter string) {
	s.filters.Add(-int64(len(filter) + subscriptionOverhead))
}

// unsubscribe says whether there was such a subscription.
func (o *outbox) unsubscribe(filter string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	at := o.place(filter)
	if at < 0 {
		return false
	}
	return o.remove(at)
}

// remove takes out the subscription at a place. mu is held.
func (o *outbox) remove(at int) bool {
	filter := o.subs[at].filter
	o.subs = slices.Delete(o.subs, at, at+1)
	o.forgive(filter)
	o.srv.unholdFilter(filter)
	if isShared(filter) {
		o.leaveShare(filter)
		return true
	}
	return o.srv.index.remove(filter, o.session)
}

// match gives the session's own subscriptions that match a command. mu is held.
func (o *outbox) match(c *Command) (found []subscriber) {
	name := string(c.Topic)
	for _, s := range o.subs {
		if !isShared(s.filter) && filterMatches(s.filter, name) {
			found = append(found, subscriber{o.session, s.subscription})
		}
	}
	return found
}

// meet gives the one delivery of a command for the session alone, if it subscribed to it. If there is none, the command is
// not for those who subscribe from now on either; told: somebody was told so elsewhere. over: the session has left.
func (o *outbox) meet(c *Command) (found []addressed, told, over bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if found = gather(o.match(c), c); len(found) == 0 {
		told = o.isPast(c.Place)
		o.met(c)
	}
	return found, told, o.ended
}

// An answer says what an outbox did with a command that was offered.
type answer int

const (
	absent answer = iota // the session is not there for it
	taken                // it will be settled
	later                // it will come again from the store, if it did not come already
)

// offer takes a delivery. A bound that is reached drops it, or leaves it in the store.
func (ss *session) offer(d delivery, now time.Time) answer {
	o := ss.outbox.Load()
	if o == nil {
		return absent
	}
	o.mu.Lock()
	if o.ended || d.cmd.Connected && o.conn == nil {
		o.mu.Unlock()
		return absent
	}
	if o.passes(d.cmd) {
		o.met(d.cmd)
		o.mu.Unlock()
		return later
	}
	done, a := o.enqueue(d, now)
	o.met(d.cmd)
	o.unlock(done)
	return a
}

// commandShare is the part of CommandMemory that one device may hold, so that one which is away or slow does not
// take it from all others.
const commandShare = 8

// enqueue puts d at the end and sends what can be sent. mu is held.
func (o *outbox) enqueue(d delivery, now time.Time) ([]settlement, answer) {
	keeps := o.keeps(d.cmd)
	if keeps && o.crowded() {
		o.fallBehind(d.cmd.Place)
		return nil, later
	}
	if o.forgoes(&d) {
		return o.forgo(d), taken
	}
	if reason := o.full(&d); reason != "" {
		if over, is := d.over(now); is { // which needs no room
			o.finish(d.cmd)
			over.unheld = true
			return []settlement{over}, taken
		}
		if keeps {
			o.cramped = true // or it would be replayed the same command at once, in vain, and again
			o.fallBehind(d.cmd.Place)
			return nil, later
		}
		return []settlement{{delivery: d, fate: Dropped, reason: reason, unheld: true}}, taken
	}
	o.push(d)
	return o.pump(now), taken
}

// share is how much one device may hold.
func (o *outbox) share() int64 { return o.srv.cfg.CommandMemory / commandShare }

// full gives the bound that d would break, "" if there is room; its memory is counted then. mu is held.
func (o *outbox) full(d *delivery) string {
	switch {
	case len(o.queue) >= o.srv.cfg.CommandsQueued || o.held > 0 && o.held+d.weight() > o.share():
		return reasonQueueFull
	case !o.srv.hold(d):
		return reasonMemory
	}
	return ""
}

// push enters what there is room for. mu is held.
func (o *outbox) push(d delivery) {
	o.held += d.weight()
	o.queue = append(o.queue, d)
}

// attach makes c the connection: first it gets again what it had not answered, in the order of the first time.
func (o *outbox) attach(c *Conn) {
	o.mu.Lock()
	o.conn, o.resent, o.absent = c, 0, 0
	o.window = min(o.srv.cfg.CommandsInFlight, int(c.sendMaximum))
	o.withdraw(c.identity.Load())
	o.joinShares()
	o.handOut(c.attached) // what an earlier connection was promised
	o.unlock(o.pump(time.Now()))
}

// detach ends the connection's part. Commands for connected devices only are over.
func (o *outbox) detach() {
	o.mu.Lock()
	o.conn = nil
	now := time.Now()
	done := o.leaveShares()
	o.queue = slices.DeleteFunc(o.queue, func(d delivery) bool {
		if d.cmd.Connected {
			o.drop(&d)
			done = append(done, d.unsent(now, reasonNotSent))
		}
		return d.cmd.Connected
	})
	o.mu.Unlock()
	o.srv.report(o.session.clientID, done)
}

// end ends the session's part: its subscriptions and all that was under way. It returns what the session was, with all
// that is settled now: the rest waits in the store for nobody.
func (o *outbox) end() (s Snapshot) {
	o.mu.Lock()
	now := time.Now()
	var done []settlement
	for i := range o.flight {
		f := &o.flight[i]
		o.finish(f.cmd)
		if f.received {
			done = append(done, settlement{delivery: f.delivery, fate: Delivered}) // the device answers for it since PUBREC
		} else {
			done = append(done, settlement{delivery: f.delivery, fate: Offline, reason: reasonNotAnswered})
		}
	}
	for i := range o.queue {
		o.finish(o.queue[i].cmd)
		done = append(done, o.queue[i].unsent(now, reasonSessionEnded))
	}
	o.queue, o.flight = nil, nil
	if o.durable {
		s = o.snapshot(o.keeper.Streams())
		o.final = &s
	} else {
		s.Met = places(o.seen)
	}
	o.ended, o.conn = true, nil
	o.clear()
	o.mu.Unlock()
	o.srv.report(o.session.clientID, done)
	return s
}

// clear forgets subscriptions and commands. mu is held.
func (o *outbox) clear() {
	for _, s := range o.subs {
		o.srv.index.remove(s.filter, o.session)
		o.srv.unholdFilter(s.filter)
	}
	if o.catching != nil {
		o.catching() // or each return while Kafka is away would have one more wait
	}
	o.absent = 0
	o.subs, o.queue, o.flight, o.held, o.acks, o.lagging, o.handouts = nil, nil, nil, 0, nil, false, nil
	o.unlist()
}

// over says that the command is no longer to be sent.
func (d *delivery) over(now time.Time) (settlement, bool) {
	switch {
	case d.cmd.IsCancelled():
		return settlement{delivery: *d, fate: Cancelled}, true
	case d.cmd.expired(now):
		return settlement{delivery: *d, fate: Expired}, true
	}
	return settlement{}, false
}

// unsent is the outcome of a command that waited until the session or its connection ended.
func (d *delivery) unsent(now time.Time, reason string) settlement {
	if s, over := d.over(now); over {
		return s
	}
	return settlement{delivery: *d, fate: Offline, reason: reason}
}

// sweep settles what waits and is expired or cancelled. Others may have made room for what waits in the store.
func (o *outbox) sweep(now time.Time) {
	o.mu.Lock()
	o.cramped = false
	var done []settlement
	o.queue = slices.DeleteFunc(o.queue, func(d delivery) bool {
		s, over := d.over(now)
		if over {
			o.drop(&d)
			done = append(done, s)
		}
		return over
	})
	done = append(done, o.pump(now)...)
	o.unlist()
	o.unlock(done)
}

// drop counts a command that leaves the queue and is settled. mu is held.
func (o *outbox) drop(d *delivery) {
	if o.held -= d.weight(); o.held <= o.share()/2 {
		o.cramped = false
	}
	o.finish(d.cmd)
}

// refill sends more after the network took what was there.
func (o *outbox) refill() {
	o.mu.Lock()
	o.unlock(o.pump(time.Now()))
}

// backlog holds the outboxes in which something waits, for the sweep.
type backlog struct {
	mu  sync.Mutex // taken after outbox.mu
	all map[*outbox]struct{}
}

// list enters o in the backlog if something waits, here or in the store for room that others may give. o.mu is held.
func (o *outbox) list() {
	if o.listed || len(o.queue) == 0 && !o.lagging {
		return
	}
	o.listed = true
	b := &o.srv.backlog
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all == nil {
		b.all = make(map[*outbox]struct{})
	}
	b.all[o] = struct{}{}
}

// unlist takes o off the backlog if nothing waits. o.mu is held.
func (o *outbox) unlist() {
	if !o.listed || len(o.queue) > 0 || o.lagging {
		return
	}
	o.listed = false
	o.srv.backlog.mu.Lock()
	defer o.srv.backlog.mu.Unlock()
	delete(o.srv.backlog.all, o)
}

// sweep lets every outbox with a queue look at the time.
func (b *backlog) sweep(now time.Time) {
	b.mu.Lock()
	list := make([]*outbox, 0, len(b.all))
	for o := range b.all {
		list = append(list, o)
	}
	b.mu.Unlock()
	for _, o := range list {
		o.sweep(now)
	}
}

func (b *backlog) len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.all)
}
