package sim

import (
	"slices"

	"sluice/fleet"
)

// A produce is a record of a plain rule on its way. It lands in the end if its instance lives, and no fence stops it.
type produce struct {
	node *node
	conn *conn
	land func()
}

// plain says that a message is taken by a rule without exactly_once. The ids of such messages are in the session's record.
func (p packet) plain() bool { return p.message%2 == 1 }

// received are the ids of plain messages at a connection.
type received struct {
	known   []uint16 // stored, and not released
	own     []uint16 // on their way here
	foreign []fleet.Pending
}

func (r *received) unsure() bool {
	return slices.ContainsFunc(r.foreign, func(p fleet.Pending) bool { return p.ID == 0 })
}

func without(ids []uint16, id uint16) []uint16 {
	return slices.DeleteFunc(slices.Clone(ids), func(x uint16) bool { return x == id })
}

// takePlain handles a packet of a plain message; false: it stays unread.
func (c *conn) takePlain(p packet) bool {
	id, pub := p.id, &c.dev.pub
	switch {
	case p.release:
		c.ids.known = without(c.ids.known, id)
		c.answer(p)
	case c.ids.unsure():
		return false
	case slices.Contains(c.ids.known, id):
		c.answer(p)
	case slices.Contains(c.ids.own, id), slices.ContainsFunc(c.ids.foreign, func(f fleet.Pending) bool { return f.ID == id }):
		c.held = append(c.held, p)
	default:
		pub.at(p.message, c.n)
		c.ids.own = append(c.ids.own, id)
		c.held = append(c.held, p)
		began := c.state.Began
		c.n.w.produces = append(c.n.w.produces, &produce{c.n, c, func() {
			c.recordedPlain(p.message)
			if c.n.up {
				c.n.do("outcome", nil, func() { c.outcome(began, id) })
			}
		}})
	}
	return true
}

// at notes that an instance has to do with a message: it took it in, or has the session that it belongs to.
func (p *publisher) at(message int, n *node) {
	if p.takers == nil {
		p.takers = make(map[int][]*node)
	}
	p.takers[message] = append(p.takers[message], n)
}

// recordedPlain holds that only a crash makes two records of one message.
func (c *conn) recordedPlain(message int) {
	pub := &c.dev.pub
	if pub.records == nil {
		pub.records = make(map[int]int)
	}
	pub.records[message]++
	crashed := slices.ContainsFunc(pub.takers[message], func(n *node) bool { return !n.up || n.w.ghost.dead[n.name] > 0 })
	switch {
	case pub.records[message] < 2:
	case crashed:
		c.n.w.ghost.doubled++
	default:
		c.n.w.fail("message %d is in two records, and nobody has died", message)
	}
}

// outcome is that of a message which is stored.
func (c *conn) outcome(began int64, id uint16) {
	c.ids.own = without(c.ids.own, id)
	if c.n.conn == c {
		c.ids.known = append(c.ids.known, id)
		c.answerHeld()
		return
	}
	if slices.Contains(c.left, id) {
		n := c.n
		n.acts(n.machine().Outcome(began, id, true, n.view()))
	}
}

// settle takes in what others have told.
func (c *conn) settle(stored []uint16, foreign []fleet.Pending) {
	c.ids.known = append(c.ids.known, stored...)
	c.ids.foreign = foreign
	c.answerHeld()
}

// answerHeld answers what waits. A message of which nobody knows ends the connection, and the device sends it again.
func (c *conn) answerHeld() {
	held := c.held
	c.held = nil
	for _, p := range held {
		switch id := p.id; {
		case slices.Contains(c.ids.known, id):
			c.answer(p)
		case slices.Contains(c.ids.own, id), slices.ContainsFunc(c.ids.foreign, func(f fleet.Pending) bool { return f.ID == id }):
			c.held = append(c.held, p)
		default:
			c.n.w.trace("%s: the outcome of message %d is known to nobody", c.n.name, p.message)
			c.n.do("close", nil, func() { c.close(false) })
		}
	}
}

// leave puts the ids into the state that is left.
func (c *conn) leave(final *fleet.Session) {
	final.Received = slices.Clone(c.ids.known)
	final.Pending = nil
	c.left = slices.Clone(c.ids.own)
	for _, id := range c.left {
		final.Pending = append(final.Pending, fleet.Pending{ID: id, Inc: c.n.name})
	}
}
