package mqtt

import (
	"encoding/binary"
	"time"
)

// An outgoing is a PUBLISH about to be encoded for one connection.
type outgoing struct {
	*delivery
	id      uint16 // packet identifier, for QoS 1 and 2
	dup     bool
	version byte
	alias   uint16 // of the topic; 0: none
	aliased bool   // the device has that alias: the topic is left out
	expiry  uint32 // seconds, if the command expires
	length  int    // of the whole packet in bytes, see fits
}

// outgoing computes what depends on the time: the Message Expiry Interval counts down [MQTT-3.3.2-6]. A
// started second counts whole, so that a command which is not over is never sent as if it were.
func (d *delivery) outgoing(version byte, now time.Time) outgoing {
	p := outgoing{delivery: d, version: version}
	if !d.cmd.Expires.IsZero() {
		left := d.cmd.Expires.Sub(now) // saturates, so nothing may be added to it
		p.expiry = uint32(max(1, min((left-1)/time.Second+1, 1<<32-1)))
	}
	return p
}

// properties is the length of the properties, without the length in front of them.
func (p *outgoing) properties() int {
	n := p.cmd.measured().properties
	if p.expiry > 0 {
		n += 5
	}
	if p.alias > 0 {
		n += 3
	}
	for _, id := range p.ids {
		n += 1 + varintLen(id)
	}
	return n
}

// remaining is the Remaining Length, for properties of the given length.
func (p *outgoing) remaining(properties int) int {
	n := 2 + len(p.topic()) + len(p.cmd.Payload)
	if p.qos > 0 {
		n += 2
	}
	if p.version == 5 {
		n += varintLen(properties) + properties
	}
	return n
}

// topic is what stands in the Topic Name.
func (p *outgoing) topic() []byte {
	if p.aliased {
		return nil
	}
	return p.cmd.Topic
}

// size is that of the whole packet in bytes.
func (p *outgoing) size() int {
	n := p.remaining(p.properties())
	return 1 + varintLen(n) + n
}

// appendTo encodes the packet.
func (p *outgoing) appendTo(b []byte) []byte {
	b = p.appendHead(b)
	if p.version == 5 {
		b = p.cmd.appendProperties(b)
	}
	return append(b, p.cmd.Payload...)
}

// appendHead encodes the packet up to what is the same for all devices.
func (p *outgoing) appendHead(b []byte) []byte {
	first := byte(typePublish<<4) | p.qos<<1
	if p.dup {
		first |= 8
	}
	if p.retain {
		first |= 1
	}
	properties := p.properties()
	b = append(b, first)
	b = appendVarint(b, p.remaining(properties))
	b = appendBinary(b, p.topic())
	if p.qos > 0 {
		b = binary.BigEndian.AppendUint16(b, p.id)
	}
	if p.version == 5 {
		b = appendVarint(b, properties)
		b = p.appendOwnProperties(b)
	}
	return b
}

// appendOwnProperties encodes the properties that depend on the time, the connection and the subscriptions.
func (p *outgoing) appendOwnProperties(b []byte) []byte {
	if p.expiry > 0 {
		b = append(b, propMessageExpiry)
		b = binary.BigEndian.AppendUint32(b, p.expiry)
	}
	if p.alias > 0 {
		b = append(b, propTopicAlias)
		b = binary.BigEndian.AppendUint16(b, p.alias)
	}
	for _, id := range p.ids {
		b = append(b, propSubscriptionID)
		b = appendVarint(b, id)
	}
	return b
}

// rest gives what follows appendHead. It is made once for all devices of the command, and nobody may write to it.
func (c *Command) rest(version byte) []byte {
	if version < 5 {
		return c.Payload
	}
	c.sharing.Do(func() { c.shared = append(c.appendProperties(nil), c.Payload...) })
	return c.shared
}

// appendProperties encodes the properties that are the same for all devices.
func (c *Command) appendProperties(b []byte) []byte {
	if c.PayloadFormat != FormatAbsent {
		b = append(b, propPayloadFormat, byte(c.PayloadFormat-FormatBytes))
	}
	b = appendOptional(b, propContentType, c.ContentType)
	b = appendOptional(b, propResponseTopic, c.ResponseTopic)
	b = appendOptional(b, propCorrelationData, c.CorrelationData)
	for _, u := range c.User {
		b = append(b, propUser)
		b = appendBinary(b, u.Key)
		b = appendBinary(b, u.Value)
	}
	return b
}

func appendOptional(b []byte, id byte, v []byte) []byte {
	if v == nil {
		return b
	}
	return appendBinary(append(b, id), v)
}

// appendBinary appends Binary Data or a UTF-8 Encoded String (sections 1.5.4 and 1.5.6).
func appendBinary(b, v []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(v)))
	return append(b, v...)
}

// appendVarint appends a Variable Byte Integer (section 1.5.5).
func appendVarint(b []byte, v int) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

func varintLen(v int) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}
