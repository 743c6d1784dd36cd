package mqtt

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// neverExpires is the Session Expiry Interval of a session without an end (section 3.1.2.11.2).
const neverExpires = math.MaxUint32

// A session is what outlives a connection: the packet ids of QoS 2 messages that were received and not
// released, and a will that waits for its delay.
type session struct {
	clientID string
	owner    string // the principal whose session it is

	// Guarded by the shard's mutex.
	conn    *Conn         // nil while stored
	gone    chan struct{} // closed when conn has left or its session is open; made by the first who waits for that
	opening bool          // the Store has not given it yet
	kept    bool          // it counts for MaxSessions
	expiry  uint32        // Session Expiry Interval, seconds
	endsAt  int64         // unix milliseconds, while stored; 0: never
	will    *Message
	willDue int64 // unix milliseconds

	outbox atomic.Pointer[outbox] // nil until the first SUBSCRIBE

	// floor is the earliest time, in unix milliseconds, of the messages that the device publishes from now on. Only the
	// reading goroutine uses it. Of a subscription that was made at a time up to voided, what the device published before
	// it is not known any more; the state voidedIn is the first that has no such times.
	floor    int64
	voided   atomic.Int64
	voidedIn uint64

	keeper Keeper // of a session that a Store has; set before the connection is open

	mu       sync.Mutex      // guards all below
	met      map[int32]int64 // as kept.seen, of the commands that came before the outbox was there
	left     bool            // the Keeper has the session's end
	received map[uint16]inbound
	counted  int32                        // of received, those counted in Server.extra
	unsure   atomic.Bool                  // there may be more that were received elsewhere; changed with mu held
	heard    func()                       // is called when more is known of that, or of what is pending elsewhere
	changed  func(id uint16, stored bool) // is called when the outcome of a message is known
	freeing  map[uint16]struct{}          // released, and not yet in the Store
}

// stepBack is how far the clock may go back before what was said by it is given up.
const stepBack = time.Second

// raiseFloor gives a time, in unix milliseconds, that is after all messages received until now and not after any later
// one.
func (s *session) raiseFloor(now time.Time) int64 {
	s.floor = s.timeOf(now).UnixMilli() + 1
	return s.floor
}

// timeOf gives the time of a message that is received now: not below the floor.
func (s *session) timeOf(now time.Time) time.Time {
	ahead := time.UnixMilli(s.floor).Sub(now)
	if ahead <= 0 || ahead > stepBack && s.lowerFloor() {
		return now
	}
	return time.UnixMilli(s.floor)
}

// lowerFloor gives up the floor, and the origins that go by it: the clock was set back. False: not yet, since the state
// that is stored has them still. After a crash the message would be taken for one from before the SUBSCRIBE, and lost.
func (s *session) lowerFloor() bool {
	o := s.outbox.Load()
	if s.floor > s.voided.Load() {
		s.voided.Store(s.floor)
		if o != nil {
			s.voidedIn = o.changed()
		}
	}
	if o != nil && !o.hasStored(s.voidedIn) {
		return false
	}
	s.floor = 0
	return true
}

// restoreFloor goes on with that of a session that was stored.
func (s *session) restoreFloor(subs []Subscription) {
	for _, sub := range subs {
		if sub.Origin != nil {
			s.floor = max(s.floor, sub.Origin.At)
		}
	}
}

// inbound is the state of a QoS 2 packet id, from its first PUBLISH to its PUBREL.
type inbound struct {
	pending *Message // its outcome is awaited; nil: it is known, PUBREC may go out. Without a conn: another server has it
	code    Code     // of that PUBREC
	serial  uint32   // of the connection on which it came last
}

// A waiter is the slot of a PUBLISH that was sent again while the first one's outcome was awaited.
type waiter struct {
	conn *Conn
	slot uint32
}

// A receipt says what a PUBLISH with QoS 2 is.
type receipt struct {
	how      receiptKind
	code     Code // of the PUBREC, if receivedStored
	answered bool // on this connection
}

type receiptKind int

const (
	receivedFirst   receiptKind = iota // hand it over
	receivedAgain                      // its outcome is awaited, the slot gets it too
	receivedStored                     // acknowledge at once
	receivedTooMany                    // too many others were not released
)

// receive enters a PUBLISH with QoS 2. m.slot is the place of its PUBREC on m.conn.
func (s *session) receive(m *Message) receipt {
	srv := m.conn.srv
	s.mu.Lock()
	defer s.mu.Unlock()
	in, known := s.received[m.id]
	var r receipt
	switch {
	case !known && !s.mayReceive(srv):
		return receipt{how: receivedTooMany}
	case !known:
		if s.received == nil {
			s.received = make(map[uint16]inbound)
		}
		in.pending = m
	case in.pending == nil:
		r.how, r.code, r.answered = receivedStored, in.code, in.serial == m.conn.serial
	default:
		r.how = receivedAgain
		in.pending.waiters = append(in.pending.waiters, waiter{m.conn, m.slot})
	}
	in.serial = m.conn.serial
	s.received[m.id] = in
	return r
}

// mayReceive says whether the session may have one more packet identifier. mu is held.
func (s *session) mayReceive(srv *Server) bool {
	free := srv.cfg.ReceiveMaximum
	switch n := len(s.received); {
	case n < free:
		return true
	case n >= max(idsMost, free) || !srv.extra.take(idBytes):
		return false
	}
	s.counted++
	return true
}

// uncount gives back what is counted of a session that ends here.
func (s *session) uncount(srv *Server) {
	s.mu.Lock()
	defer s.mu.Unlock()
	srv.extra.give(int(s.counted) * idBytes)
	s.counted = 0
}

