package driver

import (
	"cmp"
	"maps"

	"sluice/fleet"
)

// A Quest is a command for one client ID that no connection here takes. Exactly one of all is to say what became of it: the
// client's session, at the end of that, or who looks after the client's partition. Where a session has ended, in each stream
// of commands, decides between them.
type Quest struct {
	ClientID  string
	Written   int64 // when the command was, in milliseconds
	Stream    int32 // by the number that the Host gave it
	Offset    int64
	Connected bool // it is for connected devices alone
	// Subscribed says that a session subscribed to the command, Told that one which ends there tells of it. Both are called
	// with a lock held.
	Subscribed func(s *fleet.Session) bool
	Told       func(s *fleet.Session, ends Ends) bool

	owns    Owning  // when the command was read
	born    int64   // the epoch of the last session that had begun here when the command was read
	told    bool    // by a session that has ended meanwhile, or that another instance had
	offered bool    // to the session that there was when it was read
	before  bool    // a session began, at another instance: what became of the one before decides
	heard   bool    // it is open as well, since a session was about to be opened here while it was in doubt
	found   Finding // of one that was settled while it was in doubt
	left    bool    // to a connection elsewhere: who tells of it is known when a record says what became of that
}

// A Finding is who is to say what became of a command.
type Finding uint8

// The findings.
const (
	Elsewhere     Finding = iota // another instance or the session, or it is said already
	NotConnected                 // this instance: there is no session
	NotSubscribed                // this instance: the session has not subscribed
	Doubtful                     // this instance, as it seems: Resolve is to be asked when it is decided who owns, and the partition was read to its end
)

// Seek is asked when the command was read.
func (d *Driver) Seek(q *Quest) Finding {
	p := d.part(q.ClientID)
	p.lock()
	defer p.unlock()
	h := p.clients[q.ClientID]
	q.owns = p.owns()
	switch {
	case q.Offset < p.ahead[q.ClientID][q.Stream] && !(q.owns == Mine && p.skipped(q) || p.precedesBirth(q) != nil):
		return Elsewhere
	case h == nil && q.owns == Other:
		p.hearOther(q)
		return Elsewhere
	}
	if h != nil {
		q.born = h.born
	}
	if _, state := p.newest(q.ClientID); state != nil {
		q.offered = state.Offered(p.place(q))
	}
	found := p.find(q)
	c := h.connection()
	switch {
	case found == Elsewhere:
		if p.left == nil {
			p.left = make(map[int32]lastLeft)
		}
		p.left[q.Stream] = lastLeft{q.ClientID, q.Offset + 1}
		if q.left || q.owns == Other {
			p.hear(q, q.left)
		}
		if !q.left && h.sessionOnItsWay() > 0 {
			h.opening.conn.tells(q.Stream, q.Offset) // it waits for the session before, of which is told here
		}
		p.reconsiderBefore(q)
		return Elsewhere
	case c != nil && (c.lasting || q.owns == Other): // its session is here still, or is about to be
		c.tells(q.Stream, q.Offset)
		return found
	case q.owns != Undecided && h.sessionOnItsWay() > 0:
		h.opening.conn.tells(q.Stream, q.Offset)
		return found // it comes behind what the session's record says
	case q.owns == Other:
		p.hear(q, true)
		return Elsewhere
	case q.owns == Mine && h != nil && h.opening != nil:
		q.heard = true
		p.hear(q, true)
	}
	if p.quests == nil {
		p.quests = make(map[*Quest]struct{})
	}
	p.quests[q] = struct{}{}
	return Doubtful
}

// Resolve is asked once for each command that was Doubtful.
func (d *Driver) Resolve(q *Quest) Finding {
	p := d.part(q.ClientID)
	p.lock()
	defer p.unlock()
	delete(p.quests, q)
	if q.owns == Undecided && p.turned() != Mine {
		p.hearOther(q)
		return Elsewhere
	}
	if q.heard && !p.heard.has(q) {
		return q.found // it is settled
	}
	if h := p.clients[q.ClientID]; q.heard && h != nil && h.conn != nil {
		p.heard.resolve(q)
		return Elsewhere // it is about to be
	}
	found := p.find(q)
	switch {
	case q.heard && !q.left:
		p.heard.drop(q)
	case q.heard:
		p.heard.resolve(q)
	case q.left:
		p.hear(q, true)
	}
	p.reconsiderBefore(q)
	return found
}

