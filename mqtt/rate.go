package mqtt

import (
	"bytes"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A bucket is a token bucket, written as the moment at which it will be full again, in nanoseconds since the connection
// began: 8 bytes for each of a hundred thousand connections, and no clock that ticks for them. What is taken from it may
// exceed what it holds, once: a packet is larger than a second's worth of bytes, and comes through all the same.
type bucket int64

// wait gives how long nothing may be taken from a bucket that holds size; 0: something may.
func (b bucket) wait(now, size time.Duration) time.Duration {
	if now >= time.Duration(b) {
		return 0
	}
	return max(0, time.Duration(b)-now-size+1)
}

// take takes what it needs cost to fill up again.
func (b *bucket) take(now, cost time.Duration) { *b = max(*b, bucket(now)) + bucket(cost) }

// rates are what a connection has used of its rates. Its reading goroutine has them.
type rates struct {
	messages bucket
	bytes    bucket
	control  bucket
	queue    queue
}

// rateLimits are the same for all connections. A bucket of messages or bytes holds a second's worth.
type rateLimits struct {
	perMessage     time.Duration // 0: any number
	bytesPerSecond int64         // 0: any number
	controlBurst   time.Duration // the size of a bucket of control packets
	over           OverRate
}

func newRateLimits(cfg *Config) rateLimits {
	l := rateLimits{bytesPerSecond: cfg.PublishBytesPerSecond, controlBurst: 10 * time.Second, over: cfg.OverRate}
	if n := time.Duration(cfg.PublishesPerSecond); n > 0 {
		l.perMessage = (time.Second + n - 1) / n
	}
	return l
}

// What control packets cost: a hundred topic filters a second, or a thousand PINGREQ and answers to nothing. A device
// that restores its subscriptions or lost its session is far below the ten seconds' worth that may come at once; without
// a bound one connection keeps a core busy.
const (
	filterCost  = 10 * time.Millisecond
	controlCost = time.Millisecond
)

// age is the time of the bytes at hand, since CONNECT was answered; they may have come with it.
func (c *Conn) age() time.Duration { return max(0, c.now.Sub(clockStart.Add(c.since))) }

// clockStart is what the times of connections are counted from: 8 bytes each, where a time.Time has 24.
var clockStart = time.Now()

// withinRate asks whether a PUBLISH may be handled now. errPause: not yet.
func (c *Conn) withinRate() error {
	l := &c.srv.rates
	if l.perMessage == 0 && l.bytesPerSecond == 0 {
		return nil
	}
	now := c.age()
	if wait := c.rates.messages.wait(now, time.Second); wait > 0 {
		return c.overRate(wait, c.srv.limits.messages, "more messages a second than allowed")
	}
	if wait := c.rates.bytes.wait(now, time.Second); wait > 0 {
		return c.overRate(wait, c.srv.limits.bytes, "more bytes a second than allowed")
	}
	return nil
}

func (c *Conn) overRate(wait time.Duration, count prometheus.Counter, detail string) error {
	count.Inc()
	if c.srv.rates.over == DisconnectClient {
		return &ProtocolFault{QuotaExceeded, detail}
	}
	return c.delay(wait, aboveMessages)
}

// countPublish takes a PUBLISH of n bytes from the rates.
func (c *Conn) countPublish(n int) {
	l := &c.srv.rates
	if l.perMessage > 0 {
		c.rates.messages.take(c.age(), l.perMessage)
	}
	if l.bytesPerSecond > 0 {
		c.rates.bytes.take(c.age(), time.Duration((int64(n)*int64(time.Second)+l.bytesPerSecond-1)/l.bytesPerSecond))
	}
}

// withinControl asks whether a packet other than PUBLISH may be handled now. errPause: not yet.
func (c *Conn) withinControl() error {
	wait := c.controlWait()
	if wait == 0 {
		return nil
	}
	c.srv.limits.control.Inc()
	return c.delay(wait, aboveControl)
}

// controlWait gives how long no packet other than PUBLISH may be handled.
func (c *Conn) controlWait() time.Duration {
	return c.rates.control.wait(c.age(), c.srv.rates.controlBurst)
}

// countFilters takes a SUBSCRIBE or UNSUBSCRIBE from the rate of control packets. However many filters it has, it does
// not stop the device for longer than the whole burst takes.
func (c *Conn) countFilters(n int) {
	c.rates.control.take(c.age(), min(time.Duration(n)*filterCost, c.srv.rates.controlBurst))
}

// countControl takes a packet that should be rare.
func (c *Conn) countControl() { c.rates.control.take(c.age(), controlCost) }

// tooDeep says whether a topic name has more levels than it may.
func (c *Conn) tooDeep(topic []byte) bool { return IsTooDeep(topic, c.srv.cfg.TopicLevels) }

// IsTooDeep says whether a topic name has more than so many levels.
func IsTooDeep(topic []byte, levels int) bool { return bytes.Count(topic, []byte{'/'}) >= levels }

// leastDelay is how long a device above a rate waits at least. What the rate allows by then is handled together: one
// that sends what costs nothing to send is looked at ten times a second.
const leastDelay = 100 * time.Millisecond

// delay has the reading paused for a while. What must wait asks again then, and a long wait is many short ones: a
// connection that ended is forgotten soon.
func (c *Conn) delay(wait time.Duration, cause cause) error {
	c.rates.queue.cause = cause
	c.mu.Lock()
	defer c.mu.Unlock()
	c.canPause()
	if !c.delayed {
		c.delayed = true
		c.srv.pacer.resumeIn(c, max(wait, leastDelay))
	}
	return errPause
}

// undelay ends the delay.
func (c *Conn) undelay() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.delayed = false
	c.wakeLocked()
}
