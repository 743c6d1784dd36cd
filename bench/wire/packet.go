package wire

import (
	"encoding/binary"
	"errors"
	"time"
)

// The packet types, as the high half of a packet's first byte has them.
const (
	CONNACK    = 2
	PUBLISH    = 3
	PUBACK     = 4
	PUBREC     = 5
	PUBREL     = 6
	PUBCOMP    = 7
	SUBACK     = 9
	PINGRESP   = 13
	DISCONNECT = 14
)

// Whole packets without fields.
var (
	PingReq    = []byte{0xC0, 0}
	Disconnect = []byte{0xE0, 0}
)

// MaxPacket is the largest packet that Cut takes, in bytes after the fixed header.
const MaxPacket = 1 << 20

// A Connect is what a CONNECT says.
type Connect struct {
	ClientID           string
	Version            byte // 4 or 5
	Clean              bool
	KeepAlive          uint16        // seconds
	Expiry             time.Duration // of the session; MQTT 5
	ReceiveMaximum     uint16        // 0: not said; MQTT 5
	Username, Password string        // "": neither is said
}

// Packet makes the CONNECT.
func (o Connect) Packet() []byte {
	flags := byte(0)
	if o.Clean {
		flags = 2
	}
	if o.Username != "" {
		flags |= 0xC0
	}
	b := append(Text(nil, "MQTT"), o.Version, flags)
	b = binary.BigEndian.AppendUint16(b, o.KeepAlive)
	if o.Version == 5 {
		var p []byte
		if o.Expiry > 0 {
			p = binary.BigEndian.AppendUint32(append(p, 0x11), uint32(o.Expiry/time.Second))
		}
		if o.ReceiveMaximum > 0 {
			p = binary.BigEndian.AppendUint16(append(p, 0x21), o.ReceiveMaximum)
		}
		b = append(append(b, byte(len(p))), p...)
	}
	b = Text(b, o.ClientID)
	if o.Username != "" {
		b = Text(Text(b, o.Username), o.Password)
	}
	return Packet(0x10, b)
}

// A Connack is what a CONNACK says.
type Connack struct {
	Present        bool // the session
	Code           byte
	ReceiveMaximum int // 65535 if it is not said
	KeepAlive      int // Server Keep Alive in seconds, or -1
	Reason         string
}

// ParseConnack reads the body of a CONNACK.
func ParseConnack(body []byte, version byte) (Connack, error) {
	c := &cursor{b: body}
	head := c.take(2)
	a := Connack{Present: head[0]&1 != 0, Code: head[1], ReceiveMaximum: 65535, KeepAlive: -1}
	if version != 5 || c.err != nil {
		return a, c.err
	}
	if c = (&cursor{b: c.take(c.varint()), err: c.err}); c.err != nil {
		return a, c.err
	}
	for len(c.b) > 0 && c.err == nil {
		switch c.take(1)[0] {
		case 0x21:
			a.ReceiveMaximum = int(c.u16())
		case 0x13:
			a.KeepAlive = int(c.u16())
		case 0x1F:
			a.Reason = c.text()
		case 0x24, 0x25, 0x28, 0x29, 0x2A: // one byte
			c.take(1)
		case 0x22: // Topic Alias Maximum
			c.take(2)
		case 0x11, 0x27: // four bytes
			c.take(4)
		case 0x12, 0x15, 0x16, 0x1A, 0x1C: // a text
			c.binary()
		case 0x26:
			c.binary()
			c.binary()
		default:
			return a, errors.New("CONNACK with an unknown property")
		}
	}
	return a, c.err
}

// ParseAck reads the packet identifier and the reason code of PUBACK, PUBREC, PUBREL and PUBCOMP.
func ParseAck(body []byte) (id uint16, code byte, ok bool) {
	switch len(body) {
	case 0, 1:
		return 0, 0, false
	case 2:
		return binary.BigEndian.Uint16(body), 0, true
	}
	return binary.BigEndian.Uint16(body), body[2], true
}

// SubackCodes gives the reason codes of a SUBACK.
func SubackCodes(body []byte, version byte) []byte {
	codes := body[min(2, len(body)):]
	if version == 5 {
		p := &cursor{b: codes}
		p.take(p.varint())
		codes = p.b
	}
	return codes
}

// Publish makes a PUBLISH with QoS 1 and perhaps correlation data.
func Publish(version byte, id uint16, topic string, payload, correlation []byte) []byte {
	b := binary.BigEndian.AppendUint16(Text(nil, topic), id)
	if version == 5 {
		var p []byte
		if len(correlation) > 0 {
			p = Text([]byte{0x09}, string(correlation))
		}
		b = append(binary.AppendUvarint(b, uint64(len(p))), p...)
	}
	return Packet(0x32, append(b, payload...))
}

// Subscribe asks for filters with one set of options: a QoS, and with MQTT 5 No Local (4) or Retain As Published (8).
func Subscribe(version byte, id uint16, options byte, filters ...string) []byte {
	b := binary.BigEndian.AppendUint16(nil, id)
	if version == 5 {
		b = append(b, 0)
	}
	for _, f := range filters {
		b = append(Text(b, f), options)
	}
	return Packet(0x82, b)
}

// Text appends a string with its length.
func Text(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

// Packet puts the fixed header before body.
func Packet(first byte, body []byte) []byte {
	b := binary.AppendUvarint([]byte{first}, uint64(len(body))) // the same encoding as MQTT's
	return append(b, body...)
}

var errLength = errors.New("a packet whose length can't be read, or of more than 1 MiB")

// Cut takes the first packet off b. ok is false if b does not hold it whole.
func Cut(b []byte) (first byte, body, rest []byte, ok bool, err error) {
	if len(b) < 2 {
		return 0, nil, b, false, nil
	}
	length, n := binary.Uvarint(b[1:min(len(b), 5)])
	switch {
	case n == 0 && len(b) < 5:
		return 0, nil, b, false, nil
	case n <= 0 || length > MaxPacket:
		return 0, nil, b, false, errLength
	}
	end := 1 + n + int(length)
	if len(b) < end {
		return 0, nil, b, false, nil
	}
	return b[0], b[1+n : end], b[end:], true, nil
}
