package mqtt

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/mochi-mqtt/server/v2/packets"
)

// connectParams is what a CONNECT says, checked.
type connectParams struct {
	clientID    string
	assigned    bool
	login       *Login // points into the packet; nil once it has been looked at
	who         *Identity
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
func (c *Conn) connect(body []byte, padded bool) error {
	p, err := c.decodeConnect(body)
	if padded && c.version == 5 {
		err = errPadded
	}
	if err == nil {
		err = c.authenticate(p)
	}
	if err == nil {
		err = c.open(p)
	}
	if err != nil {
		return c.refuse(p, err)
	}
	return nil
}

// tooLargeConnect refuses a CONNECT by its beginning b, once that is there. It is given an answer in its version: a
// client that only sees the connection reset tries for ever and tells nobody why.
func (c *Conn) tooLargeConnect(b []byte) error {
	const beginning = 2 + len("MQIsdp") + 1 + 1 + 2 + 2 // up to the length of an MQTT 3.1 client ID
	if len(b) < beginning {
		return nil
	}
	err := c.protocol(b)
	if err == nil {
		err = errTooLarge
		r := cursor{b: b[c.protocolSize()+3:]}
		if c.version < 5 && r.uint16() > clientIDMax {
			err = errClientIDTooLong
		}
	}
	return c.refuse(nil, err)
}

// protocolSize is the length of protocol name and level in a CONNECT.
func (c *Conn) protocolSize() int {
	if c.version == 3 {
		return 2 + len("MQIsdp") + 1
	}
	return 2 + len("MQTT") + 1
}

// A refusedConnect is the end of a connection whose CONNECT was refused, with what the log is to say of it.
type refusedConnect struct {
	error
	clientID string // as it was sent; "" where it was not read so far
	code     Code
}

// Unwrap gives the reason.
func (r *refusedConnect) Unwrap() error { return r.error }

// refuse answers a CONNECT with the reason why not, and nothing where the specification has no answer. p is nil if it
// could not be read. It gives the error with which the connection ends.
func (c *Conn) refuse(p *connectParams, err error) error {
	var fault *ProtocolFault
	if !errors.As(err, &fault) {
		return err
	}
	refused := &refusedConnect{error: err, code: fault.Code}
	if p != nil {
		refused.clientID = p.clientID
	}
	if code, known := connackCode(fault.Code, c.version); known { // else [MQTT-3.1.4-1] of 3.1.1: close without CONNACK
		c.respond(connackPacket(c.version, false, code, packets.Properties{ReasonString: fault.Detail}), (*packets.Packet).ConnackEncode)
	}
	return refused
}

// connackCode gives the code that CONNACK has for a fault. MQTT 3.1.1 has five, and no answer for all else.
func connackCode(fault Code, version byte) (code byte, known bool) {
	if version == 5 {
		if fault == ServerShuttingDown { // is of DISCONNECT alone
			fault = ServerUnavailable
		}
		return byte(fault), true
	}
	switch fault {
	case UnsupportedProtocolVersion:
		return packets.Err3UnsupportedProtocolVersion.Code, true
	case ClientIdentifierNotValid:
		return packets.Err3ClientIdentifierNotValid.Code, true
	case ServerUnavailable, ServerBusy, ServerShuttingDown, QuotaExceeded, PacketTooLarge:
		return packets.Err3ServerUnavailable.Code, true
	case BadUserNameOrPassword:
		return packets.ErrMalformedUsernameOrPassword.Code, true
	case NotAuthorized, Banned:
		return packets.Err3NotAuthorized.Code, true
	}
	return 0, false
}

// decodeConnect reads and checks a CONNECT. Nothing of the result but login points into b: a password must not stay in
// memory as long as a client ID does.
func (c *Conn) decodeConnect(b []byte) (*connectParams, error) {
	if err := c.protocol(b); err != nil {
		return nil, err
	}
	p := &connectParams{props: c.properties()}
	willProps := c.properties()
	err := checkConnect(b[c.protocolSize():], c.version, &p.props, &willProps)
	c.maxPacket = math.MaxUint32
	if p.props.maximumPacketLen > 0 {
		c.maxPacket = p.props.maximumPacketLen
	}
	c.sendMaximum = math.MaxUint16 // [MQTT-3.1.2-23] and MQTT 3.1.1 know no other bound
	if p.props.receiveMaximum > 0 {
		c.sendMaximum = p.props.receiveMaximum
	}
	if err != nil {
		return nil, err
	}
	c.sent = newSentAliases(p.props.topicAliasMax)
	var pk packets.Packet
	pk.FixedHeader.Type = packets.Connect
	if c.isBridge { // mochi takes the level as it is
		b = bytes.Clone(b)
		b[c.protocolSize()-1] = c.version
	}
	if err := pk.ConnectDecode(b); err != nil {
		return nil, malformed("%v", err)
	}
	if err := c.identify(p, &pk.Connect); err != nil {
		return nil, err
	}
	if p.login, err = c.decodeLogin(p, &pk.Connect); err != nil {
		return nil, err
	}
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
	case name != "MQTT" && name != "MQIsdp":
		return violation("protocol name is neither MQTT nor MQIsdp") // [MQTT-3.1.2-1]
	case name == "MQIsdp" && level&^bridgeBit == 3, name == "MQTT" && (level&^bridgeBit == 4 || level&^bridgeBit == 5):
		c.version, c.isBridge = level&^bridgeBit, level&bridgeBit != 0
	case name == "MQTT" && level > 5 && level < bridgeBit: // a version to come, whose CONNACK has more in common with that of 5
		c.version = 5
		return unsupported(name, level)
	default:
		c.version = 4 // CONNACK of 3.1 is the same
		return unsupported(name, level)
	}
	if err := checkConnectFlags(flags, c.version); err != nil {
		return err
	}
	if flags&0x20 != 0 && c.version == 5 && c.srv.cfg.Retained == nil {
		return &ProtocolFault{RetainNotSupported, "retained messages are not available"} // [MQTT-3.2.2-13]
	}
	return nil
}

