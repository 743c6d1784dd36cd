package mqtt

import (
	"errors"
	"sync"

	"github.com/gobwas/ws"
)

// pieceBytes is how much is wrapped at once: with the frames around it no more than a TLS record holds.
const pieceBytes = 15 << 10

// sealedBuffer is what a piece takes in its frames and its record, with the answers that TLS owes.
const sealedBuffer = 17 << 10

var sealedBuffers = sync.Pool{New: func() any { return new([sealedBuffer]byte) }}

// morePieces is how many pieces whoever writes without blocking puts into the socket; then a goroutine goes on, so that
// the flusher does not spend its time on one device that reads as fast as it is encrypted for.
const morePieces = 4

// owes says that something must be sent beside what is in out. mu is held.
func (c *Conn) owes() bool { return c.link != nil && c.link.owing }

// wrap takes the next piece of the output, which may be none, and gives it in its layers with what is owed beside it.
// It lies in link.buffer until the writing ends. The order in which pieces are wrapped is that in which they must be
// written, so this is only for who holds c.writing. mu is held.
func (c *Conn) wrap() ([]byte, error) {
	l := c.link
	piece := c.takePiece()
	last := l.bye == byeDue && c.waiting() == 0
	l.owing = l.bye == byeDue && !last
	if last {
		l.bye = byeSaid
	}
	if l.buffer == nil {
		l.buffer = sealedBuffers.Get().(*[sealedBuffer]byte)
	}
	out := l.buffer[:0]
	if l.tls == nil {
		return l.frame(out, piece, last), nil
	}
	if l.framed {
		scratch := sealedBuffers.Get().(*[sealedBuffer]byte)
		defer sealedBuffers.Put(scratch)
		piece = l.frame(scratch[:0], piece, last)
	}
	out, err := l.tls.Seal(piece, out)
	if last && err == nil {
		out = l.tls.Goodbye(out)
	}
	return out, err
}

// takePiece is take without layers, for a piece at most.
func (c *Conn) takePiece() (b []byte) {
	if t := c.tail; t != nil && t.at == 0 {
		n := min(len(t.b), pieceBytes)
		if b, t.b = t.b[:n], t.b[n:]; len(t.b) == 0 {
			c.tail = nil
		}
		c.taken = int32(n)
		return b
	}
	n := min(len(c.out), pieceBytes)
	if c.tail != nil {
		n = min(n, c.tail.at)
		c.tail.at -= n
	}
	b, rest := c.out[:n], c.out[n:]
	switch {
	case len(rest) > 0:
		c.out = rest
	case cap(c.out) <= 256 && c.slots.len() > 0:
		c.out = c.out[:0] // more will follow soon; b is copied before mu is given up
	default:
		c.out = nil
	}
	c.taken = int32(n)
	return b
}

// frame appends the pong that is due, the piece as one frame and, as the last one, the close frame.
func (l *link) frame(out, piece []byte, last bool) []byte {
	if l.pong != nil {
		out = appendFrame(out, ws.OpPong, l.pong)
		l.pong = nil
	}
	if len(piece) > 0 {
		out = appendFrame(out, ws.OpBinary, piece)
	}
	if last {
		out = appendFrame(out, ws.OpClose, ws.NewCloseFrameBody(l.code, ""))
	}
	return out
}

// discard forgets what is owed, since the output breaks off. mu is held.
func (l *link) discard() { l.pong, l.owing, l.bye = nil, false, byeSaid }

// release gives the buffer back when the writing has ended. mu is held.
func (l *link) release() {
	if l.buffer != nil {
		sealedBuffers.Put(l.buffer)
		l.buffer = nil
	}
}

// sayFarewell has the layers end after all that was to be said: with a close frame, with close_notify.
func (c *Conn) sayFarewell(err error) {
	l := c.link
	if l == nil {
		return
	}
	c.mu.Lock()
	if l.bye == byeNone && (l.framed || l.tls != nil) {
		l.bye, l.code, l.owing = byeDue, closeCodeOf(err), true
	}
	c.mu.Unlock()
	c.flush()
}

// closeCodeOf gives the status of the close frame for the end of a connection.
func closeCodeOf(err error) closeCode {
	var frame *frameFault
	var fault *ProtocolFault
	switch {
	case errors.As(err, &frame):
		return frame.code
	case errors.As(err, &fault) && fault.Code == ServerShuttingDown:
		return ws.StatusGoingAway
	case errors.As(err, &fault):
		return ws.StatusPolicyViolation
	}
	return ws.StatusNormalClosure
}

// awaitsClose says that a connection is not to be closed before the other side had the time to read why: WebSocket
// clients are told in a close frame, or by HTTP.
func (c *Conn) awaitsClose() bool { return c.link != nil && c.link.endpoint.WebSocket != nil }
