package mqtt

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"time"
)

// settle notes the outcome of the message in slot seq. It only marks: Server.Flush, or the connection's own
// reading, sends. It is called from the Handler's goroutines and never blocks.
func (c *Conn) settle(seq uint32, bytes int, o outcome) {
	c.mu.Lock()
	c.inFlight -= bytes
	if !c.slots.holds(seq) {
		c.mu.Unlock()
		return
	}
	c.slots.at(seq).outcome = o
	if o.state == slotRefused && c.version < 5 && c.ends().refusal == nil {
		c.end.refusal = &ProtocolFault{o.code, o.reason}
	}
	enlist := seq == c.slots.head && !c.dirty
	if enlist {
		c.dirty = true
	}
	c.mu.Unlock()
	if enlist {
		c.srv.enlist(c)
	}
}

// drain moves the acknowledgements whose turn has come to out. At a message of which nobody knows whether it is stored
// it ends the connection. A refused one has no answer in MQTT 3.1.1 and ends it too, but what was handed over behind it
// is acknowledged first: the device would send it again after each CONNECT, behind the same refused one, and each time
// it would be stored once more. mu is held.
func (c *Conn) drain() {
	h := c.slots.settled()
	for ; h != nil && !c.silent && h.state != slotAbandoned; h = c.slots.settled() {
		if h.state != slotRefused || c.version == 5 {
			c.acknowledge(h)
		}
		c.slots.pop()
	}
	switch {
	case c.silent:
	case h != nil:
		c.shutdownLocked(&ProtocolFault{h.code, h.reason})
	case c.end != nil && c.end.refusal != nil && c.slots.len() == 0:
		c.shutdownLocked(c.end.refusal)
	}
	if e := c.end; e != nil && e.idle != nil && (h != nil || c.slots.len() == 0) {
		close(e.idle)
		e.idle = nil
	}
	c.readOn()
}

// readOn ends a pause for want of slots or bytes when enough are free. mu is held.
func (c *Conn) readOn() {
	if c.wants && c.slots.len() <= c.srv.cfg.ReceiveMaximum/2 && c.inFlight <= c.srv.cfg.MaxInFlightBytes/2 {
		c.wants = false
		c.wakeLocked()
	}
}

// holdBack counts n bytes of a message with QoS 0 that is held back. The caller is the reading goroutine.
func (c *Conn) holdBack(n int) {
	c.holdsBack = true
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inFlight += n
	c.lagging++
}

// letGo ends that, when the message has its outcome.
func (c *Conn) letGo(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inFlight -= n
	c.lagging--
	c.readOn()
}

// acknowledge appends PUBACK or PUBREC for h, without its Reason String if the device doesn't want it or it
// would not fit [MQTT-3.1.2-24] [MQTT-3.1.2-29].
func (c *Conn) acknowledge(h *slot) {
	first := h.kind << 4
	if c.version < 5 || h.code == Success {
		c.out = append(c.out, first, 2, byte(h.id>>8), byte(h.id))
		return
	}
	reason := h.reason
	if n := len(reason); !c.problems || n == 0 || n > 100 || uint32(n+16) > c.maxPacket {
		c.out = append(c.out, first, 3, byte(h.id>>8), byte(h.id), byte(h.code))
		return
	}
	n := len(reason)
	c.out = append(c.out, first, byte(7+n), byte(h.id>>8), byte(h.id), byte(h.code), byte(3+n), propReasonString, 0, byte(n))
	c.out = append(c.out, reason...)
}

// flush sends what waits for the device and says whether the connection is ending. It never blocks: what
// the socket does not take at once goes to a goroutine of its own.
func (c *Conn) flush() (ending bool) {
	c.mu.Lock()
	c.drain()
	c.send()
	ending = c.ending
	sent, hungry := c.marked(), c.hungry()
	c.mu.Unlock()
	c.followUp(sent, hungry)
	return ending
}

// directBytes is how much the reading goroutine leaves to the flusher.
const directBytes = 4 << 10

// answer has the flusher send what the packets just read call for, and says whether the connection is ending.
// The reading goroutine writes itself only when there is much: a write is the deepest call it would make, and
// the stack that grows for it stays while the device is idle, 2 KiB of the 5 a connection may cost.
func (c *Conn) answer() (ending bool) {
	c.mu.Lock()
	if len(c.out) > directBytes {
		c.mu.Unlock()
		return c.flush()
	}
	due := len(c.out) > 0 || c.slots.settled() != nil || c.owes()
	enlist := due && !c.dirty
	c.dirty = c.dirty || due
	ending = c.ending
	c.mu.Unlock()
	if enlist {
		c.srv.enlist(c)
	}
	if due {
		c.srv.Flush()
	}
	return ending
}

// send writes what is in out unless somebody else does already. mu is held, see write.
func (c *Conn) send() {
	if !c.writing && c.due() {
		c.write()
	}
	if len(c.out) > c.srv.cfg.MaxUnreadBytes {
		c.tooSlow()
	}
}

// waiting is how many bytes wait to be written. mu is held.
func (c *Conn) waiting() int {
	if c.tail == nil {
		return len(c.out)
	}
	return len(c.out) + len(c.tail.b)
}

