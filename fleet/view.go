package fleet

import (
	"cmp"
	"slices"
)

// A View is what a [Table] says of one client ID. It is valid until the table's next Apply.
type View struct {
	client  string
	table   *Table
	entries []entry
}

// A Head is what the fold knows of one key of a client without decoding the record.
type Head struct {
	Inc        string
	Claim      int64 // epoch of the newest claim
	StateEpoch int64 // 0: the key holds no state
	Released   bool
	Ended      bool
	Withdrawn  bool
	Dead       bool // there is a verdict on the incarnation
}

// Entries are the client's keys, the highest claim first.
func (v View) Entries() []Head {
	heads := make([]Head, len(v.entries))
	for i := range v.entries {
		heads[i] = v.entries[i].head()
	}
	slices.SortFunc(heads, func(a, b Head) int { return cmp.Compare(b.Claim, a.Claim) })
	return heads
}

// Session is the record under the key of inc, nil if there is none. Its Claim is filled in.
func (v View) Session(inc string) *Session {
	if e := v.entry(inc); e != nil {
		return e.session()
	}
	return nil
}

// Holder is the incarnation whose claim is the highest, not counting claims that are withdrawn or that a principal
// makes on the session of another. Whether it has opened is told by Base.
func (v View) Holder(now int64) (inc string, epoch int64) {
	base := v.base(now)
	for i := range v.entries {
		if e := &v.entries[i]; e.claim > epoch && !e.is(flagWithdrawn) && !v.foreign(e, base) {
			inc, epoch = e.inc.name, e.claim
		}
	}
	return inc, epoch
}

// Base is the session that a CONNECT now would resume, with the incarnation that wrote it. An ended or expired one
// is none.
func (v View) Base(now int64) (inc string, s *Session, ok bool) {
	if b := v.base(now); b != nil {
		return b.inc.name, b.session(), true
	}
	return "", nil, false
}

// Newest is the session that was opened last, also one that has ended; nil: there is none.
func (v View) Newest() (inc string, s *Session) {
	if top := v.top(); top != nil {
		return top.inc.name, top.session()
	}
	return "", nil
}

// A Kept is the session that was opened last as it was at a moment, whatever is read later.
type Kept struct{ top entry }

// Keep gives what Newest gives, for later.
func (v View) Keep() (k Kept) {
	if top := v.top(); top != nil {
		k.top = *top
	}
	return k
}

// Newest is told at View.Newest.
func (k Kept) Newest() (inc string, s *Session) {
	if k.top.state == 0 {
		return "", nil
	}
	return k.top.inc.name, k.top.session()
}

// BeginsBehind says that the session which was opened last is another one than was kept, and that its Begins are known.
func (v View) BeginsBehind(k Kept) bool {
	top := v.top()
	return top != nil && top.state > k.top.state && top.opened() && top.is(flagBegins)
}

// Ends are those of the sessions that have ended, as far as their records are still there.
func (v View) Ends() (all []*Progress) {
	for i := range v.entries {
		if e := &v.entries[i]; e.is(flagEnded) {
			if s := e.session(); s.Ends != nil {
				all = append(all, s.Ends)
			}
		}
	}
	return all
}

// Ended is the epoch of the state of inc if that has ended, else 0.
func (v View) Ended(inc string) int64 {
	if e := v.entry(inc); e != nil && e.is(flagEnded) {
		return e.state
	}
	return 0
}

// Epoch is that of the session's newest state, also one that has ended; 0: there is none.
func (v View) Epoch() int64 {
	if top := v.top(); top != nil {
		return top.state
	}
	return 0
}

// Connected says that the session which was opened last has a connection, as far as is known.
func (v View) Connected() bool {
	top := v.top()
	return top != nil && top.opened() && !top.is(flagReleased|flagEnded) && top.inc.verdict == nil
}

// Claimed says that an incarnation other than me has claimed the client ID, lives, and has neither opened the session nor given
// that up.
func (v View) Claimed(me string) bool {
	top := v.top()
	return slices.ContainsFunc(v.entries, func(e entry) bool {
		return (top == nil || e.claim > top.state) && !e.settled() && e.inc.verdict == nil && e.inc.name != me
	})
}

