package mqtt

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A Conn is one device's connection. One goroutine at a time reads it and handles what it reads; it alone closes the
// socket, everybody else calls shutdown. While the device is quiet there is none, see park. A second goroutine exists only
// while the socket takes no more bytes.
type Conn struct {
	srv  *Server
	nc   *net.TCPConn
	raw  syscall.RawConn
	link *link // nil: packets come straight from the socket

	// Only the reading goroutine uses these. The server's sweep reads session, under mu.
	partial        []byte        // bytes read and not yet consumed, from the start of a packet
	scanned        int           // up to where partial was searched for PINGREQ
	charged        int           // part of partial and held that is counted in Server.partial, or Server.waiting
	aliases        *topicAliases // nil: none was set
	will           *Message
	session        *session
	method         *string       // of enhanced authentication; nil: none
	now            time.Time     // when the bytes at hand were read
	since          time.Duration // CONNECT was answered, from clockStart on
	handed         *Message      // in the Handler's Publish now
	turn           Turn          // of the message that waits for memory; nil: none does
	attached       any           // the Handler's
	device         *net.TCPAddr  // as the PROXY header says; nil: there is none
	entrance       entrance
	rates          rates
	version        byte // 0 until CONNECT
	proxy          proxyState
	chargedWaiting bool   // charged is counted in Server.waiting
	holding        bool   // reading is paused; partial begins with the packet that must wait
	flooded        bool   // and with more PINGREQ than are answered at once
	counted        bool   // the admission counts it
	tidy           bool   // DISCONNECT came: no will
	persists       bool   // CONNECT asked for a Session Expiry Interval above 0
	isBridge       bool   // the protocol level has bridgeBit
	problems       bool   // Request Problem Information: reasons may be told
	quiet          bool   // what came last came alone: nothing came just before, or has come since
	holdsBack      bool   // messages with QoS 0 were held back when that was looked at last
	orphaned       bool   // the device is gone, and what it had sent is handled still
	handedID       uint16 // the packet identifier of handed
	willWait       uint32
	serial         uint32 // tells the connections of a server apart

	maxPacket   uint32 // the client's Maximum Packet Size
	sendMaximum uint16 // its Receive Maximum
	heard       atomic.Int64
	identity    atomic.Pointer[Identity] // nil until CONNECT was authenticated
	paused      atomic.Bool              // keep-alive spares it

	mu        sync.Mutex // guards all below
	keepAlive uint32     // seconds, 0: none
	slots     slots
	inFlight  int   // bytes of the messages in slots, and of those with QoS 0 that are held back
	lagging   int32 // how many those are
	taken     int32 // bytes taken from out, not yet written
	out       []byte
	tail      *tail        // nil: there is none
	flushed   uint64       // bytes written
	marks     []mark       // commands that are not yet written whole
	sent      *sentAliases // nil: the device takes none
	writing   bool         // somebody writes out to the socket
	stuck     bool         // and waits for the device to read
	starved   bool         // the outbox has more for out
	dirty     bool         // in the flusher's list
	wants     bool         // reading is paused until slots or bytes are free
	delayed   bool         // the pacer resumes the reading
	nudged    bool         // the read deadline was set to end a wait, not the connection
	parked    bool         // nobody reads
	// unparkable says that it could not be parked once. Only the reading goroutine writes it, under mu.
	unparkable bool
	ending     bool
	silent     bool // the last word is in out: no acknowledgement may follow
	// spareSince is the tick since which a message with QoS 0 waits for memory; 0: none does. Only the reading goroutine
	// writes it.
	spareSince int64
	end        *end
	cancel     func() // ends a wait of the reading goroutine
	wake       chan struct{}
}

// An end is what there is to know when a connection ends, or is about to. Most of its life there is none.
type end struct {
	refusal *ProtocolFault // of the first message that MQTT 3.1.1 has no answer for: the connection ends when slots is empty
	reason  error          // why it ends
	idle    chan struct{}  // closed when no slot waits, if somebody waits for that
	written chan struct{}  // closed when writing ends, if somebody waits for that
}

// ends gives what is known of the end, to be changed. Conn.mu is held.
func (c *Conn) ends() *end {
	if c.end == nil {
		c.end = new(end)
	}
	return c.end
}

// ClientID gives the client ID, assigned or chosen; "" before CONNECT was accepted.
func (c *Conn) ClientID() string {
	if c.session == nil {
		return ""
	}
	return c.session.clientID
}

// run handles the connection from its first byte until CONNECT was answered. What follows has a fresh goroutine, sooner
// or later: the stack that CONNECT made grow is not kept for the life of the connection.
func (c *Conn) run() {
	err := c.guard(c.readConnect)
	c.srv.admission.finished(c)
	if err != nil {
		c.finish(err)
		c.srv.conns.done(c)
		return
	}
	if !c.isQuiet() || !c.park() {
		go c.serve() // ends with the connection, or when that is parked
	}
}