// A tail is the end of a large command, which is shared with other connections. It belongs into Conn.out at at.
type tail struct {
	b  []byte
	at int
}

// due says whether there is something to write. mu is held.
func (c *Conn) due() bool { return c.waiting() > 0 || c.owes() }

// take takes the next bytes to write, as they go to the socket. mu is held.
func (c *Conn) take() ([]byte, error) {
	if c.link != nil {
		return c.wrap()
	}
	b := c.out
	switch {
	case c.tail == nil:
		c.out = nil
	case c.tail.at > 0:
		at := c.tail.at
		b, c.out, c.tail.at = b[:at:at], b[at:], 0
	default:
		b, c.tail = c.tail.b, nil
	}
	c.taken = int32(len(b))
	return b, nil
}

// discard forgets what waits to be written. mu is held.
func (c *Conn) discard() {
	c.out, c.tail = nil, nil
	if c.link != nil {
		c.link.discard()
	}
}

// write writes out while the socket takes it. mu is held, and given up around the system call, so that
// nobody who only wants to mark a slot waits for it.
func (c *Conn) write() {
	c.writing = true
	for pieces := 1; c.due(); pieces++ {
		shared := c.tail != nil
		b, err := c.take()
		if c.link != nil && pieces > morePieces && err == nil {
			c.goSlowly(b)
			return
		}
		n := 0
		if err == nil {
			c.mu.Unlock()
			n, err = c.writeNow(b)
			c.mu.Lock()
			c.gone(n, len(b)-n)
		}
		if err != nil && !errors.Is(err, syscall.EAGAIN) {
			c.discard()
			c.shutdownLocked(err)
			break
		}
		if n < len(b) {
			c.goSlowly(b[n:])
			return
		}
		if c.link == nil && c.out == nil && !shared && cap(b) <= 256 && c.slots.len() > 0 {
			c.out = b[:0] // more will follow soon
		}
	}
	c.wrote()
}

// goSlowly has a goroutine go on with the writing, which ends when there is no more, or with the connection. mu is held.
func (c *Conn) goSlowly(b []byte) {
	c.stuck = true
	go c.sendSlowly(b)
}

// gone counts n bytes that the socket took of those that take gave, of which left are still to be written. In layers
// only the whole of them says that what is inside has gone. mu is held.
func (c *Conn) gone(n, left int) {
	plain := n
	if c.link != nil {
		plain = 0
		if left == 0 {
			plain = int(c.taken)
		}
	}
	c.taken -= int32(plain)
	c.flushed += uint64(plain)
	c.srv.m.bytesOut.Add(float64(n))
}

// wrote ends the writing. mu is held.
func (c *Conn) wrote() {
	c.writing, c.stuck = false, false
	if c.link != nil {
		c.link.release()
	}
	if e := c.end; e != nil && e.written != nil {
		close(e.written)
		e.written = nil
	}
}

// tooSlow ends the connection of a device that doesn't read. mu is held.
func (c *Conn) tooSlow() {
	c.discard()
	if !c.ending {
		c.srv.m.slowReaders.Inc()
		c.shutdownLocked(errSlowReader)
	}
}

var errSlowReader = errors.New("the device does not read what is sent to it")

// A nonblocking is one write that doesn't wait; pooled with its function bound, so that a write allocates
// nothing.
type nonblocking struct {
	b   []byte
	n   int
	err error
	try func(fd uintptr) bool
}

var nonblockings = sync.Pool{New: func() any {
	w := new(nonblocking)
	w.try = func(fd uintptr) bool {
		w.n, w.err = writeFD(int(fd), w.b)
		return true
	}
	return w
}}

// writeNow writes as much as the socket's buffer takes.
func (c *Conn) writeNow(b []byte) (int, error) {
	w := nonblockings.Get().(*nonblocking)
	defer nonblockings.Put(w)
	w.b, w.n, w.err = b, 0, nil
	err := c.raw.Write(w.try)
	w.b = nil
	if err == nil {
		err = w.err
	}
	return w.n, err
}

// slowBytes is what a device has to read within the write time-out, so that large packets may take it longer.
const slowBytes = 16 << 10

// sendSlowly writes b and all that joins it, waiting for the device up to the write time-out.
func (c *Conn) sendSlowly(b []byte) {
	for busy := true; busy; {
		_ = c.nc.SetWriteDeadline(time.Now().Add(c.srv.cfg.WriteTimeout))
		n, err := c.nc.Write(b[:min(len(b), slowBytes)])
		b = b[n:]
		c.mu.Lock()
		c.gone(n, len(b))
		if len(b) == 0 && err == nil && c.due() {
			b, err = c.take()
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			c.tooSlow()
		case err != nil:
			c.shutdownLocked(err)
		}
		busy = err == nil && len(b) > 0
		if !busy {
			_ = c.nc.SetWriteDeadline(time.Time{}) // else it would fail a write long after this one
			c.wrote()
		}
		sent, hungry := c.marked(), c.hungry()
		c.mu.Unlock()
		c.followUp(sent, hungry)
	}
}
