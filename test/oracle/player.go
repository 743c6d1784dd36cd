package oracle

import (
	"bufio"
	"encoding/binary"
	"net"
	"strings"
	"time"

	"sluice/test/internal/wire"
)

// A player is a device: a client that does what the specification says, with the state of a session.
type player struct {
	*play
	number  int
	name    string
	version byte
	conns   int
	conn    *link
	links   []*link
	pending []*sent
	brief   bool // the session was to end with its connection
	// received are the identifiers of QoS 2 that are not released.
	received map[uint16]bool
	hold     bool
	held     [][]byte // answers that are kept back
	heldIs   []Event
}

// A sent is a message that is not acknowledged.
type sent struct {
	m       Message
	number  int
	id      uint16
	payload string
	rec     bool // PUBREC came
}

// A link is a connection of a player.
type link struct {
	d       *player
	nc      *net.TCPConn
	number  int
	version byte
	fuse    int  // packets until it breaks; 0: it does not
	dead    bool // the device has done with it
	closed  bool // by the device
	ended   bool // by the server
	greeted bool
	present bool
	code    byte
	acks    map[uint16]bool // SUBACK and UNSUBACK that came
	twice   map[uint16]bool // identifiers of messages that were sent a second time
	nextID  uint16          // of SUBSCRIBE and UNSUBSCRIBE
}

func (d *player) online() bool {
	return d.conn != nil && !d.conn.dead && !d.conn.ended && d.conn.greeted
}

func (d *player) filter(n int) string { return d.named(filters[n]) }

func (d *player) named(filter string) string {
	return strings.NewReplacer("HISTORY", d.h.ID, "ME", d.name, "OTHER", d.players[1-d.number].name).Replace(filter)
}

// connect connects, over a connection that is open if there is one, and sends again what is not acknowledged.
func (d *player) connect(s Step) {
	for end := time.Now().Add(patience); ; {
		nc, err := d.dial(s.At)
		if err == nil && d.greet(nc, s) {
			return
		}
		if time.Now().After(end) || d.ctx.Err() != nil {
			return
		}
		s.At = (s.At + 1) % len(d.w.instances)
		if err != nil {
			time.Sleep(50 * time.Millisecond) // an instance that was killed: nothing tells when it is back
		}
	}
}

// greet sends CONNECT and waits for CONNACK.
func (d *player) greet(nc *net.TCPConn, s Step) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn != nil {
		d.conn.dead = true // given up; the reader goes on until the server has closed it
	}
	d.conns++
	d.held, d.heldIs = nil, nil
	d.version = s.V
	c := &link{d: d, nc: nc, number: d.conns, version: s.V, acks: map[uint16]bool{}, twice: map[uint16]bool{}, nextID: 1000}
	d.conn, d.links = c, append(d.links, c)
	e := Event{What: Connect, Version: s.V, Clean: s.Clean, Expiry: int64(s.Expiry), Delay: int64(s.Delay), Message: -1}
	hello := wire.Hello{Version: s.V, ID: d.clientID(d.number), Persist: !s.Clean}
	if s.V == 5 && s.Expiry > 0 {
		hello.Properties = wire.Properties(0x11, uint32(s.Expiry))
	}
	if s.Will > 0 {
		topic := "up/" + d.h.ID + "/" + d.name
		n, payload := d.message(Message{From: d.number, Topic: topic, Kafka: Plain, QoS: byte(s.Will - 1), Will: true, To: -1})
		e.Message = n
		hello.Will = &wire.Will{Topic: topic, Payload: payload, QoS: byte(s.Will - 1)}
		if s.Delay > 0 && s.V == 5 {
			hello.Will.Properties = wire.Properties(0x18, s.Delay)
		}
	}
	c.send(e, hello.Packet())
	go c.read() // ends with the connection
	d.await(patience, func() bool { return c.greeted || c.ended || c.dead })
	if !c.greeted {
		c.cut(false)
		return false
	}
	if c.code != 0 {
		c.cut(false)
		return false
	}
	if !c.present || d.brief {
		d.pending, d.received = nil, map[uint16]bool{}
	}
	d.brief = s.V == 5 && s.Expiry == 0 || s.V < 5 && s.Clean
	for _, o := range d.pending {
		if c.dead {
			break
		}
		if o.rec {
			c.send(Event{What: Pubrel, ID: o.id, Message: o.number}, wire.Packet(wire.PUBREL, o.id))
		} else {
			c.publish(o, true)
		}
	}
	return true
}

// event adds an event of the connection, and breaks the connection if it was to break after it. It says whether the
// connection is still there.
func (c *link) event(e Event) bool {
	e.Dev, e.Conn = c.d.number, c.number
	c.d.add(e)
	if c.fuse > 0 && e.What != GotEnd {
		if c.fuse--; c.fuse == 0 {
			c.cut(len(c.d.h.Events)%2 == 0)
		}
	}
	return !c.dead
}

