package mqtt

// feed handles the packets in b. What is incomplete stays in c.partial. On errPause the packet that must
// wait is the first in c.partial, with all that came after it.
func (c *Conn) feed(b []byte) error {
	for len(b) > 0 {
		if len(c.partial) > 0 {
			var err error
			if b, err = c.complete(b); err != nil {
				return err
			}
			continue
		}
		size, err := c.size(b)
		if err != nil {
			return err
		}
		if size == 0 || size > len(b) {
			return c.keep(b, size)
		}
		err = c.packet(b[:size])
		if err == errPause {
			c.hold(append([]byte(nil), b...))
			return err
		}
		if err != nil {
			return err
		}
		b = b[size:]
	}
	return nil
}

// size gives the length of the packet at the start of b, 0 if b is too short to tell.
func (c *Conn) size(b []byte) (int, error) {
	if c.version == 0 && b[0] != typeConnect<<4 {
		return 0, violation("the first packet is not CONNECT") // [MQTT-3.1.0-1]
	}
	header, size, err := frame(b)
	switch {
	case err != nil:
		return 0, err
	case c.version == 5 && isPadded(b[:header]):
		return 0, errPadded
	case c.version == 0 && size > min(c.srv.cfg.MaxPacketSize, connectPacketMax):
		return 0, c.tooLargeConnect(b[header:])
	case size > c.srv.cfg.MaxPacketSize:
		return 0, errTooLarge
	}
	return size, nil
}

var errTooLarge = &ProtocolFault{PacketTooLarge, "larger than the Maximum Packet Size"}

// complete moves bytes from b to the packet begun in c.partial and handles it when it is whole.
func (c *Conn) complete(b []byte) (rest []byte, err error) {
	size, err := c.size(c.partial)
	for size == 0 && err == nil && len(b) > 0 { // inside the fixed header: byte by byte
		c.partial = append(c.partial, b[0])
		b = b[1:]
		size, err = c.size(c.partial)
	}
	if err != nil || size == 0 {
		return nil, err
	}
	take := min(size-len(c.partial), len(b))
	if err = c.grow(len(c.partial)+take, size); err != nil {
		return nil, err
	}
	c.partial = append(c.partial, b[:take]...)
	b = b[take:]
	if len(c.partial) < size {
		return b, nil
	}
	err = c.packet(c.partial)
	if err == errPause {
		c.hold(append(c.partial, b...))
		return nil, err
	}
	c.partial = nil
	c.charge(0)
	return b, err
}

// keep stores the beginning of a packet of the given size.
func (c *Conn) keep(b []byte, size int) error {
	if err := c.grow(len(b), size); err != nil {
		return err
	}
	c.partial = append(c.partial, b...)
	return nil
}

// grow makes room for n bytes of a packet of size bytes. Memory follows the bytes that came, never the
// length that was announced; what exceeds partialUncounted is counted over all connections.
func (c *Conn) grow(n, size int) error {
	if n <= cap(c.partial) {
		return nil
	}
	room := n
	if len(c.partial) > 0 {
		room = min(max(2*cap(c.partial), n), size)
	}
	before := c.charged
	if c.charge(room) && c.charged > before {
		c.charge(cap(c.partial))
		return errTooMuchPartial
	}
	bigger := make([]byte, len(c.partial), room)
	copy(bigger, c.partial)
	c.partial = bigger
	return nil
}

var errTooMuchPartial = &ProtocolFault{ServerBusy, "too many incomplete packets"}

// chargeRecords counts what is held of TLS records. The memory is taken by then, 19 KiB and what one read brought at most, so a
// device whose records wait behind its messages for Kafka is not refused for it.
func (c *Conn) chargeRecords() error {
	if c.link.tls != nil && !c.countRecords(c.link.tls.Kept()) && !c.holding {
		return errTooManyRecords
	}
	before := c.charged
	if c.charge(cap(c.partial)) && c.charged > before && !c.holding {
		c.forget()
		return errTooMuchPartial
	}
	return nil
}

// hold keeps b for the time of a pause. It is in memory already, so it is counted and not refused.
func (c *Conn) hold(b []byte) {
	c.partial = b
	c.charge(cap(b))
}

// partialUncounted is what a connection may hold of an incomplete packet uncounted: a packet that is cut by the end of a
// TCP segment is never refused because of what others hold.
const partialUncounted = 1 << 10

// charge counts n bytes of this connection and what it holds of records, none if they are few, in place of what was counted before: in
// Server.partial, or in Server.waiting while reading is paused, so that what waits for Kafka makes no incomplete packet be
// refused. above says that all connections hold too much together.
func (c *Conn) charge(n int) (above bool) {
	if n += c.held(); n <= partialUncounted {
		n = 0
	}
	to, from := &c.srv.partial, &c.srv.partial
	if c.holding {
		to = &c.srv.waiting
	}
	if c.chargedWaiting {
		from = &c.srv.waiting
	}
	if n == c.charged && to == from {
		return false
	}
	from.Add(int64(-c.charged))
	c.charged, c.chargedWaiting = n, c.holding
	return to.Add(int64(n)) > c.srv.cfg.MaxPartialBytes
}

// held is how many bytes are held of TLS records that are not whole.
func (c *Conn) held() int {
	if c.link == nil || c.link.tls == nil {
		return 0
	}
	return c.link.tls.Held()
}

// packet handles one whole packet.
func (c *Conn) packet(p []byte) error {
	if err := checkFlags(p[0], c.version); err != nil {
		return err
	}
	c.heard.Store(c.srv.tick.Load()) // a whole packet: bytes alone keep nobody alive [MQTT-3.1.2-22]
	header, _, _ := frame(p)
	body := p[header:]
	if c.version == 0 {
		return c.connect(body, isPadded(p[:header]))
	}
	if p[0]>>4 == typePublish {
		return c.publish(p[0], body)
	}
	if p[0]>>4 == typeDisconnect { // no rate holds up a farewell: the connection may end before it is over
		return c.disconnect(body)
	}
	if err := c.withinControl(); err != nil {
		return err
	}
	switch p[0] >> 4 {
	case typePubrel:
		return c.pubrel(body)
	case typePingreq:
		return c.pingreq(body)
	case typeSubscribe:
		return c.subscribe(body)
	case typeUnsubscribe:
		return c.unsubscribe(body)
	case typePuback, typePubrec, typePubcomp:
		return c.answered(p[0]>>4, body)
	case typeConnect:
		return violation("a second CONNECT") // [MQTT-3.1.0-2]
	case typeAuth:
		return c.reauthenticate(body)
	case 0:
		return malformed("packet type 0 is reserved")
	}
	return violation("a packet that only servers send")
}
