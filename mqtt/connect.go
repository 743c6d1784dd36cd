package mqtt

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"math"
	"os"
	"strings"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// connectParams is what a CONNECT says, checked.
type connectParams struct {
	clientID    string
	assigned    bool
	username    string
	clean       bool
	expiry      uint32
	keep        uint32 // keep-alive granted, seconds
	keepChanged bool   // it is not what the device asked for
	props       properties
	will        *Message
	willWait    uint32
}

// connect handles CONNECT and answers with CONNACK. An error ends the connection; the CONNACK that says so
// has been sent then.
func (c *Conn) connect(body []byte) error {
	p, err := c.decodeConnect(body)
	if err == nil {
		err = c.open(p)
	}
	if err != nil {
		c.refuse(err)
		return err
	}
	return nil
}

// refuse answers a CONNECT with the reason why not, and nothing where the specification has no answer.
func (c *Conn) refuse(err error) {
	var fault *ProtocolFault
	if !errors.As(err, &fault) {
		return
	}
	code := byte(fault.Code)
	if c.version < 5 {
		switch fault.Code {
		case UnsupportedProtocolVersion:
			code = packets.Err3UnsupportedProtocolVersion.Code
		case ClientIdentifierNotValid:
			code = packets.Err3ClientIdentifierNotValid.Code
		case ServerUnavailable, ServerBusy, ServerShuttingDown:
			code = packets.Err3ServerUnavailable.Code
		case NotAuthorized:
			code = packets.Err3NotAuthorized.Code
		default:
			return // [MQTT-3.1.4-1] of 3.1.1: close without CONNACK
		}
	}
	c.respond(connackPacket(c.version, false, code, packets.Properties{ReasonString: fault.Detail}), (*packets.Packet).ConnackEncode)
}

// decodeConnect reads and checks a CONNECT. Nothing of the result points into b: a password must not stay in
// memory as long as a client ID does.
func (c *Conn) decodeConnect(b []byte) (*connectParams, error) {
	if err := c.protocol(b); err != nil {
		return nil, err
	}
	p := &connectParams{}
	willProps := properties{}
	err := checkConnect(b, c.version, &p.props, &willProps)
	c.maxPacket = math.MaxUint32
	if p.props.maximumPacketLen > 0 {
		c.maxPacket = p.props.maximumPacketLen
	}
	c.sendMaximum = math.MaxUint16 // [MQTT-3.1.2-23] and MQTT 3.1.1 know no other bound
	if p.props.receiveMaximum > 0 {
		c.sendMaximum = int(p.props.receiveMaximum)
	}
	if err != nil {
		return nil, err
	}
	var pk packets.Packet
	pk.FixedHeader.Type = packets.Connect
	if err := pk.ConnectDecode(b); err != nil {
		return nil, malformed("%v", err)
	}
	if err := c.identify(p, &pk.Connect); err != nil {
		return nil, err
	}
	if p.props.has(propAuthMethod) {
		return nil, &ProtocolFault{BadAuthenticationMethod, "enhanced authentication is not offered"} // [MQTT-4.12.0-1]
	}
	if p.props.has(propAuthData) {
		return nil, violation("Authentication Data without an Authentication Method")
	}
	p.username = string(pk.Connect.Username)
	c.timing(p, &pk.Connect)
	return p, c.decodeWill(p, &pk.Connect, willProps)
}

// protocol checks name and level, and sets c.version as soon as an answer can be given in its form.
func (c *Conn) protocol(b []byte) error {
	r := cursor{b: b}
	name, level := string(r.binary()), r.byte()
	flags := r.byte()
	switch {
	case r.err != nil:
		return r.err
	case name == "MQIsdp" && level == 3:
		c.version = 4
		return &ProtocolFault{UnsupportedProtocolVersion, "MQTT 3.1 is not offered"}
	case name != "MQTT":
		return violation("protocol name is not MQTT") // [MQTT-3.1.2-1]
	case level == 5 || level == 4:
		c.version = level
	case level > 5:
		c.version = 5
		return &ProtocolFault{UnsupportedProtocolVersion, "only MQTT 3.1.1 and 5 are offered"} // [MQTT-3.1.2-2]
	default:
		c.version = 4
		return &ProtocolFault{UnsupportedProtocolVersion, "only MQTT 3.1.1 and 5 are offered"}
	}
	if err := checkConnectFlags(flags, c.version); err != nil {
		return err
	}
	if flags&0x20 != 0 && c.version == 5 && c.srv.cfg.Retained == nil {
		return &ProtocolFault{RetainNotSupported, "retained messages are not available"} // [MQTT-3.2.2-13]
	}
	return nil
}

// checkConnectFlags holds the Connect Flags to section 3.1.2.3.
func checkConnectFlags(flags, version byte) error {
	will, qos, retain := flags&4 != 0, flags>>3&3, flags&0x20 != 0
	switch {
	case flags&1 != 0:
		return malformed("the reserved Connect Flag is set") // [MQTT-3.1.2-3]
	case !will && (qos != 0 || retain):
		return malformed("will QoS or will retain without a will") // [MQTT-3.1.2-11] [MQTT-3.1.2-13]
	case qos == 3:
		return malformed("will QoS 3") // [MQTT-3.1.2-12]
	case version == 4 && flags&0xC0 == 0x40:
		return violation("a password without a user name") // [MQTT-3.1.2-22] of 3.1.1
	}
	return nil
}

