package mqtt

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/gobwas/ws"
)

// A WebSocket says which WebSocket connections are taken. The subprotocol is mqtt (section 6 of MQTT 5), or
// mqttv3.1 as clients of MQTT 3.1 name it.
type WebSocket struct {
	// Path is the one to ask for, such as /ws; "": /mqtt, or / as clients ask for that are given none. A query behind it
	// is passed over.
	Path string
	// Origins are the pages that may connect, besides those of the host that is asked: https://console.example, or *
	// for every page. A browser says whose page it runs; who is none may say anything, or nothing, and is let in.
	Origins []string
}

// A closeCode is the status of a WebSocket close frame (RFC 6455, section 7.4.1).
type closeCode = ws.StatusCode

// errFrame ends a connection that breaks the rules of WebSocket frames.
var errFrame = errors.New("bad WebSocket frame")

// A frameFault is an errFrame with the status to close with.
type frameFault struct {
	code   closeCode
	detail string
}

// Error gives the detail.
func (f *frameFault) Error() string { return fmt.Sprintf("%v: %s", errFrame, f.detail) }

// Unwrap gives errFrame.
func (f *frameFault) Unwrap() error { return errFrame }

// frameSlack is how much larger than the largest packet a frame may be: it may hold several.
const frameSlack = 64 << 10

// An unframer takes a stream of bytes out of WebSocket frames. It keeps no more than a header or a control frame that is
// not whole, and where it stands in a frame: what a frame announces is never waited for.
type unframer struct {
	limit   int64  // of a frame
	head    []byte // of a header that is not whole
	control []byte // the content of a control frame, as far as it came
	frame   ws.Header
	rest    int64 // bytes of frame still to come
	within  bool  // a frame has begun
	message bool  // a message has, in frames of which the last did not come
}

// open takes what came next and gives the content of data frames, in b's memory, and that of the last ping, if there was
// one: not nil then. After an error nothing follows; errHungUp is a close frame.
func (u *unframer) open(b []byte) (content, pong []byte, err error) {
	content = b[:0]
	for err == nil && (len(b) > 0 || u.within && u.rest == 0) {
		if !u.within {
			b, err = u.begin(b)
			continue
		}
		part := b[:min(int64(len(b)), u.rest)]
		b = b[len(part):]
		ws.Cipher(part, u.frame.Mask, int(u.frame.Length-u.rest))
		u.rest -= int64(len(part))
		if !u.frame.OpCode.IsControl() {
			content = append(content, part...) // never beyond part: it lies before it in the same memory
			u.within = u.rest > 0
			continue
		}
		u.control = append(u.control, part...)
		if u.rest == 0 {
			pong, err = u.controlled(pong)
		}
	}
	return content, pong, err
}

// begin takes a header, or what there is of one, and gives what follows.
func (u *unframer) begin(b []byte) (rest []byte, err error) {
	var buf [ws.MaxHeaderSize]byte
	n := copy(buf[:], u.head)
	head := buf[:n+copy(buf[n:], b)]
	size := headerSize(head)
	if size == 0 || size > len(head) {
		u.head = append([]byte(nil), head...)
		return nil, nil
	}
	taken := size - len(u.head)
	u.head = nil
	u.frame = parseHeader(head[:size])
	if err := u.check(); err != nil {
		return nil, err
	}
	u.rest, u.within = u.frame.Length, true
	if !u.frame.OpCode.IsControl() {
		u.message = !u.frame.Fin
	}
	return b[taken:], nil
}

// check holds a header to section 5 of RFC 6455.
func (u *unframer) check() error {
	state := ws.StateServerSide
	if u.message {
		state = state.Set(ws.StateFragmented)
	}
	if err := ws.CheckHeader(u.frame, state); err != nil {
		return &frameFault{ws.StatusProtocolError, err.Error()}
	}
	switch {
	case u.frame.OpCode == ws.OpText:
		return &frameFault{ws.StatusUnsupportedData, "MQTT goes in binary frames"} // [MQTT-6.0.0-1]
	case u.frame.Length < 0:
		return &frameFault{ws.StatusProtocolError, "the length has 64 bits"}
	case u.frame.Length > u.limit:
		return &frameFault{ws.StatusMessageTooBig, "a frame larger than packets may be"}
	}
	return nil
}

// controlled ends a control frame. pong is what an earlier ping said, if there was one.
func (u *unframer) controlled(pong []byte) ([]byte, error) {
	said := u.control
	u.control, u.within = nil, false
	switch {
	case u.frame.OpCode == ws.OpPing:
		return append([]byte{}, said...), nil
	case u.frame.OpCode == ws.OpClose && len(said) == 1:
		return pong, &frameFault{ws.StatusProtocolError, "half a status code"}
	case u.frame.OpCode == ws.OpClose:
		return pong, errHungUp
	}
	return pong, nil
}

// headerSize gives the length of the header that begins with b, 0 if b is too short to tell.
func headerSize(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	size := 2
	switch b[1] & 0x7F {
	case 126:
		size += 2
	case 127:
		size += 8
	}
	if b[1]&0x80 != 0 {
		size += 4
	}
	return size
}

// parseHeader reads a whole header.
func parseHeader(b []byte) (h ws.Header) {
	h.Fin, h.Rsv, h.OpCode, h.Masked = b[0]&0x80 != 0, b[0]>>4&7, ws.OpCode(b[0]&0x0F), b[1]&0x80 != 0
	switch h.Length = int64(b[1] & 0x7F); h.Length {
	case 126:
		h.Length = int64(binary.BigEndian.Uint16(b[2:]))
	case 127:
		h.Length = int64(binary.BigEndian.Uint64(b[2:]))
	}
	if h.Masked {
		copy(h.Mask[:], b[len(b)-4:])
	}
	return h
}

// appendFrame appends the header of a frame from us: whole, not masked.
func appendFrame(out []byte, op ws.OpCode, content []byte) []byte {
	out = append(out, 0x80|byte(op))
	if n := len(content); n <= ws.MaxControlFramePayloadSize {
		out = append(out, byte(n))
	} else {
		out = append(out, 126, byte(n>>8), byte(n)) // a piece is never longer
	}
	return append(out, content...)
}