// isReceived says that id is in use by a PUBLISH with QoS 2.
func (s *session) isReceived(id uint16) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, known := s.received[id]
	return known
}

// restore enters the ids that the session had received before this connection.
func (s *session) restore(ids []uint16, srv *Server) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		s.recall(id, inbound{}, srv)
	}
}

// recall enters an id that was received before this connection, unless that is known. It is counted as mayReceive counts,
// but never refused. mu is held.
func (s *session) recall(id uint16, in inbound, srv *Server) {
	if _, known := s.received[id]; known {
		return
	}
	if len(s.received) >= srv.cfg.ReceiveMaximum && !s.left {
		s.counted++
		srv.extra.count(idBytes)
	}
	if s.received == nil {
		s.received = make(map[uint16]inbound)
	}
	s.received[id] = in
}

// meet notes that a command for the session came, which has not subscribed to anything; false: the session has left.
func (s *session) meet(p Place) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keeper == nil || p.Stream <= 0 {
		return true
	}
	if s.left {
		return false
	}
	if s.met == nil {
		s.met = make(map[int32]int64)
	}
	s.met[p.Stream] = p.Offset + 1
	return true
}

// leave gives what meet noted.
func (s *session) leave() []Place {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = true
	return places(s.met)
}

// places makes a list of offsets by stream.
func places(by map[int32]int64) (all []Place) {
	for stream, at := range by {
		all = append(all, Place{stream, at})
	}
	return all
}

// settleElsewhere takes in what is known now of messages that other servers took in. The call that it returns is for
// when no lock is held.
func (s *session) settleElsewhere(srv *Server, stored, pending []uint16, unsure bool) (pass func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var calls []func()
	for id, in := range s.received {
		o := outcome{state: slotAcked, code: Success}
		switch {
		case in.pending == nil || in.pending.conn != nil:
			continue
		case slices.Contains(stored, id):
			s.received[id] = inbound{serial: in.serial} // answered where it came last
		case slices.Contains(pending, id):
			continue
		default:
			s.remove(id, srv)
			o = outcome{state: slotAbandoned, code: ImplementationSpecificError, reason: "it is not known of a message whether it is stored"}
		}
		for _, w := range in.pending.waiters {
			calls = append(calls, func() { w.conn.settle(w.slot, 0, o) })
		}
	}
	for _, id := range stored {
		s.recall(id, inbound{}, srv)
	}
	for _, id := range pending {
		s.recall(id, inbound{pending: &Message{id: id, QoS: 2}}, srv)
	}
	if s.unsure.Store(unsure); s.heard != nil {
		calls, s.heard = append(calls, s.heard), nil // who waits looks whether it is enough
	}
	return func() {
		for _, call := range calls {
			call()
		}
	}
}

// awaitReceived has resume called when more is known of which ids were received before this connection; false: all is.
func (s *session) awaitReceived(resume func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unsure.Load() {
		s.heard = resume
	}
	return s.unsure.Load()
}

// awaitRelease has resume called when more is known of whether another server received id; false: it may be released.
func (s *session) awaitRelease(id uint16, resume func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	open := s.isOpen(id)
	if open {
		s.heard = resume
	}
	return open
}

// isOpenElsewhere says that another server may still tell that it received id.
func (s *session) isOpenElsewhere(id uint16) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.isOpen(id)
}

// isOpen is isOpenElsewhere with mu held. While the session is unsure that is so of an id that is known too: who is heard
// later may have it as well.
func (s *session) isOpen(id uint16) bool {
	pending := s.received[id].pending
	return s.unsure.Load() || pending != nil && pending.conn == nil
}

// forget takes back the receive of a message that nobody answers for.
func (s *session) forget(id uint16, m *Message) {
	s.mu.Lock()
	in, known := s.received[id]
	if known = known && in.pending == m; known {
		s.remove(id, m.conn.srv)
	}
	changed := s.changed
	s.mu.Unlock()
	if known && changed != nil {
		changed(id, false)
	}
}

// settle notes the outcome of m and passes it to those who sent it again. The packet id is touched only if
// it still stands for m: a PUBREL that came too early has freed it, and another message may have it now.
func (s *session) settle(m *Message, o outcome) {
	s.mu.Lock()
	waiters := m.waiters
	m.waiters = nil
	in, known := s.received[m.id]
	if known = known && in.pending == m; known {
		if o.state == slotAcked {
			in.pending, in.code = nil, o.code
			s.received[m.id] = in
		} else {
			s.remove(m.id, m.conn.srv)
		}
	}
	changed := s.changed
	s.mu.Unlock()
	for _, w := range waiters {
		w.conn.settle(w.slot, 0, o)
	}
	if known && changed != nil {
		changed(m.id, o.state == slotAcked)
	}
}

// receivedIDs gives the ids of what is stored and not released, and of what is on its way here. mu is held.
func (s *session) receivedIDs() (stored, pending []uint16) {
	for id, in := range s.received {
		if in.pending == nil {
			stored = append(stored, id)
		} else if in.pending.conn != nil {
			pending = append(pending, id)
		}
	}
	slices.Sort(stored)
	slices.Sort(pending)
	return stored, pending
}

// release frees id at its PUBREL; false if nothing was received with it. A PUBREL before PUBREC breaks the
// protocol and frees it too: an id that stayed would swallow the next message that uses it.
func (s *session) release(id uint16, srv *Server) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.received[id]; !known {
		return false
	}
	s.remove(id, srv)
	return true
}

// remove frees id. mu is held.
func (s *session) remove(id uint16, srv *Server) {
	if s.counted > 0 {
		s.counted--
		srv.extra.give(idBytes)
	}
	delete(s.received, id)
	if len(s.received) == 0 {
		s.received = nil
	}
}

const shardCount = 64
