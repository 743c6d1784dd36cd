package fleet

// A ConnectRequest is what a CONNECT asks for.
type ConnectRequest struct {
	Clean     bool
	Expiry    uint32 // Session Expiry Interval in seconds, as granted
	Principal string // who the device is; a session belongs to the principal that made it
	Now       int64  // time of the CONNECT
	Will      *Will
	Remote    string
	Version   string
}

// An attempt is a CONNECT until it is answered.
type attempt struct {
	ConnectRequest
	heard *Progress
}

// A Claimer is this incarnation's side for one client ID, for one connection after another. All that it knows of
// the others it takes from the [View] that each method is given: the client's, of the table as it is now.
type Claimer struct {
	by       *Writer
	req      *attempt // of the attempt or connection, nil if there is none
	phase    phase
	writing  writeKind
	lost     bool // ActLost or ActRefused was given: the runtime is about to call Gone
	removing bool // a tombstone is wanted
	present  bool // a base was taken
	fallback bool // a release was refused, and the last durable state is released instead
	judged   bool // there is a verdict on this incarnation
	shelved  bool // the book is in the table alone

	epoch   int64    // of the newest claim that was written
	reached int64    // offset after the newest record of ours that was acknowledged
	left    int64    // when Gone was called
	book    *Session // the state under our key, from own books, because the tail lags; see shelve
	value   *Session // the record under way
	next    *Session // the state to write as soon as nothing is under way
	clear   *clearing
	leaving *Session  // the state to release as soon as its Will is published
	terms   *terms    // what the newest opening record has other values for; nil: it began a session
	met     *Progress // see Met; of the newest opening record
	// wills has the epochs of the Wills that ActWill was given for, and whether they are published: a record that was under way may
	// still ask for them then.
	wills  map[int64]bool
	waits  int64 // number of the newest ActWait
	doubts *doubts

	asked, started, saved int64 // numbers of Saves: given, in the record under way, durable
}

type phase uint8

const (
	phaseIdle    phase = iota // no attempt
	phaseWanted               // CONNECT came, the claim waits for an earlier record
	phaseClaim                // the claim is under way
	phaseDecide               // the claim is durable: read back, clear the way
	phaseOpening              // the opening record is under way
	phaseShown                // it is durable: read it back
	phaseOpen                 // the connection lives
)

type writeKind uint8

const (
	writeNone writeKind = iota
	writeClaim
	writeOpening
	writeState
	writeTombstone
)

// A Writer is an incarnation, and the transactional id that its transactions for some of the clients have.
type Writer struct{ Inc, TxID string }

// NewClaimer makes the machine of an incarnation for one client ID. A Claimer that was let go after ActIdle is replaced by a new
// one.
func NewClaimer(by *Writer) *Claimer { return &Claimer{by: by} }

// Connect begins an attempt, once an earlier connection has ended with Gone, and once all transactions that this
// incarnation began for the client are decided.
func (c *Claimer) Connect(req ConnectRequest, v View) []Action {
	if c.judged {
		return []Action{{Kind: ActLost}}
	}
	c.learn(v)
	if owner, foreign := c.Refuses(req, v); foreign {
		return []Action{{Kind: ActRefused, Principal: owner}}
	}
	c.req, c.phase, c.clear = &attempt{ConnectRequest: req}, phaseWanted, nil
	c.lost, c.present = false, false
	return c.step(v)
}

// Heard says how far this incarnation has read commands for the client before the attempt's session is open here: they are not
// offered to it. It has no effect once the record that opens it is on its way.
func (c *Claimer) Heard(to *Progress) {
	if c.req != nil {
		c.req.heard = to
	}
}

// Met says which commands somebody was told here are not for the session of a connection that the device is not told of. Gone
// follows.
func (c *Claimer) Met(to *Progress) { c.met = to }

// Begins gives the epoch of the session which the record begins that is written, if the CONNECT is not answered yet; 0: there is
// none.
func (c *Claimer) Begins() int64 {
	if (c.phase == phaseOpening || c.phase == phaseShown) && !c.present {
		return c.epoch
	}
	return 0
}

// Read says that the table has moved: a record of the client was read, or the offset that Awaits names.
func (c *Claimer) Read(v View) []Action {
	c.learn(v)
	return c.step(v)
}

// Awaits is the offset up to which the table has to be read for this machine to go on: Read is due when the table
// gets there.
func (c *Claimer) Awaits() int64 { return c.reached }

// Wrote says that Kafka has acknowledged the record of the last ActWrite at offset.
func (c *Claimer) Wrote(offset int64, v View) []Action {
	c.fetch(v)
	kind, value := c.writing, c.value
	c.writing, c.value, c.reached = writeNone, nil, offset+1
	var acts []Action
	switch kind {
	case writeClaim:
		c.claimed(value)
	case writeOpening:
		c.book = value
		if c.phase == phaseOpening {
			c.phase = phaseShown
		} else {
			c.next = c.release(c.asFound()) // the device has left meanwhile
		}
	case writeState:
		c.book, c.saved = value, c.started
		c.settleOwn()
		if c.phase == phaseOpen && !c.lost {
			acts = []Action{{Kind: ActSaved, N: c.saved}}
		}
	case writeTombstone:
		c.book = nil
	}
	return append(acts, c.step(v)...)
}