// send writes a packet, which was seen when the writing began.
func (c *link) send(e Event, packet []byte) {
	if c.dead || c.ended {
		return
	}
	e.Dev, e.Conn = c.d.number, c.number
	c.d.add(e)
	_ = c.nc.SetWriteDeadline(time.Now().Add(patience))
	_, _ = c.nc.Write(packet) // the reader sees what is wrong
	if c.fuse > 0 {
		if c.fuse--; c.fuse == 0 {
			c.cut(len(c.d.h.Events)%2 == 0)
		}
	}
}

// cut closes the connection without DISCONNECT, by a reset or in order.
func (c *link) cut(reset bool) {
	if c.dead {
		return
	}
	if !c.ended {
		c.d.add(Event{What: Cut, Dev: c.d.number, Conn: c.number, Message: -1})
	}
	c.dead, c.closed = true, true
	if reset {
		_ = c.nc.SetLinger(0)
	}
	_ = c.nc.Close()
	c.d.moved.Broadcast()
}

func (d *player) cut(reset bool) { d.conn.cut(reset) }

func (d *player) disconnect(s Step) {
	c := d.conn
	e := Event{What: Disconnect, Message: -1, Code: s.Code, Expiry: -1}
	packet := wire.Packet(wire.DISCONNECT)
	if c.version == 5 && (s.Code != 0 || s.Expiry >= 0) {
		packet = wire.Packet(wire.DISCONNECT, s.Code)
		// An expiry other than 0 after a CONNECT with 0 is a protocol error [MQTT-3.14.2-2].
		if s.Expiry == 0 || s.Expiry > 0 && c.lasting() {
			e.Expiry = int64(s.Expiry)
			packet = wire.Packet(wire.DISCONNECT, s.Code, wire.Properties(0x11, uint32(s.Expiry)))
		}
	}
	if c.version < 5 {
		e.Code = 0
	}
	c.fuse = 0
	c.send(e, packet)
	c.dead = true // nothing may follow [MQTT-3.14.4-2]
	if !d.await(patience, func() bool { return c.ended }) {
		c.closed = true
		_ = c.nc.Close()
	}
}

// lasting says whether CONNECT asked for a session that goes on.
func (c *link) lasting() bool {
	for _, e := range c.d.h.Events {
		if e.What == Connect && e.Dev == c.d.number && e.Conn == c.number {
			return e.Expiry > 0
		}
	}
	return false
}

func (d *player) publish(m Message, wait bool) {
	n, payload := d.message(m)
	o := &sent{m: m, number: n, payload: payload}
	if m.QoS > 0 {
		o.id = d.freeID()
		d.pending = append(d.pending, o)
	}
	c := d.conn
	c.publish(o, false)
	if wait && m.QoS > 0 {
		d.await(patience, func() bool { return !d.isPending(o) || c.dead || c.ended })
	}
}

// freeID is the lowest that is not in use, so that identifiers are used again soon. That of a message that was sent again
// on this connection is in use until its end: whoever had answered the first takes the second for a new message
// [MQTT-4.3.2-5] and answers it too, and nobody can tell how many answers are still to come.
func (d *player) freeID() uint16 {
	for id := uint16(1); ; id++ {
		if d.find(id) == nil && !d.conn.twice[id] {
			return id
		}
	}
}

func (d *player) find(id uint16) *sent {
	for _, o := range d.pending {
		if o.id == id {
			return o
		}
	}
	return nil
}

func (d *player) isPending(o *sent) bool { return d.find(o.id) == o }

func (d *player) forget(o *sent) {
	for i, x := range d.pending {
		if x == o {
			d.pending = append(d.pending[:i:i], d.pending[i+1:]...)
			return
		}
	}
}

func (c *link) publish(o *sent, dup bool) {
	c.send(Event{What: Publish, ID: o.id, QoS: o.m.QoS, Dup: dup, Retain: o.m.Keep, Message: o.number, Topic: o.m.Topic},
		wire.Publish{Topic: o.m.Topic, QoS: o.m.QoS, ID: o.id, Dup: dup, Retain: o.m.Keep, Payload: o.payload}.Packet(c.version))
}

func (d *player) again() {
	for _, o := range d.pending {
		if !o.rec {
			d.conn.twice[o.id] = true
			d.conn.publish(o, true)
			return
		}
	}
}

func (d *player) subscribe(f Filter) {
	c := d.conn
	options := f.QoS
	if c.version < 5 {
		f.NoLocal, f.Rap, f.Handling = false, false, 0
	}
	if f.NoLocal {
		options |= 4
	}
	if f.Rap {
		options |= 8
	}
	options |= f.Handling << 4
	c.nextID++
	id := c.nextID
	c.send(Event{What: Subscribe, ID: id, Options: f, Message: -1}, wire.Subscribe(c.version, id, nil, wire.Filter{Name: f.Name, Options: options}))
	d.await(patience, func() bool { return c.acks[id] || c.dead || c.ended })
}

