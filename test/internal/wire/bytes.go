package wire

import (
	"encoding/binary"
	"fmt"
)

// The first bytes of packets, with the flags that the specification has for them.
const (
	CONNECT     = 0x10
	CONNACK     = 0x20
	PUBLISH     = 0x30
	PUBACK      = 0x40
	PUBREC      = 0x50
	PUBREL      = 0x62
	PUBCOMP     = 0x70
	SUBSCRIBE   = 0x82
	SUBACK      = 0x90
	UNSUBSCRIBE = 0xA2
	UNSUBACK    = 0xB0
	PINGREQ     = 0xC0
	PINGRESP    = 0xD0
	DISCONNECT  = 0xE0
	AUTH        = 0xF0
)

// Bytes joins parts: a byte or an int is one byte, uint16 and uint32 are big endian, a string is a UTF-8 string with its
// length before it, and []byte stands as it is.
func Bytes(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch v := p.(type) {
		case byte:
			b = append(b, v)
		case int:
			b = append(b, byte(v))
		case uint16:
			b = binary.BigEndian.AppendUint16(b, v)
		case uint32:
			b = binary.BigEndian.AppendUint32(b, v)
		case string:
			b = append(binary.BigEndian.AppendUint16(b, uint16(len(v))), v...)
		case []byte:
			b = append(b, v...)
		default:
			panic(fmt.Sprintf("wire: %T has no form in a packet", p))
		}
	}
	return b
}

// Length is a Variable Byte Integer in its shortest form, of more than four bytes if n wants them.
func Length(n int) []byte { return binary.AppendUvarint(nil, uint64(n)) }

// Packet is a packet with the right Remaining Length.
func Packet(first byte, parts ...any) []byte {
	body := Bytes(parts...)
	return Bytes(first, Length(len(body)), body)
}

// Properties is a property section with its length.
func Properties(parts ...any) []byte {
	body := Bytes(parts...)
	return Bytes(Length(len(body)), body)
}

// User is a User Property.
func User(key, value string) []byte { return Bytes(0x26, key, value) }

// Body gives what follows the fixed header of a packet that this package built.
func Body(packet []byte) []byte {
	_, n := binary.Uvarint(packet[1:])
	return packet[1+n:]
}