// find says who tells of a command. mu is held.
func (p *part) find(q *Quest) Finding {
	h := p.clients[q.ClientID]
	switch {
	case q.told:
		return Elsewhere
	case p.precedesBirth(q) != nil:
		q.left, q.before = true, true
		return Elsewhere
	case h != nil && h.born > q.born:
		return NotConnected
	case h != nil && h.beginning():
		if past := h.lastPast(); past != nil && !q.Connected && q.Subscribed(past.state) {
			return Elsewhere
		}
		return NotConnected
	}
	if _, last := p.newest(q.ClientID); last != nil && last.Ended && last.Skips(p.place(q)) { // its holder has told of what it had subscribed to
		if q.Subscribed(last) {
			return Elsewhere
		}
		return NotSubscribed
	}
	// A session whose time is over when the command is written is none, and one whose time is not over then tells of it
	// itself, whenever the command is read.
	state, connected := p.whereabouts(q.ClientID, min(millis(), q.Written))
	at := p.place(q)
	switch {
	case state != nil && state.Begins.Passes(at):
		return NotConnected
	case state != nil && state.Skips(at):
	case connected, p.claimed(q.ClientID):
		q.left = state == nil || !state.Offered(at)
		return Elsewhere
	}
	switch {
	case state == nil, q.Connected:
		return NotConnected
	case !q.Subscribed(state) && !q.offered: // else it was told of when the session had no subscription for it, or has it
		return NotSubscribed
	}
	return Elsewhere
}

// claimed says that another instance has claimed a client ID and is about to open its session. mu is held.
func (p *part) claimed(client string) bool {
	me := p.d.me.Load()
	return me != nil && p.view(client).Claimed(me.name)
}

// place is that of a command as records have it.
func (p *part) place(q *Quest) fleet.Mark { return p.d.host.Mark(q.Stream, q.Offset) }

// newest gives the session of a client that was opened last, also one that has ended. mu is held.
func (p *part) newest(client string) (inc string, s *fleet.Session) {
	if h := p.clients[client]; h != nil {
		return h.m.Newest(p.view(client))
	}
	return p.view(client).Newest()
}

// skipped says that a command is in a gap of its client's session. mu is held.
func (p *part) skipped(q *Quest) bool {
	_, s := p.newest(q.ClientID)
	return s != nil && s.Skips(p.place(q))
}

// connection gives the connection of a client that is here, or has ended and waits for what it had under way; nil: there is none.
func (h *holder) connection() *Conn {
	if h == nil {
		return nil
	}
	return cmp.Or(h.conn, h.departing)
}

// tells notes that somebody is told here that a command is not for the session. part.mu is held.
func (c *Conn) tells(stream int32, offset int64) {
	if c.told == nil {
		c.told = make(Ends)
	}
	c.told[stream] = max(c.told[stream], offset+1)
}

// Whereabouts gives the session that a client ID without a connection here has anywhere at a time, and whether it is, as
// far as is known, connected.
func (d *Driver) Whereabouts(clientID string, at int64) (state *fleet.Session, connected bool) {
	p := d.part(clientID)
	p.lock()
	defer p.unlock()
	return p.whereabouts(clientID, at)
}

// whereabouts is told at Driver.Whereabouts. mu is held.
func (p *part) whereabouts(clientID string, at int64) (state *fleet.Session, connected bool) {
	v := p.view(clientID)
	inc, state, ok := v.Base(at)
	h := p.clients[clientID]
	if h != nil {
		if by, own := h.m.Newest(v); own != nil && by == h.inc.name { // the table lags
			inc, state, ok = by, own, !own.Over(at)
		}
	}
	if !ok {
		return nil, false
	}
	connected = !state.Released && state.OfflineSince == 0 && p.elsewhere(inc)
	if !connected && state.Expiry == 0 && (h == nil || !h.lasting() && !h.resumes()) {
		return nil, false
	}
	return state, connected
}

