package mqtt

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/rs/zerolog"
)

// finish ends the connection: DISCONNECT with the reason, will, session, close. err is why reading ended.
func (c *Conn) finish(err error) {
	c.endPause()
	c.leaveTurn()
	stopped := false // by somebody else, so that what the device has said last may be unread
	c.mu.Lock()
	if c.ending {
		stopped = errors.Is(err, os.ErrDeadlineExceeded)
		err = c.end.reason
	}
	c.ending = true
	c.mu.Unlock()
	var fault *ProtocolFault
	stops := errors.As(err, &fault) && fault.Code == ServerShuttingDown
	if stops {
		c.awaitSettled()
	}
	if stopped {
		held := c.whole(c.partial) != nil // of a pause
		farewell := held || fault != nil || errors.Is(err, errSlowReader)
		rest := c.guard(func() error { return c.readRest(farewell) })
		c.leaveTurn()
		if !farewell && rest != nil {
			err = rest
		}
	}
	c.lastWord(fault)
	c.sayFarewell(err)
	if c.session != nil {
		c.leave(err)
	}
	switch whole := c.awaitWritten(); {
	case errors.Is(err, errSlowReader), !whole && fault != nil && !stops:
		// A FIN would wait behind what the device does not read, and the kernel would keep the socket for minutes. It may when
		// the device ends the connection, or we stop: there are acknowledgements for one with a slow link.
		_ = c.nc.SetLinger(0)
	case (fault != nil && c.version != 0 || c.awaitsClose()) && c.nc.CloseWrite() == nil:
		c.linger()
	}
	c.srv.lot.leave(c)
	_ = c.nc.Close()
	c.srv.admission.leave(c)
	c.forget()
	c.srv.extra.give(c.aliases.counted())
	c.forgetRecords()
	c.aliases = nil
	c.srv.ended(c, err)
}

// forget lets go of what was read, since somebody may hold c for long.
func (c *Conn) forget() {
	if c.session != nil {
		for p := c.whole(c.partial); p != nil; p = c.whole(c.partial) {
			c.leaveOut(p)
			c.partial = c.partial[len(p):]
		}
	}
	c.partial = nil
	if c.link != nil && c.link.tls != nil {
		c.link.tls.Forget()
	}
	c.charge(0)
}

// readRest reads what a device has sent before it closed, when reading was stopped by others: a device that says DISCONNECT
// and closes, and perhaps connects again at once, may be faster than we who read its connection, and is not to be taken for
// one that was lost. If it was stopped because nothing can be written any more, all is handled as if that were not known yet;
// else, farewell, only a DISCONNECT counts.
func (c *Conn) readRest(farewell bool) (err error) {
	if c.session == nil || c.nc.SetReadDeadline(time.Time{}) != nil {
		return nil
	}
	_ = c.raw.Read(func(fd uintptr) bool {
		if !isGone(int(fd)) {
			return true
		}
		if !farewell {
			err = c.handleRest(int(fd))
		}
		if farewell || err == errPause {
			err = c.leaveUnread(int(fd))
		}
		return true
	})
	return err
}

// handleRest handles what is in the socket of a device that is gone.
func (c *Conn) handleRest(fd int) error {
	for !c.isOver() {
		if n, err := c.readBytes(fd); n <= 0 {
			break
		} else if err != nil {
			return err
		}
	}
	return errHungUp
}

// lastWord sends the acknowledgements whose turn has come, then DISCONNECT, and nothing after it
// [MQTT-3.14.4-1].
func (c *Conn) lastWord(fault *ProtocolFault) {
	c.mu.Lock()
	c.drain()
	c.silent = true
	c.mu.Unlock()
	if fault != nil && c.session != nil {
		c.sendDisconnect(fault)
	}
	c.flush()
}

// leave gives the session back and publishes the will, at once or by the session's sweep.
func (c *Conn) leave(err error) {
	c.leaveCommands()
	if c.session.keeper != nil {
		c.leaveKept(err)
		return
	}
	if c.srv.cfg.Store != nil {
		c.srv.sessions.setExpiry(c.session, 0) // the Store gave it no Keeper: nobody has it after this
	}
	will := c.will
	c.will = nil
	if c.tidy {
		will = nil
	}
	if will != nil && (c.willWait == 0 || c.srv.sessions.expiryOf(c.session) == 0) {
		// Before the session is free: a newcomer with the client ID must not be heard first.
		c.srv.publishWill(will)
		will = nil
	}
	due, ended := c.srv.sessions.detach(c.session, will, c.willWait)
	if ended {
		c.session.end(c.srv)
	}
	if due != nil {
		c.srv.publishWill(due)
	}
}

// leaveKept gives the session back to its Keeper, who publishes the will too. A newcomer with the client ID is let in
// after that.
func (c *Conn) leaveKept(err error) {
	s := c.session
	l := &Leaving{Tidy: c.tidy, Expiry: c.srv.sessions.expiryOf(s), Reason: reasonOf(err), Session: &Session{conn: c, session: s}}
	switch o := s.outbox.Load(); {
	case o == nil:
	case o.durable && l.Expiry > 0:
		l.State = o.part()
	default:
		l.State = o.end()
	}
	l.State.Met = append(l.State.Met, s.leave()...)
	s.uncount(c.srv)
	s.keeper.Left(l)
	c.srv.sessions.release(s)
}

