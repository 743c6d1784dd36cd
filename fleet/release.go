package fleet

import (
	"maps"
	"slices"
)

// stamp makes the record of a state of this connection.
func (c *Claimer) stamp(state *Session) *Session {
	s := *state
	s.Claim, s.StateEpoch, s.Began = c.epoch, c.epoch, c.book.Began
	s.TxID, s.Principal, s.Connected, s.Clean = c.by.TxID, c.book.Principal, c.book.Connected, c.book.Clean
	s.Released, s.Withdrawn, s.Ended = false, false, false
	s.Remote, s.Version, s.Owed = c.book.Remote, c.book.Version, c.book.Owed
	s.Begins, s.Gaps = c.book.Begins, c.book.Gaps
	s.Pending = merged(state.Pending, c.doubt().pending)
	return &s
}

// release makes the record that leaves a state, and ends the session if it has no expiry.
func (c *Claimer) release(state *Session) *Session {
	s := c.stamp(state)
	s.Released = true
	if s.OfflineSince == 0 {
		s.OfflineSince = c.left
	}
	if s.Expiry == 0 {
		return ended(s)
	}
	return s
}

// released leaves the state of the connection that has ended.
func (c *Claimer) released() {
	c.next, c.leaving, c.fallback = c.release(c.leaving), nil, false
}

// publishOwed asks for the Wills of owed that nobody has asked for.
func (c *Claimer) publishOwed(owed []Owed) (acts []Action) {
	for _, w := range owed {
		if _, asked := c.wills[w.Epoch]; !asked {
			acts = append(acts, c.publish(w.Epoch, w.Will))
		}
	}
	return acts
}

// publish asks for a Will.
func (c *Claimer) publish(epoch int64, will *Will) Action {
	c.note(epoch, false)
	return Action{Kind: ActWill, Epoch: epoch, Will: will}
}

// note notes that a Will was asked for, or is published.
func (c *Claimer) note(epoch int64, published bool) {
	if c.wills == nil {
		c.wills = make(map[int64]bool)
	}
	c.wills[epoch] = published
}

// publishes says that a Will was asked for and is not published yet.
func (c *Claimer) publishes() bool {
	for _, published := range c.wills {
		if !published {
			return true
		}
	}
	return false
}

// withdraw leaves an attempt that has not opened: the key gets back the state it had, or goes if it had none.
func (c *Claimer) withdraw() {
	c.phase, c.req, c.clear = phaseIdle, nil, nil
	if c.book == nil {
		c.removing = true
		return
	}
	s := *c.book
	s.Claim, s.Released, s.Withdrawn = c.epoch, false, true
	c.next = &s
}

// ended is what is left of a session that has ended. Its Will, if it has still one, is due; and what it says of QoS 2 ids
// may be waited for by somebody who has resumed it at the last moment.
func ended(s *Session) *Session {
	e := &Session{
		Claim: s.Claim, StateEpoch: s.StateEpoch, Began: s.Began, TxID: s.TxID, Principal: s.Principal,
		Connected: s.Connected, Released: s.Released, Withdrawn: s.Withdrawn, Ended: true, Clean: s.Clean,
		Expiry: s.Expiry, OfflineSince: s.OfflineSince, Will: s.Will, Owed: s.Owed, Remote: s.Remote, Version: s.Version,
		Received: s.Received, Pending: s.Pending, Ends: s.Ends,
	}
	if e.Ends != nil {
		e.Subs = s.Subs // which commands were its own
		e.Begins, e.Gaps = s.Begins, s.Gaps
	}
	return e
}

func withoutWill(s *Session) *Session {
	n := *s
	n.Will = nil
	return &n
}

// published is s without the Will of epoch, s itself if it does not ask for it.
func (s *Session) published(epoch int64) *Session {
	if s == nil {
		return nil
	}
	i := slices.IndexFunc(s.Owed, func(w Owed) bool { return w.Epoch == epoch })
	switch {
	case s.Will != nil && s.StateEpoch == epoch:
		return withoutWill(s)
	case i >= 0:
		n := *s
		n.Owed = slices.Delete(slices.Clone(s.Owed), i, i+1)
		return &n
	}
	return s
}

// withoutPublished is s without the Wills that are published, s itself if it asks for none of them. As long as a record asks for
// one, the ledger says that it is published; when none does it need not any more, and nobody may ask again.
func (c *Claimer) withoutPublished(s *Session) *Session {
	for epoch, published := range c.wills {
		if published {
			s = s.published(epoch)
		}
	}
	return s
}

// resting says that there is no attempt, nothing to write, and the table shows all that we wrote.
func (c *Claimer) resting(v View) bool {
	return c.phase == phaseIdle && c.writing == writeNone && c.next == nil && c.leaving == nil && !c.removing && !c.judged &&
		v.table.Next() >= c.reached
}

// Settled says that nothing of ours is under way: no attempt, no connection, no record that is not read back, and no
// Will that is being published, and no QoS 2 id of which only we can tell whether it is stored. What may be left is a Will that waits for its time.
func (c *Claimer) Settled(v View) bool {
	e := v.entry(c.by.Inc)
	return c.judged || c.resting(v) && !c.publishes() && (e == nil || !v.awaited(e, e))
}

// rest does what is left to do for a client that is not connected here: its delayed Will, and the removal of our
// key when nobody needs it.
func (c *Claimer) rest(v View, now int64) []Action {
	e := v.entry(c.by.Inc)
	if e == nil {
		c.book = nil
		return []Action{{Kind: ActIdle}}
	}
	if e.is(flagPending) && !e.is(flagEnded) && (e == v.top() || v.awaited(e, e)) {
		return nil // until it is known
	}
	if len(c.wills) > 0 {
		state := e.session()
		if c.next = c.withoutPublished(state); c.next != state {
			return c.pump()
		}
		c.next = nil
		maps.DeleteFunc(c.wills, func(_ int64, published bool) bool { return published }) // no record of ours asks any more
	}
	if acts := c.publishOwed(e.owed()); acts != nil {
		return acts
	}
	_, asked := c.wills[e.state]
	switch fate, _ := v.Will(c.by.Inc, now); {
	case fate == WillDue && !asked:
		return []Action{c.publish(e.state, e.session().Will)}
	case fate != WillNone || c.publishes():
		return nil
	case v.removable(e, now):
		return c.write(writeTombstone, nil)
	}
	return []Action{{Kind: ActIdle}}
}

// A Duty is what an incarnation has to do for a client that is not connected to it.
type Duty uint8

// The duties.
const (
	DutyNone Duty = iota
	DutyRead      // its key is not needed any more: give the view to a Claimer's Read
	DutyEnd       // the session it left has expired: Claimer.End
	DutyWill      // a Will is due, or will be at the time given: Claimer.Due
)

// Duty is what me has to do for this client at time now. Whoever drops a Claimer after ActIdle asks for it when a
// record of the client was read and, for expiry, from time to time. at is the time of a DutyWill.
func (v View) Duty(me string, now int64) (duty Duty, at int64) {
	e := v.entry(me)
	if e == nil || !e.settled() {
		return DutyNone, 0
	}
	switch fate, at := v.Will(me, now); {
	case fate == WillDue || e.is(flagOwed):
		return DutyWill, now
	case fate == WillWait && at > 0:
		return DutyWill, at
	case fate == WillWait:
		return DutyNone, 0
	case v.removable(e, now):
		return DutyRead, 0
	case e == v.top() && !e.is(flagEnded) && v.expired(e, now):
		return DutyEnd, 0
	}
	return DutyNone, 0
}
