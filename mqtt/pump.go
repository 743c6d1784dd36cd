package mqtt

import (
	"slices"
	"time"
)

// commandBytes is how much of commands waits in a connection's output; more waits in its outbox, where it
// can still expire, be cancelled and be counted.
const commandBytes = 16 << 10

// pump sends as much as the device's window, its socket and its Maximum Packet Size allow: first what was sent
// on an earlier connection, then the queue. What can't be sent at all is settled. mu is held.
func (o *outbox) pump(now time.Time) (done []settlement) {
	c := o.conn
	if c == nil || o.resent == len(o.flight) && len(o.queue) == 0 {
		o.list()
		o.handOn()
		return nil
	}
	c.mu.Lock()
	before := len(c.out)
	for o.resent < len(o.flight) && o.again(c, now, &done) {
	}
	for len(o.queue) > 0 && o.next(c, now, &done) {
	}
	enlist := len(c.out) > before && !c.dirty
	c.dirty = c.dirty || enlist
	c.mu.Unlock()
	if enlist {
		o.srv.enlist(c)
	}
	if len(o.queue) == 0 {
		o.queue = nil
	}
	o.list()
	o.handOn()
	return done
}

// again sends the next delivery of an earlier connection, or drops it; false: not now. QoS 1 may end by its
// expiry even now, QoS 2 has begun and must be completed. PUBREL waits for no place but takes one: else a device
// that completes nothing would have a window more in flight after each connection, until no id is free.
func (o *outbox) again(c *Conn, now time.Time, done *[]settlement) bool {
	f := &o.flight[o.resent]
	if f.absent {
		o.resent++
		o.absent++
		return true
	}
	if !o.isSaved(f.version) {
		return false
	}
	if f.received {
		if !c.takes(4) {
			return false
		}
		f.owed = false
		c.appendPubrel(f.id, Success)
		o.resent++
		return true
	}
	if !c.mayReceive(f.cmd.Topic) {
		o.forbid(done)
		return true
	}
	if f.qos == 1 && f.cmd.expired(now) {
		*done = append(*done, settlement{delivery: f.delivery, fate: Expired})
		o.land(o.resent)
		return true
	}
	p := f.outgoing(c.version, now)
	p.id, p.dup = f.id, f.sent
	switch o.fits(c, &p) {
	case tooLarge:
		*done = append(*done, settlement{delivery: f.delivery, fate: Dropped, reason: reasonTooLarge})
		o.land(o.resent)
		return true
	case notNow:
		return false
	}
	o.resent++
	c.put(&p)
	if !f.sent {
		f.sent = true
		c.marks = append(c.marks, mark{c.position(), f.delivery})
	}
	o.srv.m.sent[p.qos].Inc()
	return true
}

// next sends the head of the queue, or settles it; false: not now.
func (o *outbox) next(c *Conn, now time.Time, done *[]settlement) bool {
	d := o.queue[0]
	if s, over := d.over(now); over {
		*done = append(*done, s)
		o.pop()
		o.drop(&d)
		return true
	}
	if !c.mayReceive(d.cmd.Topic) {
		*done = append(*done, settlement{delivery: d, fate: Dropped, reason: reasonNotAuthorized})
		o.pop()
		o.drop(&d)
		return true
	}
	if d.qos == 2 && o.durable {
		return o.assign(&d)
	}
	if o.resent < len(o.flight) || o.crowded() {
		return false
	}
	p := d.outgoing(c.version, now)
	switch o.fits(c, &p) {
	case tooLarge: // [MQTT-3.1.2-24]
		*done = append(*done, settlement{delivery: d, fate: Dropped, reason: reasonTooLarge})
		o.pop()
		o.drop(&d)
		return true
	case notNow:
		return false
	}
	o.pop()
	if d.qos > 0 {
		p.id = o.freeID()
		o.flight = append(o.flight, flying{delivery: d, id: p.id, sent: true})
		o.resent++
	} else {
		o.drop(&d)
	}
	c.put(&p)
	c.marks = append(c.marks, mark{c.position(), d})
	o.srv.m.sent[d.qos].Inc()
	return true
}

// assign gives the head of the queue, with QoS 2, its packet identifier. Which command has which identifier must be
// stored before the device hears of it: after a crash it would get the same command under another one, twice. So it
// waits in flight, and is sent from there; false: not now.
func (o *outbox) assign(d *delivery) bool {
	if o.flying() >= o.window || o.crowded() {
		return false
	}
	o.pop()
	o.flight = append(o.flight, flying{delivery: *d, id: o.freeID(), version: o.change()})
	return true
}