// checkConnect walks a CONNECT to its last byte: properties that may stand there, once each, and nothing
// missing or left over. The mochi decoder checks neither.
func checkConnect(b []byte, version byte, props, will *properties) error {
	r := cursor{b: b[7:]}
	flags := r.byte()
	r.uint16()
	if version == 5 {
		r.properties(typeConnect, props)
	}
	r.string()
	if flags&4 != 0 {
		if version == 5 {
			r.properties(typeWill, will)
		}
		if topic := r.topicName(); len(topic) == 0 && r.err == nil {
			return &ProtocolFault{TopicNameInvalid, "empty will topic"}
		}
		r.binary()
	}
	if flags&0x80 != 0 {
		r.string()
	}
	if flags&0x40 != 0 {
		r.binary()
	}
	if len(r.b) > 0 && r.err == nil {
		r.fail("bytes after the end of CONNECT")
	}
	return r.err
}

// clientIDMax bounds a client ID, which is kept for the life of its session.
const clientIDMax = 1 << 10

// willPropertiesMax bounds the User Properties of a will, which is kept as long as its connection is idle.
const willPropertiesMax = 64

// identify takes the client ID or assigns one [MQTT-3.1.3-6] [MQTT-3.1.3-7].
func (c *Conn) identify(p *connectParams, pk *packets.ConnectParams) error {
	if len(pk.ClientIdentifier) > clientIDMax {
		return &ProtocolFault{ClientIdentifierNotValid, "longer than 1024 bytes"} // [MQTT-3.1.3-8]
	}
	p.clientID, p.clean = strings.Clone(pk.ClientIdentifier), pk.Clean // mochi's points into the packet
	if p.clientID != "" {
		return nil
	}
	if c.version == 4 && !p.clean {
		return &ProtocolFault{ClientIdentifierNotValid, "an empty client ID needs clean session 1"} // [MQTT-3.1.3-8] of 3.1.1
	}
	var id [10]byte
	if _, err := rand.Read(id[:]); err != nil {
		return &ProtocolFault{ServerUnavailable, "no random numbers"}
	}
	p.clientID, p.assigned = "auto-"+hex.EncodeToString(id[:]), true
	return nil
}

// timing settles the session expiry and the keep-alive.
func (c *Conn) timing(p *connectParams, pk *packets.ConnectParams) {
	p.keep = uint32(pk.Keepalive)
	if c.version < 5 {
		if !p.clean {
			p.expiry = c.srv.capExpiry(neverExpires)
		}
		return
	}
	p.expiry = c.srv.capExpiry(p.props.sessionExpiry)
	most := uint32(min(c.srv.cfg.KeepAliveMax.Seconds(), math.MaxUint16))
	if most > 0 && (p.keep == 0 || p.keep > most) {
		p.keep, p.keepChanged = most, true
	}
}

// decodeWill makes the Will Message, which is published when the connection ends without DISCONNECT.
func (c *Conn) decodeWill(p *connectParams, pk *packets.ConnectParams, props properties) error {
	if !pk.WillFlag {
		return nil
	}
	if len(props.user) > willPropertiesMax {
		return &ProtocolFault{QuotaExceeded, "more than 64 user properties in the will"}
	}
	m := &Message{props: props, Topic: []byte(pk.WillTopic), Payload: pk.WillPayload, QoS: pk.WillQos, Retain: pk.WillRetain, Will: true}
	m.takeProperties()
	m.ownMemory()
	m.ClientID, m.Username = p.clientID, p.username
	p.will, p.willWait = m, props.willDelay
	return nil
}

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
	c.username = p.username
	if c.session.keeper == nil {
		c.will, c.willWait = p.will, p.willWait
	}
	c.persists = p.props.sessionExpiry > 0
	c.problems = c.version == 5 && (!p.props.has(propRequestProblem) || p.props.requestProblem == 1)
	c.heard.Store(c.srv.tick.Load())
	c.since = time.Now()
	c.mu.Lock()
	c.keepAlive = p.keep
	c.mu.Unlock()
	c.srv.opened(c)
	connack.SessionPresent = present
	c.respond(connack, (*packets.Packet).ConnackEncode)
	if o := c.session.outbox.Load(); o != nil {
		o.attach(c)
	}
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
		if a.old == nil {
			if c.srv.cfg.Store != nil {
				return c.openStored(a.session, p)
			}
			c.own(a.session)
			a.replaced.end()
			if a.due != nil {
				c.srv.publishWill(a.due)
			}
			return a.present, nil
		}
		if st := c.srv.cfg.Store; st != nil && !st.Admits(p.clientID, p.username) {
			return false, &ProtocolFault{NotAuthorized, "the client ID is another user's"}
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
			c.srv.sessions.release(s)
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), c.srv.cfg.ConnectTimeout)
	defer cancel()
	if !c.cancelWith(cancel) {
		return false, os.ErrDeadlineExceeded
	}
	opened, err := c.srv.cfg.Store.Open(ctx, &Opening{
		Session: &Session{conn: c, session: s}, ClientID: p.clientID, Username: p.username, Clean: p.clean, Expiry: p.expiry,
		Will: p.will, WillDelay: p.willWait, Remote: c.RemoteAddr(), Version: versionName(c.version),
	})
	c.cancelWith(nil)
	if err != nil {
		var fault *ProtocolFault
		if !errors.As(err, &fault) {
			err = &ProtocolFault{ServerUnavailable, "the session can't be had now"}
		}
		return false, err
	}
	s.keeper = opened.Keeper
	s.restore(opened.State.Received)
	if opened.Keeper != nil && p.expiry > 0 {
		o := newOutbox(c.srv, s)
		o.keeper, o.durable = opened.Keeper, true
		o.restore(&opened.State)
		s.outbox.Store(o)
	}
	opening = false
	c.srv.sessions.opened(s)
	c.own(s)
	return opened.Present, nil
}

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