// Lives says that the client has a session, or one that has expired and of which no record says yet that it has ended.
func (v View) Lives() bool {
	top := v.top()
	return top != nil && !top.is(flagEnded)
}

// Lasting says that the client has a session that outlives its connection, or one that has expired and of which no
// record says yet that it has ended.
func (v View) Lasting() bool {
	return v.Lives() && v.top().is(flagLasting)
}

func (e *entry) head() Head {
	return Head{
		Inc: e.inc.name, Claim: e.claim, StateEpoch: e.state, Dead: e.inc.verdict != nil,
		Released: e.is(flagReleased), Ended: e.is(flagEnded), Withdrawn: e.is(flagWithdrawn),
	}
}

func (e *entry) is(f flags) bool { return e.flags&f != 0 }

// opened says that the state is that of the entry's own claim.
func (e *entry) opened() bool { return e.state > 0 && e.state == e.claim }

// settled says that its writer is done with the claim.
func (e *entry) settled() bool { return e.flags&(flagReleased|flagWithdrawn) != 0 }

// session decodes the record, which Apply has found to be JSON of our version. Fields of a wrong type read as
// empty.
func (e *entry) session() *Session {
	s, err := DecodeSession(e.value())
	if err != nil {
		s = &Session{StateEpoch: e.state, Released: e.is(flagReleased), Ended: e.is(flagEnded), Withdrawn: e.is(flagWithdrawn)}
	}
	s.Claim = e.claim
	return s
}

func (v View) entry(inc string) *entry {
	if i := index(v.entries, inc); i >= 0 {
		return &v.entries[i]
	}
	return nil
}

// top is the entry with the highest state epoch, nil if no key holds a state.
func (v View) top() *entry {
	var top *entry
	for i := range v.entries {
		if e := &v.entries[i]; e.state > 0 && (top == nil || e.state > top.state) {
			top = e
		}
	}
	return top
}

func (v View) base(now int64) *entry {
	top := v.top()
	if top == nil || top.is(flagEnded) || v.expired(top, now) {
		return nil
	}
	return top
}

// expired says that the state's Session Expiry Interval has passed. It runs from the end of the connection; for a
// holder that died connected from the timestamp of the verdict, so that all who read the topic agree.
func (v View) expired(e *entry, now int64) bool {
	at, ok := e.expires(e.session())
	return ok && at <= now
}

// expires is when the state expires, false for never or not as far as known.
func (e *entry) expires(s *Session) (at int64, ok bool) {
	switch {
	case s.Expiry == NeverExpires:
		return 0, false
	case s.OfflineSince > 0:
		at = s.OfflineSince
	case e.inc.verdict != nil:
		at = e.inc.at
	default:
		return 0, false
	}
	return at + int64(s.Expiry)*1000, true
}

// foreign says that e is a claim, not opened, of another principal than the one whose session base is.
func (v View) foreign(e, base *entry) bool {
	if base == nil || e == base || e.opened() || len(v.entries) == 1 {
		return false
	}
	return e.session().Principal != base.session().Principal
}

// removable says that nobody needs the entry any more; what its Will still asks for is looked at elsewhere. A state
// is superseded by a higher one, and an ended state is kept until no other key of the client is left: removed
// earlier, it would make the state below it the base again. A key without a state, or with a superseded one, goes
// when its claim is superseded too or cannot open any more. One that somebody waits to hear from about QoS 2 ids stays.
func (v View) removable(e *entry, now int64) bool {
	top := v.top()
	if e.inc.verdict == nil && v.awaited(e, e) || (e.inc.verdict == nil || e.settled()) && top != nil && v.awaited(top, e) {
		return false
	}
	if e.state == 0 || e.state < top.state {
		return top != nil && e.claim < top.state || e.settled() || e.hopeless(now)
	}
	if len(v.entries) > 1 || !e.opened() && !e.settled() && !e.hopeless(now) {
		return false
	}
	return e.is(flagEnded) || e.inc.verdict != nil && v.expired(e, now)
}

