package fleet

import "slices"

// clearing is what an attempt has done about the claims below its own.
type clearing struct {
	waiting, waited bool
	ledger          ledgerState
	fences          []fence
}

type ledgerState uint8

const (
	ledgerUnread ledgerState = iota
	ledgerAsked
	ledgerRead
)

type fence struct {
	inc  string
	done bool
}

func (cl *clearing) fenced(inc string) {
	for i := range cl.fences {
		if cl.fences[i].inc == inc {
			cl.fences[i].done = true
		}
	}
}

// step does what can be done now.
func (c *Claimer) step(v View) []Action {
	if c.judged {
		return nil
	}
	// A claim that lands after the verdict on us must never open: the owner counts on it. Its read-back shows us the
	// verdict, which is in the same partition.
	if _, dead := v.table.Dead(c.by.Inc); dead {
		return c.Judged()
	}
	c.fetch(v)
	acts := append(c.hear(v), c.goOn(v)...)
	c.shelve(v)
	return acts
}

// shelve lets go of the book of an open connection as long as the table has the same and nothing is to be said of it: most
// connections have nothing to say until they end.
func (c *Claimer) shelve(v View) {
	e := v.entry(c.by.Inc)
	if c.phase == phaseOpen && !c.lost && c.writing == writeNone && c.next == nil && !c.publishes() && c.doubts == nil &&
		len(c.book.Owed) == 0 && v.table.Next() >= c.reached && e != nil && !e.is(flagOwed) {
		c.book, c.wills, c.shelved = nil, nil, true
	}
}

// fetch takes back a book that is in the table alone. It is there as long as there is no verdict on us.
func (c *Claimer) fetch(v View) {
	if e := v.entry(c.by.Inc); c.shelved && e != nil {
		c.book, c.shelved = e.session(), false
	}
}

// WaitsFor says in words what an attempt waits for, "" if there is none.
func (c *Claimer) WaitsFor(v View) string {
	behind := v.table.Next() < c.reached
	switch c.phase {
	case phaseWanted:
		return "a record that Kafka has not acknowledged, of the session as it was left"
	case phaseClaim:
		return "Kafka's acknowledgement of the claim"
	case phaseOpening:
		return "Kafka's acknowledgement of the record that opens the session"
	case phaseDecide, phaseShown:
		if behind {
			return "the sessions topic to be read up to its own record"
		}
	}
	switch {
	case c.phase == phaseShown:
		return "a will that is due"
	case c.phase != phaseDecide:
		return ""
	case slices.ContainsFunc(c.clear.fences, func(f fence) bool { return !f.done }):
		return "Kafka to end the transactions of the instance that had the session"
	case c.clear.ledger == ledgerAsked:
		return "the ledger to be read to its end"
	}
	return "the instance that has the session to let go of it, or to be declared dead"
}

func (c *Claimer) goOn(v View) []Action {
	if acts := c.pump(); acts != nil {
		return acts
	}
	switch {
	case c.lost:
	case c.phase == phaseIdle:
		if c.resting(v) {
			return c.rest(v, 0)
		}
	case c.phase == phaseDecide:
		return c.decide(v)
	case c.phase == phaseShown:
		return c.opened(v)
	case c.phase == phaseOpen && c.higher(v):
		return c.lose(nil)
	}
	return nil
}

// pump begins the next write if none is under way. A claim carries the state that waits to be written, so that the
// order of claims is the order of CONNECTs and costs no record more.
func (c *Claimer) pump() []Action {
	switch {
	case c.writing != writeNone || c.leaving != nil || c.phase == phaseShown: // CONNACK comes first
		return nil
	case c.phase == phaseWanted:
		if c.next != nil {
			c.book = c.next
		}
		c.next, c.removing, c.phase = nil, false, phaseClaim
		claim := c.claim()
		acts := c.write(writeClaim, claim)
		if claim.Ended && !c.book.Ended {
			acts[0].State = c.book
		}
		return acts
	case c.next != nil:
		value := c.next
		c.next, c.started = nil, c.asked
		return c.write(writeState, value)
	case c.phase == phaseOpen && !c.lost && !slices.Equal(c.book.Pending, c.doubt().pending):
		value := *c.book // those we have heard from may remove their keys
		value.Pending, c.started = c.doubt().pending, c.asked
		return c.write(writeState, &value)
	case c.removing:
		c.removing = false
		return c.write(writeTombstone, nil)
	}
	return nil
}