// Failed says that Kafka has refused the record of the last ActWrite and will never have it.
func (c *Claimer) Failed(v View) []Action {
	c.fetch(v)
	kind, value := c.writing, c.value
	c.writing, c.value = writeNone, nil
	var acts []Action
	switch kind {
	case writeClaim:
		acts = c.claimRefused()
	case writeOpening:
		acts = c.openingRefused()
	case writeState:
		if c.phase == phaseOpen {
			acts = c.lose(acts)
		} else if value.Released && !c.fallback && c.book != nil && !c.book.Released { // else the last word is stored as it is
			c.fallback = true
			last := *c.book // and of the end what is small
			last.Received, last.Pending, last.Unheard = value.Received, value.Pending, true
			last.Will, last.Expiry, last.OfflineSince, last.Ends = value.Will, value.Expiry, value.OfflineSince, nil
			c.next = c.release(&last)
		}
	}
	return append(acts, c.step(v)...)
}

func (c *Claimer) claimRefused() []Action {
	if c.phase == phaseWanted {
		return nil
	}
	c.next = c.book
	if c.phase == phaseIdle {
		return nil
	}
	c.phase, c.req = phaseIdle, nil
	return c.lose(nil)
}

func (c *Claimer) openingRefused() []Action {
	switch c.phase {
	case phaseOpening:
		c.phase = phaseDecide
		return c.lose(nil)
	case phaseIdle:
		c.withdraw()
	}
	return nil
}

// Fenced says that the transactional ids of inc have a new producer epoch, and its transactions are decided.
func (c *Claimer) Fenced(inc string, v View) []Action {
	if c.clear != nil {
		c.clear.fenced(inc)
	}
	return c.step(v)
}

// LedgerRead says that the ledger was read to an end that was fetched after ActLedger.
func (c *Claimer) LedgerRead(v View) []Action {
	if c.clear != nil {
		c.clear.ledger = ledgerRead
	}
	return c.step(v)
}

// Waited says that the time of ActWait number n is over.
func (c *Claimer) Waited(n int64, v View) []Action {
	switch {
	case n != c.waits:
	case c.leaving != nil:
		c.released() // the Will is still to be published, and no reason to keep the device waiting any longer
	case c.clear != nil:
		c.clear.waited = c.clear.waiting // else it was for another attempt
	}
	return c.step(v)
}

func (c *Claimer) wait(short bool) Action {
	c.waits++
	return Action{Kind: ActWait, N: c.waits, Short: short}
}

// Gone says that the connection has ended, and all transactions begun for it are decided. final is the state to
// leave, with a Will only if that is still to be published at its Due, and with the ids of Received and Pending that
// this incarnation has taken in itself; nil if ActOpened was not given. A session
// whose Expiry is 0 ends with it. A Will that is due is published before the state is left, so that it comes before
// what the next connection publishes.
func (c *Claimer) Gone(final *Session, now int64, v View) []Action {
	c.fetch(v)
	c.left, c.lost = now, false
	if final != nil && !c.judged {
		for _, p := range final.Pending { // what was known of such an id was another message's
			delete(c.doubt().known, ownID{c.book.Began, p.ID})
		}
	}
	switch c.phase {
	case phaseWanted, phaseClaim, phaseOpening: // a record that is under way is withdrawn when it is acknowledged
		c.phase, c.req = phaseIdle, nil
	case phaseDecide:
		c.withdraw()
	case phaseShown, phaseOpen:
		if final == nil {
			final = c.asFound()
		}
		c.phase, c.req, c.leaving = phaseIdle, nil, final
		if final.Will != nil && final.Will.Due <= now {
			return []Action{c.publish(c.epoch, final.Will), c.wait(true)}
		}
		c.released()
	}
	return c.step(v)
}

// Save asks for state to be made durable and gives the request a number. Of several that wait only the latest is
// written. It does nothing once the connection has ended or was lost.
func (c *Claimer) Save(state *Session, v View) (n int64, acts []Action) {
	if c.phase != phaseOpen {
		return c.asked, nil
	}
	c.fetch(v)
	c.asked++
	c.next = c.stamp(state)
	return c.asked, c.step(v)
}

// End ends the session of a client that is offline, because it has expired. It does nothing if the client is
// connected, or as long as the table does not show all that this incarnation wrote.
func (c *Claimer) End(v View) []Action {
	c.learn(v)
	if c.resting(v) && c.book != nil && !c.book.Ended {
		c.next = ended(c.book)
	}
	return c.step(v)
}

// Due says that the time of a delayed Will has come, and the partition was read to an end fetched after it.
func (c *Claimer) Due(now int64, v View) []Action {
	c.learn(v)
	if !c.resting(v) {
		return nil
	}
	return c.rest(v, now)
}

// WillDone says that the Will of the connection that opened with epoch is published, or was found to be done already.
func (c *Claimer) WillDone(epoch int64, v View) []Action {
	c.fetch(v)
	c.note(epoch, true)
	book := c.book
	// The record under way as well: it is the book once it is stored, and what is written after it must not ask for the Will again,
	// when the ledger may not say any more that it is published.
	c.book, c.next, c.value = c.book.published(epoch), c.next.published(epoch), c.value.published(epoch)
	switch {
	case c.leaving != nil && c.epoch == epoch:
		c.leaving = withoutWill(c.leaving)
		c.released()
	case c.book != book && c.next == nil && c.writing == writeNone && (c.phase == phaseIdle || c.phase == phaseShown || c.phase == phaseOpen && !c.lost):
		c.next = c.book
	}
	return c.step(v)
}

// Judged says that there is a verdict on this incarnation, in any partition. The machine writes nothing any more: what it held is the
// owner's, and the device has to come back to a new incarnation.
func (c *Claimer) Judged() []Action {
	connected := c.phase != phaseIdle && !c.lost
	c.judged, c.phase, c.req = true, phaseIdle, nil
	c.next, c.leaving, c.removing = nil, nil, false
	if connected {
		return []Action{{Kind: ActLost}}
	}
	return nil
}
