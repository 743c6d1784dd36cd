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
	c.holding = true
	c.charge(cap(c.partial)) // elsewhere than before
	c.paused.Store(true)
	c.srv.m.paused.Inc()
	c.answerPings()
	c.rates.queue.waits(len(c.partial), c.age())
}

// readHeld is readOnce during a pause.
func (c *Conn) readHeld(fd int) (more bool, err error) {
	select {
	case <-c.wake:
		return true, c.goOn(fd)
	default:
	}
	if c.isOver() {
		return true, c.endHeld(fd, c.link.over)
	}
	if c.holdsEnough() {
		return true, c.waitForRoom(fd)
	}
	c.now = time.Now()
	if c.flooded {
		return true, c.waitHeld(fd)
	}
	buf := readBuffers.Get().(*[readBuffer]byte)
	defer readBuffers.Put(buf)
	n, err := readFD(fd, buf[:])
	switch {
	case errors.Is(err, syscall.EAGAIN):
		c.rates.queue.drained()
		return false, nil
	case n <= 0:
		return true, c.endHeld(fd, errHungUp)
	}
	c.takeHeld(buf[:n])
	c.answerPings()
	c.answer()
	return true, nil
}

// holdsEnough says that no more is read before the end of the pause. A device that is above a rate gets what it sent
// back to itself sooner than one that waits for Kafka, and where PINGREQ has to wait too, nothing is looked for.
func (c *Conn) holdsEnough() bool {
	most := holdBytes
	switch c.rates.queue.cause {
	case aboveControl:
		return true
	case aboveMessages:
		most = readBuffer
	}
	return len(c.partial) >= most || c.srv.waiting.Load() > c.srv.cfg.MaxPartialBytes
}

// waitForRoom reads no more before the end of the pause.
func (c *Conn) waitForRoom(fd int) error {
	<-c.wake // made before the pause; resume and shutdown both signal it
	return c.goOn(fd)
}

// waitHeld leaves a device unread that has sent too many PINGREQ, for a while.
func (c *Conn) waitHeld(fd int) error {
	select {
	case <-c.wake:
		return c.goOn(fd)
	case <-time.After(max(c.controlWait(), leastDelay)):
	}
	if isGone(fd) {
		return c.leaveUnread(fd)
	}
	c.now = time.Now()
	c.answerPings()
	c.answer()
	return nil
}

// takeHeld keeps what came from the socket during a pause.
func (c *Conn) takeHeld(b []byte) {
	c.srv.m.bytesIn.Add(float64(len(b)))
	if c.link == nil {
		_ = c.heldBack(b)
		return
	}
	_ = c.unwrap(b, (*Conn).heldBack) // what ends the stream is looked at when all before it was
}

// heldBack keeps what came during a pause.
func (c *Conn) heldBack(b []byte) error {
	room := cap(c.partial)
	c.partial = append(c.partial, b...)
	if cap(c.partial) != room { // else it is in memory that is counted
		c.charge(cap(c.partial))
	}
	return nil
}

// endHeld ends a connection in a pause whose stream is over. A device that is gone sends messages with QoS 0 to nobody else,
// so while one of them has its moments for memory to come free, all that was sent is still handled. If they pass in vain,
// those behind it have none of their own, or its will would wait for all.
func (c *Conn) endHeld(fd int, over error) error {
	switch {
	case !errors.Is(over, errHungUp):
		return over
	case c.spareSince != 0:
		c.orphaned = true
		return c.waitForRoom(fd)
	}
	return c.leaveHeld()
}

// leaveHeld ends a connection whose device is gone: what it had not been answered for is not handled, save a
// farewell, without which there is a will.
func (c *Conn) leaveHeld() error {
	for p := c.whole(c.partial); p != nil; p = c.whole(c.partial) {
		if p[0] == typeDisconnect<<4 {
			return c.packet(p)
		}
		c.leaveOut(p)
		c.partial = c.partial[len(p):]
	}
	return errHungUp
}

// leaveOut counts a packet that is not handled, if nobody sends it again.
func (c *Conn) leaveOut(p []byte) {
	if p[0]>>4 == typePublish && p[0]>>1&3 == 0 {
		c.srv.m.dropped.Inc()
	}
}

// leaveUnread is leaveHeld for a device that is gone and has left more in the socket than was read: its farewell would
// be the last of it. It can send no more, so there is an end to it.
func (c *Conn) leaveUnread(fd int) error {
	buf := readBuffers.Get().(*[readBuffer]byte)
	defer readBuffers.Put(buf)
	for {
		err := c.leaveHeld()
		if err != errHungUp || c.isStray() {
			return err
		}
		if c.isOver() {
			return c.link.over
		}
		n, _ := readFD(fd, buf[:])
		if n <= 0 {
			return errHungUp
		}
		c.takeHeld(buf[:n])
	}
}

