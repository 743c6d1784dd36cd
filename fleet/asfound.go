package fleet

import (
	"cmp"
	"slices"
)

// terms are what a CONNECT says anew about the session that it resumes, as the connection before had said it.
type terms struct {
	asked   uint32 // what the CONNECT says
	expiry  uint32
	offline int64 // 0: that connection ended with this attempt
	will    *Will // that waits for its time in the record which the opening one replaces
}

// termsOf are those of the session s, the base, which by is about to resume.
func termsOf(by *Writer, v View, s *Session) *terms {
	t := &terms{expiry: s.Expiry, offline: s.OfflineSince}
	switch base := v.top(); {
	case base.inc.name == by.Inc:
		t.will = s.Will
	case base.inc.verdict != nil:
		t.offline = cmp.Or(t.offline, base.inc.at)
	}
	return t
}

// asFound is the state of a connection that the device was not told of: what it found, also of how long the session lasts.
// A CONNECT that was refused has said nothing about that [MQTT-3.1.2-5], and has no Will. A session that began with it ends with
// it: the device would find one that it knows nothing of. What another instance keeps of a Will is not restored: it may have
// published it, or still be about to, by another epoch.
func (c *Claimer) asFound() *Session {
	s := withoutWill(c.book)
	s.Received, s.Pending = append(slices.Clip(s.Received), c.doubt().gained...), nil
	t := c.terms
	if t == nil {
		s.Expiry = 0
		return s
	}
	s.Expiry, s.OfflineSince, s.Will = t.expiry, t.offline, t.will
	return s
}

// shortens says that the CONNECT asked for less than the record that is written says.
func (c *Claimer) shortens() bool { return c.terms != nil && c.terms.asked < c.book.Expiry }

// Told says that the device was told of the session, which lasts as long from now on as the CONNECT asked for. The opening
// record says no less than the connection before did: whoever reads it when this incarnation is silent, or dead, can't know
// whether the device was refused.
func (c *Claimer) Told(v View) []Action {
	c.fetch(v)
	if c.phase == phaseOpen && c.next == nil && c.shortens() {
		s := *c.book
		s.Expiry, c.next = c.terms.asked, &s
	}
	return c.step(v)
}