// awaited says that the state of s waits to hear from the writer of e about QoS 2 ids. That of an open connection whose
// incarnation is dead does not: nobody will take its ids for granted.
func (v View) awaited(s, e *entry) bool {
	return s.is(flagPending) && !s.is(flagEnded) && (s.inc.verdict == nil || s.settled() || !s.opened()) &&
		slices.ContainsFunc(s.session().Pending, func(p Pending) bool { return p.Inc == e.inc.name })
}

// hopeless says that the claim of a dead incarnation will never be opened, not even by a process that has only
// paused and does not know of the verdict: reading its claim back it reads the verdict before it, or it has had all
// the time in the world.
func (e *entry) hopeless(now int64) bool {
	return e.inc.verdict != nil && (e.claim > e.inc.from || now-e.inc.at >= retainVerdicts)
}

// A WillFate says what is to be done about a Will.
type WillFate uint8

// The fates of a Will.
const (
	WillNone WillFate = iota // there is none, or a return in time has cancelled it
	WillWait                 // not yet: the connection lives, or the delay has not passed, or a claim is undecided
	WillDue                  // to be published, unless the ledger says that it is done
)

// Will says what is to be done now about the Will in the state of inc, by inc while it lives and by the owner after
// the verdict. at is when a WillWait is to be looked at again, 0 for when the table changes. For a WillDue to be
// final the partition must have been read to an end that was fetched after now.
func (v View) Will(inc string, now int64) (fate WillFate, at int64) {
	e := v.entry(inc)
	if e == nil || !e.is(flagWill) || e.state == 0 {
		return WillNone, 0
	}
	s := e.session()
	if s.Will == nil {
		return WillNone, 0
	}
	at = e.willAt(s)
	if at == 0 {
		return WillWait, 0
	}
	return v.willFate(e, s, at, now)
}

// owed are the Wills that e still asks for beside that of its own state.
func (e *entry) owed() []Owed {
	if !e.is(flagOwed) {
		return nil
	}
	return e.session().Owed
}

// Lowest is the lowest epoch whose Will a record of the client may still ask for: what the ledger says of lower ones
// nobody needs. 0: there is none.
func (v View) Lowest() (lowest int64) {
	note := func(epoch int64) {
		if lowest == 0 || epoch > 0 && epoch < lowest {
			lowest = epoch
		}
	}
	for i := range v.entries {
		note(v.entries[i].state)
		for _, w := range v.entries[i].owed() {
			note(w.Epoch)
		}
	}
	return lowest
}

// willAt is when the Will is to be published: its time as recorded at the end of the connection, or its delay after
// the verdict, or the end of the session if that is earlier. 0: the connection lives.
func (e *entry) willAt(s *Session) int64 {
	at := s.Will.Due
	if at == 0 {
		if e.inc.verdict == nil {
			return 0
		}
		at = e.inc.at + int64(s.Will.Delay)*1000
	}
	if end, ok := e.expires(s); ok {
		at = min(at, end)
	}
	return at
}

func (v View) willFate(e *entry, s *Session, at, now int64) (WillFate, int64) {
	delayed := s.Will.Delay > 0
	if top := v.top(); top.state > e.state {
		if delayed && top.session().Began <= e.state {
			return WillNone, 0 // resumed before it was published
		}
		return WillDue, at
	}
	if e.is(flagEnded) {
		return WillDue, at
	}
	if at > now {
		return WillWait, at
	}
	if delayed && v.returning(e) {
		return WillWait, 0
	}
	return WillDue, at
}

// returning says that a claim to resume the session of e is undecided.
func (v View) returning(e *entry) bool {
	principal := e.session().Principal
	for i := range v.entries {
		c := &v.entries[i]
		if c.claim <= e.state || c.settled() || c.inc.verdict != nil {
			continue
		}
		if s := c.session(); !s.Clean && s.Principal == principal {
			return true
		}
	}
	return false
}
