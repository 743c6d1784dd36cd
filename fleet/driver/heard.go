package driver

import (
	"cmp"
	"slices"

	"sluice/fleet"
)

// heards are the last commands for one client ID each that were read here and that no connection here took. A session that is
// opened here begins behind them, or goes on behind them: they are for who looks after the partition to tell of. Of those that
// were left to a connection elsewhere it is not known yet who tells: the record of its end says so, or of the next connection.
// The zero value is ready to use.
type heards struct {
	now, before map[string]*heard // by client ID
	n           int               // of commands in now, and for long client IDs more
}

// A heard is what there is of one client.
type heard struct {
	last []heardMark // in each stream
	open []heardMark
}

// A heardMark is where a command is.
type heardMark struct {
	stream int32
	offset int64
	epoch  int64 // of the newest session when it was read; 0: there was none, or it is not open
	// behind is the epoch of the session whose record was on its way here when the command was read: this instance tells of it, unless
	// the session before was offered it, and the record of the end of its attempt or connection says so. 0: there was none.
	behind int64
	doubt  *Quest // of one that is open, and in doubt as well; else nil
	sure   bool   // the sessions were read to where they ended after it was read
	owned  bool   // this instance was to tell of it: the others have left it to that, also if the partition moves
}

// heardKept is how many commands of a partition are kept at least, if client IDs are no longer than usual.
const (
	heardKept    = 2000
	commonLength = 128
)

// hear notes a command; open: it is not known who tells. The record by which a session is being opened here says so, if it is
// still to be written. mu is held.
func (p *part) hear(q *Quest, open bool) {
	m, h := heardMark{stream: q.Stream, offset: q.Offset}, p.clients[q.ClientID]
	if open {
		if q.heard {
			m.doubt = q
		}
		m.epoch = p.view(q.ClientID).Epoch()
		if begun := h.sessionOnItsWay(); begun > 0 && !q.before {
			m.behind = begun
			h.opening.conn.tells(q.Stream, q.Offset)
		}
	}
	p.heard.add(q.ClientID, m, open)
	if h != nil && h.opening != nil {
		h.m.Heard(p.heardBy(q.ClientID))
	}
}

// hearDoubts notes the commands for a client that are in doubt, of whose client a session is about to be opened here: what its
// record says, and what is read until then, decides. mu is held.
func (p *part) hearDoubts(client string) {
	var all []*Quest
	for q := range p.quests {
		if q.ClientID == client && q.owns == Mine && !q.told && !q.heard {
			all = append(all, q)
		}
	}
	slices.SortFunc(all, func(a, b *Quest) int { return cmp.Or(cmp.Compare(a.Stream, b.Stream), cmp.Compare(a.Offset, b.Offset)) })
	for _, q := range all {
		q.heard = true
		p.hear(q, true)
	}
}

// hearOther notes that a command was read whose client another instance looks after. mu is held.
func (p *part) hearOther(q *Quest) {
	p.hear(q, p.view(q.ClientID).Connected() || p.claimed(q.ClientID))
}

// add is told at hear.
func (a *heards) add(client string, m heardMark, open bool) {
	if a.now == nil || a.n >= heardKept {
		a.now, a.before, a.n = make(map[string]*heard), a.now, 0
	}
	a.n++
	h := a.now[client]
	if h == nil {
		h = new(heard) // it may be one of many: no map
		a.now[client] = h
		a.n += len(client) / commonLength
	}
	last := heardMark{stream: m.stream, offset: m.offset}
	if i := slices.IndexFunc(h.last, func(l heardMark) bool { return l.stream == m.stream }); i < 0 {
		h.last = append(h.last, last)
	} else if h.last[i].offset < m.offset {
		h.last[i] = last
	}
	if open {
		h.open = append(h.open, m)
	}
}

// reopen has a command that was settled be open again. Those of a client count once.
func (a *heards) reopen(client string, m heardMark) {
	if h := a.now[client]; h != nil {
		h.open = append(h.open, m)
		return
	}
	a.add(client, m, true)
}

// owned says that there is an open command of which nobody else tells.
func (a *heards) owned() bool {
	for _, clients := range []map[string]*heard{a.before, a.now} {
		for _, h := range clients {
			if slices.ContainsFunc(h.open, func(m heardMark) bool { return m.owned }) {
				return true
			}
		}
	}
	return false
}

// of gives what there is of a client.
func (a *heards) of(client string) (all []*heard) {
	for _, m := range []map[string]*heard{a.before, a.now} {
		if h := m[client]; h != nil {
			all = append(all, h)
		}
	}
	return all
}

