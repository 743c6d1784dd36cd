package mqtt

import (
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
}

// A filterRequest is one topic filter of a SUBSCRIBE.
type filterRequest struct {
	filter string
	subscription
}

// filterBytesMax bounds a topic filter, which is kept as long as its session.
const filterBytesMax = 4 << 10

// subscribe answers SUBSCRIBE with a code for each filter.
func (c *Conn) subscribe(body []byte) error {
	id, requests, err := c.decodeSubscribe(body)
	if err != nil {
		return err
	}
	c.countFilters(len(requests))
	codes := make([]byte, 0, len(requests))
	var owed []string // filters that get retained messages
	for _, r := range requests {
		code := c.filterFault(r.filter)
		if code == Success {
			var owes bool
			if code, owes = c.grant(r); owes {
				owed = append(owed, r.filter)
			}
		}
		if code >= 0x80 && c.version < 5 {
			code = UnspecifiedError // the only failure of MQTT 3.1.1
		}
		codes = append(codes, byte(code))
	}
	pk := c.newPacket(packets.Suback)
	pk.PacketID, pk.ReasonCodes = id, codes
	c.respondStored(pk, (*packets.Packet).SubackEncode)
	if len(owed) > 0 {
		c.session.outbox.Load().owe(owed)
	}
	if o := c.session.outbox.Load(); o != nil {
		o.takePart()
	}
	return nil
}

func (c *Conn) decodeSubscribe(body []byte) (id uint16, requests []filterRequest, err error) {
	r := cursor{b: body}
	id = r.uint16()
	p := c.properties()
	if c.version == 5 {
		r.properties(typeSubscribe, &p)
	}
	for len(r.b) > 0 && r.err == nil {
		filter := string(r.string())
		options := r.byte()
		if r.err == nil {
			r.err = checkFilter(filter, options, c.version)
		}
		requests = append(requests, filterRequest{filter, subscription{
			id:                p.subscriptionID,
			qos:               options & 3,
			noLocal:           options&4 != 0,
			retainAsPublished: options&8 != 0,
			retainHandling:    options >> 4 & 3,
		}})
	}
	return id, requests, checkRequest(&r, id, len(requests))
}

// filterFault gives the Reason Code for a filter that can't be subscribed to here, else Success.
func (c *Conn) filterFault(filter string) Code {
	switch {
	case isShared(filter) && c.srv.cfg.Shares == nil:
		return SharedSubscriptionsUnsupported
	case len(filter) > filterBytesMax, strings.Count(filter, "/") >= c.srv.cfg.TopicLevels:
		return TopicFilterInvalid
	case !c.identity.Load().maySubscribe(filter):
		c.srv.m.denied.subscribe.Inc()
		return NotAuthorized
	}
	return Success
}

// grant makes the subscription and gives the QoS that is granted, or QuotaExceeded, and whether it gets retained messages.
func (c *Conn) grant(r filterRequest) (code Code, owes bool) {
	o := c.session.outbox.Load()
	if o == nil {
		o = newOutbox(c.srv, c.session)
		o.attach(c)
		c.session.outbox.Store(o)
	}
	owes = o.owes(r) // asked before it exists
	if !o.subscribe(r) {
		return QuotaExceeded, false
	}
	return Code(r.qos), owes
}

// unsubscribe answers UNSUBSCRIBE. What waits for the device is still sent (section 3.10.4).
func (c *Conn) unsubscribe(body []byte) error {
	r := cursor{b: body}
	id := r.uint16()
	if c.version == 5 {
		p := c.properties()
		r.properties(typeUnsubscribe, &p)
	}
	var filters []string
	for len(r.b) > 0 && r.err == nil {
		filter := string(r.string())
		if r.err == nil && !validFilter(filter) {
			return malformed("a topic filter breaks the rules of wildcards")
		}
		filters = append(filters, filter)
	}
	if err := checkRequest(&r, id, len(filters)); err != nil {
		return err
	}
	c.countFilters(len(filters))
	pk := c.newPacket(packets.Unsuback)
	pk.PacketID = id
	for _, f := range filters {
		pk.ReasonCodes = append(pk.ReasonCodes, byte(c.revoke(f)))
	}
	c.respondStored(pk, (*packets.Packet).UnsubackEncode)
	return nil
}

func (c *Conn) revoke(filter string) Code {
	if o := c.session.outbox.Load(); o != nil && o.unsubscribe(filter) {
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
func checkFilter(filter string, options, version byte) error {
	shared := strings.HasPrefix(filter, "$share/")
	switch {
	case options&0xC0 != 0 || version == 4 && options > 2:
		return malformed("reserved bits of the subscription options") // [MQTT-3.8.3-5]
	case options&3 == 3 || options>>4&3 == 3:
		return violation("QoS 3 or Retain Handling 3") // section 3.8.3.1
	case shared && options&4 != 0:
		return violation("No Local on a shared subscription") // [MQTT-3.8.3-4]
	case !validFilter(filter):
		return malformed("a topic filter breaks the rules of wildcards")
	}
	return nil
}

// validFilter checks the places of wildcards [MQTT-4.7.1-1] [MQTT-4.7.1-2] and of $share [MQTT-4.8.2-1].
func validFilter(filter string) bool {
	if rest, ok := strings.CutPrefix(filter, "$share/"); ok {
		group, inner, found := strings.Cut(rest, "/")
		if !found || group == "" || strings.ContainsAny(group, "+#") {
			return false
		}
		filter = inner
	}
	levels := strings.Split(filter, "/")
	for i, l := range levels {
		if strings.Contains(l, "+") && l != "+" || strings.Contains(l, "#") && (l != "#" || i < len(levels)-1) {
			return false
		}
	}
	return filter != ""
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
