package mqtt

import (
	"errors"
	"os"
	"syscall"
	"time"
)

// holdBytes is how much is read of a paused connection, to find the PINGREQ behind the messages that wait.
const holdBytes = 64 << 10

// pause begins a pause. Reading goes on for a while, but nothing is handled except PINGREQ: a device whose
// messages wait for Kafka must not be left to think that we are gone.
func (c *Conn) pause() {
	c.holding, c.scanned = true, 0
	c.paused.Store(true)
	c.srv.m.paused.Inc()
	c.answerPings()
}

// readHeld is readOnce during a pause.
func (c *Conn) readHeld(fd int) (more bool, err error) {
	select {
	case <-c.wake:
		return true, c.goOn()
	default:
	}
	if c.isOver() {
		return true, c.endHeld(c.link.over)
	}
	if len(c.partial) >= holdBytes || c.srv.partial.Load() > c.srv.cfg.MaxPartialBytes {
		<-c.wake // made before the pause; resume and shutdown both signal it
		return true, c.goOn()
	}
	c.now = time.Now()
	if c.flooded {
		return true, c.waitHeld()
	}
	buf := readBuffers.Get().(*[readBuffer]byte)
	defer readBuffers.Put(buf)
	n, err := readFD(fd, buf[:])
	switch {
	case errors.Is(err, syscall.EAGAIN):
		return false, nil
	case n <= 0:
		return true, c.leaveHeld()
	}
	c.srv.m.bytesIn.Add(float64(n))
	if c.link == nil {
		_ = c.heldBack(buf[:n])
	} else {
		_ = c.unwrap(buf[:n], (*Conn).heldBack) // what ends the stream is looked at when all before it was
	}
	c.answerPings()
	c.answer()
	return true, nil
}

// waitHeld leaves a device unread that has sent too many PINGREQ, for a while.
func (c *Conn) waitHeld() error {
	select {
	case <-c.wake:
		return c.goOn()
	case <-time.After(c.controlWait()):
	}
	c.now = time.Now()
	c.answerPings()
	c.answer()
	return nil
}

// heldBack keeps what came during a pause.
func (c *Conn) heldBack(b []byte) error {
	c.hold(append(c.partial, b...))
	return nil
}

// endHeld ends a connection in a pause because of what its layers said.
func (c *Conn) endHeld(over error) error {
	if errors.Is(over, errHungUp) {
		return c.leaveHeld()
	}
	return over
}

// leaveHeld ends a connection whose device is gone: what it had not been answered for is not handled, save a
// farewell, without which there is a will.
func (c *Conn) leaveHeld() error {
	rest := c.partial
	for p := c.whole(rest); p != nil; p = c.whole(rest) {
		if p[0] == typeDisconnect<<4 {
			return c.packet(p)
		}
		rest = rest[len(p):]
	}
	return errHungUp
}

// whole gives the packet at the start of b, nil if it is not complete or not one. What is wrong with it is
// found when its turn comes.
func (c *Conn) whole(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	size, err := c.size(b)
	if err != nil || size == 0 || size > len(b) {
		return nil
	}
	return b[:size]
}

// answerPings answers the PINGREQ among the packets that wait, and takes them out, until there are too many: then
// c.flooded. Each byte is moved once, since a device may send thousands of them.
func (c *Conn) answerPings() {
	c.flooded = false
	kept, rest := c.partial[:c.scanned], c.partial[c.scanned:]
	for p := c.whole(rest); p != nil; p = c.whole(rest) {
		isPing := p[0] == typePingreq<<4 && len(p) == 2
		if c.flooded = isPing && c.controlWait() > 0; c.flooded {
			break
		}
		rest = rest[len(p):]
		if !isPing {
			kept = append(kept, p...)
			continue
		}
		_ = c.pingreq(nil)
		c.heard.Store(c.srv.tick.Load())
	}
	c.scanned = len(kept)
	if len(kept)+len(rest) < len(c.partial) {
		c.partial = append(kept, rest...)
	}
}

// endPause also serves a connection that ends while it is paused.
func (c *Conn) endPause() {
	if !c.holding {
		return
	}
	c.holding = false
	c.srv.m.paused.Dec()
	c.heard.Store(c.srv.tick.Load())
	c.paused.Store(false)
}

// goOn ends the pause and handles what waited, which may be the beginning of the next pause.
func (c *Conn) goOn() error {
	c.endPause()
	c.mu.Lock()
	ending := c.ending
	c.mu.Unlock()
	if ending {
		return os.ErrDeadlineExceeded
	}
	rest := c.partial
	c.partial = nil // rest stays counted until it is done
	c.now = time.Now()
	err := c.feed(rest)
	if err == errPause {
		c.pause()
		err = nil
	} else {
		c.charge(cap(c.partial))
	}
	c.answer()
	return err
}

// canPause makes the channel that ends a pause. It must exist before anybody is asked to resume. mu is held.
func (c *Conn) canPause() {
	if c.wake == nil {
		c.wake = make(chan struct{}, 1)
	}
	select { // a signal of an earlier pause
	case <-c.wake:
	default:
	}
	if c.ending {
		c.wakeLocked()
	}
}

func (c *Conn) resume() {
	c.mu.Lock()
	c.wakeLocked()
	c.mu.Unlock()
}

// wakeLocked ends a pause, wherever the reading goroutine waits: for the channel, or for bytes. mu is held.
func (c *Conn) wakeLocked() {
	if c.wake == nil {
		return
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
	if !c.ending {
		c.nudged = true
		_ = c.nc.SetReadDeadline(time.Unix(1, 0))
	}
}

// awake takes back the deadline by which wakeLocked ended the wait for bytes; false if it was another one.
func (c *Conn) awake() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending || !c.nudged {
		return false
	}
	c.nudged = false
	return c.nc.SetReadDeadline(time.Time{}) == nil
}
