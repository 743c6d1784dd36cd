package mqtt

import (
	"errors"
	"time"
)

// errParked ends the reading of a connection that goes on in another goroutine, when there is something to do.
var errParked = errors.New("parked")

// parkAfter is how long nothing must have come before a connection is parked. Between the packets of a device that sends
// more often, a goroutine that waits is cheaper than one that is made.
const parkAfter = time.Second

// parkTicks is after how many ticks the sweep has a quiet connection parked.
const parkTicks = 2

// park lets the connection wait without a goroutine. True: whoever calls is not its reading goroutine any more, and must
// not touch it.
func (c *Conn) park() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending || c.nudged {
		return false
	}
	c.unparkable = !c.srv.lot.arm(c)
	c.parked = !c.unparkable
	return c.parked
}

// unpark gives the connection a goroutine that reads. A call too many does nothing.
func (c *Conn) unpark() {
	c.mu.Lock()
	c.unparkLocked()
	c.mu.Unlock()
}

func (c *Conn) unparkLocked() {
	if c.parked {
		c.parked = false
		go c.serve()
	}
}

// serve reads until the connection is parked or ends.
func (c *Conn) serve() {
	err := c.guard(c.readAll)
	if err == errParked {
		return // it is another goroutine's
	}
	c.finish(err)
	c.srv.conns.done(c)
}

// isQuiet says that the connection may be parked when its socket is empty: the device sends seldom, and nothing that was
// read waits.
func (c *Conn) isQuiet() bool { return c.quiet && !c.holding && !c.unparkable && !c.isOver() }

// hush has a reading goroutine that waits for a device which is quiet by now look whether to park. mu is held.
func (c *Conn) hush(tick int64) {
	if c.session == nil || c.parked || c.unparkable || c.ending || c.nudged || c.paused.Load() || tick-c.heard.Load() < parkTicks {
		return
	}
	c.nudged = true
	_ = c.nc.SetReadDeadline(longAgo)
}

// longAgo is a deadline that ends a wait at once.
var longAgo = time.Unix(1, 0)
