package sim

import (
	"fmt"
	"slices"

	"sluice/fleet"
	"sluice/kafka"
)

// A client is a client ID, with the devices that connect with it and what must be true of them. The other device, eve, is
// another principal's.
type client struct {
	id       string
	number   int
	ghost    ghost
	dev, eve device
}

// clientIDs are in order: the first two have a transactional id of an instance together, and their partition.
var clientIDs = [...]string{"c", "e", "d"}

func (w *world) addClient() {
	n := len(w.clients)
	c := &client{id: clientIDs[n], number: n, ghost: newGhost()}
	c.dev = device{of: c, name: "dev " + c.id, principal: "p", connects: 5}
	c.eve = device{of: c, name: "eve " + c.id, principal: "q"}
	if w.rng.IntN(4) == 0 {
		c.eve.connects = 2
	}
	c.ghost.of, c.dev.pub.message = c, w.rng.IntN(2)
	w.clients = append(w.clients, c)
}

// client gives that of an ID.
func (w *world) client(id string) *client {
	return w.clients[slices.IndexFunc(w.clients, func(c *client) bool { return c.id == id })]
}

// A device connects with a client ID, changes its session, leaves.
type device struct {
	of              *client
	name, principal string
	connects        int
	cur             *conn
	pub             publisher
}

func (d *device) enabled(w *world, all []step) []step {
	patient := d.cur != nil && !d.cur.live && !d.cur.over && !w.chance(10) // most wait for their CONNACK
	if ready := w.readies(); d.connects > 0 && !patient && len(ready) > 0 && w.chance(3) {
		n := ready[w.rng.IntN(len(ready))]
		all = append(all, step{d.name + " connects to " + n.name, func() { d.connect(w, n) }})
	}
	c := d.cur
	if c == nil {
		return all
	}
	if c.live && !c.over && c.n.alive() {
		if c.ver < 8 {
			all = append(all, step{d.name + " changes", c.change})
		}
		if d == &d.of.dev && !d.pub.sent {
			all = append(all, step{d.name + " publishes", d.publish})
		}
	}
	if !patient && w.chance(6) {
		all = append(all, step{d.name + " breaks", func() { d.leave(w, false, 0) }})
		if c.live {
			all = append(all, step{d.name + " disconnects", func() {
				expiry := c.req.Expiry
				if expiry > 0 && w.chance(2) {
					expiry = []uint32{fleet.NeverExpires, 0, 2}[w.rng.IntN(3)]
				}
				d.leave(w, true, expiry)
			}})
		}
	}
	return all
}

func (d *device) connect(w *world, n *node) {
	d.connects--
	if d.cur != nil {
		d.leave(w, false, 0)
	}
	c := &conn{n: n, dev: d}
	c.req = fleet.ConnectRequest{
		Clean: w.chance(3), Principal: d.principal,
		Expiry: []uint32{fleet.NeverExpires, fleet.NeverExpires, 0, 2}[w.rng.IntN(4)],
	}
	if w.chance(2) {
		w.willNumber++
		c.will = fmt.Sprintf("will-%d", w.willNumber)
		c.req.Will = &fleet.Will{Topic: c.will, Delay: uint32(w.rng.IntN(2)) * uint32(w.rng.IntN(3))}
	}
	w.tracef("%s: connects to %s, clean %t, expiry %d, will %+v", d.name, n.name, c.req.Clean, c.req.Expiry, c.req.Will)
	d.cur = c
	d.of.ghost.tried = d.of.ghost.tried || d == &d.of.eve
	n.accept(c)
}

// leave ends the device's side. An instance opens nothing for a device that has left; of a connection that lives it
// may learn late.
func (d *device) leave(w *world, tidy bool, expiry uint32) {
	c := d.cur
	d.cur = nil
	d.of.ghost.left(w, c, tidy, expiry)
	switch {
	case !c.n.up:
	case !c.live:
		c.n.fin(c)
	default:
		c.n.later("socket of "+d.name, func() { c.close(tidy, expiry) })
	}
}

// lostNode says that the process is gone with its sockets.
func (d *device) lostNode(w *world, n *node) {
	if d.cur != nil && d.cur.n == n {
		d.of.ghost.left(w, d.cur, false, 0)
		d.cur = nil
	}
}

// A packet is a PUBLISH with QoS 2 or a PUBREL.
type packet struct {
	release bool
	message int
	id      uint16
}

// plain says that a message is taken by a rule without exactly_once. The ids of such messages are in the session's record.
func (p packet) plain() bool { return p.message%2 == 1 }

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
	takers    map[int][]taker
	produces  []*produce
}

// A taker is an incarnation that took a message in, or had the session that it belongs to.
type taker struct {
	n   *node
	inc string
}

// A produce is a record of a plain rule on its way. It lands in the end if its process lives, and no fence stops it.
type produce struct {
	c      *conn
	p      packet
	landed bool
}

// enabled are the steps of records on their way.
func (p *publisher) enabled(w *world, all []step) []step {
	for _, r := range p.produces {
		over := func() { p.produces = slices.DeleteFunc(p.produces, func(o *produce) bool { return o == r }) }
		switch {
		case r.landed && r.c.n.alive():
			all = append(all, step{r.c.n.name + " hears of its message", func() {
				over()
				r.c.outcome(r.p.id, true)
			}})
		case r.landed || !r.c.n.up && w.quiet:
		case !w.stalled[spot{topic: upTopic}] && !w.held(w.slow):
			all = append(all, step{r.c.n.name + " message lands", func() {
				r.landed = true
				p.recordedPlain(w, &r.c.dev.of.ghost, r.p.message)
				if !r.c.n.up {
					over()
				}
			}})
		}
	}
	return all
}

// publish sends the next message, if the one before is through.
func (d *device) publish() {
	if p := &d.pub; !p.sent {
		p.sent = true
		d.cur.packets = append(d.cur.packets, packet{false, p.message, p.id})
	}
}

// resume sends again what was under way, or forgets it with its session.
func (d *device) resume(c *conn) {
	p, present, began := &d.pub, c.driver.Present, c.driver.Session
	forget := began != p.began
	if forget {
		p.id++
	}
	switch {
	case !p.sent:
	case !present || forget:
		p.message++
		p.sent, p.releasing = false, false
	default:
		c.packets = append(c.packets, packet{p.releasing, p.message, p.id})
	}
	p.began = began
	p.at(p.message, taker{c.n, c.inc})
}

// answer is a PUBREC, or a PUBCOMP.
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

// at notes that an incarnation has to do with a message.
func (p *publisher) at(message int, t taker) {
	if p.takers == nil {
		p.takers = make(map[int][]taker)
	}
	p.takers[message] = append(p.takers[message], t)
}

func (p *publisher) count(message int) int {
	if p.records == nil {
		p.records = make(map[int]int)
	}
	p.records[message]++
	return p.records[message]
}

// recorded holds that a message of an exactly_once rule is stored once.
func (p *publisher) recorded(w *world, r *kafka.TxRecord) {
	if message := int(r.Key[0]); p.count(message) > 1 {
		w.fail("message %d is in two records", message)
	}
}

// recordedPlain holds that only a crash makes two records of one message.
func (p *publisher) recordedPlain(w *world, g *ghost, message int) {
	if p.count(message) < 2 {
		return
	}
	if slices.ContainsFunc(p.takers[message], func(t taker) bool { return g.died(t) }) {
		g.doubled++
	} else {
		w.fail("message %d is in two records, and nobody has died", message)
	}
}
