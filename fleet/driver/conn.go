package driver

import (
	"slices"
	"time"

	"sluice/fleet"
	"sluice/kafka"
)

// A Device is the connection of a device, and its session as who speaks with it has it. Snapshot, HasProgressed and
// Received are called with a lock held; none may block.
type Device interface {
	// Snapshot gives the state as it is, without what the Conn knows itself, and a version for Saved.
	Snapshot() (state *fleet.Session, version uint64)
	// Saved says that the snapshot of a version is stored.
	Saved(version uint64)
	// HasProgressed says that something was settled since the last snapshot.
	HasProgressed() bool
	// Settle says what is known now of messages with QoS 2 that other connections of the session took in. Those in stored
	// are stored, of those in pending it is not known yet; if unsure, there may be others. Those that were pending and are in
	// neither are not stored, or nobody knows. The call that it returns passes that on; it is made when no lock is held.
	Settle(stored, pending []uint16, unsure bool) (pass func())
	// Received gives the QoS 2 ids of messages that were received and not released: those whose messages are stored,
	// and those of which that is not known. changed is called when it is known of one of these, with no lock held.
	Received(changed func(id uint16, stored bool)) (stored, pending []uint16)
	// Close ends the connection. Conn.Leave follows. It is called with no lock held.
	Close(why Why)
}

// A Why is a reason to end a connection.
type Why uint8

// The reasons.
const (
	TakenOver   Why = iota + 1 // the client ID connected elsewhere
	Judged                     // this instance was declared dead
	TooLarge                   // Kafka does not take the session
	NotReleased                // a transaction that was to free a packet identifier has failed
)

// A Conn is the Driver's side of one connection.
type Conn struct {
	p   *part
	h   *holder
	dev Device

	// Guarded by part.mu, and set before the connection is open.
	epoch   int64
	began   int64 // when, in ns since 1970
	Session int64 // the epoch that the session began with
	Asked
	begins  *fleet.Progress // of the session
	gaps    *fleet.Progress // of the session
	told    Ends            // behind the last command in a stream of which somebody was told here that it is not for the session
	pending []uint16        // those that the end has left without an outcome
	ids     *idSet          // those of the ledger; nil: none
	broken  bool            // a change of them failed, or another connection has the client ID, and this one ends
	lost    Why             // that is why it ends; 0: it was not lost to another
	Present bool            // a session was resumed
	Unheard bool            // one has ended that another instance had, and it is not known how far that had given commands
	expiry  uint32          // as asked for
	lasting bool            // the session outlives this connection, or has outlived another one
	saving  bool            // a snapshot is on its way
	again   bool            // and there are changes that it does not have
	number  int64           // of the save under way
	version uint64          // of its snapshot
	left    *departure
}

// Asked is what the CONNECT of a connection asked for, as far as it matters until the end.
type Asked struct {
	Principal, Remote, Version string

	will *fleet.Will
}

// A Leaving is what a connection leaves behind.
type Leaving struct {
	Tidy      bool           // DISCONNECT came: no Will
	Expiry    uint32         // the Session Expiry Interval at the end; 0: the session has ended
	State     *fleet.Session // as of Device.Snapshot
	Met       Ends           // behind the last command that the session was offered or has settled
	Reason    string
	Retaining Line // nil: all that it has retained is stored
}

// A Line is what a connection has retained and Kafka does not have yet. A retained will comes behind what is in its own topic,
// or the last word there would be what a device said that is gone. It is asked with no lock held.
type Line interface {
	// Stored gives what is closed when what there is now in a topic is stored; nil: it is.
	Stored(topic string) <-chan struct{}
	Empty() bool
}

// A departure is a connection that has ended, until all that it had under way is decided.
type departure struct {
	Leaving
	late  bool // outcomes that are not known yet are not waited for any more
	timer *time.Timer
}

// releaseWait is how long the end of a connection waits for the outcomes of its messages with QoS 2. What is not known
// by then is left as pending, so that the device can go on elsewhere: one message may wait for its partition for long.
const releaseWait = takeoverWait / 4

// begin takes over the state that the session was opened with. part.mu is held.
func (c *Conn) begin(a fleet.Action) {
	c.epoch, c.began, c.lasting = a.Epoch, time.Now().UnixNano(), a.Present || a.State.Expiry > 0
	s := a.State
	c.Session, c.Present, c.begins, c.gaps = s.Began, a.Present, s.Begins, s.Gaps
	c.Asked = Asked{Principal: s.Principal, Remote: s.Remote, Version: s.Version, will: s.Will}
	c.expiry = s.Expiry
	if !a.Present {
		return
	}
	c.settle(nil, a.State.Pending)
	if stored := c.p.d.ledger(c.h.id).ids(c.h.id, a.State.Began); len(stored) > 0 {
		c.ids = &idSet{stored: stored}
	}
}

