package driver

import (
	"maps"
	"slices"

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
	// Subscribed says that a session subscribed to the command, Told that one which ends there tells of it. All are called
	// with a lock held.
	Subscribed func(s *fleet.Session) bool
	// Below says that it is below a position.
	Below func(p *fleet.Progress) bool
	Told  func(s *fleet.Session, ends Ends) bool

	owns Owning // when the command was read
	born int64  // the epoch of the last session that had begun here when the command was read
	told bool   // by a session that has ended meanwhile
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
	case q.Offset < p.ahead[q.ClientID][q.Stream]:
		return Elsewhere
	case h == nil && q.owns == Other:
		p.pass(q)
		return Elsewhere
	}
	if h != nil {
		q.born = h.born
	}
	switch found := p.find(q); {
	case found == Elsewhere:
		if p.left == nil {
			p.left = make(map[int32]lastLeft)
		}
		p.left[q.Stream] = lastLeft{q.ClientID, q.Offset + 1}
		return Elsewhere
	case h != nil && h.lasting(): // its session is here still, or is about to be
		return found
	case q.owns == Other && h.m.Begins():
		return found // it comes behind what the session's record says
	case q.owns == Other:
		p.pass(q)
		if h.opening != nil {
			h.m.BeginAt(p.sessionBegins(q.ClientID))
		}
		return Elsewhere
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
		return Elsewhere
	}
	return p.find(q)
}

// find says who tells of a command. mu is held.
func (p *part) find(q *Quest) Finding {
	h := p.clients[q.ClientID]
	switch {
	case q.told:
		return Elsewhere
	case h != nil && h.born > q.born:
		return NotConnected
	case h != nil && h.beginning():
		if h.past != nil && !q.Connected && q.Subscribed(h.past.state) {
			return Elsewhere
		}
		return NotConnected
	}
	// A session whose time is over when the command is written is none, and one whose time is not over then tells of it
	// itself, whenever the command is read.
	switch state, connected := p.whereabouts(q.ClientID, min(millis(), q.Written)); {
	case state != nil && state.Begins != nil && q.Below(state.Begins):
		return NotConnected
	case connected:
		return Elsewhere
	case state == nil, q.Connected:
		return NotConnected
	case !q.Subscribed(state) && !q.Below(&state.Progress): // else it was told of when the session had no subscription for it, or has it
		return NotSubscribed
	}
	return Elsewhere
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
	// The holder of the session before may have met what was written later too, before it read our claim.
	if !c.Present && q.Offset < p.ahead[q.ClientID][q.Stream] && q.Written < c.Began().UnixMilli() {
		return true, false
	}
	tells = c.begins != nil && p.owner.Owns() && q.Below(c.begins)
	return tells, tells
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

// pass leaves a command to who looks after the partition of its client, which has no session anywhere. mu is held.
func (p *part) pass(q *Quest) {
	if !p.view(q.ClientID).Lives() {
		p.passed.add(q)
	}
}

// passed are the last commands that were read here and left to who looks after the partitions of their clients, which had no
// session: one that begins here begins behind them. The zero value is ready to use.
type passed struct {
	by    map[string]Ends // by client ID
	order []string        // in which the clients came
}

// passedKept bounds the clients of a partition.
const passedKept = 1000

func (a *passed) add(q *Quest) {
	if a.by == nil {
		a.by = make(map[string]Ends)
	}
	at := a.by[q.ClientID]
	if at == nil {
		if len(a.order) == passedKept {
			delete(a.by, a.order[0])
			a.order = slices.Delete(a.order, 0, 1)
		}
		at = make(Ends)
		a.by[q.ClientID], a.order = at, append(a.order, q.ClientID)
	}
	at[q.Stream] = max(at[q.Stream], q.Offset+1)
}

// sessionBegins gives where a session that begins now does so, if there is none that it takes the place of: of what waited
// for such a one it is told by who opens the new one. nil: it has all. mu is held.
func (p *part) sessionBegins(client string) *fleet.Progress {
	if _, _, replaces := p.view(client).Base(millis()); replaces || len(p.passed.by[client]) == 0 {
		return nil
	}
	return p.d.host.Positions(p.passed.by[client])
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

// endedBy gives the epoch of the session that another writer of a client's record has ended, else 0. mu is held.
func (p *part) endedBy(key []byte) int64 {
	me := p.d.me.Load()
	_, client, inc, err := fleet.ParseKey(key)
	if me == nil || err != nil || inc == me.name {
		return 0
	}
	return p.view(client).Ended(inc)
}

// gap says that another instance has ended a session with its connection: what that had read is not for a session that begins
// here, and of what was read here before it, and there after it, each has left it to the other. What it had read before the
// session is left to who tells of absent devices: where that one has still to read it, it tells of all, better twice than not
// at all. mu is held.
func (p *part) gap(key []byte) {
	_, client, inc, _ := fleet.ParseKey(key)
	if s := p.view(client).Session(inc); s != nil && s.Ends != nil {
		ahead := p.d.host.Ahead(s.Ends)
		if s.Begins != nil && p.owner.Owns() {
			for stream := range p.d.host.Ahead(s.Begins) {
				delete(ahead, stream)
			}
		}
		p.advanceTo(client, ahead)
		for q := range p.quests {
			q.told = q.told || q.ClientID == client && q.Below(s.Ends) && (s.Begins == nil || !q.Below(s.Begins))
		}
		if p.owner.Owns() {
			ends := p.ends(client)
			p.later(func() { p.d.host.Missed(client, s, ends) })
		}
	}
}