// leaveCommands gives the commands back that this connection has not completed. Those with QoS 0 that the
// network did not take are over. If somebody is writing, nobody knows yet what it takes, and one of a share must not go to
// another member: it could come twice.
func (c *Conn) leaveCommands() {
	o := c.session.outbox.Load()
	if o == nil {
		return
	}
	o.detach()
	c.mu.Lock()
	marks, writing := c.marks, c.writing
	c.marks = nil
	c.mu.Unlock()
	for _, m := range marks {
		if m.qos > 0 {
			continue
		}
		reason := reasonNotSent
		if writing && isTurn(m.cmd) {
			reason = reasonNotAnswered
		}
		c.srv.report(c.session.clientID, []settlement{{delivery: m.delivery, fate: Offline, reason: reason}})
	}
}

// awaitWritten gives a goroutine that is writing a moment to write our last word too, and says whether all is written.
func (c *Conn) awaitWritten() bool {
	c.mu.Lock()
	if !c.writing {
		c.mu.Unlock()
		return true
	}
	written := make(chan struct{})
	c.ends().written = written
	c.mu.Unlock()
	select {
	case <-written:
		return true
	case <-time.After(lingerTime):
		return false
	}
}

// linger reads on for a moment after our last word: closing a socket with unread bytes resets it, and the
// reset can overtake the DISCONNECT that says why.
func (c *Conn) linger() {
	_ = c.nc.SetReadDeadline(time.Now().Add(lingerTime))
	buf := readBuffers.Get().(*[readBuffer]byte)
	defer readBuffers.Put(buf)
	for range 8 {
		if _, err := io.ReadFull(c.nc, buf[:]); err != nil {
			return
		}
	}
}

const lingerTime = 500 * time.Millisecond

// awaitSettled waits until every message of the connection has its outcome, or the server's patience ends.
func (c *Conn) awaitSettled() {
	idle := make(chan struct{})
	c.mu.Lock()
	c.ends().idle = idle
	c.drain() // closes it if there is nothing to wait for
	c.mu.Unlock()
	select {
	case <-idle:
	case <-c.srv.patience:
	}
}

// ended counts and logs the end of a connection.
func (s *Server) ended(c *Conn, err error) {
	reason := reasonOf(err)
	if c.isHealthCheck() {
		reason = "health check"
	}
	s.m.disconnects.WithLabelValues(reason).Inc()
	if errors.Is(err, errUserProperties) {
		s.limits.properties.Inc()
	}
	if c.session != nil {
		s.m.connections.WithLabelValues(versionName(c.version)).Dec()
	}
	level := zerolog.InfoLevel
	if c.isHealthCheck() || c.isProbe(err) { // every few seconds, from each load balancer
		level = zerolog.DebugLevel
	}
	line := s.lines.WithLevel(level).Stringer("remote", c.RemoteAddr()).Str("reason", reason)
	if c.session != nil {
		line = line.Str("client_id", c.session.clientID).Str("mqtt", versionName(c.version)).Stringer("after", (time.Since(clockStart) - c.since).Round(time.Millisecond))
	}
	var fault *ProtocolFault
	if errors.As(err, &fault) {
		line = line.Str("detail", fault.Detail)
	} else if slices.ContainsFunc(errsOfLayers, func(layer error) bool { return errors.Is(err, layer) }) {
		line = line.AnErr("detail", err)
	}
	if none := (*noSession)(nil); errors.As(err, &none) {
		line = line.AnErr("error", none.error)
	}
	if refused := (*refusedConnect)(nil); errors.As(err, &refused) {
		if c.version != 0 && refused.code != UnsupportedProtocolVersion { // else it is one that is not spoken here
			line = line.Str("mqtt", versionName(c.version))
		}
		line.Str("client_id", refused.clientID).Str("code", fmt.Sprintf("0x%02X", byte(refused.code))).Msg("device refused")
		return
	}
	line.Msg("device disconnected")
}

// errsOfLayers are the ends of connections that are no MQTT; what they wrap says why.
var errsOfLayers = []error{errNotProxy, errProxyHeader, errNoTLS, errNoWebSocket, errTLSRecord, errFrame}

// reasonOf names the end of a connection with one of a bounded set of words.
func reasonOf(err error) string {
	var fault *ProtocolFault
	var goodbye errGoodbye
	switch {
	case errors.As(err, &fault):
		return fault.Code.String()
	case errors.As(err, &goodbye):
		if goodbye.code == Success {
			return "normal disconnection"
		}
		return "disconnect with a reason code of the device"
	case errors.Is(err, errNotProxy):
		return "not a trusted proxy"
	case errors.Is(err, errProxyHeader):
		return "no PROXY protocol header"
	case errors.Is(err, errNoTLS):
		return "no TLS handshake"
	case errors.Is(err, errNoWebSocket):
		return "no WebSocket handshake"
	case errors.Is(err, errTLSRecord):
		return "bad TLS record"
	case errors.Is(err, errFrame):
		return "bad WebSocket frame"
	case errors.Is(err, errCrowded):
		return "too many connections of the address"
	case errors.Is(err, errSlowReader):
		return "slow reader"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "connect timeout"
	}
	return "connection lost"
}
