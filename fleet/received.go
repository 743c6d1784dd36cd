package fleet

import "slices"

// An ownID is a QoS 2 id of the session that began with an epoch.
type ownID struct {
	began int64
	id    uint16
}

// doubts are what there is to say of QoS 2 ids whose messages have no outcome yet. Most sessions have none.
type doubts struct {
	began   int64          // the session that is being opened, or open
	pending []Pending      // what it found and does not know yet
	gained  []uint16       // of those, what turned out to be stored
	before  *Session       // what our key held when it was opened, if that has anything to tell
	known   map[ownID]bool // outcomes of our own, of any session: stored or not
}

func (c *Claimer) doubt() doubts {
	if c.doubts == nil {
		return doubts{}
	}
	return *c.doubts
}

// doubting sets what there is to say, which may be nothing.
func (c *Claimer) doubting(d doubts) {
	if c.doubts = nil; len(d.pending) > 0 || len(d.gained) > 0 || len(d.known) > 0 {
		c.doubts = &d
	}
}

// found returns the QoS 2 ids that the session s, which is about to be opened, has, and those that only others can tell
// of. What an incarnation that lives and was not heard from had received is not known; of one that died nobody will tell.
func (c *Claimer) found(v View, s *Session) (received []uint16, pending []Pending) {
	if inc := v.top().inc; !s.IsLast() {
		if inc.verdict == nil && inc.name != c.by.Inc {
			pending = []Pending{{Inc: inc.name}}
		}
		return nil, pending
	}
	stored, pending := c.ask(v, s.Began, s.Pending, c.book)
	return append(slices.Clip(s.Received), stored...), pending
}

// hear looks for what others have written about the QoS 2 ids that are pending in the session we have, or have left, nil
// if there is nothing new, or nobody to be told.
func (c *Claimer) hear(v View) []Action {
	if c.phase == phaseIdle && c.book != nil && len(c.book.Pending) > 0 && c.book.IsLast() && c.resting(v) {
		s := *c.book
		stored, left := c.ask(v, s.Began, s.Pending, c.doubt().before)
		if slices.Equal(left, s.Pending) {
			return nil
		}
		s.Received, s.Pending = append(slices.Clip(s.Received), stored...), left
		c.next = &s
		return nil
	}
	d := c.doubt()
	if len(d.pending) == 0 || c.phase < phaseOpening {
		return nil
	}
	stored, left := c.ask(v, d.began, d.pending, d.before)
	if slices.Equal(left, d.pending) {
		return nil
	}
	d.pending, d.gained = left, append(d.gained, stored...) // also of an open one: the device may never be told of it, see asFound
	c.doubting(d)
	if c.phase < phaseOpen {
		return nil
	}
	return []Action{{Kind: ActReceived, Received: stored, Pending: left}}
}

// ask returns what is known now of pending ids: those that are stored, and those that are still pending. before is what
// our key held before the session was opened.
func (c *Claimer) ask(v View, began int64, pending []Pending, before *Session) (stored []uint16, left []Pending) {
	for _, p := range pending {
		outcome, known := c.doubt().known[ownID{began, p.ID}]
		s := before
		switch {
		case p.Inc != c.by.Inc:
			known, s = false, v.heard(p)
		case p.ID != 0 && c.phase == phaseIdle:
			s = c.book // our own, and we have just left it
		case s == nil:
			s = &Session{Released: true} // we have nothing to tell
		}
		switch {
		case known && outcome:
			stored = append(stored, p.ID)
		case known:
		case !s.IsLast() || p.ID != 0 && slices.Contains(s.Pending, p):
			left = merged(left, []Pending{p})
		case p.ID == 0:
			stored, left = append(stored, s.Received...), merged(left, s.Pending)
		case slices.Contains(s.Received, p.ID):
			stored = append(stored, p.ID)
		}
	}
	return stored, left
}

// heard is what the writer of a pending id has said last. Of a dead one that is all: it will not tell of the rest.
func (v View) heard(p Pending) *Session {
	e := v.entry(p.Inc)
	if e == nil {
		return &Session{Released: true}
	}
	s := e.session()
	if e.inc.verdict != nil {
		if !s.IsLast() {
			s.Received = nil
		}
		s.Released = true
		s.Pending = slices.DeleteFunc(s.Pending, func(o Pending) bool { return o.Inc == p.Inc })
	}
	return s
}

// Listens says that the machine waits to hear about QoS 2 ids, so that a verdict too is news to it.
func (c *Claimer) Listens() bool {
	return len(c.doubt().pending) > 0 || c.book != nil && len(c.book.Pending) > 0
}

// Outcome says whether the message with a QoS 2 id is stored that Gone left as pending here, in the session that began
// with an epoch.
func (c *Claimer) Outcome(began int64, id uint16, stored bool, v View) []Action {
	c.learn(v)
	if c.judged {
		return nil
	}
	c.fetch(v)
	d := c.doubt()
	if d.known == nil {
		d.known = make(map[ownID]bool)
	}
	d.known[ownID{began, id}] = stored
	c.doubting(d)
	c.settleOwn()
	return c.step(v)
}

// settleOwn brings the outcomes that are known into the state that we have left.
func (c *Claimer) settleOwn() {
	c.leaving, c.next = c.settled(c.leaving), c.settled(c.next)
	book := c.settled(c.book)
	if book != c.book && c.next == nil && c.writing == writeNone && c.phase == phaseIdle {
		c.next = book
	}
	c.book = book
}

// settled is s with what is known of its pending ids that are our own, s itself if that is nothing.
func (c *Claimer) settled(s *Session) *Session {
	if s == nil {
		return s
	}
	n := *s
	n.Received, n.Pending = slices.Clone(s.Received), nil
	for _, p := range s.Pending {
		outcome, known := c.doubt().known[ownID{s.Began, p.ID}]
		switch {
		case !known || p.Inc != c.by.Inc:
			n.Pending = append(n.Pending, p)
		case outcome:
			n.Received = append(n.Received, p.ID)
		}
	}
	if len(n.Pending) == len(s.Pending) {
		return s
	}
	return &n
}

// merged is a with what of b it does not have.
func merged(a, b []Pending) []Pending {
	all := slices.Clip(a)
	for _, p := range b {
		if !slices.Contains(all, p) {
			all = append(all, p)
		}
	}
	return all
}