// isOpen says that there are commands for a client of which it is not known who tells.
func (a *heards) isOpen(client string) bool {
	return slices.ContainsFunc(a.of(client), func(h *heard) bool { return len(h.open) > 0 })
}

// has says that a command is open.
func (a *heards) has(q *Quest) bool {
	return slices.ContainsFunc(a.of(q.ClientID), func(h *heard) bool { return slices.ContainsFunc(h.open, q.is) })
}

// drop has a command be settled.
func (a *heards) drop(q *Quest) { a.settle(q.ClientID, q.is) }

// resolve notes that a command which is open is not in doubt any more.
func (a *heards) resolve(q *Quest) {
	for _, h := range a.of(q.ClientID) {
		if i := slices.IndexFunc(h.open, q.is); i >= 0 {
			h.open[i].doubt = nil
		}
	}
}

// is says that a mark is that of a command.
func (q *Quest) is(m heardMark) bool { return m.stream == q.Stream && m.offset == q.Offset }

// settle asks of each command of a client that is open whether it is settled now.
func (a *heards) settle(client string, settled func(heardMark) bool) {
	for _, h := range a.of(client) {
		left := h.open[:0]
		for _, m := range h.open {
			if !settled(m) {
				left = append(left, m)
			}
		}
		h.open = left
	}
}

// heardBy gives how far commands for a client were heard here; nil: there were none. mu is held.
func (p *part) heardBy(client string) *fleet.Progress {
	ends := make(Ends)
	for _, h := range p.heard.of(client) {
		for _, m := range h.last {
			ends[m.stream] = max(ends[m.stream], m.offset+1)
		}
	}
	if len(ends) == 0 {
		return nil
	}
	return p.d.host.Positions(ends)
}

// reconsider finds out who tells of the commands for a client that are open, after a record of it was read or a verdict on who
// had it: of what was left to one that is dead it is not known what it has told of, so nobody tells. mu is held.
func (p *part) reconsider(client string) {
	p.reopen(client)
	if !p.heard.isOpen(client) {
		return
	}
	v, h := p.view(client), p.clients[client]
	inc, s := p.newest(client)
	undecided := p.claimed(client) || h != nil && (h.conn != nil || h.opening != nil)
	connected := inc != p.d.me.Load().name && v.Connected()
	p.heard.settle(client, func(m heardMark) bool {
		at := p.d.host.Mark(m.stream, m.offset)
		if m.behind > 0 {
			return p.settleBehind(client, m, at)
		}
		if b := p.birth(client, m.stream, m.offset); b != nil {
			if h != nil && h.opening != nil && !p.owner.Owns() {
				return false // the one that is being opened here may be above that
			}
			return p.settleBefore(client, m, b, at)
		}
		if s != nil && m.isBefore(s.Began) { // another session has taken the place of that which it was left to
			if by, last := before(v, s.Began); last != nil {
				return p.settleLast(client, m, by, last, at)
			}
		}
		if s != nil && s.IsLast() && (p.offered(inc, s, at) || s.Clean && !s.Ended && s.StateEpoch < s.Claim) { // about to be replaced
			return p.settleLast(client, m, inc, s, at)
		}
		return !undecided && p.settle(client, m, inc, s, at, connected && s != nil && !s.Begins.Passes(at) && !s.Skips(at))
	})
}

// isBefore says that a command was left to a session before that which began with an epoch.
func (m *heardMark) isBefore(began int64) bool { return m.epoch < began }

// before gives the last word on a client's session before that which began with an epoch; nil: who had it has begun the next
// one.
func before(v fleet.View, began int64) (inc string, last *fleet.Session) {
	for _, e := range v.Entries() {
		if e.StateEpoch > 0 && e.StateEpoch < began && (last == nil || e.StateEpoch > last.StateEpoch) {
			inc, last = e.Inc, v.Session(e.Inc)
		}
	}
	return inc, last
}

// settleLast is settle for the session before the one that there is. What waited for that one, who has taken its place tells.
func (p *part) settleLast(client string, m heardMark, inc string, last *fleet.Session, at fleet.Mark) bool {
	return p.settle(client, m, inc, last, at, lacksLastWord(last))
}

