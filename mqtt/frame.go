package mqtt

// The packet types of MQTT, as the upper four bits of the first byte.
const (
	typeConnect     = 1
	typeConnack     = 2
	typePublish     = 3
	typePuback      = 4
	typePubrec      = 5
	typePubrel      = 6
	typePubcomp     = 7
	typeSubscribe   = 8
	typeSuback      = 9
	typeUnsubscribe = 10
	typeUnsuback    = 11
	typePingreq     = 12
	typePingresp    = 13
	typeDisconnect  = 14
	typeAuth        = 15
)

// frame reads a fixed header: header is its length and size that of the whole packet, both in bytes.
// They are 0 while b is too short to tell. A Remaining Length in more bytes than it needs is read too, see isPadded.
func frame(b []byte) (header, size int, err error) {
	remaining, shift := 0, 0
	for i := 1; i < len(b); i++ {
		x := b[i]
		remaining |= int(x&0x7F) << shift
		if x < 0x80 {
			return i + 1, i + 1 + remaining, nil
		}
		if i == 4 {
			return 0, 0, malformed("remaining length of more than four bytes")
		}
		shift += 7
	}
	return 0, 0, nil
}

// isPadded says that the Remaining Length in a fixed header is not in its shortest form, which MQTT 5 forbids and
// MQTT 3.1.1 does not.
func isPadded(header []byte) bool { return len(header) > 2 && header[len(header)-1] == 0 }

// errPadded ends an MQTT 5 connection [MQTT-1.5.5-1].
var errPadded = &ProtocolFault{MalformedPacket, "overlong remaining length"}

// checkFlags holds the reserved bits of the fixed header to their values [MQTT-2.1.3-1]. In MQTT 3.1 what is sent again
// has DUP, also where it means nothing.
func checkFlags(first, version byte) error {
	flags := first & 0x0F
	if version == 3 {
		flags &^= 8
	}
	switch first >> 4 {
	case typePublish:
		return nil // its own bits, checked when it is decoded
	case typePubrel, typeSubscribe, typeUnsubscribe:
		if flags != 2 {
			return malformed("reserved bits of the fixed header are not 0010")
		}
	default:
		if flags != 0 {
			return malformed("reserved bits of the fixed header are not 0")
		}
	}
	return nil
}