// Arrived says that a client ID has a connection here.
func (d *Driver) Arrived(clientID string) bool {
	p := d.part(clientID)
	p.lock()
	defer p.unlock()
	h := p.clients[clientID]
	return h != nil && h.conn != nil
}

// Ahead gives the offsets below which it is told what became of a client's commands, where that is farther than the devices
// here.
func (d *Driver) Ahead(clientID string) Ends {
	p := d.part(clientID)
	p.lock()
	defer p.unlock()
	return maps.Clone(p.ahead[clientID])
}

// Precedes says that a command came before the session began that its client has here, and is not for it. tells: this
// instance is to say what became of it.
func (d *Driver) Precedes(q *Quest) (precedes, tells bool) {
	p := d.part(q.ClientID)
	p.lock()
	defer p.unlock()
	h := p.clients[q.ClientID]
	if h == nil || h.conn == nil {
		return false, false
	}
	c := h.conn
	if b := p.precedesBirth(q); b != nil && (b.past == nil || b.past.StateEpoch != c.epoch) { // else it is for the connection that there is here still
		q.before = true
		p.hear(q, true)
		p.reconsiderBefore(q)
		return true, false
	}
	// The holder of the session before may have met what was written later too, before it read our claim.
	if !c.Present && q.Offset < p.ahead[q.ClientID][q.Stream] && q.Written < c.Began().UnixMilli() {
		return true, false
	}
	tells = p.owner.Owns() && c.begins.Passes(p.place(q))
	return tells, tells
}

// Skipped says that a command which the session that is here has not subscribed to is in a gap of the session. tells: this
// instance is to say what became of it.
func (d *Driver) Skipped(clientID string, stream int32, offset int64) (skipped, tells bool) {
	p := d.part(clientID)
	p.lock()
	defer p.unlock()
	h := p.clients[clientID]
	skipped = h != nil && h.conn != nil && h.conn.gaps.Has(p.d.host.Mark(stream, offset))
	return skipped, skipped && p.owner.Owns()
}

// A lastLeft is the last command of a stream that was left to the session of a client. It may be in the hands of who has
// read it still.
type lastLeft struct {
	client string
	next   int64 // the offset after it
}

// ends gives where a client's session ends that does so now: it tells of what is below, and nobody has told of that. mu is
// held.
func (p *part) ends(client string) Ends {
	ends := p.d.host.Ends()
	for stream, end := range ends {
		if l := p.left[stream]; l.client == client {
			ends[stream] = max(end, l.next)
		}
	}
	return ends
}

// advance notes how far a session of a client has got, where that is farther than the devices here. mu is held.
func (p *part) advance(client string, progress *fleet.Progress) {
	p.advanceTo(client, p.d.host.Ahead(progress))
}

func (p *part) advanceTo(client string, ahead Ends) {
	for stream, at := range ahead {
		if p.ahead == nil {
			p.ahead = make(map[string]Ends)
		}
		if p.ahead[client] == nil {
			p.ahead[client] = make(Ends)
		}
		p.ahead[client][stream] = max(p.ahead[client][stream], at)
	}
}

// forget drops what the devices here have passed. mu is held.
func (p *part) forget() {
	if len(p.ahead) == 0 {
		return
	}
	here := p.d.host.Ends()
	maps.DeleteFunc(p.ahead, func(_ string, at Ends) bool {
		maps.DeleteFunc(at, func(stream int32, at int64) bool { end, known := here[stream]; return !known || at <= end })
		return len(at) == 0
	})
}

// ended says that a session ends now; nil: there is none. mu is held.
func (p *part) ended(client string, state *fleet.Session) { p.endedAt(client, state, p.ends(client)) }

// endedAt says that a session has ended. mu is held.
func (p *part) endedAt(client string, state *fleet.Session, ends Ends) {
	if state == nil {
		return
	}
	for q := range p.quests {
		q.told = q.told || q.ClientID == client && q.Told(state, ends)
	}
	p.later(func() { p.d.host.Ended(client, state, ends) })
}