func (d *player) unsubscribe(name string) {
	c := d.conn
	c.nextID++
	id := c.nextID
	c.send(Event{What: Unsubscribe, ID: id, Options: Filter{Name: name}, Message: -1}, wire.Unsubscribe(c.version, id, name))
	d.await(patience, func() bool { return c.acks[id] || c.dead || c.ended })
}

// answer sends an acknowledgement of a delivery, or keeps it back.
func (c *link) answer(e Event, packet []byte) {
	if c.d.hold {
		c.d.held, c.d.heldIs = append(c.d.held, packet), append(c.d.heldIs, e)
		return
	}
	c.send(e, packet)
}

func (d *player) release() {
	held, heldIs := d.held, d.heldIs
	d.held, d.heldIs, d.hold = nil, nil, false
	for i, packet := range held {
		d.conn.send(heldIs[i], packet)
	}
}

// read takes what the server sends until the end of the connection.
func (c *link) read() {
	in := bufio.NewReaderSize(c.nc, 512)
	for {
		r, err := wire.Read(in)
		c.d.mu.Lock()
		if err != nil {
			c.over()
			c.d.mu.Unlock()
			_ = c.nc.Close()
			return
		}
		c.take(r)
		c.d.mu.Unlock()
	}
}

// over notes the server's end of the connection, unless the device has closed it.
func (c *link) over() {
	c.ended = true
	if !c.closed {
		c.event(Event{What: GotEnd, Message: -1})
	}
	c.d.moved.Broadcast()
}

// take handles a packet. Of a connection that was given up only DISCONNECT counts.
func (c *link) take(r wire.Reply) {
	d, id := c.d, r.ID()
	if c.dead {
		if r.First == wire.DISCONNECT && c != d.conn {
			c.event(Event{What: GotDisconnect, Code: r.Code(), Message: -1})
		}
		return
	}
	switch r.First & 0xF0 {
	case wire.CONNACK:
		c.greeted, c.present, c.code = true, len(r.Body) > 0 && r.Body[0] == 1, r.Code()
		c.event(Event{What: GotConnack, Present: c.present, Code: c.code, Message: -1})
	case wire.DISCONNECT:
		c.event(Event{What: GotDisconnect, Code: r.Code(), Message: -1})
	case wire.SUBACK, wire.UNSUBACK:
		what := GotSuback
		if r.First&0xF0 == wire.UNSUBACK {
			what = GotUnsuback
		}
		c.acks[id] = true
		c.event(Event{What: what, ID: id, Code: r.Code(), Message: -1})
	case wire.PUBACK:
		if o := d.find(id); o != nil && o.m.QoS == 1 {
			d.forget(o)
		}
		c.event(Event{What: GotPuback, ID: id, Code: r.Code(), Message: -1})
	case wire.PUBREC:
		alive := c.event(Event{What: GotPubrec, ID: id, Code: r.Code(), Message: -1})
		o := d.find(id)
		switch {
		case o == nil || o.m.QoS != 2 || o.rec:
		case r.Code() >= 0x80:
			d.forget(o)
		default:
			o.rec = true
			if alive {
				c.send(Event{What: Pubrel, ID: id, Message: o.number}, wire.Packet(wire.PUBREL, id))
			}
		}
	case wire.PUBCOMP:
		if o := d.find(id); o != nil && o.rec {
			d.forget(o)
		}
		c.event(Event{What: GotPubcomp, ID: id, Code: r.Code(), Message: -1})
	case wire.PUBREL & 0xF0:
		delete(d.received, id)
		if c.event(Event{What: GotPubrel, ID: id, Message: -1}) {
			c.send(Event{What: Pubcomp, ID: id, Message: -1}, wire.Packet(wire.PUBCOMP, id))
		}
	case wire.PUBLISH:
		c.delivered(r)
	}
	d.moved.Broadcast()
}

// delivered takes a PUBLISH and answers it.
func (c *link) delivered(r wire.Reply) {
	d := c.d
	e := Event{What: GotPublish, Topic: r.Topic(), QoS: r.First >> 1 & 3, Dup: r.First&8 != 0, Retain: r.First&1 != 0, Message: -1}
	b := r.Body[2+len(e.Topic):]
	if e.QoS > 0 {
		e.ID, b = binary.BigEndian.Uint16(b), b[2:]
	}
	if c.version == 5 {
		n, k := binary.Uvarint(b)
		b = b[k+int(n):]
	}
	if p, n := d.w.token(string(b)); p == d.play {
		e.Message = n
	}
	if !c.event(e) {
		return
	}
	switch e.QoS {
	case 1:
		c.answer(Event{What: Puback, ID: e.ID, Message: e.Message}, wire.Packet(wire.PUBACK, e.ID))
	case 2:
		d.received[e.ID] = true
		c.answer(Event{What: Pubrec, ID: e.ID, Message: e.Message}, wire.Packet(wire.PUBREC, e.ID))
	}
}