// guard turns a panic in f into the end of this connection alone.
func (c *Conn) guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			c.srv.m.panics.Inc()
			c.srv.log.Error().Interface("panic", p).Stack().Str("client_id", c.ClientID()).Msg("recovered from a panic; the connection is closed")
			if c.handed != nil {
				c.session.forget(c.handedID, c.handed)
			}
			err = &ProtocolFault{UnspecifiedError, "internal error"}
		}
	}()
	return f()
}

// readConnect reads until CONNECT has been answered.
func (c *Conn) readConnect() error {
	deadline := time.Now().Add(c.srv.cfg.ConnectTimeout)
	if err := c.readUntil(deadline); err != nil {
		return err
	}
	if c.link != nil {
		if err := c.handshake(deadline); err != nil {
			return err
		}
	}
	if c.version == 0 { // CONNECT may have come with the last of a handshake
		if err := c.read(true); err != nil {
			return err
		}
	}
	return c.readUntil(time.Time{})
}

// readUntil sets the deadline of reading, under mu so that it can't undo a shutdown's.
func (c *Conn) readUntil(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending {
		return os.ErrDeadlineExceeded
	}
	c.nudged = false // the deadline that was set with it is no more
	return c.nc.SetReadDeadline(t)
}

// readAll reads until the end, or until the connection is parked. The beginning of a packet that came in one piece with
// CONNECT is in partial.
func (c *Conn) readAll() error {
	for {
		if err := c.read(false); err != errParked || c.park() {
			return err
		}
		c.quiet = false // it could not be parked
	}
}

// read feeds what the socket gives until CONNECT was handled, if connecting, or an error, which is errParked if a device
// that is quiet has nothing for us. The wait for bytes happens inside RawConn.Read
// with no buffer taken; returning false from its function waits for the next edge of readiness. That is safe
// only after EAGAIN. A read that did not fill the buffer is not enough: if bytes and the end of the stream
// arrive together they make one edge, and nobody would ever tell of the end.
func (c *Conn) read(connecting bool) (err error) {
	work := func(fd uintptr) bool {
		for {
			var more bool
			if more, err = c.readOnce(int(fd)); err != nil || connecting && c.version != 0 {
				return true
			}
			if !more {
				if !connecting && c.isQuiet() {
					err = errParked
				}
				return err != nil
			}
		}
	}
	for {
		waited := c.raw.Read(work)
		if err != nil || waited == nil {
			return err
		}
		if !errors.Is(waited, os.ErrDeadlineExceeded) || !c.awake() {
			return waited
		}
	}
}

// readOnce reads and handles one buffer of bytes; more says that the socket may hold more.
func (c *Conn) readOnce(fd int) (more bool, err error) {
	if c.holding {
		return c.readHeld(fd)
	}
	if c.isOver() {
		return false, c.link.over
	}
	n, err := c.readBytes(fd)
	switch {
	case err == errPause:
		c.pause()
		err = nil
	case errors.Is(err, syscall.EAGAIN):
		c.rates.queue.clear()
		return false, nil
	case err == nil && n == 0:
		return false, errHungUp
	}
	if c.answer() && err == nil {
		err = os.ErrDeadlineExceeded // a device that sends all the time would never meet the deadline
	}
	return true, err
}

// readBytes handles what one read of the socket gives: n bytes.
func (c *Conn) readBytes(fd int) (n int, err error) {
	buf := readBuffers.Get().(*[readBuffer]byte)
	if n, err = readFD(fd, buf[:]); n > 0 {
		now := time.Now()
		c.quiet = now.Sub(c.now) >= parkAfter
		c.now = now
		c.srv.m.bytesIn.Add(float64(n))
		err = c.arrived(buf[:n])
	}
	readBuffers.Put(buf)
	return n, err
}

// arrived handles bytes as they come from the socket: the PROXY header where one is due, then packets. Both share the
// time limit of CONNECT.
func (c *Conn) arrived(b []byte) error {
	if c.proxy == proxyDue {
		var err error
		if b, err = c.proxyHeader(b); err != nil {
			return err
		}
	}
	if c.link != nil {
		return c.unwrap(b, (*Conn).feed)
	}
	return c.feed(b)
}

const readBuffer = 16 << 10

var readBuffers = sync.Pool{New: func() any { return new([readBuffer]byte) }}

// shutdown makes the reading goroutine end the connection because of reason. The first reason stays.
func (c *Conn) shutdown(reason error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shutdownLocked(reason)
}

func (c *Conn) shutdownLocked(reason error) {
	if c.ending {
		return
	}
	c.ending = true
	c.ends().reason = reason
	c.wakeLocked()
	if c.cancel != nil {
		c.cancel()
	}
	_ = c.nc.SetReadDeadline(longAgo)
	c.unparkLocked()
}
