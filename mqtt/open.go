package mqtt

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// open takes the session, from another connection if need be, and says CONNACK.
func (c *Conn) open(p *connectParams) error {
	connack := connackPacket(c.version, false, 0, c.offer(p))
	if _, err := c.encode(connack, (*packets.Packet).ConnackEncode); err != nil {
		return errNoConnack // before anything is taken
	}
	present, err := c.attach(p)
	if err != nil {
		return err
	}
	if c.session.keeper == nil {
		c.will, c.willWait = p.will, p.willWait
	}
	c.persists = p.props.sessionExpiry > 0
	c.problems = c.version == 5 && (!p.props.has(propRequestProblem) || p.props.requestProblem == 1)
	c.heard.Store(c.srv.tick.Load())
	c.since = time.Since(clockStart)
	c.mu.Lock()
	c.keepAlive = p.keep
	c.mu.Unlock()
	c.srv.opened(c)
	connack.SessionPresent = present
	c.respondAnd(connack, (*packets.Packet).ConnackEncode, func() { // or a command for connected devices that comes at once is told of as too early
		if o := c.session.outbox.Load(); o != nil {
			o.attach(c)
		}
	})
	return nil
}

// errNoConnack ends a connection without an answer, since the answer can't be sent.
var errNoConnack = errors.New("the CONNACK is larger than the client's Maximum Packet Size")

// attach makes this the connection of its client ID; the one before is told and waited for, so that its
// messages come before ours [MQTT-3.1.4-3].
func (c *Conn) attach(p *connectParams) (present bool, err error) {
	deadline := time.NewTimer(c.srv.cfg.ConnectTimeout)
	defer deadline.Stop()
	for {
		a := c.srv.sessions.attach(c, p.clientID, p.clean, p.expiry)
		if a.full {
			c.srv.limits.sessions.Inc()
			return false, &ProtocolFault{QuotaExceeded, "no more sessions are kept"}
		}
		if a.foreign {
			return false, errForeign
		}
		if a.old == nil {
			if c.srv.cfg.Store != nil {
				return c.openStored(a.session, p)
			}
			c.own(a.session)
			a.replaced.end(c.srv)
			if a.due != nil {
				c.srv.publishWill(a.due)
			}
			return a.present, nil
		}
		if st := c.srv.cfg.Store; st != nil && !st.Admits(p.clientID, p.who.Name) {
			return false, errForeign
		}
		if !a.opening { // or of many who connect at once each would end the one before, and none get its session
			a.old.shutdown(&ProtocolFault{SessionTakenOver, "the client ID connected again"})
		}
		select {
		case <-a.gone:
		case <-deadline.C:
			return false, &ProtocolFault{ServerBusy, "the older connection of this client ID does not end"}
		case <-c.srv.patience:
			return false, &ProtocolFault{ServerShuttingDown, "the server stops"}
		}
	}
}

// errForeign refuses a client ID, so that nobody gets the messages of somebody else.
var errForeign = &ProtocolFault{NotAuthorized, "the client ID is another user's"}

// own makes s the session of this connection.
func (c *Conn) own(s *session) {
	c.mu.Lock()
	c.session = s
	c.mu.Unlock()
}

// openStored gets the session from the Store. It has the client ID in this process already.
func (c *Conn) openStored(s *session, p *connectParams) (present bool, err error) {
	opening := true
	defer func() {
		if opening { // also after a panic, or nobody could connect with the client ID any more
			s.leave()
			s.uncount(c.srv)
			c.srv.sessions.release(s)
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), c.srv.cfg.ConnectTimeout)
	defer cancel()
	if !c.cancelWith(cancel) {
		return false, os.ErrDeadlineExceeded
	}
	opened, err := c.srv.cfg.Store.Open(ctx, &Opening{
		Session: &Session{conn: c, session: s}, ClientID: p.clientID, Username: p.who.Name, Clean: p.clean, Expiry: p.expiry,
		Will: p.will, WillDelay: p.willWait, Remote: c.RemoteAddr(), Version: versionName(c.version),
	})
	c.cancelWith(nil)
	if err != nil {
		var fault *ProtocolFault
		if !errors.As(err, &fault) {
			err = &noSession{err}
		}
		return false, err
	}
	s.keeper = opened.Keeper
	s.restore(opened.State.Received, c.srv)
	s.restoreFloor(opened.State.Subscriptions)
	durable := opened.Keeper != nil && (p.expiry > 0 || opened.Present) // what was stored is there until the connection ends
	if durable || opened.State.Past != nil || opened.State.Before != nil {
		o := newOutbox(c.srv, s)
		if durable {
			o.keeper, o.durable = opened.Keeper, true
		}
		o.restore(&opened.State)
		s.outbox.Store(o)
	}
	opening = false
	c.srv.sessions.opened(s)
	c.own(s)
	return opened.Present, nil
}

// A noSession is why the Store gave no session: for the log, the device is told that there is none.
type noSession struct{ error }

var errNoSession = &ProtocolFault{ServerUnavailable, "the session can't be had now"}

// Unwrap gives the fault.
func (*noSession) Unwrap() error { return errNoSession }

// cancelWith has cancel called when the connection is to end; false: it is to end already.
func (c *Conn) cancelWith(cancel func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cancel = cancel
	return !c.ending
}

// offer gives the properties of CONNACK: what differs from the specification's defaults, and nothing that
// is not offered.
func (c *Conn) offer(p *connectParams) packets.Properties {
	cfg := &c.srv.cfg
	o := packets.Properties{
		ReceiveMaximum:      uint16(cfg.ReceiveMaximum),
		MaximumPacketSize:   uint32(cfg.MaxPacketSize),
		TopicAliasMaximum:   uint16(cfg.TopicAliasMaximum),
		RetainAvailableFlag: cfg.Retained == nil, // 0 then
		SharedSubAvailable:  0, SharedSubAvailableFlag: true,
	}
	if cfg.Shares != nil {
		o.SharedSubAvailable = 1
	}
	if c.method != nil {
		o.AuthenticationMethod = *c.method
	}
	if p.assigned {
		o.AssignedClientID = p.clientID
	}
	if p.expiry != p.props.sessionExpiry {
		o.SessionExpiryInterval, o.SessionExpiryIntervalFlag = p.expiry, true
	}
	if p.keepChanged {
		o.ServerKeepAlive, o.ServerKeepAliveFlag = uint16(p.keep), true
	}
	return o
}