func (c *Claimer) write(kind writeKind, value *Session) []Action {
	c.writing, c.value = kind, value
	return []Action{{Kind: ActWrite, Value: value}}
}

// lose gives ActLost once.
func (c *Claimer) lose(acts []Action) []Action {
	if c.lost {
		return acts
	}
	c.lost = true
	return append(acts, Action{Kind: ActLost})
}

// learn takes the state of our key from the view if we have no books, which is when the view is up to date with all
// we ever wrote.
func (c *Claimer) learn(v View) {
	if c.reached > 0 || c.phase != phaseIdle || c.writing != writeNone {
		return
	}
	e := v.entry(c.by.Inc)
	if e == nil {
		return
	}
	c.reached, c.epoch = v.table.Next(), e.claim
	if e.state > 0 {
		c.book = e.session()
	}
}

// Refuses says that the session which lies there is another principal's, as far as we know before we claim. It is to
// be asked before an older connection is closed for a new one; Connect asks it again.
func (c *Claimer) Refuses(req ConnectRequest, v View) (principal string, foreign bool) {
	if c.req != nil && c.req.Principal != req.Principal {
		return c.req.Principal, true // whose attempt came first
	}
	own, top := c.own(v), v.top()
	if own != nil && (top == nil || own.StateEpoch >= top.state) {
		return own.Principal, !own.Ended && !lapsed(own, req.Now) && own.Principal != req.Principal
	}
	if base := v.base(req.Now); base != nil {
		principal = base.session().Principal
		return principal, principal != req.Principal
	}
	return "", false
}

// own is the newest state of ours, written or to be written.
func (c *Claimer) own(v View) *Session {
	c.fetch(v)
	switch {
	case c.leaving != nil:
		return c.release(c.leaving)
	case c.next != nil:
		return c.next
	case c.value != nil && c.value.StateEpoch > 0:
		return c.value
	}
	return c.book
}

// Newest is the session that was opened last, as far as is known here: also one that has ended, and also if the table does
// not show yet what this incarnation has made of it. One that is being opened is none yet.
func (c *Claimer) Newest(v View) (inc string, s *Session) {
	top := v.top()
	if own := c.own(v); own != nil && own.StateEpoch > 0 && c.phase != phaseOpening && c.phase != phaseShown && (top == nil || own.StateEpoch >= top.state) {
		return c.by.Inc, own
	}
	return v.Newest()
}

// Over says that the session has ended, or that its time has passed at now since its holder has left it.
func (s *Session) Over(now int64) bool { return s.Ended || lapsed(s, now) }

// lapsed says that an offline session has expired.
func lapsed(s *Session, now int64) bool {
	return s.OfflineSince > 0 && s.Expiry != NeverExpires && s.OfflineSince+int64(s.Expiry)*1000 <= now
}

// claim is the record that takes the client ID. It carries the state our key holds, because it replaces it.
func (c *Claimer) claim() *Session {
	var s Session
	if c.book != nil {
		s = *c.book
		if lapsed(&s, c.req.Now) {
			s = *ended(&s)
		}
	}
	if !s.IsLast() {
		s.Received, s.Pending = nil, nil
	}
	s.Claim, s.Released, s.Withdrawn = 0, false, false
	s.Clean, s.Connected, s.Principal, s.TxID = c.req.Clean, c.req.Now, c.req.Principal, c.by.TxID
	s.Remote, s.Version = c.req.Remote, c.req.Version
	return &s
}

// claimed takes in the epoch. If the device has come back to us meanwhile, the next claim is about to replace this
// one, and nothing is to be withdrawn.
func (c *Claimer) claimed(value *Session) {
	c.epoch = c.reached
	if value.StateEpoch > 0 {
		s := *value
		s.Claim = c.epoch
		c.book = &s
	}
	switch c.phase {
	case phaseClaim:
		c.phase, c.clear = phaseDecide, &clearing{}
	case phaseIdle:
		c.withdraw()
	}
}

