package mqtt

import (
	"encoding/binary"
	"testing"
)

// This file writes packets byte by byte from the specification's tables, so that the tests don't judge the
// server by the encoder it uses itself.

// cat joins bytes: int and byte as one byte, uint16 and uint32 in network order, string as it stands.
func cat(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch v := p.(type) {
		case int:
			b = append(b, byte(v))
		case byte:
			b = append(b, v)
		case Code:
			b = append(b, byte(v))
		case uint16:
			b = binary.BigEndian.AppendUint16(b, v)
		case uint32:
			b = binary.BigEndian.AppendUint32(b, v)
		case string:
			b = append(b, v...)
		case []byte:
			b = append(b, v...)
		default:
			panic("cat: a type it does not know")
		}
	}
	return b
}

// str is a UTF-8 Encoded String, or Binary Data.
func str(s string) []byte { return cat(uint16(len(s)), s) }

func vbi(n int) []byte {
	var b []byte
	for {
		x := byte(n % 128)
		if n /= 128; n == 0 {
			return append(b, x)
		}
		b = append(b, x|128)
	}
}

func packet(first int, parts ...any) []byte {
	body := cat(parts...)
	return cat(first, vbi(len(body)), body)
}

// props is a property section.
func props(parts ...any) []byte {
	body := cat(parts...)
	return cat(vbi(len(body)), body)
}

func user(key, value string) []byte { return cat(0x26, str(key), str(value)) }

// A hello is a CONNECT.
type hello struct {
	version  byte
	id       string
	persist  bool // clean session or clean start 0
	keep     uint16
	props    []byte // MQTT 5, without the length
	will     *lastWill
	username string
	password string
}

type lastWill struct {
	topic, payload string
	qos            byte
	retain         bool
	props          []byte
}

func (h hello) packet() []byte {
	flags := 0
	if !h.persist {
		flags |= 2
	}
	var rest []byte
	if h.version == 5 {
		rest = props(h.props)
	}
	rest = cat(rest, str(h.id))
	if w := h.will; w != nil {
		flags |= 4 | int(w.qos)<<3
		if w.retain {
			flags |= 0x20
		}
		if h.version == 5 {
			rest = cat(rest, props(w.props))
		}
		rest = cat(rest, str(w.topic), str(w.payload))
	}
	if h.username != "" {
		flags |= 0x80
		rest = cat(rest, str(h.username))
	}
	if h.password != "" {
		flags |= 0x40
		rest = cat(rest, str(h.password))
	}
	return packet(0x10, str("MQTT"), h.version, flags, h.keep, rest)
}

// A pub is a PUBLISH.
type pub struct {
	topic, payload string
	qos            int
	id             uint16
	dup, retain    bool
	props          []byte // MQTT 5, without the length
}

func (p pub) packet(version byte) []byte {
	first := 0x30 | p.qos<<1
	if p.dup {
		first |= 8
	}
	if p.retain {
		first |= 1
	}
	body := str(p.topic)
	if p.qos > 0 {
		body = cat(body, p.id)
	}
	if version == 5 {
		body = cat(body, props(p.props))
	}
	return packet(first, body, p.payload)
}

func (p pub) again() pub {
	p.dup = true
	return p
}

var (
	pingreq  = packet(0xC0)
	pingresp = packet(0xD0)
)

func puback(id uint16) []byte  { return packet(0x40, id) }
func pubrec(id uint16) []byte  { return packet(0x50, id) }
func pubrel(id uint16) []byte  { return packet(0x62, id) }
func pubcomp(id uint16) []byte { return packet(0x70, id) }

// bothVersions runs f for each version of the protocol.
func bothVersions(t *testing.T, f func(t *testing.T, version byte)) {
	t.Run("3.1.1", func(t *testing.T) { f(t, 4) })
	t.Run("5", func(t *testing.T) { f(t, 5) })
}
