package mqtt

import (
	"bytes"
	"slices"
	"strings"

	"github.com/mochi-mqtt/server/v2/packets"
)

// A subscription is what SUBSCRIBE says of one topic filter (section 3.8.3.1).
type subscription struct {
	id                int // Subscription Identifier; 0: none
	qos               byte
	noLocal           bool
	retainAsPublished bool
	retainHandling    byte
	origin            *Origin // nil: it takes all that the session gets
}

// A filterRequest is a topic filter and what SUBSCRIBE says of it.
type filterRequest struct {
	filter string
	subscription
}

// filterBytesMax bounds a topic filter, which is kept as long as its session.
const filterBytesMax = 4 << 10

// A filterList is what a SUBSCRIBE or UNSUBSCRIBE holds. It was checked to its end before the first filter is looked at,
// since a packet that breaks a rule changes nothing; and it makes no list: a packet may have a hundred thousand filters,
// of which few can be granted.
type filterList struct {
	id             uint16
	subscriptionID int
	b              []byte // the filters, of SUBSCRIBE each with its options
	n              int
}

// subscribe answers SUBSCRIBE with a code for each filter.
func (c *Conn) subscribe(body []byte) error {
	l, err := c.decodeSubscribe(body)
	if err != nil {
		return err
	}
	c.countFilters(l.n)
	codes := make([]byte, 0, l.n)
	origin := c.session.begin(c.now)
	for r := (cursor{b: l.b}); len(r.b) > 0; {
		filter, s := r.binary(), subscriptionOf(r.byte(), l.subscriptionID)
		s.origin = origin
		if c.isBridge {
			s.noLocal, s.retainAsPublished = !bytes.HasPrefix(filter, []byte(sharePrefix)), true
		}
		code := c.answerFilter(filter, s)
		if code >= 0x80 && c.version < 5 {
			code = UnspecifiedError // the only failure of MQTT 3.1.1
		}
		codes = append(codes, byte(code))
	}
	pk := c.newPacket(packets.Suback)
	pk.PacketID, pk.ReasonCodes = l.id, codes
	c.respondStored(pk, (*packets.Packet).SubackEncode)
	if o := c.session.outbox.Load(); o != nil {
		o.mu.Lock()
		o.handOut(c.attached)
		o.mu.Unlock()
		o.takePart()
	}
	return nil
}

func (c *Conn) decodeSubscribe(body []byte) (l filterList, err error) {
	r := cursor{b: body}
	l.id = r.uint16()
	p := c.properties()
	if c.version == 5 {
		r.properties(typeSubscribe, &p)
	}
	l.b, l.subscriptionID = r.b, p.subscriptionID
	for ; len(r.b) > 0 && r.err == nil; l.n++ {
		filter := r.string()
		options := r.byte()
		if r.err == nil {
			r.err = checkFilter(filter, options, c.version)
		}
	}
	return l, checkRequest(&r, l.id, l.n)
}

// subscriptionOf reads the subscription options.
func subscriptionOf(options byte, id int) subscription {
	return subscription{
		id:                id,
		qos:               options & 3,
		noLocal:           options&4 != 0,
		retainAsPublished: options&8 != 0,
		retainHandling:    options >> 4 & 3,
	}
}

// answerFilter gives the code for a filter. One for which there is no place is not copied.
func (c *Conn) answerFilter(filter []byte, s subscription) Code {
	if code := c.filterFault(filter); code != Success {
		return code
	}
	o := c.session.outbox.Load()
	if o == nil {
		o = newOutbox(c.srv, c.session)
		o.attach(c)
		c.session.outbox.Store(o)
	}
	if !o.hasPlace(filter) || !o.subscribe(filterRequest{string(filter), s}) {
		return QuotaExceeded
	}
	return Code(s.qos)
}

// filterFault gives the Reason Code for a filter that can't be subscribed to here, else Success.
func (c *Conn) filterFault(filter []byte) Code {
	switch {
	case bytes.HasPrefix(filter, []byte(sharePrefix)) && c.srv.cfg.Shares == nil:
		return SharedSubscriptionsUnsupported
	case len(filter) > filterBytesMax, bytes.Count(filter, []byte{'/'}) >= c.srv.cfg.TopicLevels:
		return TopicFilterInvalid
	}
	who, shared := c.identity.Load(), bytes.HasPrefix(filter, []byte(sharePrefix))
	if who.Access != nil && !who.maySubscribe(string(filter)) || shared && !c.srv.cfg.Shares.allows(string(filter)) {
		c.srv.m.denied.subscribe.Inc()
		return NotAuthorized
	}
	return Success
}

// holds says whether there is a subscription to filter.
func (o *outbox) holds(filter []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.ContainsFunc(o.subs, func(s filterRequest) bool { return s.filter == string(filter) })
}

