package mqtt

import (
	"hash/maphash"
	"math"
	"sync"
	"time"
)

// neverExpires is the Session Expiry Interval of a session without an end (section 3.1.2.11.2).
const neverExpires = math.MaxUint32

// A session is what outlives a connection: the packet ids of QoS 2 messages that were received and not
// released, and a will that waits for its delay.
type session struct {
	clientID string

	// Guarded by the shard's mutex.
	conn    *Conn         // nil while stored
	gone    chan struct{} // closed when conn has left; made by the first who waits for that
	expiry  uint32        // Session Expiry Interval, seconds
	endsAt  int64         // unix seconds, while stored; 0: never
	will    *Message
	willDue int64 // unix seconds

	mu       sync.Mutex
	received map[uint16]inbound // guarded by mu
}

// inbound is the state of a QoS 2 message by packet id, from its first PUBLISH to its PUBREL.
type inbound struct {
	stored   bool // PUBREC may go out; false: its outcome is awaited
	released bool // PUBREL came before the outcome
	waiters  []waiter
}

// A waiter is the slot of a PUBLISH that was sent again while the first one's outcome was awaited.
type waiter struct {
	conn *Conn
	slot uint32
}

type receipt int

const (
	receivedFirst  receipt = iota // hand it over
	receivedAgain                 // its outcome is awaited, the slot gets it too
	receivedStored                // acknowledge at once
)

// receive enters a PUBLISH with QoS 2. slot is the place of its PUBREC on conn.
func (s *session) receive(id uint16, conn *Conn, slot uint32) receipt {
	s.mu.Lock()
	defer s.mu.Unlock()
	in, known := s.received[id]
	switch {
	case !known:
		if s.received == nil {
			s.received = make(map[uint16]inbound)
		}
		s.received[id] = inbound{}
		return receivedFirst
	case in.stored:
		return receivedStored
	}
	in.waiters = append(in.waiters, waiter{conn, slot})
	s.received[id] = in
	return receivedAgain
}

// forget takes back a receive that was not handed over.
func (s *session) forget(id uint16) {
	s.mu.Lock()
	delete(s.received, id)
	s.mu.Unlock()
}

// settle notes the outcome of the message with this id and passes it to those who sent it again.
func (s *session) settle(id uint16, o outcome) {
	s.mu.Lock()
	in, known := s.received[id]
	if !known || in.stored {
		s.mu.Unlock()
		return
	}
	waiters := in.waiters
	if o.state != slotAcked || in.released {
		delete(s.received, id)
	} else {
		s.received[id] = inbound{stored: true}
	}
	s.mu.Unlock()
	for _, w := range waiters {
		w.conn.settle(w.slot, 0, o)
	}
}

// release ends the exchange of id at its PUBREL; false if there is none.
func (s *session) release(id uint16) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	in, known := s.received[id]
	if !known {
		return false
	}
	if in.stored {
		delete(s.received, id)
		if len(s.received) == 0 {
			s.received = nil
		}
		return true
	}
	// PUBREL before PUBREC breaks the protocol. Kept until the outcome is known: an id that stayed for
	// good would swallow the next message that uses it.
	in.released = true
	s.received[id] = in
	return true
}

func (s *session) unreleased() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.received)
}

const shardCount = 64

// registry holds the sessions by client ID.
type registry struct {
	seed   maphash.Seed
	shards [shardCount]shard
}

type shard struct {
	mu       sync.Mutex
	sessions map[string]*session
	stored   int // sessions without a connection
}

func newRegistry() *registry {
	r := &registry{seed: maphash.MakeSeed()}
	for i := range r.shards {
		r.shards[i].sessions = make(map[string]*session)
	}
	return r
}

func (r *registry) shard(clientID string) *shard {
	return &r.shards[maphash.String(r.seed, clientID)%shardCount]
}

// attach makes c the connection of its client ID. If another connection holds it, that one's channel is
// returned and the caller tries again once it is closed. due is a will whose session ended by a clean
// start [MQTT-3.1.2-8].
func (r *registry) attach(c *Conn, clientID string, clean bool, expiry uint32) (s *session, present bool, due *Message, busy *session) {
	sh := r.shard(clientID)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s = sh.sessions[clientID]
	if s != nil && s.conn != nil {
		if s.gone == nil {
			s.gone = make(chan struct{})
		}
		return nil, false, nil, s
	}
	if s != nil {
		sh.stored--
		present = !clean && !s.expired(time.Now())
		if !present {
			due = s.will
			s = nil
		} else {
			s.will = nil // the device is back in time: its will is cancelled (section 3.1.3.2.2)
		}
	}
	if s == nil {
		s = &session{clientID: clientID}
		sh.sessions[clientID] = s
	}
	s.conn, s.expiry, s.endsAt = c, expiry, 0
	return s, present, due, nil
}

func (s *session) expired(now time.Time) bool { return s.endsAt != 0 && now.Unix() >= s.endsAt }

// holder gives the connection of s and the channel that closes when it has left.
func (r *registry) holder(s *session) (*Conn, <-chan struct{}) {
	sh := r.shard(s.clientID)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if s.conn == nil {
		return nil, nil
	}
	return s.conn, s.gone
}

// detach ends the connection's hold on s. The session is stored if it has an expiry and there is room. will
// is nil or the Will Message that was not discarded; it is returned if it must be published now.
func (r *registry) detach(s *session, will *Message, delay uint32, maxStored int) (due *Message) {
	sh := r.shard(s.clientID)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s.conn = nil
	if s.gone != nil {
		close(s.gone)
		s.gone = nil
	}
	if s.expiry == 0 || sh.stored >= maxStored/shardCount {
		delete(sh.sessions, s.clientID)
		return will
	}
	now := time.Now().Unix()
	sh.stored++
	if s.expiry != neverExpires {
		s.endsAt = now + int64(s.expiry)
	}
	if will == nil || delay == 0 {
		return will
	}
	s.will, s.willDue = will, now+int64(delay)
	return nil
}

// sweep ends the stored sessions that expired and gives the wills that are due: by their delay or by the
// end of their session, whichever is first. all takes every will, when the process ends.
func (r *registry) sweep(now time.Time, all bool) (due []*Message) {
	for i := range r.shards {
		sh := &r.shards[i]
		sh.mu.Lock()
		if sh.stored > 0 {
			for id, s := range sh.sessions {
				if s.conn != nil {
					continue
				}
				ended := s.expired(now)
				if s.will != nil && (all || ended || now.Unix() >= s.willDue) {
					due = append(due, s.will)
					s.will = nil
				}
				if ended {
					delete(sh.sessions, id)
					sh.stored--
				}
			}
		}
		sh.mu.Unlock()
	}
	return due
}

// setExpiry takes the Session Expiry Interval of a DISCONNECT.
func (r *registry) setExpiry(s *session, expiry uint32) {
	sh := r.shard(s.clientID)
	sh.mu.Lock()
	s.expiry = expiry
	sh.mu.Unlock()
}

func (r *registry) expiryOf(s *session) uint32 {
	sh := r.shard(s.clientID)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return s.expiry
}

// stored counts the sessions without a connection.
func (r *registry) storedCount() (n int) {
	for i := range r.shards {
		sh := &r.shards[i]
		sh.mu.Lock()
		n += sh.stored
		sh.mu.Unlock()
	}
	return n
}