// isStray says that no packet begins where one should.
func (c *Conn) isStray() bool {
	if len(c.partial) == 0 {
		return false
	}
	_, err := c.size(c.partial)
	return err != nil
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

// isHeldRepeat says that p is a PUBLISH that is a repeat now, and that nothing is missed without it: one that sets a topic
// alias waits, as packets before it may use what the alias stood for. A device that sends all again each second while Kafka
// is away would fill what is read during a pause, and its PINGREQ would not be found.
func (c *Conn) isHeldRepeat(p []byte) bool {
	if p[0]>>4 != typePublish || p[0]&8 == 0 {
		return false
	}
	header, _, _ := frame(p)
	r := cursor{b: p[header:]}
	topic, id := r.binary(), r.uint16()
	props := c.properties()
	if c.version == 5 {
		r.properties(typePublish, &props)
	}
	setsAlias := len(topic) > 0 && props.has(propTopicAlias)
	return r.err == nil && !setsAlias && c.isRepeat(p[0], id)
}

// answerPings answers the PINGREQ among the packets that wait, and takes them out, until there are too many: then
// c.flooded. Repeats of messages that are in flight are taken out too. Each byte is moved once, since a device may send thousands of them.
func (c *Conn) answerPings() {
	c.flooded = false
	kept, rest := c.partial[:c.scanned], c.partial[c.scanned:]
	for p := c.whole(rest); p != nil; p = c.whole(rest) {
		isPing := p[0] == typePingreq<<4 && len(p) == 2
		if c.flooded = isPing && c.controlWait() > 0; c.flooded {
			break
		}
		rest = rest[len(p):]
		if c.isHeldRepeat(p) {
			continue
		}
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
	c.rates.queue.cause = aboveNothing
	c.srv.m.paused.Dec()
	tick := c.srv.tick.Load()
	c.heard.Store(tick)
	c.mu.Lock()
	c.slots.goOn(tick) // what was not read is still to come
	c.mu.Unlock()
	c.paused.Store(false)
}

// goOn ends the pause and handles what waited, which may be the beginning of the next pause.
func (c *Conn) goOn(fd int) error {
	q := &c.rates.queue
	cause := q.cause
	c.endPause()
	c.mu.Lock()
	ending := c.ending
	c.mu.Unlock()
	if ending {
		return os.ErrDeadlineExceeded
	}
	c.now = time.Now()
	if cause != aboveNothing {
		if isGone(fd) {
			return c.leaveUnread(fd)
		}
		if q.isOverdue(c.age()) {
			return errOverdue
		}
	}
	err := c.catchUp()
	if err == errPause {
		c.trim()
		c.pause()
		err = nil
	} else {
		c.scanned = 0
	}
	c.answer()
	return err
}

// catchUp handles the packets that waited. They stay where they are: a pause that comes at one of them costs as much as
// the packets before it, however many are behind it.
func (c *Conn) catchUp() error {
	for len(c.partial) > 0 {
		size, err := c.size(c.partial)
		if err != nil {
			return err
		}
		if size == 0 || size > len(c.partial) {
			rest := c.partial
			c.partial = nil // rest stays counted until what is needed of it has its own memory
			return c.keep(rest, size)
		}
		if err = c.packet(c.partial[:size]); err == errPause {
			return err
		}
		c.partial = c.partial[size:] // also one with a fault: it is no message that was dropped
		if err != nil {
			return err
		}
		c.scanned = max(0, c.scanned-size)
		c.rates.queue.handled(size)
	}
	c.hold(nil)
	return nil
}

// trim lets go of memory of which little is needed any more: so seldom that it costs less than what came did.
func (c *Conn) trim() {
	if c.charged-c.held() > 4*len(c.partial) {
		c.hold(append([]byte(nil), c.partial...))
	}
}

// canPause makes the channel that ends a pause. It must exist before anybody is asked to resume. From now on answers
// leave while repeats of what they are for may wait unread. mu is held.
func (c *Conn) canPause() {
	c.slots.remember(c.srv.tick.Load())
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
		_ = c.nc.SetReadDeadline(longAgo)
	}
}

// awake takes back the deadline by which wakeLocked or hush ended the wait for bytes; false if it was another one.
func (c *Conn) awake() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending || !c.nudged {
		return false
	}
	c.nudged, c.quiet = false, true // if it is paused, it is not parked
	return c.nc.SetReadDeadline(time.Time{}) == nil
}
