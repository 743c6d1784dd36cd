package sim

import (
	"context"
	"slices"
	"sync"
	"time"

	"sluice/fleet"
	"sluice/fleet/driver"
	"sluice/kafka"
)

// A conn is one CONNECT of a device at a process, and the driver.Device of it: what package mqtt and the rules are to the
// driver, in as few words as will do.
type conn struct {
	n       *node
	dev     *device
	req     fleet.ConnectRequest
	will    string // its name
	cancel  context.CancelFunc
	driver  *driver.Conn
	inc     string // that has it
	live    bool   // CONNACK was sent
	closing bool
	over    bool // it is to be closed, or was refused
	done    bool
	tidy    bool
	asked   bool  // see rules
	guarded bool  // the session of another device lay there when this one began
	zero    int   // see ghost
	claimed int64 // when the claim landed
	asks    int64 // and the time of CONNECT that it has
	foundAt int64 // the epoch of the last state before it
	found   ghostState
	closed  int64  // when the process closed it
	expiry  uint32 // then
	ver     uint32 // of the session's changes
	packets []packet
	held    []packet // messages that wait for their outcome

	mu      sync.Mutex
	known   []uint16 // messages that are stored, and not released
	own     []uint16 // on their way here
	foreign []uint16 // on their way elsewhere
	unsure  bool     // there may be others
	changed func(id uint16, stored bool)

	progressed bool // since the last snapshot
}

// connectTimeout is for how long an answer to CONNECT is waited for.
const connectTimeout = 10 * time.Second

// accept takes a CONNECT in. One that is there for the same client ID is closed first.
func (n *node) accept(c *conn) {
	at := n.seat(c.dev.of)
	if at.conn != nil && !n.d.Admits(c.dev.of.id, c.req.Principal) {
		c.dev.of.ghost.refused(n.w, c)
		c.over, c.done = true, true
		return
	}
	at.queue = append(at.queue, c)
	if at.conn == nil {
		n.begin(at)
	} else if old := at.conn; old.live {
		n.later("closes the older connection", func() { old.close(false, 0) })
	}
}

// begin begins with the next CONNECT.
func (n *node) begin(at *seat) {
	if at.conn != nil || len(at.queue) == 0 {
		return
	}
	c := at.queue[0]
	at.queue, at.conn = at.queue[1:], c
	c.inc = n.d.Name()
	if cl := c.dev.of; c.dev == &cl.eve {
		closed := cl.dev.cur != nil && cl.dev.cur.closed > 0 // its session may have ended, and it does not know
		c.guarded, c.zero = !cl.ghost.ok[0] && len(cl.ghost.ok) > 0 && len(cl.ghost.untold) == 0 && !closed, cl.ghost.zeros
	}
	ctx, cancel := context.WithTimeout(n.life, connectTimeout)
	c.cancel = cancel
	n.w.running.Go(func() { // ends with the answer, or ctx
		defer cancel()
		opened, a, err := n.d.Open(ctx, c.dev.of.id, c.req, c)
		n.later("answers "+c.dev.name, func() { c.answered(opened, a, err) })
	})
}

// fin says that the device has left an attempt.
func (n *node) fin(c *conn) {
	at := n.seat(c.dev.of)
	if i := slices.Index(at.queue, c); i >= 0 {
		at.queue = slices.Delete(at.queue, i, i+1)
		c.done = true
		return
	}
	if at.conn == c {
		c.cancel()
	}
}

// free lets the next CONNECT begin.
func (c *conn) free() {
	c.done = true
	at := c.n.seat(c.dev.of)
	if at.conn == c {
		at.conn = nil
	}
	c.n.begin(at)
}

func (c *conn) answered(opened *driver.Conn, a fleet.Action, err error) {
	switch {
	case err != nil:
		c.n.w.tracef("%s: no answer to %s", c.n.name, c.dev.name)
		c.over = true
		c.free()
		return
	case a.Kind != fleet.ActOpened:
		if a.Kind == fleet.ActRefused {
			c.dev.of.ghost.refused(c.n.w, c)
		}
		c.over = true
		c.free()
		return
	}
	w, g, at := c.n.w, &c.dev.of.ghost, c.n.seat(c.dev.of)
	c.driver, c.live, c.inc = opened, true, opened.Incarnation()
	c.mu.Lock()
	c.known = union(c.known, opened.Received(a.State.Received))
	c.mu.Unlock()
	if len(a.State.Subs) > 0 {
		c.ver = a.State.Subs[0].ID
	}
	w.tracef("%s: CONNACK to %s, present %t, epoch %d, began %d, change %d, received %v", c.n.name, c.dev.name, opened.Present, a.Epoch, opened.Session, c.ver, c.known)
	g.connack(w, c, a.Epoch)
	opened.Told()
	at.queue = slices.DeleteFunc(at.queue, func(next *conn) bool { // it is asked again whether they may end this one
		admitted := c.n.d.Admits(c.dev.of.id, next.req.Principal)
		if !admitted {
			g.refused(w, next)
			next.over, next.done = true, true
		}
		return !admitted
	})
	switch {
	case c.dev.cur != c || c.over || c.n.stops || len(at.queue) > 0:
		c.n.later("close", func() { c.close(false, 0) })
		if will := g.wills[c.will]; will != nil && c.dev.cur != c {
			will.left = w.now() // the device had left before
		}
	}
	if c.dev.cur == c {
		c.dev.resume(c)
	}
}