// settle says whether it is known who tells of a command now that a client's session is s of inc, nil for none, and has it told
// of if that is for this instance to do. offers: the session may still be offered it. Of what was left to a connection of an
// instance that is dead nobody tells. mu is held.
func (p *part) settle(client string, m heardMark, inc string, s *fleet.Session, at fleet.Mark, offers bool) bool {
	if p.gone(inc, s, at) {
		return true
	}
	if s != nil && offers {
		return false
	}
	// Who has the next session tells of what it had not read when that began.
	if by, next := p.newest(client); next != nil && by != p.d.me.Load().name && m.isBefore(next.Began) && !next.Begins.Passes(at) {
		switch {
		case p.gone(by, next, at):
			return true
		case p.view(client).Connected():
			return false
		}
	}
	if !p.owner.Owns() && !m.owned {
		return true
	}
	if m.doubt == nil && !m.sure && p.suspend(client, m, s) {
		return true
	}
	p.unwanted(client, m, s, at)
	return true
}

// gone says that nobody is to tell of a command any more for a session of inc: it was offered it, or nobody knows what it was offered.
// mu is held.
func (p *part) gone(inc string, s *fleet.Session, at fleet.Mark) bool {
	if s == nil {
		return false
	}
	_, dead := p.table.Dead(inc)
	return p.offered(inc, s, at) || dead && lacksLastWord(s)
}

// offered says that a session of inc was offered a command that was read here and not given. Ours were not: what they say lies behind
// all that was read. mu is held.
func (p *part) offered(inc string, s *fleet.Session, at fleet.Mark) bool {
	return inc != p.d.me.Load().name && s.Offered(at)
}

// lacksLastWord says that who has a session has still to say how far it was offered commands.
func lacksLastWord(s *fleet.Session) bool { return !s.IsLast() && !s.Ended }

// settleBehind is settle for a command that was read here behind the record by which a session began. mu is held.
func (p *part) settleBehind(client string, m heardMark, at fleet.Mark) bool {
	inc, last := before(p.view(client), m.behind)
	switch {
	case p.gone(inc, last, at):
		return true
	case last != nil && lacksLastWord(last):
		return false
	}
	p.unwanted(client, m, last, at)
	return true
}

// unwanted tells of a command that no session was offered. mu is held.
func (p *part) unwanted(client string, m heardMark, s *fleet.Session, at fleet.Mark) {
	if s != nil && (s.Ended && !s.Skips(at) || s.Begins.Passes(at)) { // what a session had subscribed to of a gap it has got
		s = nil
	}
	if q := m.doubt; q != nil { // who has it tells, and need not read it again
		switch {
		case s == nil, q.Connected:
			q.found = NotConnected
		case !q.Subscribed(s):
			q.found = NotSubscribed
		}
		return
	}
	p.later(func() { p.d.host.Unwanted(client, m.stream, m.offset, s) })
}

// settleHeard finds out who tells of the commands that were heard before a connection was open here. part.mu is held.
func (h *holder) settleHeard(a fleet.Action) {
	h.p.reopenAll(h.id)
	if !h.p.heard.isOpen(h.id) {
		return
	}
	began, owns, past := a.State.Began, h.p.owner.Owns(), h.lastPast()
	_, last := before(h.p.view(h.id), began)
	h.p.heard.settle(h.id, func(m heardMark) bool {
		at := h.p.d.host.Mark(m.stream, m.offset)
		state := a.State
		if m.behind > 0 {
			return h.p.settleBehind(h.id, m, at)
		}
		if b := h.p.birth(h.id, m.stream, m.offset); b != nil {
			return h.p.settleBefore(h.id, m, b, at)
		}
		switch {
		case state.Offered(at), !owns && !m.owned && (state.Begins.Passes(at) || state.Skips(at)):
			return true
		case m.isBefore(began) && past != nil && past.inc == h.inc.name:
			return h.p.settleLast(h.id, m, past.inc, past.state, at)
		case m.isBefore(began) && last != nil:
			return false // see reconsider
		case a.Present:
		default:
			state = nil
		}
		h.conn.tells(m.stream, m.offset)
		h.p.unwanted(h.id, m, state, at)
		return true
	})
	h.p.reconsider(h.id)
}

// overtaken notes which commands that are in doubt a session of another instance was offered, or leaves. mu is held.
func (p *part) overtaken(client, inc string) {
	if len(p.quests) == 0 {
		return
	}
	var s *fleet.Session
	for q := range p.quests {
		if q.ClientID != client {
			continue
		}
		if s == nil {
			if s = p.view(client).Session(inc); s == nil || s.StateEpoch == 0 {
				return
			}
		}
		q.told = q.told || s.Offered(p.place(q))
	}
}

// gap notes how far a session of another instance that has ended had come, where that is farther than here. mu is held.
func (p *part) gap(client string, s *fleet.Session) {
	if s == nil || s.Ends == nil {
		return
	}
	p.advanceTo(client, p.d.host.Ahead(s.Ends))
}
