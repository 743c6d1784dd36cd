package mqtt

import "time"

// answered handles PUBACK, PUBREC and PUBCOMP: what the device says of a command.
func (c *Conn) answered(kind byte, body []byte) error {
	r := cursor{b: body}
	id := r.uint16()
	code := c.acknowledgementRest(&r, int(kind))
	switch {
	case r.err != nil:
		return r.err
	case id == 0:
		return violation("packet identifier 0")
	}
	o := c.session.outbox.Load()
	if o == nil {
		return c.unknownAnswer(kind, id)
	}
	o.mu.Lock()
	i := o.find(id)
	if i < 0 {
		o.mu.Unlock()
		return c.unknownAnswer(kind, id)
	}
	done, err := o.answer(c, i, kind, code)
	if err == nil {
		done = append(done, o.pump(time.Now())...)
	}
	o.unlock(done)
	return err
}

// unknownAnswer is for packet identifiers that are not in use: PUBREC gets its PUBREL, so that the device can
// end the exchange; others need nothing.
func (c *Conn) unknownAnswer(kind byte, id uint16) error {
	c.countControl()
	if kind == typePubrec {
		c.mu.Lock()
		c.appendPubrel(id, PacketIdentifierNotFound)
		c.mu.Unlock()
	}
	return nil
}

// answer takes the device's answer to flight[i]. mu is held.
func (o *outbox) answer(c *Conn, i int, kind byte, code Code) (done []settlement, err error) {
	f := &o.flight[i]
	switch {
	case (kind == typePuback) != (f.qos == 1), kind == typePubcomp && !f.received:
		return nil, violation("an acknowledgement that does not fit the message")
	case kind == typePubrec && code < 0x80:
		o.appear(i)
		o.received(c, f)
		return nil, nil
	case kind != typePubcomp && code >= 0x80: // [MQTT-4.3.3-4] ends the exchange
		done = []settlement{{delivery: f.delivery, fate: Rejected, code: code}}
	case kind == typePuback:
		done = []settlement{{delivery: f.delivery, fate: Delivered, code: code}}
	default:
		done = []settlement{{delivery: f.delivery, fate: Delivered}} // also with 0x92: it had completed it before
	}
	o.land(i)
	return done, nil
}

// received takes PUBREC. That it came must be stored before PUBREL: the device forgets the packet identifier then, and
// would take the PUBLISH, sent again after a crash, for a new one. mu is held.
func (o *outbox) received(c *Conn, f *flying) {
	if f.received {
		c.countControl() // it came before
	} else {
		f.received = true
		if o.durable {
			f.version = o.change()
		}
	}
	if f.owed = !o.isSaved(f.version); f.owed {
		return
	}
	c.mu.Lock()
	c.appendPubrel(f.id, Success)
	c.mu.Unlock()
}

// appendPubrel puts a PUBREL into the output. mu is held.
func (c *Conn) appendPubrel(id uint16, code Code) {
	if c.silent {
		return
	}
	if c.version < 5 || code == Success {
		c.out = append(c.out, typePubrel<<4|2, 2, byte(id>>8), byte(id))
		return
	}
	c.out = append(c.out, typePubrel<<4|2, 3, byte(id>>8), byte(id), byte(code))
}
