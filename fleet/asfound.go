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
}

// termsOf are those of the session s, the base, which is about to be resumed.
func termsOf(v View, s *Session) *terms {
	t := &terms{expiry: s.Expiry, offline: s.OfflineSince}
	if base := v.top(); base.inc.verdict != nil {
		t.offline = cmp.Or(t.offline, base.inc.at)
	}
	return t
}

// asFound is the state of a connection that the device was not told of: what it found, also of how long the session lasts.
// A CONNECT that was refused has said nothing about that [MQTT-3.1.2-5], and has no Will; one that was waiting for its
// time is cancelled by the opening, since under this epoch it could be published a second time. A session that began with the
// attempt ends with it: the device would find one that it knows nothing of.
func (c *Claimer) asFound() *Session {
	s := withoutWill(c.book)
	s.Received, s.Pending = append(slices.Clip(s.Received), c.doubt().gained...), nil
	t := c.terms
	if t == nil {
		s.Expiry = 0
		if c.met != nil {
			s.Ends = &Progress{Met: c.met.Pos, IDs: c.met.IDs}
		}
		return s
	}
	if c.met != nil {
		s.Progress = s.Progress.clone()
		s.MeetAll(c.met)
	}
	s.Expiry, s.OfflineSince = t.expiry, t.offline
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
