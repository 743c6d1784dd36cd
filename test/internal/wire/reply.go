package wire

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A Reply is a packet as it came.
type Reply struct {
	First byte
	Body  []byte
}

// replyMax is far above anything a test asks for.
const replyMax = 1 << 20

var errTooLong = errors.New("a packet of the server is larger than any this test asks for")

// Read takes the next packet.
func Read(in *bufio.Reader) (Reply, error) {
	first, err := in.ReadByte()
	if err != nil {
		return Reply{}, err
	}
	n, err := binary.ReadUvarint(in)
	if err != nil {
		return Reply{}, err
	}
	if n > replyMax {
		return Reply{}, errTooLong
	}
	r := Reply{first, make([]byte, n)}
	_, err = io.ReadFull(in, r.Body)
	return r, err
}

var names = [16]string{"type 0", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBSCRIBE", "SUBACK",
	"UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH"}

// Name is the name of the packet's type in the specification.
func (r Reply) Name() string { return names[r.First>>4] }

// ID is the packet identifier of an acknowledgement; 0 if there is none.
func (r Reply) ID() uint16 {
	if len(r.Body) < 2 || r.First < PUBACK || r.First > UNSUBACK+0x0F {
		return 0
	}
	return binary.BigEndian.Uint16(r.Body)
}

// Code is the reason code, of SUBACK and UNSUBACK the last one; 0 if the packet has none.
func (r Reply) Code() byte {
	at := -1
	switch r.First & 0xF0 {
	case CONNACK:
		at = 1
	case PUBACK, PUBREC, PUBREL & 0xF0, PUBCOMP:
		at = 2
	case SUBACK, UNSUBACK:
		at = max(len(r.Body)-1, 2)
	case DISCONNECT, AUTH:
		at = 0
	}
	if at < 0 || at >= len(r.Body) {
		return 0
	}
	return r.Body[at]
}

// String is the name, and the reason code where the packet may have one.
func (r Reply) String() string {
	if t := r.First & 0xF0; t == PINGRESP || t == PUBLISH {
		return r.Name()
	}
	return fmt.Sprintf("%s 0x%02X", r.Name(), r.Code())
}

// Topic is the topic name of a PUBLISH; "" if there is none.
func (r Reply) Topic() string {
	if r.First&0xF0 != PUBLISH || len(r.Body) < 2 {
		return ""
	}
	n := int(binary.BigEndian.Uint16(r.Body))
	if len(r.Body) < 2+n {
		return ""
	}
	return string(r.Body[2 : 2+n])
}
