package sim

import (
	"slices"

	"sluice/fleet"
)

// A conn is one CONNECT of a device, at the instance that took it.
type conn struct {
	n       *node
	dev     *device
	req     fleet.ConnectRequest
	delay   uint32
	asked   bool // the opening record was asked for
	live    bool // CONNACK was sent
	closing bool
	over_   bool // lost or refused
	done    bool
	epoch   int64
	state   *fleet.Session
	ver     uint32
	waiting map[int64]uint32 // numbers of Saves -> the change they make durable
	guarded bool             // the session of another device lay there when this one began
	zero    int
	claimed int64 // when the claim landed
	packets []packet
	holds   bool  // the packet id is received and not released
	busy    bool  // a transaction of its is under way
	closeAs *bool // close when it is decided
	ids     received
	held    []packet // plain messages that wait for their outcome
	left    []uint16 // ids without an outcome when it ended
}

// accept takes a conn in. One that is there for the same client ID is closed first.
func (n *node) accept(c *conn) {
	c.req.Now = n.w.now
	if n.conn != nil {
		if _, foreign := n.claimer.Refuses(c.req, n.view()); foreign {
			n.w.ghost.refused(n.w, c)
			c.over_, c.done = true, true
			return
		}
	}
	n.queue = append(n.queue, c)
	if n.conn == nil {
		n.begin()
		return
	}
	old := n.conn
	n.do("kick", nil, func() {
		if n.conn == old {
			old.close(false)
		}
	})
}

func (n *node) begin() {
	if n.conn != nil || len(n.queue) == 0 {
		return
	}
	c := n.queue[0]
	n.queue = n.queue[1:]
	n.conn = c
	c.req.Now = n.w.now
	if c.dev == &n.w.eve {
		c.guarded, c.zero = !n.w.ghost.ok[0] && len(n.w.ghost.ok) > 0, n.w.ghost.zeros
	}
	n.acts(n.machine().Connect(c.req, n.view()))
}

// fin says that the device has left.
func (n *node) fin(c *conn) {
	for i, q := range n.queue {
		if q == c {
			n.queue = append(n.queue[:i:i], n.queue[i+1:]...)
			c.done = true
			return
		}
	}
	if n.conn == c {
		c.close(false)
	}
}

func (c *conn) opened(a fleet.Action) {
	c.live, c.epoch, c.state = true, a.Epoch, a.State
	if a.Present {
		c.ids.known, c.ids.foreign = slices.Clone(a.State.Received), a.State.Pending
	}
	if len(a.State.Subs) > 0 {
		c.ver = a.State.Subs[0].ID
	}
	c.n.w.trace("%s: CONNACK to %s, present %t, epoch %d, state %d, change %d", c.n.name, c.dev.name, a.Present, a.Epoch, a.State.Began, c.ver)
	c.n.w.ghost.connack(c.n.w, c, a)
	if c.dev.cur == c {
		c.dev.resume(a.Present)
	}
}

func (c *conn) change() {
	if !c.live || c.closing || c.over_ {
		return
	}
	c.ver++
	s := *c.state
	s.Subs = []fleet.Sub{{Filter: "f", ID: c.ver}}
	c.state = &s
	n, acts := c.n.claimer.Save(&s, c.n.view())
	c.waiting[n] = c.ver
	c.n.acts(acts)
}

func (c *conn) saved(n int64) {
	for k, ver := range c.waiting {
		if k <= n {
			delete(c.waiting, k)
			if c.dev.cur == c && c.dev == &c.n.w.dev {
				c.n.w.ghost.acked[c.state.Began] = max(c.n.w.ghost.acked[c.state.Began], ver)
			}
		}
	}
}

func (c *conn) over(a fleet.Action) {
	if a.Kind == fleet.ActRefused {
		c.n.w.ghost.refused(c.n.w, c)
	}
	c.over_ = true
	c.n.do("close", nil, func() { c.close(false) })
}

// close ends the connection.
func (c *conn) close(disconnect bool) {
	if c.closing || c.n.conn != c {
		return
	}
	c.closing = true
	if c.busy {
		c.closeAs = &disconnect
		return
	}
	if !c.live {
		c.gone(nil)
		return
	}
	final := *c.state
	without := final
	without.Will = nil
	switch {
	case final.Will == nil:
		c.gone(&final)
	case disconnect:
		c.n.dropWill(c.epoch, func() { c.gone(&without) })
	default:
		will := *final.Will
		will.Due = c.n.w.now + int64(min(c.delay, final.Expiry))*1000
		final.Will = &will
		c.gone(&final)
	}
}

func (c *conn) gone(final *fleet.Session) {
	n := c.n
	if n.conn != c {
		return
	}
	if final != nil {
		c.leave(final)
	}
	n.conn, c.done = nil, true
	n.acts(n.claimer.Gone(final, n.w.now, n.view()))
	n.begin()
}
