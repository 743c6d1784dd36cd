package driver

import (
	"context"
	"slices"

	"sluice/fleet"
)

// A suspended command is one that this instance is to tell of, by what it has read: the record of a connection's end may be known here,
// and not yet that of the next opening, whose holder has told. Guarded by part.mu.
type suspended struct {
	client string
	heardMark
	session *fleet.Session // which it may wait for; nil: there is none
	epoch   int64          // of the newest session
	reading int            // the one that shows where the sessions ended
}

// suspend has a command be told of when the sessions were read to where they end now; false: there are too many. mu is held.
func (p *part) suspend(client string, m heardMark, s *fleet.Session) bool {
	if len(p.suspended) >= heardKept {
		return false
	}
	m.owned = true
	v := suspended{client: client, heardMark: m, session: s, reading: p.readings + 1}
	if _, newest := p.newest(client); newest != nil {
		v.epoch = newest.StateEpoch
	}
	p.suspended = append(p.suspended, v)
	if !p.reading {
		p.reading = true
		p.later(func() { p.d.errand(p.readOn) })
	}
	return true
}

// readOn reads the sessions to their end and then tells of what was suspended before.
func (p *part) readOn(ctx context.Context) error {
	p.lock()
	p.readings++
	n := p.readings
	p.unlock()
	if err := p.d.readEnd(ctx, p); err != nil {
		return err
	}
	p.lock()
	defer p.unlock()
	for _, v := range p.recalled(func(v suspended) bool { return v.reading <= n }) {
		p.unwanted(v.client, v.heardMark, v.session, p.d.host.Mark(v.stream, v.offset))
	}
	if p.reading = len(p.suspended) > 0; p.reading {
		p.later(func() { p.d.errand(p.readOn) })
	}
	return nil
}

// recalled takes suspended commands out. mu is held.
func (p *part) recalled(which func(suspended) bool) (all []suspended) {
	p.suspended = slices.DeleteFunc(p.suspended, func(v suspended) bool {
		take := which(v)
		if take {
			all = append(all, v)
		}
		return take
	})
	return all
}

// reopen has a client's commands be open again of which another instance may tell: it has a newer session, or is about to. mu is held.
func (p *part) reopen(client string) {
	if !p.suspends(client) {
		return
	}
	inc, s := p.newest(client)
	elsewhere, claimed := s != nil && inc != p.d.me.Load().name, p.claimed(client)
	for _, v := range p.recalled(func(v suspended) bool { return v.client == client && (claimed || elsewhere && s.StateEpoch > v.epoch) }) {
		p.heard.reopen(client, v.heardMark)
	}
}

// reopenAll has all of a client's commands be open: its session here is about to be, and what its record says decides. mu is held.
func (p *part) reopenAll(client string) {
	for _, v := range p.recalled(func(v suspended) bool { return v.client == client }) {
		v.sure = true // the record was read back
		p.heard.reopen(client, v.heardMark)
	}
}

// suspends says that a command for a client is suspended. mu is held.
func (p *part) suspends(client string) bool {
	return slices.ContainsFunc(p.suspended, func(v suspended) bool { return v.client == client })
}
