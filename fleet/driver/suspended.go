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
}

// suspendedMost bounds how many there are of a partition. What is more is told of by what is known.
const suspendedMost = 4 * heardKept

// suspend has a command be told of when the sessions were read to where they end now; false: there are too many. mu is held.
func (p *part) suspend(client string, m *heardMark, s *fleet.Session) bool {
	if len(p.suspended) >= suspendedMost {
		return false
	}
	v := suspended{client: client, heardMark: *m, session: s}
	if _, newest := p.newest(client); newest != nil {
		v.epoch = newest.StateEpoch
	}
	p.suspended = append(p.suspended, v)
	if len(p.suspended) == 1 {
		p.later(func() { p.d.errand(p.resume) })
	}
	return true
}

// resume reads the sessions to their end and then tells of what was suspended before.
func (p *part) resume(ctx context.Context) error {
	p.lock()
	n := len(p.suspended)
	p.unlock()
	if err := p.d.readEnd(ctx, p); err != nil {
		return err
	}
	p.lock()
	defer p.unlock()
	all := p.suspended[:n]
	p.suspended = slices.Clone(p.suspended[n:])
	again := len(p.suspended) > 0
	for i := range all {
		p.confirm(&all[i])
	}
	if again {
		p.later(func() { p.d.errand(p.resume) })
	}
	return nil
}

// confirm tells of a command, if no other instance has a newer session that may be offered it or is about to: else it is open again. Who
// owns the partition now does not matter: an owner that came since has not left it to anybody. mu is held.
func (p *part) confirm(v *suspended) {
	inc, s := p.newest(v.client)
	if p.claimed(v.client) || s != nil && s.StateEpoch > v.epoch && inc != p.d.me.Load().name {
		v.sure = true
		p.heard.add(v.client, v.heardMark, true)
		p.reconsider(v.client)
		return
	}
	p.unwanted(v.client, &v.heardMark, v.session, p.d.host.Mark(v.stream, v.offset))
}