// change changes the session.
func (c *conn) change() {
	if !c.live || c.closing {
		return
	}
	c.mu.Lock()
	c.ver++
	c.progressed = c.n.w.chance(4)
	save := !c.progressed
	c.mu.Unlock()
	if save {
		c.driver.Save()
	}
}

// Snapshot gives the session: its changes are counted in a subscription.
func (c *conn) Snapshot() (*fleet.Session, uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.progressed = false
	s := &fleet.Session{}
	if c.ver > 0 {
		s.Subs = []fleet.Sub{{Filter: "f", ID: c.ver}}
	}
	return s, uint64(c.ver)
}

// Saved answers the device for a change.
func (c *conn) Saved(version uint64) {
	c.n.later("answers a change", func() {
		if c.live && c.dev.cur == c && c.dev == &c.dev.of.dev && !c.closing {
			acked, began := c.dev.of.ghost.acked, c.driver.Session
			acked[began] = max(acked[began], uint32(version))
		}
	})
}

// HasProgressed says that there is a change for which nobody waits.
func (c *conn) HasProgressed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.progressed
}

// Settle takes in what others have told.
func (c *conn) Settle(stored, pending []uint16, unsure bool) func() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known = union(c.known, stored)
	c.foreign = slices.DeleteFunc(slices.Clone(pending), func(id uint16) bool { return id == 0 })
	c.unsure = unsure
	return func() { c.n.later("answers what was held", c.answerHeld) }
}

// Received gives the ids that were taken in.
func (c *conn) Received(changed func(uint16, bool)) (stored, pending []uint16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changed = changed
	return slices.Clone(c.known), slices.Clone(c.own)
}

// Close ends the connection.
func (c *conn) Close(why driver.Why) {
	c.n.later("closes", func() {
		c.n.w.tracef("%s: closes the connection of %s, because of %d", c.n.name, c.dev.name, why)
		c.over = true
		c.close(false, 0)
	})
}

// close ends the connection. With DISCONNECT, which may set another expiry, it is tidy.
func (c *conn) close(tidy bool, expiry uint32) {
	if c.closing || !c.live {
		return
	}
	c.closing, c.tidy, c.closed = true, tidy, c.n.w.now()
	if !tidy {
		expiry = c.req.Expiry
	}
	c.expiry = expiry
	state, _ := c.Snapshot()
	c.n.w.tracef("%s: the connection of %s has ended, tidy %t, expiry %d", c.n.name, c.dev.name, tidy, expiry)
	c.driver.Leave(driver.Leaving{Tidy: tidy, Expiry: expiry, State: state, Reason: "it is over"})
	c.free()
}

// canTake says that the next packet is read now.
func (c *conn) canTake() bool {
	if !c.live || c.closing || len(c.packets) == 0 {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.packets[0]
	return !c.unsure && (!p.release || !slices.Contains(c.foreign, p.id))
}

// take handles the next packet.
func (c *conn) take() {
	p := c.packets[0]
	c.packets = c.packets[1:]
	c.mu.Lock()
	known, open := slices.Contains(c.known, p.id), slices.Contains(c.own, p.id) || slices.Contains(c.foreign, p.id)
	if !p.release && !known && !open {
		c.own = append(c.own, p.id)
	}
	c.mu.Unlock()
	switch {
	case p.release:
		released := func() {
			c.mu.Lock()
			c.known = without(c.known, p.id)
			c.mu.Unlock()
			c.n.later("PUBCOMP", func() { c.answer(p) })
		}
		if !c.driver.Release(p.id, released) {
			released()
		}
	case known:
		c.answer(p)
	case open:
		c.held = append(c.held, p)
	case p.plain():
		c.held = append(c.held, p)
		c.dev.pub.produces = append(c.dev.pub.produces, &produce{c: c, p: p})
		c.dev.pub.at(p.message, taker{c.n, c.inc})
	default:
		c.held = append(c.held, p)
		rec := &kafka.TxRecord{Topic: upTopic, Key: []byte{byte(p.message)}, PartitionKey: []byte(c.dev.of.id)}
		c.driver.Ingest(2, p.id, []*kafka.TxRecord{rec}, func(err error) {
			c.outcome(p.id, err == nil)
			if err != nil {
				c.Close(driver.NotReleased)
			}
		})
	}
}

// outcome is that of a message on its way.
func (c *conn) outcome(id uint16, stored bool) {
	c.mu.Lock()
	c.own = without(c.own, id)
	if stored {
		c.known = union(c.known, []uint16{id})
	}
	changed := c.changed
	c.mu.Unlock()
	if changed != nil {
		changed(id, stored)
	}
	c.n.later("answers what was held", c.answerHeld)
}

// answerHeld answers what waits. A message of which nobody knows ends the connection, and the device sends it again.
func (c *conn) answerHeld() {
	held := c.held
	c.held = nil
	for _, p := range held {
		c.mu.Lock()
		known, open := slices.Contains(c.known, p.id), slices.Contains(c.own, p.id) || slices.Contains(c.foreign, p.id)
		c.mu.Unlock()
		switch {
		case known:
			c.answer(p)
		case open:
			c.held = append(c.held, p)
		default:
			c.n.w.tracef("%s: the outcome of message %d is known to nobody", c.n.name, p.message)
			c.close(false, 0)
		}
	}
}

func without(ids []uint16, id uint16) []uint16 {
	return slices.DeleteFunc(slices.Clone(ids), func(x uint16) bool { return x == id })
}

// union gives all of both, ascending.
func union(a, b []uint16) []uint16 {
	all := append(slices.Clone(a), b...)
	slices.Sort(all)
	return slices.Compact(all)
}
