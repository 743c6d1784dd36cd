package sim

import (
	"slices"

	"sluice/fleet"
)

// A packet is a PUBLISH with QoS 2 or a PUBREL.
type packet struct {
	release bool
	message int
	id      uint16
}

// publisher is the device's side of QoS 2: one message at a time, all with the same packet id. A device whose session
// has ended, or may have, forgets what was under way; it goes on with another id, because an attempt that it gave up
// may have made a session since, which is then presented.
type publisher struct {
	message   int
	id        uint16
	began     int64 // its session
	sent      bool
	releasing bool
	records   map[int]int // message -> records in Kafka
	takers    map[int][]*node
}

// publish sends the next message, if the one before is through.
func (d *device) publish() {
	if p := &d.pub; !p.sent {
		p.sent = true
		d.cur.packets = append(d.cur.packets, packet{false, p.message, p.id})
	}
}

// resume sends again what was under way, or forgets it with its session.
func (d *device) resume(present bool) {
	p := &d.pub
	forget := d.cur.state.Began != p.began
	if forget {
		p.id++
	}
	switch {
	case !p.sent:
	case !present || forget:
		p.message++
		p.sent, p.releasing = false, false
	default:
		d.cur.packets = append(d.cur.packets, packet{p.releasing, p.message, p.id})
	}
	p.began = d.cur.state.Began
	d.cur.load()
}

// received is a PUBREC, completed a PUBCOMP.
func (c *conn) answer(p packet) {
	if c.dev.cur != c || p.message != c.dev.pub.message || p.release != c.dev.pub.releasing {
		return
	}
	pub := &c.dev.pub
	if p.release {
		pub.message++
		pub.sent, pub.releasing = false, false
		return
	}
	if pub.records[p.message] == 0 {
		c.n.w.fail("message %d was answered and is in no record", p.message)
	}
	pub.releasing = true
	c.packets = append(c.packets, packet{true, p.message, p.id})
}

// take handles the next packet: the record and the id, or the id's removal, in one transaction.
func (c *conn) take() {
	p := c.packets[0]
	if p.plain() {
		if c.takePlain(p) {
			c.packets = slices.DeleteFunc(c.packets, func(q packet) bool { return q == p })
		}
		return
	}
	c.packets = c.packets[1:]
	if c.holds == !p.release {
		c.answer(p)
		return
	}
	c.busy = true
	ids := fleet.LedgerIDs{Epoch: c.epoch}
	if !p.release {
		ids.IDs = []uint16{c.dev.pub.id}
	}
	c.n.transact(&commit{
		apply: func() {
			if !p.release {
				c.recorded(p.message)
			}
			c.n.w.appendLedger(fleet.LedgerIDsKey(client, c.n.name), ledgerValue(ids))
		},
		done: func() {
			c.holds = !p.release
			c.answer(p)
			c.idle()
		},
		still: func() bool {
			holder, _ := c.n.view().Holder(c.n.w.now)
			return holder == c.n.name && !c.over_
		},
		drop: c.idle,
	})
}

func (c *conn) recorded(message int) {
	pub := &c.dev.pub
	if pub.records == nil {
		pub.records = make(map[int]int)
	}
	pub.records[message]++
	if pub.records[message] > 1 {
		c.n.w.fail("message %d is in two records", message)
	}
}

// idle goes on with a close that waited for the transaction.
func (c *conn) idle() {
	c.busy = false
	if c.closeAs != nil {
		c.closing = false
		c.close(*c.closeAs)
	}
}

// load takes in the ids that the ledger has for the session.
func (c *conn) load() {
	c.holds = slices.Contains(c.n.book.IDs(client, c.state.Began), c.dev.pub.id)
}