// decide goes on with a claim that is durable. It waits for the table to show our own claim: then it shows all that
// was acknowledged to the device before it connected here.
func (c *Claimer) decide(v View) []Action {
	if v.table.Next() < c.epoch {
		return nil
	}
	base := v.base(c.req.Now)
	if base != nil && base.inc.name != c.by.Inc {
		if s := base.session(); s.Principal != c.req.Principal {
			c.lost = true
			return []Action{{Kind: ActRefused, Principal: s.Principal}}
		}
	}
	if c.higher(v) {
		return c.lose(nil)
	}
	var resumed *Session
	if base != nil && !c.req.Clean {
		// A session without expiry ends with its connection, also when that is taken over.
		if s := base.session(); s.Expiry > 0 {
			if resumed = s; base.inc.name != c.by.Inc && !s.IsLast() {
				s.unheard(base.inc.verdict)
			}
		}
	}
	acts, clear := c.clearTheWay(v, resumed != nil)
	if !clear {
		return acts
	}
	return append(acts, c.open(v, resumed)...)
}

// owesWill reports whether a connection that opens with the session resumed, nil for a new one, makes the Will due that
// the state under our key asks for: it does unless it has come back to the session within the Will Delay Interval.
func (c *Claimer) owesWill(v View, resumed *Session) bool {
	s := c.book
	if s == nil || s.Will == nil {
		return false
	}
	top := v.top()
	switch {
	case s.Will.Delay == 0:
		return true
	case top != nil && top.state > s.StateEpoch:
		return top.session().Began > s.StateEpoch // else it was resumed elsewhere before
	}
	return resumed == nil || s.Will.Due <= c.req.Now
}

// higher says that another connection has the client ID: a state was opened above our claim, or a claim above it is
// undecided. Claims of other principals yield to ours until they open.
func (c *Claimer) higher(v View) bool {
	for i := range v.entries {
		e := &v.entries[i]
		switch {
		case e.inc.name == c.by.Inc || e.claim <= c.epoch:
		case e.state > c.epoch:
			return true
		case !e.settled() && e.session().Principal == c.principal():
			return true
		}
	}
	return false
}

func (c *Claimer) principal() string {
	if c.req != nil {
		return c.req.Principal
	}
	return c.book.Principal
}

// clearTheWay sees to it that nothing of those before us is undecided: a claim below ours is released, withdrawn or
// fenced, and then the ledger is read to its end. Only a session that is resumed needs it.
func (c *Claimer) clearTheWay(v View, resumes bool) (acts []Action, clear bool) {
	clear = true
	for _, e := range c.undecided(v, resumes) {
		more, done := c.clearOne(e, resumes)
		acts, clear = append(acts, more...), clear && done
	}
	if !clear || !resumes || c.clear.ledger == ledgerRead {
		return acts, clear
	}
	if c.clear.ledger == ledgerUnread {
		c.clear.ledger = ledgerAsked
		acts = append(acts, Action{Kind: ActLedger})
	}
	return acts, false
}

// undecided are the claims below ours that are not settled, down to the newest state of which we know that nothing
// below it is undecided: whoever opened it had cleared the way. A release or withdrawal by one that never opened
// says nothing of those below. A claim of another principal that came before ours is waited for in any case: the
// session it may be opening would be its own. So is one of which a Will is to come before what we publish.
func (c *Claimer) undecided(v View, resumes bool) []*entry {
	var floor int64
	for i := range v.entries {
		if e := &v.entries[i]; e.inc.name == c.by.Inc || e.settled() {
			floor = max(floor, e.state)
		}
	}
	var all []*entry
	for i := range v.entries {
		e := &v.entries[i]
		if e.inc.name == c.by.Inc || e.settled() || e.claim < floor || e.claim > c.epoch {
			continue
		}
		if resumes || e.is(flagWill) && e.opened() || e.session().Principal != c.req.Principal {
			all = append(all, e)
		}
	}
	return all
}

