package mqtt

import (
	"bytes"
	"strings"

	"github.com/mochi-mqtt/server/v2/packets"
)

type encoder = func(*packets.Packet, *bytes.Buffer) error

// respond encodes a packet that is not on the hot path and sends it.
func (c *Conn) respond(pk *packets.Packet, encode encoder) {
	b, err := c.encode(pk, encode)
	if err != nil {
		c.shutdown(err)
		return
	}
	c.mu.Lock()
	c.out = append(c.out, b...)
	c.send()
	c.mu.Unlock()
}

// encode gives the packet's bytes, without its Reason String if it would exceed the client's Maximum Packet
// Size with it [MQTT-3.1.2-24], and an error if it does without.
func (c *Conn) encode(pk *packets.Packet, encode encoder) ([]byte, error) {
	for {
		var buf bytes.Buffer
		if err := encode(pk, &buf); err != nil {
			return nil, err
		}
		if c.maxPacket == 0 || uint32(buf.Len()) <= c.maxPacket {
			return buf.Bytes(), nil
		}
		if pk.Properties.ReasonString == "" {
			return nil, &ProtocolFault{PacketTooLarge, "the answer is larger than the client's Maximum Packet Size"}
		}
		pk.Properties.ReasonString = ""
	}
}

func (c *Conn) newPacket(kind byte) *packets.Packet {
	pk := &packets.Packet{ProtocolVersion: c.version}
	pk.FixedHeader.Type = kind
	pk.Mods.DisallowProblemInfo = !c.problems
	return pk
}

func connackPacket(version byte, present bool, code byte, props packets.Properties) *packets.Packet {
	pk := &packets.Packet{ProtocolVersion: version, SessionPresent: present, ReasonCode: code, Properties: props}
	pk.FixedHeader.Type = packets.Connack
	return pk
}

// sendDisconnect tells an MQTT 5 device why the connection ends. MQTT 3.1.1 has no such packet.
func (c *Conn) sendDisconnect(fault *ProtocolFault) {
	if c.version < 5 {
		return
	}
	pk := c.newPacket(packets.Disconnect)
	pk.ReasonCode = byte(fault.Code)
	pk.Properties.ReasonString = fault.Detail
	pk.Mods.DisallowProblemInfo = false // DISCONNECT may always say why (section 3.1.2.11.7)
	c.respond(pk, (*packets.Packet).DisconnectEncode)
}

// noSubscriptions is the Reason String of every refused subscription.
const noSubscriptions = "this server takes messages only"

// subscribe answers SUBSCRIBE with a refusal for each filter.
func (c *Conn) subscribe(body []byte) error {
	r := cursor{b: body}
	id := r.uint16()
	var p properties
	if c.version == 5 {
		r.properties(typeSubscribe, &p)
	}
	var codes []byte
	for len(r.b) > 0 && r.err == nil {
		filter := string(r.string())
		options := r.byte()
		if r.err == nil {
			r.err = checkFilter(filter, options, c.version)
		}
		codes = append(codes, c.refusal(filter, &p))
	}
	if err := checkRequest(&r, id, len(codes)); err != nil {
		return err
	}
	pk := c.newPacket(packets.Suback)
	pk.PacketID, pk.ReasonCodes = id, codes
	pk.Properties.ReasonString = noSubscriptions
	c.respond(pk, (*packets.Packet).SubackEncode)
	return nil
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

// refusal gives the most exact code for a subscription that can't be made.
func (c *Conn) refusal(filter string, p *properties) byte {
	switch {
	case c.version < 5:
		return byte(UnspecifiedError) // the only failure of MQTT 3.1.1
	case strings.HasPrefix(filter, "$share/"):
		return byte(SharedSubscriptionsUnsupported)
	case strings.ContainsAny(filter, "+#"):
		return byte(WildcardsUnsupported)
	case p.has(propSubscriptionID):
		return byte(SubscriptionIDsUnsupported)
	}
	return byte(ImplementationSpecificError)
}

func (c *Conn) unsubscribe(body []byte) error {
	r := cursor{b: body}
	id := r.uint16()
	if c.version == 5 {
		var p properties
		r.properties(typeUnsubscribe, &p)
	}
	var codes []byte
	for len(r.b) > 0 && r.err == nil {
		if filter := string(r.string()); r.err == nil && !validFilter(filter) {
			return malformed("a topic filter breaks the rules of wildcards")
		}
		codes = append(codes, byte(NoSubscriptionExisted))
	}
	if err := checkRequest(&r, id, len(codes)); err != nil {
		return err
	}
	pk := c.newPacket(packets.Unsuback)
	pk.PacketID, pk.ReasonCodes = id, codes
	c.respond(pk, (*packets.Packet).UnsubackEncode)
	return nil
}