func (o *outbox) pop() {
	o.queue[0] = delivery{}
	o.queue = o.queue[1:]
}

type fit int

const (
	fits fit = iota
	notNow
	tooLarge
)

// fits says whether p may be sent on c now. c.mu is held.
func (o *outbox) fits(c *Conn, p *outgoing) fit {
	p.length = p.size()
	switch {
	case uint64(p.length) > uint64(min(c.maxPacket, largestPacket)):
		return tooLarge
	case p.qos > 0 && o.resent-o.absent >= o.window: // [MQTT-3.3.4-7]
		return notNow
	case !c.takes(p.length):
		return notNow
	}
	return fits
}

// takes says whether n bytes of commands may be appended to out. If not, the connection asks for more when its
// output has gone. What is large waits for an empty output, so that a device which reads is never taken for
// one that doesn't. mu is held.
func (c *Conn) takes(n int) bool {
	switch {
	case c.silent || c.ending:
		return false
	case c.stuck, len(c.out) >= commandBytes, n > commandBytes && (c.waiting() > 0 || c.writing):
		c.starved = true
		return false
	}
	return true
}

// put encodes p into the output. Of a large one only the beginning is copied: the same command may go to ten
// thousand devices at once, and their outputs are not in any budget.
func (c *Conn) put(p *outgoing) {
	c.alias(p)
	if p.length <= commandBytes {
		c.out = p.appendTo(slices.Grow(c.out, p.length))
		return
	}
	c.out = p.appendHead(c.out) // out was empty, see takes
	c.tail = &tail{b: p.cmd.rest(p.version), at: len(c.out)}
}

// freeID gives the next packet identifier that is not in use [MQTT-2.2.1-3].
func (o *outbox) freeID() uint16 {
	for {
		o.nextID++
		if o.nextID != 0 && o.find(o.nextID) < 0 {
			return o.nextID
		}
	}
}

// find gives the place of id in flight, or -1. Devices answer in order, so it is near the head.
func (o *outbox) find(id uint16) int {
	for i := range o.flight {
		if o.flight[i].id == id {
			return i
		}
	}
	return -1
}

// appear takes flight[i] for one that the device has, whether or not the message can be read. mu is held.
func (o *outbox) appear(i int) {
	f := &o.flight[i]
	if f.absent && i < o.resent {
		o.absent--
	}
	f.absent = false
}

// land takes a delivery out of flight.
func (o *outbox) land(i int) {
	o.drop(&o.flight[i].delivery)
	o.appear(i)
	last := len(o.flight) - 1
	copy(o.flight[i:], o.flight[i+1:])
	o.flight[last] = flying{}
	o.flight = o.flight[:last]
	if i < o.resent {
		o.resent--
	}
	if last == 0 {
		o.flight = nil
	}
}

// A mark says where in a connection's output a command ends, so that it is known when it was sent.
type mark struct {
	end uint64
	delivery
}

// position is the number of bytes written and to be written on this connection. mu is held.
func (c *Conn) position() uint64 { return c.flushed + uint64(int(c.taken)+c.waiting()) }

// marked gives the commands that the network took since the last call. mu is held.
func (c *Conn) marked() (sent []mark) {
	n := 0
	for n < len(c.marks) && c.marks[n].end <= c.flushed {
		n++
	}
	if n == len(c.marks) {
		sent, c.marks = c.marks, nil
		return sent
	}
	sent, c.marks = c.marks[:n:n], c.marks[n:]
	return sent
}

// followUp passes on what was sent, and sends more if the outbox waits for that. It is called after each
// writing, with no lock held.
func (c *Conn) followUp(sent []mark, starved bool) {
	for i := range sent {
		m := &sent[i]
		m.cmd.Owner.CommandSent(m.cmd)
		if m.qos == 0 { // that is all there is to know
			c.srv.report(c.session.clientID, []settlement{{delivery: m.delivery, fate: Sent}})
		}
	}
	if starved {
		c.session.outbox.Load().refill()
		c.srv.Flush()
	}
}

// hungry says once that the outbox waits and there is room again. mu is held.
func (c *Conn) hungry() bool {
	if !c.starved || c.stuck || len(c.out) >= commandBytes || c.ending {
		return false
	}
	c.starved = false
	return true
}
