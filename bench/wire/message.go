package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A Message is a PUBLISH that a device got, with what MQTT 5 says beside the payload.
type Message struct {
	Topic           string
	Payload         []byte
	QoS             byte
	Retain, Dup     bool
	ID              uint16 // packet identifier, 0 with QoS 0
	HasExpiry       bool
	Expiry          uint32 // Message Expiry Interval, seconds
	ContentType     string
	ResponseTopic   string
	CorrelationData []byte
	UserProperties  [][2]string
	SubscriptionIDs []uint32
}

var errCutShort = errors.New("a packet is cut short")

// A cursor reads the fields of a packet; err stays once something was missing.
type cursor struct {
	b   []byte
	err error
}

func (c *cursor) take(n int) []byte {
	if n > len(c.b) {
		c.b, c.err = nil, errCutShort
		return make([]byte, min(n, 4))
	}
	taken := c.b[:n]
	c.b = c.b[n:]
	return taken
}

func (c *cursor) u16() uint16    { return binary.BigEndian.Uint16(c.take(2)) }
func (c *cursor) u32() uint32    { return binary.BigEndian.Uint32(c.take(4)) }
func (c *cursor) binary() []byte { return c.take(int(c.u16())) }
func (c *cursor) text() string   { return string(c.binary()) }

func (c *cursor) varint() int {
	v, n := binary.Uvarint(c.b) // the same encoding as MQTT's
	if n <= 0 || n > 4 {
		c.b, c.err = nil, errCutShort
		return 0
	}
	c.b = c.b[n:]
	return int(v)
}

// ParsePublish reads a PUBLISH; the payload lies in body.
func ParsePublish(first byte, body []byte, version byte) (*Message, error) {
	m := &Message{QoS: first >> 1 & 3, Retain: first&1 != 0, Dup: first&8 != 0}
	c := &cursor{b: body}
	m.Topic = c.text()
	if m.QoS > 0 {
		if m.ID = c.u16(); m.ID == 0 {
			return nil, errors.New("PUBLISH with packet identifier 0")
		}
	}
	if version == 5 {
		p := &cursor{b: c.take(c.varint())}
		if c.err != nil {
			return nil, c.err
		}
		if err := m.properties(p); err != nil {
			return nil, err
		}
	}
	m.Payload = c.b
	if c.err == nil && (m.QoS == 3 || m.Topic == "" || m.QoS == 0 && m.Dup) {
		return nil, fmt.Errorf("PUBLISH % x to %q", first, m.Topic)
	}
	return m, c.err
}

func (m *Message) properties(c *cursor) error {
	for len(c.b) > 0 && c.err == nil {
		switch id := c.take(1)[0]; id {
		case 0x01:
			c.take(1) // Payload Format Indicator
		case 0x02:
			m.HasExpiry, m.Expiry = true, c.u32()
		case 0x03:
			m.ContentType = c.text()
		case 0x08:
			m.ResponseTopic = c.text()
		case 0x09:
			m.CorrelationData = c.binary()
		case 0x0B:
			m.SubscriptionIDs = append(m.SubscriptionIDs, uint32(c.varint()))
		case 0x26:
			m.UserProperties = append(m.UserProperties, [2]string{c.text(), c.text()})
		default: // a Topic Alias too: the devices allow none
			return fmt.Errorf("PUBLISH with property 0x%02x", id)
		}
	}
	return c.err
}