func (c *Claimer) clearOne(e *entry, resumes bool) (acts []Action, done bool) {
	i := slices.IndexFunc(c.clear.fences, func(f fence) bool { return f.inc == e.inc.name })
	over := e.inc.verdict != nil || c.clear.waited
	switch {
	case i >= 0:
		return nil, c.clear.fences[i].done
	case over && !resumes && e.session().Principal == c.req.Principal:
		return nil, true // for its Will alone nobody is fenced
	case over && e.inc.verdict == nil && e.opened() && e.is(flagPending):
		return nil, false // it has still to hear from one before it: of two nobody would know any more what they had received
	case over:
		c.clear.fences = append(c.clear.fences, fence{inc: e.inc.name})
		return []Action{{Kind: ActFence, Inc: e.inc.name, TxIDs: []string{e.session().TxID}}}, false
	case !c.clear.waiting:
		c.clear.waiting = true
		return []Action{c.wait(false)}, false
	}
	return nil, false
}

// open writes the state under our own epoch. Without that record the next to connect would not find the session.
func (c *Claimer) open(v View, resumed *Session) []Action {
	s := Session{Began: c.epoch}
	d := doubts{known: c.doubt().known}
	if resumed != nil {
		s = *resumed
		s.Origins = forgetAhead(s.Origins, c.req.Now)
		s.Received, s.Pending = c.found(v, resumed)
		if d.pending = s.Pending; len(d.pending) > 0 {
			d.began, d.before = s.Began, c.book
		}
	}
	c.doubting(d)
	c.met = nil
	if resumed != nil {
		s.Gaps = gapsBehind(resumed, c.req.heard)
	} else {
		s.Begins = c.req.heard
	}
	// The record takes the place of the state under our key, and nobody would know of the Will in that any more.
	s.Owed = nil
	owes := c.owesWill(v, resumed)
	if b := c.book; b != nil {
		if s.Owed = b.Owed; owes {
			s.Owed = append(slices.Clip(b.Owed), Owed{b.StateEpoch, b.Will})
		}
	}
	expiry := c.req.Expiry
	if c.terms = nil; resumed != nil {
		c.terms = termsOf(v, resumed)
		c.terms.asked = expiry
		expiry = max(expiry, resumed.Expiry) // until Told
	}
	c.present, c.phase, c.clear = resumed != nil, phaseOpening, &clearing{waited: !owes}
	s.Claim, s.StateEpoch, s.TxID, s.Principal = c.epoch, c.epoch, c.by.TxID, c.req.Principal
	s.Connected, s.Clean, s.Expiry, s.Will = c.req.Now, c.req.Clean, expiry, c.req.Will
	s.Released, s.Withdrawn, s.Ended, s.OfflineSince = false, false, false, 0
	s.Remote, s.Version = c.req.Remote, c.req.Version
	return c.write(writeOpening, &s)
}

// opened answers the device, unless it has connected elsewhere meanwhile. It waits for the table to show the opening
// record: a verdict on us before it shows then, and the owner, who takes the session as it was before, is not answered
// against. Then it waits for the Will that is due by it: until the record is there the attempt may be given up, and the
// session goes on without that.
func (c *Claimer) opened(v View) []Action {
	if v.table.Next() < c.reached {
		return nil
	}
	if c.higher(v) {
		return c.lose(nil)
	}
	if len(c.book.Owed) > 0 && !c.clear.waited {
		acts := c.publishOwed(c.book.Owed)
		if !c.clear.waiting {
			c.clear.waiting = true
			acts = append(acts, c.wait(false))
		}
		return acts
	}
	c.phase, c.req, c.clear = phaseOpen, nil, nil
	state := c.book
	if d := c.doubt(); len(d.gained) > 0 || !slices.Equal(state.Pending, d.pending) {
		known := *state
		known.Received, known.Pending = append(slices.Clip(state.Received), d.gained...), d.pending
		state = &known
	}
	if c.shortens() {
		asked := *state
		asked.Expiry = c.terms.asked
		state = &asked
	}
	acts := append([]Action{{Kind: ActOpened, Present: c.present, State: state, Epoch: c.epoch}}, c.publishOwed(c.book.Owed)...)
	return append(acts, c.pump()...) // what was heard meanwhile is to be written down, and nothing else may come
}