// Received gives the QoS 2 ids that a session had which was resumed, found with its state. The device must not have been
// answered yet.
func (c *Conn) Received(found []uint16) []uint16 {
	c.p.lock()
	defer c.p.unlock()
	all := append(c.ids.all(), found...)
	slices.Sort(all)
	return slices.Compact(all)
}

// settle passes on what is known now of the messages that other connections of the session have left without an outcome.
// part.mu is held.
func (c *Conn) settle(stored []uint16, pending []fleet.Pending) {
	var ids []uint16
	unsure := false
	for _, p := range pending {
		if ids = append(ids, p.ID); p.ID == 0 {
			unsure = true
		}
	}
	c.p.later(c.dev.Settle(stored, ids, unsure))
}

// Save writes the session down; Device.Saved follows. Calls may be joined.
func (c *Conn) Save() {
	c.p.lock()
	defer c.p.unlock()
	c.save()
}

// wantsCheckpoint says that what was settled is to be written down, which is so for some of the sessions each second.
// part.mu is held.
func (c *Conn) wantsCheckpoint(at time.Time) bool {
	return c.lasting && at.Unix()%checkpointSeconds == c.epoch%checkpointSeconds && c.dev.HasProgressed()
}

// checkpointSeconds is how often what was settled is written down, if nothing else was.
const checkpointSeconds = 5

// save writes a snapshot of the session, unless one is on its way; then the next follows it. part.mu is held.
func (c *Conn) save() {
	if c.h.conn != c {
		return
	}
	if c.saving {
		c.again = true
		return
	}
	state, version := c.dev.Snapshot()
	c.saving, c.again, c.version = true, false, version
	state.Expiry, state.Will = c.expiry, c.will
	var acts []fleet.Action
	c.number, acts = c.h.m.Save(state, c.p.view(c.h.id))
	c.h.do(acts)
}

// saved says that a save and all before it are stored. part.mu is held.
func (c *Conn) saved(n int64) {
	if c == nil || n < c.number {
		return
	}
	c.saving = false
	version := c.version
	c.p.later(func() { c.dev.Saved(version) })
	if c.again {
		c.save()
	}
}

// Leave takes the end of the connection; it is the last call. What is still under way for it is waited for: messages with
// QoS 2 whose outcome decides whether their packet identifiers are part of the session, for a while, and transactions.
func (c *Conn) Leave(l Leaving) {
	c.p.d.leaving.Add(1)
	left := &departure{Leaving: l}
	c.p.lock()
	defer c.p.unlock()
	c.h.conn, c.h.departing, c.left = nil, c, left
	if l.Retaining != nil {
		c.h.retaining = append(c.h.retaining, l.Retaining)
	}
	left.timer = time.AfterFunc(releaseWait, func() {
		c.p.lock()
		defer c.p.unlock()
		left.late = true
		c.depart()
	})
	time.AfterFunc(takeoverWait, c.withdraw)
	c.depart()
}

// withdraw gives up what can't be written though the connection is over for a while: whoever comes next must not wait for
// a Kafka topic that is in trouble. The device sends it again, unless it has QoS 0: that waits, and nobody for it.
func (c *Conn) withdraw() {
	c.p.lock()
	defer c.p.unlock()
	broken := c.broken
	if c.ids.underWay() || broken {
		c.h.inc.shard(c.h.id).tx.Withdraw(func(g *kafka.TxGroup) bool {
			in, ok := g.Owner.(*ingest)
			return ok && in.c == c && (in.qos == 2 || in.qos == 1 && broken)
		})
	}
	if c.left != nil {
		time.AfterFunc(takeoverWait, c.withdraw) // some may have been in a transaction
	}
}

// Told says that the device is about to be told of the session. It comes before all but Quit and Received.
func (c *Conn) Told() {
	c.p.lock()
	defer c.p.unlock()
	if c.h.conn == c {
		c.h.do(c.h.m.Told(c.p.view(c.h.id)))
	}
}

// Quit leaves a session that the device was not told of, as it was found. It takes the place of Leave.
func (c *Conn) Quit(reason string) {
	c.p.lock()
	defer c.p.unlock()
	h, at := c.h, millis()
	h.conn = nil
	h.met(c)
	h.leave(nil, at)
	c.p.later(func() { c.p.d.host.Disconnected(c, reason, at) })
}

