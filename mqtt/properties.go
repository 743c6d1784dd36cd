package mqtt

// A Property is an MQTT 5 User Property. The slices belong to the packet or message it came with.
type Property struct{ Key, Value []byte }

// A PayloadFormat is the Payload Format Indicator (section 3.3.2.3.2), passed on as it came [MQTT-3.3.2-4].
type PayloadFormat uint8

// The payload formats.
const (
	FormatAbsent PayloadFormat = iota
	FormatBytes                // 0: unspecified bytes, the same as absent
	FormatText                 // 1: UTF-8, as the sender says
)

// The identifiers of the properties (section 2.2.2.2) a client may send.
const (
	propPayloadFormat    = 0x01
	propMessageExpiry    = 0x02
	propContentType      = 0x03
	propResponseTopic    = 0x08
	propCorrelationData  = 0x09
	propSubscriptionID   = 0x0B
	propSessionExpiry    = 0x11
	propAuthMethod       = 0x15
	propAuthData         = 0x16
	propRequestProblem   = 0x17
	propWillDelay        = 0x18
	propRequestResponse  = 0x19
	propReasonString     = 0x1F
	propReceiveMaximum   = 0x21
	propTopicAliasMax    = 0x22
	propTopicAlias       = 0x23
	propUser             = 0x26
	propMaximumPacketLen = 0x27
)

// typeWill stands for the will's properties inside CONNECT, which have a set of their own.
const typeWill = 0

// allowed[id] has a bit for each packet type in which the property may stand (table 2-4).
var allowed = [64]uint16{
	propPayloadFormat:    1<<typePublish | 1<<typeWill,
	propMessageExpiry:    1<<typePublish | 1<<typeWill,
	propContentType:      1<<typePublish | 1<<typeWill,
	propResponseTopic:    1<<typePublish | 1<<typeWill,
	propCorrelationData:  1<<typePublish | 1<<typeWill,
	propSubscriptionID:   1 << typeSubscribe,
	propSessionExpiry:    1<<typeConnect | 1<<typeDisconnect,
	propAuthMethod:       1<<typeConnect | 1<<typeAuth,
	propAuthData:         1<<typeConnect | 1<<typeAuth,
	propRequestProblem:   1 << typeConnect,
	propWillDelay:        1 << typeWill,
	propRequestResponse:  1 << typeConnect,
	propReasonString:     1<<typePuback | 1<<typePubrec | 1<<typePubrel | 1<<typePubcomp | 1<<typeDisconnect | 1<<typeAuth,
	propReceiveMaximum:   1 << typeConnect,
	propTopicAliasMax:    1 << typeConnect,
	propTopicAlias:       1 << typePublish,
	propMaximumPacketLen: 1 << typeConnect,
	propUser: 1<<typeConnect | 1<<typeWill | 1<<typePublish | 1<<typePuback | 1<<typePubrec | 1<<typePubrel |
		1<<typePubcomp | 1<<typeSubscribe | 1<<typeUnsubscribe | 1<<typeDisconnect | 1<<typeAuth,
}

// properties holds what a client's packet may carry. seen has a bit for each identifier that was there.
type properties struct {
	seen uint64

	contentType, responseTopic, correlationData []byte
	authMethod, authData                        []byte

	messageExpiry, sessionExpiry, willDelay, maximumPacketLen uint32
	receiveMaximum, topicAliasMax, topicAlias                 uint16
	payloadFormat, requestProblem, requestResponse            byte

	subscriptionID int
	user           []Property // appended to, so that the caller may bring a buffer
	userMost       int        // as many user may hold; 0: any number
}

// errUserProperties ends a connection whose packet has too many User Properties: each costs far more than its five bytes.
var errUserProperties = &ProtocolFault{QuotaExceeded, "more user properties in a packet than allowed"}

// properties gives the empty properties of a packet of c.
func (c *Conn) properties() properties { return properties{userMost: c.srv.cfg.UserProperties} }

func (p *properties) has(id byte) bool { return p.seen&(1<<id) != 0 }

// properties reads a property section of a packet of type kind, and holds it to the specification: known
// identifiers, in this packet, once [MQTT-2.2.2-2].
func (c *cursor) properties(kind int, p *properties) {
	section := cursor{b: c.take(c.varint())}
	if c.err != nil {
		return
	}
	for len(section.b) > 0 && section.err == nil {
		id := section.varint()
		if kind == typePublish && id == propSubscriptionID {
			section.err = violation("a Subscription Identifier from a device") // [MQTT-3.3.4-6]
			break
		}
		if id >= len(allowed) || allowed[id]&(1<<kind) == 0 {
			section.fail("property 0x%02X has no place here", id)
			break
		}
		if id != propUser && p.has(byte(id)) {
			section.err = violation("property 0x%02X stands twice", id)
			break
		}
		p.seen |= 1 << id
		section.property(id, p)
	}
	if section.err != nil && c.err == nil {
		c.err = section.err
		c.b = nil
	}
}

func (c *cursor) property(id int, p *properties) {
	switch id {
	case propPayloadFormat:
		p.payloadFormat = c.flag()
	case propMessageExpiry:
		p.messageExpiry = c.uint32()
	case propContentType:
		p.contentType = c.string()
	case propResponseTopic:
		p.responseTopic = c.topicName()
	case propCorrelationData:
		p.correlationData = c.binary()
	case propUser:
		if p.userMost > 0 && len(p.user) >= p.userMost {
			c.err = errUserProperties
			return
		}
		key := c.string()
		p.user = append(p.user, Property{key, c.string()})
	case propTopicAlias:
		p.topicAlias = c.uint16()
	case propSubscriptionID:
		p.subscriptionID = int(c.notZero(uint32(c.varint())))
	case propReasonString:
		c.string()
	default:
		c.connectProperty(id, p)
	}
}

func (c *cursor) connectProperty(id int, p *properties) {
	switch id {
	case propSessionExpiry:
		p.sessionExpiry = c.uint32()
	case propWillDelay:
		p.willDelay = c.uint32()
	case propReceiveMaximum:
		p.receiveMaximum = uint16(c.notZero(uint32(c.uint16())))
	case propMaximumPacketLen:
		p.maximumPacketLen = c.notZero(c.uint32())
	case propTopicAliasMax:
		p.topicAliasMax = c.uint16()
	case propRequestProblem:
		p.requestProblem = c.flag()
	case propRequestResponse:
		p.requestResponse = c.flag()
	case propAuthMethod:
		p.authMethod = c.string()
	case propAuthData:
		p.authData = c.binary()
	}
}

// flag reads a byte that may only be 0 or 1.
func (c *cursor) flag() byte {
	v := c.byte()
	if v > 1 && c.err == nil {
		c.err = violation("a property of 0 or 1 is %d", v)
	}
	return v
}

func (c *cursor) notZero(v uint32) uint32 {
	if v == 0 && c.err == nil {
		c.err = violation("a property that may not be 0 is 0")
	}
	return v
}

// topicName reads a Topic Name: a string without wildcards [MQTT-3.3.2-2] [MQTT-3.3.2-14].
func (c *cursor) topicName() []byte {
	v := c.string()
	for _, x := range v {
		if x == '+' || x == '#' {
			c.fail("topic name holds a wildcard")
			return nil
		}
	}
	return v
}