// bridgeBit is set in the protocol level by bridges between brokers, Mosquitto's for one. They don't want back what they
// sent, and want to know what is retained.
const bridgeBit = 0x80

// unsupported refuses a protocol level [MQTT-3.1.2-2].
func unsupported(name string, level byte) error {
	return &ProtocolFault{UnsupportedProtocolVersion, fmt.Sprintf("%s at level %d; only MQTT 3.1, 3.1.1 and 5 are offered", name, level)}
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

// checkConnect walks a CONNECT from behind the protocol level to its last byte: properties that may stand there, once each, and nothing
// missing or left over. The mochi decoder checks neither.
func checkConnect(b []byte, version byte, props, will *properties) error {
	r := cursor{b: b}
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

// errClientIDTooLong refuses a client ID [MQTT-3.1.3-8].
var errClientIDTooLong = &ProtocolFault{ClientIdentifierNotValid, "a client ID of more than 1024 bytes"}

// identify takes the client ID or assigns one [MQTT-3.1.3-6] [MQTT-3.1.3-7].
func (c *Conn) identify(p *connectParams, pk *packets.ConnectParams) error {
	if len(pk.ClientIdentifier) > clientIDMax {
		return errClientIDTooLong
	}
	p.clientID, p.clean = strings.Clone(pk.ClientIdentifier), pk.Clean // mochi's points into the packet
	if p.clientID != "" {
		return nil
	}
	if c.version == 3 {
		return &ProtocolFault{ClientIdentifierNotValid, "MQTT 3.1 needs a client ID"}
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
	if !pk.WillFlag || isBridgeState([]byte(pk.WillTopic)) {
		return nil
	}
	if c.tooDeep([]byte(pk.WillTopic)) {
		c.srv.limits.levels.Inc()
		return &ProtocolFault{TopicNameInvalid, "more levels in the will topic than allowed"}
	}
	m := &Message{props: props, Topic: []byte(pk.WillTopic), Payload: pk.WillPayload, QoS: pk.WillQos, Retain: pk.WillRetain, Will: true}
	m.takeProperties()
	m.ownMemory()
	m.ClientID = p.clientID
	p.will, p.willWait = m, props.willDelay
	return nil
}