// outcome takes that of a message with QoS 2, after the end of the connection.
func (c *Conn) outcome(id uint16, stored bool) {
	c.p.lock()
	defer c.p.unlock()
	c.depart()
	if i := slices.Index(c.pending, id); i >= 0 {
		c.pending = slices.Delete(c.pending, i, i+1)
		// The machine of the connection may have been let go, and another one have written under the key since.
		if inc := c.h.inc; !inc.dead.Load() {
			h := c.p.holder(c.h.id, inc)
			h.do(h.m.Outcome(c.Session, id, stored, c.p.view(h.id)))
		}
	}
}

// depart gives the end of the connection to the machine, when nothing is under way. part.mu is held.
func (c *Conn) depart() {
	l := c.left
	if l == nil || c.ids.underWay() {
		return
	}
	received, pending := c.dev.Received(c.outcome)
	if len(pending) > 0 && !l.late {
		return
	}
	l.timer.Stop()
	c.left, c.pending = nil, pending
	h := c.h
	h.departing = nil
	at := millis()
	final := *l.State
	final.Expiry, final.OfflineSince = l.Expiry, at
	final.Received = slices.DeleteFunc(received, c.ids.has)
	for _, id := range pending {
		final.Pending = append(final.Pending, fleet.Pending{ID: id, Inc: h.inc.name})
	}
	if l.Tidy {
		final.Will = nil
	} else if c.will != nil {
		w := *c.will
		w.Due = at + 1000*int64(min(w.Delay, l.Expiry))
		final.Will = &w
	}
	for stream, at := range c.told {
		l.Met[stream] = max(l.Met[stream], at)
	}
	switch {
	case l.Expiry > 0:
		final.MeetAll(c.p.d.host.Positions(c.told))
	case !c.lasting && len(l.Met) > 0:
		// It takes what was there for all with it, but who tells of absent devices may not have read yet what came for it alone.
		met := c.p.d.host.Positions(l.Met)
		final.Ends = &fleet.Progress{Met: met.Pos, IDs: met.IDs}
	case c.lasting:
		ends := c.p.ends(h.id)
		for stream, met := range l.Met { // a replay goes ahead of the devices that are here
			if end, known := ends[stream]; known {
				ends[stream] = max(end, met)
			}
		}
		final.Ends = c.p.d.host.Positions(ends)
		c.p.advance(h.id, final.Ends)
		c.p.endedAt(h.id, &final, ends)
	}
	h.leave(&final, at)
	c.p.later(func() {
		c.p.d.host.Disconnected(c, l.Reason, at)
		c.p.d.leaving.Add(-1)
	})
}

// Release frees the QoS 2 id of a message that a transaction has stored; done is called once that is stored. false: there
// is nothing to store.
func (c *Conn) Release(id uint16, done func()) bool {
	c.p.lock()
	defer c.p.unlock()
	if !c.ids.has(id) {
		return false
	}
	c.write(&ingest{c: c, qos: 2, id: id, released: done})
	return true
}

// Ingest stores a message in a transaction, and with QoS 2 its packet identifier with it. owner is told what became of it.
func (c *Conn) Ingest(qos byte, id uint16, records []*kafka.TxRecord, owner func(err error)) {
	c.p.lock()
	defer c.p.unlock()
	c.write(&ingest{c: c, qos: qos, id: id, add: true, records: records, told: owner})
}

// write queues a change of the packet identifiers. part.mu is held.
func (c *Conn) write(in *ingest) {
	sh := c.h.inc.shard(c.h.id)
	in.group.Owner, in.group.Prepare, in.group.Order = in, in.prepare, c
	in.group.Records = in.records
	if in.qos < 2 {
		sh.enqueue(&in.group, &in.turn)
		return
	}
	if c.ids == nil {
		c.ids = new(idSet)
	}
	c.ids.open++
	c.ids.changes = append(c.ids.changes, in)
	in.entry = c.p.d.entry(c.h.id, fleet.LedgerIDsKey(c.h.id, c.h.inc.name), noBytes)
	in.group.Records = append(in.records, &in.entry)
	sh.enqueue(&in.group, &in.turn)
}

// noBytes is a value until the one that counts is known.
var noBytes = []byte{}

// ClientID is that of the device.
func (c *Conn) ClientID() string { return c.h.id }

// Incarnation is the name under which this process has the connection.
func (c *Conn) Incarnation() string { return c.h.inc.name }

// Epoch orders the connections of a client ID, and Began is when this one was opened.
func (c *Conn) Epoch() int64 { return c.epoch }

// Began is told at Epoch.
func (c *Conn) Began() time.Time { return time.Unix(0, c.began).UTC() }
