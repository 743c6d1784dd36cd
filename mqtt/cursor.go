package mqtt

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"
)

// A cursor reads the fields of a packet. The first failure sticks in err; reads after it return zeros, so
// that a decoder checks once at its end. Slices point into the packet.
type cursor struct {
	b   []byte
	err error
}

func (c *cursor) fail(format string, args ...any) {
	if c.err == nil {
		c.err = malformed(format, args...)
	}
	c.b = nil
}

func (c *cursor) byte() byte {
	if len(c.b) < 1 {
		c.fail("packet ends early")
		return 0
	}
	v := c.b[0]
	c.b = c.b[1:]
	return v
}

func (c *cursor) uint16() uint16 {
	if len(c.b) < 2 {
		c.fail("packet ends early")
		return 0
	}
	v := binary.BigEndian.Uint16(c.b)
	c.b = c.b[2:]
	return v
}

func (c *cursor) uint32() uint32 {
	if len(c.b) < 4 {
		c.fail("packet ends early")
		return 0
	}
	v := binary.BigEndian.Uint32(c.b)
	c.b = c.b[4:]
	return v
}

// binary reads Binary Data (section 1.5.6).
func (c *cursor) binary() []byte {
	n := int(c.uint16())
	if c.err != nil {
		return nil
	}
	if n > len(c.b) {
		c.fail("packet ends early")
		return nil
	}
	v := c.b[:n:n]
	c.b = c.b[n:]
	return v
}

// string reads a UTF-8 Encoded String: well-formed, no surrogates, no U+0000 [MQTT-1.5.4-1] [MQTT-1.5.4-2].
func (c *cursor) string() []byte {
	v := c.binary()
	if !ValidString(v) {
		c.fail("string is not UTF-8 or holds U+0000")
		return nil
	}
	return v
}

// ValidString says whether v can be a UTF-8 Encoded String, its length apart [MQTT-1.5.4-1] [MQTT-1.5.4-2].
func ValidString(v []byte) bool {
	return utf8.Valid(v) && bytes.IndexByte(v, 0) < 0
}

// varint reads a Variable Byte Integer (section 1.5.5).
func (c *cursor) varint() int {
	v, shift := 0, 0
	for i := 0; i < 4; i++ {
		x := c.byte()
		v |= int(x&0x7F) << shift
		if x < 0x80 {
			if x == 0 && i > 0 {
				c.fail("overlong variable byte integer") // [MQTT-1.5.5-1]
			}
			return v
		}
		shift += 7
	}
	c.fail("variable byte integer of more than four bytes")
	return 0
}

// take cuts n bytes off.
func (c *cursor) take(n int) []byte {
	if n > len(c.b) {
		c.fail("packet ends early")
		return nil
	}
	v := c.b[:n:n]
	c.b = c.b[n:]
	return v
}
