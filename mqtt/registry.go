package mqtt

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

// registry holds the sessions by client ID.
type registry struct {
	seed      maphash.Seed
	shards    [shardCount]shard
	stored    atomic.Int64 // sessions without a connection, over all shards
	maxStored int64
	kept      atomic.Int64 // sessions that outlive their connection; not counted if elsewhere
	maxKept   int64        // 0: any number
	elsewhere bool         // sessions are kept in a Store
}

type shard struct {
	mu       sync.Mutex
	sessions map[string]*session
	stored   int // sessions without a connection
}

func newRegistry(maxStored int) *registry {
	r := &registry{seed: maphash.MakeSeed(), maxStored: int64(maxStored)}
	for i := range r.shards {
		r.shards[i].sessions = make(map[string]*session)
	}
	return r
}

func (r *registry) shard(clientID string) *shard {
	return &r.shards[maphash.String(r.seed, clientID)%shardCount]
}

// count adds n to the stored sessions of sh, whose mutex is held.
func (r *registry) count(sh *shard, n int) {
	sh.stored += n
	r.stored.Add(int64(n))
}

// An attachment is what registry.attach found.
type attachment struct {
	session  *session
	present  bool
	replaced *session // ended by a clean start or by its time, nil if there was none
	due      *Message // its will [MQTT-3.1.2-8]
	old      *Conn    // holds the client ID: nothing was attached, try again when gone is closed
	opening  bool     // it is about to get its session
	full     bool     // it would be one session too many: nothing was attached
	foreign  bool     // the client ID has a session of another user: nothing was attached
	gone     <-chan struct{}
}

// attach makes c the connection of its client ID, unless another connection holds it.
func (r *registry) attach(c *Conn, clientID string, clean bool, expiry uint32) (a attachment) {
	sh := r.shard(clientID)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s := sh.sessions[clientID]
	// What another instance or Kafka has, the Store knows; who is connected here, and was let in, we do.
	if s != nil && s.isForeign(c) && (!r.elsewhere || s.conn != nil && !s.opening) {
		return attachment{foreign: true}
	}
	if s != nil && s.conn != nil {
		if s.gone == nil {
			s.gone = make(chan struct{})
		}
		return attachment{old: s.conn, opening: s.opening, gone: s.gone}
	}
	kept := false
	if s != nil {
		kept = s.kept
		r.count(sh, -1)
		a.present = !clean && !s.expired(time.Now())
		if !a.present {
			a.replaced, a.due = s, s.will
			s = nil
		} else {
			s.will = nil // the device is back in time: its will is cancelled (section 3.1.3.2.2)
		}
	}
	if s == nil {
		s = &session{clientID: clientID, owner: c.principal(), kept: kept}
	}
	if !r.keep(s, expiry > 0) { // then there was none before, and nothing has changed
		return attachment{full: true}
	}
	sh.sessions[clientID] = s
	s.conn, s.expiry, s.endsAt, s.opening = c, expiry, 0, r.elsewhere
	a.session = s
	return a
}

// keep has s count for MaxSessions from now on, or not; false: there are too many. The shard's mutex is held.
func (r *registry) keep(s *session, kept bool) bool {
	switch {
	case kept == s.kept || r.elsewhere:
		return true
	case !kept:
		r.kept.Add(-1)
	case r.kept.Add(1) > r.maxKept && r.maxKept > 0:
		r.kept.Add(-1)
		return false
	}
	s.kept = kept
	return true
}

// isForeign says that s is another user's than that of c, and not over. The shard's mutex is held.
func (s *session) isForeign(c *Conn) bool {
	return s.owner != c.principal() && (s.conn != nil || !s.expired(time.Now()))
}

// opened ends the time in which it is not known what the session holds.
func (r *registry) opened(s *session) {
	sh := r.shard(s.clientID)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s.opening = false
	s.wake()
}

// wake has those try again who wait for the client ID; false: there are none. The shard's mutex is held.
func (s *session) wake() bool {
	if s.gone == nil {
		return false
	}
	close(s.gone)
	s.gone = nil
	return true
}

// find gives the session of a client ID, nil if there is none that is open, and whether it has a connection.
func (r *registry) find(clientID string) (s *session, connected bool) {
	sh := r.shard(clientID)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if s = sh.sessions[clientID]; s == nil || s.opening {
		return nil, false
	}
	return s, s.conn != nil
}

// end settles what a session leaves, when it is no longer in the registry. s may be nil.
func (s *session) end(srv *Server) {
	if s == nil {
		return
	}
	s.uncount(srv)
	if o := s.outbox.Load(); o != nil {
		o.end()
	}
}

func (s *session) expired(now time.Time) bool { return s.endsAt != 0 && now.UnixMilli() >= s.endsAt }

// detach ends the connection's hold on s. The session is stored if it has an expiry and there is room, which
// a session that another connection waits for does not need. will is nil or the Will Message that was not
// discarded; it is returned if it must be published now.
func (r *registry) detach(s *session, will *Message, delay uint32) (due *Message, ended bool) {
	sh := r.shard(s.clientID)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	awaited := s.vacate()
	if s.expiry == 0 || !awaited && r.stored.Load() >= r.maxStored {
		delete(sh.sessions, s.clientID)
		r.keep(s, false)
		return will, true
	}
	// Milliseconds rounded up: neither a session nor a will may be early.
	now := time.Now().UnixMilli() + 1
	r.count(sh, 1)
	if s.expiry != neverExpires {
		s.endsAt = now + 1000*int64(s.expiry)
	}
	if will == nil || delay == 0 {
		return will, false
	}
	s.will, s.willDue = will, now+1000*int64(delay)
	return nil, false
}

// vacate ends the connection's hold and says whether somebody waited for that. The shard's mutex is held.
func (s *session) vacate() (awaited bool) {
	s.conn = nil
	return s.wake()
}

// release ends the connection's hold on s, which is kept elsewhere or not at all.
func (r *registry) release(s *session) {
	sh := r.shard(s.clientID)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s.vacate()
	r.keep(s, false)
	delete(sh.sessions, s.clientID)
}

// expiryOf gives the Session Expiry Interval.
func (r *registry) expiryOf(s *session) uint32 {
	sh := r.shard(s.clientID)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return s.expiry
}

// sweep ends the stored sessions that expired and gives them and the wills that are due: by their delay or by
// the end of their session, whichever is first. all takes every one, when the process ends.
func (r *registry) sweep(now time.Time, all bool) (due []*Message, over []*session) {
	for i := range r.shards {
		sh := &r.shards[i]
		sh.mu.Lock()
		if sh.stored > 0 {
			for id, s := range sh.sessions {
				if s.conn != nil {
					continue
				}
				ended := all || s.expired(now)
				if s.will != nil && (ended || now.UnixMilli() >= s.willDue) {
					due = append(due, s.will)
					s.will = nil
				}
				if ended {
					delete(sh.sessions, id)
					r.keep(s, false)
					r.count(sh, -1)
					over = append(over, s)
				}
			}
		}
		sh.mu.Unlock()
	}
	return due, over
}

// setExpiry takes the Session Expiry Interval of a DISCONNECT.
func (r *registry) setExpiry(s *session, expiry uint32) {
	sh := r.shard(s.clientID)
	sh.mu.Lock()
	s.expiry = expiry
	r.keep(s, expiry > 0)
	sh.mu.Unlock()
}

// storedCount counts the sessions without a connection.
func (r *registry) storedCount() int { return int(r.stored.Load()) }
