package driver

import (
	"maps"

	"sluice/fleet"
)

// A birth is that of a session which another instance has opened, as long as commands are still to be read here which that
// one had read before. It tells of those that waited for the session before; of the others who looks after the partition does.
type birth struct {
	epoch  int64           // of the session
	begins *fleet.Progress // of the session
	inc    string          // who had the session before
	past   *fleet.Session  // the session before, in its last state; nil: there was none
	told   Ends            // what was ahead then
	before *birth          // of another one
}

// mostBirths bounds how many are kept of one client. The last ones count.
const mostBirths = 4

// birthsKept bounds of how many clients of a partition they are kept. Of what comes before others nobody may tell, or two.
const birthsKept = 1000

// lastWord notes the last word of inc on a session that another one has taken the place of. mu is held.
func (p *part) lastWord(client, inc string) {
	for b := p.births[client]; b != nil; b = b.before {
		if b.past == nil || b.inc != inc || b.past.IsLast() {
			continue
		}
		if last := p.view(client).Session(inc); last != nil && last.StateEpoch == b.past.StateEpoch {
			b.past = last
		}
	}
}

// begun notes the beginning of a session of another instance. kept is what there was before its record was read. mu is held.
func (p *part) begun(client string, kept fleet.Kept) {
	v := p.view(client)
	if !v.BeginsBehind(kept) {
		return
	}
	_, s := v.Newest()
	if s.Began != s.StateEpoch || s.Begins == nil || p.births[client] == nil && len(p.births) >= birthsKept || !p.concerns(client, s.Begins) {
		return
	}
	b := &birth{epoch: s.Began, begins: s.Begins, before: p.births[client], told: maps.Clone(p.ahead[client])}
	b.inc, b.past = kept.Newest()
	for n, last := 1, b; last.before != nil; n, last = n+1, last.before {
		if n == mostBirths {
			last.before = nil
			break
		}
	}
	if p.births == nil {
		p.births = make(map[string]*birth)
	}
	p.births[client] = b
}

// concerns says that it is not settled here who tells of what came before a session of a client. mu is held.
func (p *part) concerns(client string, begins *fleet.Progress) bool {
	if p.heard.isOpen(client) || p.suspends(client) || len(p.d.host.Ahead(begins)) > 0 {
		return true
	}
	for q := range p.quests {
		if q.ClientID == client {
			return true
		}
	}
	return false
}

// forgetBirths drops those before which there is nothing to be read any more. mu is held.
func (p *part) forgetBirths() {
	for client, b := range p.births {
		if !p.concerns(client, b.begins) {
			delete(p.births, client)
		}
	}
}

// birth gives that before which a command came, if it is still to be told of; nil: there is none. mu is held.
func (p *part) birth(client string, stream int32, offset int64) *birth {
	b := p.births[client]
	if b == nil {
		return nil
	}
	at := p.d.host.Mark(stream, offset)
	if !b.begins.Passes(at) {
		return nil
	}
	if inc, s := p.newest(client); s != nil && s.Began > b.epoch && (inc != p.d.me.Load().name || !p.owner.Owns() && !s.Begins.Passes(at)) {
		return nil // another one has begun since
	}
	for b.before != nil && (b.past == nil || b.past.Began == b.before.epoch) && b.before.begins.Passes(at) {
		b = b.before
	}
	switch {
	case offset < b.told[stream] && (b.past == nil || !b.past.Skips(at)):
		return nil
	case b.past != nil && b.past.Begins.Passes(at):
		return new(birth) // it came before that one too
	}
	return b
}

// precedesBirth gives the birth before which a command came, if it is for this instance to find the teller; nil: it is not. mu is
// held.
func (p *part) precedesBirth(q *Quest) *birth {
	if !p.owner.Owns() {
		return nil
	}
	return p.birth(q.ClientID, q.Stream, q.Offset)
}

// settleBefore is settle for a command that came before a session. mu is held.
func (p *part) settleBefore(client string, m heardMark, b *birth, at fleet.Mark) bool {
	if b.past == nil {
		return p.settle(client, m, "", nil, at, false)
	}
	return p.settleLast(client, m, b.inc, b.past, at)
}

// reconsiderBefore is reconsider after a command was read, if it came before a session. mu is held.
func (p *part) reconsiderBefore(q *Quest) {
	if q.before {
		p.reconsider(q.ClientID)
	}
}