// hasPlace says whether a subscription to filter is not one too many for the session.
func (o *outbox) hasPlace(filter []byte) bool {
	o.mu.Lock()
	full := len(o.subs) >= o.srv.cfg.MaxSubscriptions
	o.mu.Unlock()
	return !full || o.holds(filter)
}

// unsubscribe answers UNSUBSCRIBE. What waits for the device is still sent (section 3.10.4).
func (c *Conn) unsubscribe(body []byte) error {
	l, err := c.decodeUnsubscribe(body)
	if err != nil {
		return err
	}
	c.countFilters(l.n)
	pk := c.newPacket(packets.Unsuback)
	pk.PacketID, pk.ReasonCodes = l.id, make([]byte, 0, l.n)
	for r := (cursor{b: l.b}); len(r.b) > 0; {
		pk.ReasonCodes = append(pk.ReasonCodes, byte(c.revoke(r.binary())))
	}
	c.respondStored(pk, (*packets.Packet).UnsubackEncode)
	return nil
}

func (c *Conn) decodeUnsubscribe(body []byte) (l filterList, err error) {
	r := cursor{b: body}
	l.id = r.uint16()
	if c.version == 5 {
		p := c.properties()
		r.properties(typeUnsubscribe, &p)
	}
	l.b = r.b
	for ; len(r.b) > 0 && r.err == nil; l.n++ {
		filter := r.string()
		if r.err == nil && !validFilter(filter) {
			return l, malformed("a topic filter breaks the rules of wildcards")
		}
	}
	return l, checkRequest(&r, l.id, l.n)
}

func (c *Conn) revoke(filter []byte) Code {
	if o := c.session.outbox.Load(); o != nil && o.holds(filter) && o.unsubscribe(string(filter)) {
		return Success
	}
	return NoSubscriptionExisted
}

func checkRequest(r *cursor, id uint16, filters int) error {
	switch {
	case r.err != nil:
		return r.err
	case id == 0:
		return violation("packet identifier 0") // [MQTT-2.2.1-3]
	case filters == 0:
		return violation("no topic filter") // [MQTT-3.8.3-2] [MQTT-3.10.3-2]
	}
	return nil
}

// checkFilter holds a topic filter and its options to sections 3.8.3 and 4.7.
func checkFilter(filter []byte, options, version byte) error {
	switch {
	case options&0xC0 != 0 || version < 5 && options > 2:
		return malformed("reserved bits of the subscription options") // [MQTT-3.8.3-5]
	case options&3 == 3 || options>>4&3 == 3:
		return violation("QoS 3 or Retain Handling 3") // section 3.8.3.1
	case options&4 != 0 && bytes.HasPrefix(filter, []byte(sharePrefix)):
		return violation("No Local on a shared subscription") // [MQTT-3.8.3-4]
	case !validFilter(filter):
		return malformed("a topic filter breaks the rules of wildcards")
	}
	return nil
}

// validFilter checks the places of wildcards [MQTT-4.7.1-1] [MQTT-4.7.1-2] and of $share [MQTT-4.8.2-1]. It allocates
// nothing, however many levels there are.
func validFilter[T string | []byte](filter T) bool {
	if len(filter) >= len(sharePrefix) && string(filter[:len(sharePrefix)]) == sharePrefix {
		filter = filter[len(sharePrefix):]
		group := 0
		for ; group < len(filter) && filter[group] != '/'; group++ {
			if filter[group] == '+' || filter[group] == '#' {
				return false
			}
		}
		if group == 0 || group == len(filter) {
			return false
		}
		filter = filter[group+1:]
	}
	for i := range len(filter) {
		if filter[i] != '+' && filter[i] != '#' {
			continue
		}
		begins, ends := i == 0 || filter[i-1] == '/', i == len(filter)-1
		if !begins || !ends && (filter[i] == '#' || filter[i+1] != '/') {
			return false
		}
	}
	return len(filter) > 0
}

// FilterMatches says whether topic, a topic name, is matched by a valid topic filter (section 4.7).
func FilterMatches(filter, topic string) bool { return filterMatches(filter, topic) }

// filterMatches says whether topic is matched by a valid filter (section 4.7).
func filterMatches(filter, topic string) bool {
	if topic[0] == '$' && (filter[0] == '+' || filter[0] == '#') {
		return false // [MQTT-4.7.2-1]
	}
	for {
		want, filterRest, moreFilter := strings.Cut(filter, "/")
		if want == "#" {
			return true
		}
		got, topicRest, moreTopic := strings.Cut(topic, "/")
		switch {
		case want != "+" && want != got:
			return false
		case !moreTopic:
			return !moreFilter || filterRest == "#" // "sport/#" matches "sport"
		case !moreFilter:
			return false
		}
		filter, topic = filterRest, topicRest
	}
}
