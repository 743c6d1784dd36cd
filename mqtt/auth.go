package mqtt

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// decodeLogin takes what a CONNECT says of who the device is.
func (c *Conn) decodeLogin(p *connectParams, pk *packets.ConnectParams) (*Login, error) {
	switch method := p.props.has(propAuthMethod); {
	case p.props.has(propAuthData) && !method:
		return nil, violation("Authentication Data without an Authentication Method")
	case method && len(p.props.authMethod) == 0: // would look like none
		return nil, errNoSuchMethod
	}
	return &Login{
		ClientID: p.clientID, Certificate: c.Certificate(), Remote: c.RemoteAddr(),
		Username: string(pk.Username), HasUsername: pk.UsernameFlag,
		Password: pk.Password, HasPassword: pk.PasswordFlag,
		Method: string(p.props.authMethod), Data: p.props.authData,
	}, nil
}

// errNoSuchMethod refuses an enhanced authentication that is not offered [MQTT-4.12.0-1].
var errNoSuchMethod = &ProtocolFault{BadAuthenticationMethod, "this enhanced authentication is not offered"}

// authenticate finds out who says CONNECT. Until then nothing is done in the name of anybody: no older connection ends,
// no session is looked at.
func (c *Conn) authenticate(p *connectParams) error {
	l := p.login
	p.login = nil
	who, err := c.identityOf(l)
	if err != nil {
		return err
	}
	if m := p.will; m != nil {
		m.Username, m.identity = who.Name, who
		if !who.mayWill(m) {
			c.srv.m.denied.will.Inc()
			return &ProtocolFault{NotAuthorized, "the will is not allowed"}
		}
	}
	if p.who = who; l.Method != "" {
		method := l.Method // and not all of l
		c.method = &method
	}
	c.identity.Store(who)
	return nil
}

// identityOf asks the Authenticator.
func (c *Conn) identityOf(l *Login) (*Identity, error) {
	a := c.srv.cfg.Authenticator
	if a == nil {
		return l.Believed()
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.srv.cfg.ConnectTimeout)
	defer cancel()
	if !c.cancelWith(cancel) {
		return nil, os.ErrDeadlineExceeded
	}
	who, err := a.Authenticate(ctx, l)
	if !c.cancelWith(nil) {
		return nil, &ProtocolFault{ServerUnavailable, "the connection is to end"}
	}
	return verdict(who, err)
}

// Believed takes a device for who it says it is, and its certificate for what was proven. It refuses any enhanced
// authentication.
func (l *Login) Believed() (*Identity, error) {
	if l.Method != "" {
		return nil, errNoSuchMethod
	}
	if l.Username == "" && l.Certificate == nil {
		return unnamed, nil
	}
	i := &Identity{Name: l.Username}
	if l.Certificate != nil {
		i.CommonName, i.Until, i.Withdrawn = l.Certificate.CommonName, l.Certificate.NotAfter, l.Certificate.Revoked
	}
	return i, nil
}

// unnamed is who a device is that says nothing of itself. Most devices of an installation without users share it.
var unnamed = &Identity{}

// verdict lets a device in only if the Authenticator said so without a doubt.
func verdict(who *Identity, err error) (*Identity, error) {
	var fault *ProtocolFault
	switch {
	case err == nil && who != nil && who.expired(time.Now()):
		return nil, errExpired
	case err == nil && who != nil:
		return who, nil
	case errors.As(err, &fault) && fault.Code >= 0x80:
		return nil, fault
	}
	return nil, &ProtocolFault{ServerUnavailable, "who the device is can't be found out now"}
}

// errExpired ends a connection whose credentials were good until now.
var errExpired = &ProtocolFault{NotAuthorized, "the credentials have expired"}

// expired says that the credentials are over.
func (i *Identity) expired(now time.Time) bool { return !i.Until.IsZero() && !now.Before(i.Until) }

// errWithdrawn ends a connection whose credentials were taken back.
var errWithdrawn = &ProtocolFault{NotAuthorized, "the credentials were withdrawn"}

// over says why the identity may not stay; nil: it may.
func (i *Identity) over(now time.Time) error {
	switch {
	case i.expired(now):
		return errExpired
	case i.Withdrawn != nil && i.Withdrawn():
		return errWithdrawn
	}
	return nil
}

// reauthenticate answers AUTH, by which a device shows new credentials (section 4.12.1).
func (c *Conn) reauthenticate(body []byte) error {
	p, err := c.decodeAuth(body)
	if err != nil {
		return err
	}
	c.countFilters(reauthenticationCost)
	c.paused.Store(true) // what the device sends meanwhile waits: it must not be taken for silent
	who, err := c.identityOf(&Login{
		ClientID: c.session.clientID, Certificate: c.Certificate(), Remote: c.RemoteAddr(),
		Method: *c.method, Data: p.authData, Again: c.identity.Load(),
	})
	c.heard.Store(c.srv.tick.Load())
	c.paused.Store(false)
	if err != nil {
		return disconnectFault(err)
	}
	if who.Name != c.identity.Load().Name {
		return &ProtocolFault{NotAuthorized, "another user than before"}
	}
	c.identity.Store(who)
	if o := c.session.outbox.Load(); o != nil {
		o.review(who)
	}
	pk := c.newPacket(packets.Auth)
	pk.Properties.AuthenticationMethod = *c.method
	c.respond(pk, (*packets.Packet).AuthEncode)
	return nil
}

// reauthenticationCost is what a proof costs, in topic filters: ten a second.
const reauthenticationCost = 10

// decodeAuth holds an AUTH to section 3.15. We never ask to continue, so there is one that a device may send: that which
// begins anew, with the method of its CONNECT [MQTT-4.12.1-1].
func (c *Conn) decodeAuth(body []byte) (p properties, err error) {
	if c.method == nil {
		return p, violation("AUTH without an Authentication Method in CONNECT") // [MQTT-4.12.0-7]
	}
	r := cursor{b: body}
	code := Success // if there is no more [MQTT-3.15.2-1]
	if len(r.b) > 0 {
		code = Code(r.byte())
	}
	if len(r.b) > 0 {
		r.properties(typeAuth, &p)
	}
	if len(r.b) > 0 && r.err == nil {
		r.fail("bytes after the end of the packet")
	}
	switch {
	case r.err != nil:
		return p, r.err
	case code != ReAuthenticate:
		return p, violation("AUTH that does not begin a re-authentication")
	case string(p.authMethod) != *c.method:
		return p, violation("another Authentication Method than in CONNECT")
	}
	return p, nil
}

// disconnectFault gives a fault that is for CONNACK a code that DISCONNECT may have (section 3.14.2.1).
func disconnectFault(err error) error {
	var fault *ProtocolFault
	if !errors.As(err, &fault) {
		return err
	}
	switch fault.Code {
	case BadUserNameOrPassword, Banned, BadAuthenticationMethod, ClientIdentifierNotValid:
		return &ProtocolFault{NotAuthorized, fault.Detail}
	case ServerUnavailable:
		return &ProtocolFault{ServerBusy, fault.Detail}
	}
	return fault
}
