package test

import (
	"fmt"
	"strings"

	"sluice/test/internal/wire"
)

const (
	malformedPacket = "DISCONNECT 0x81, closed"
	protocolError   = "DISCONNECT 0x82, closed"
)

func anyPackets() []hostileRow {
	return []hostileRow{
		{"reserved bits of the first byte, each type", closed, malformedPacket, "MQTT-2.1.3-1", wrongFlags},
		{"packet type 0", closed, malformedPacket, "section 2.1.2", bytesLater(0, 0)},
		{"packets that only servers send", closed, protocolError, "section 2.1.2", each(bytesLater(wire.CONNACK, 2, 0, 0),
			bytesLater(wire.SUBACK, 3, 0, 1, 0), bytesLater(wire.UNSUBACK, 2, 0, 1), bytesLater(wire.PINGRESP, 0))},
		{"overlong length", "PINGRESP, connected", malformedPacket, "MQTT-1.5.5-1", bytesLater(wire.PINGREQ, 0x80, 0)},
		{"five bytes of length", closed, malformedPacket, "section 2.1.4", bytesLater(wire.PUBLISH, 0xFF, 0xFF, 0xFF, 0xFF, 1)},
		{"PINGREQ with a body", closed, malformedPacket, "section 3.12", bytesLater(wire.PINGREQ, 1, 0)},
		{"a packet that ends inside a field, each type, at each byte", closed, malformedPacket, "section 4.13", cutPackets},
		{"half a packet, then the device closes its side", "CONNACK 0x00, closed", "CONNACK 0x00, closed", "section 4.13", halfAndClose(func(a *attacker) []byte {
			return wire.Bytes(a.greeting().Packet(), wire.Publish{Topic: a.topic(), QoS: 1, ID: 1}.Packet(a.version)[:9])
		})},
		{"a packet above the Maximum Packet Size", closed, "DISCONNECT 0x95, closed", "MQTT-3.2.2-15", bytesLater(wire.PUBLISH, 0xFF, 0xFF, 0xFF, 0x7F)},
		{"30 connections with 32 KiB of a packet of 250 MB", closed, "DISCONNECT 0x95, closed", "MQTT-3.2.2-15", halvesOfGiants},
	}
}

// wrongFlags tries each type with bits that the specification has otherwise.
func wrongFlags(a *attacker) string {
	for _, first := range []byte{0x11, 0x41, 0x51, 0x60, 0x63, 0x71, 0x80, 0x83, 0xA0, 0xA6, 0xC1, 0xC8, 0xE2, 0xF1} {
		if got := bytesLater(first, 2, 0, 1)(a); got != a.want {
			return fmt.Sprintf("%#x: %s", first, got)
		}
	}
	return a.want
}

// cutPackets sends packets with the end missing and the length right. What is left out is what makes them malformed: a
// PUBLISH may end anywhere in its payload.
func cutPackets(a *attacker) string {
	five := a.version == 5
	for packet, ends := range map[string]int{
		string(wire.Publish{Topic: "a/b", QoS: 1, ID: 1, Properties: wire.Properties(0x03, "ct", wire.User("k", "v"))}.Packet(a.version)): 0,
		string(wire.Subscribe(a.version, 1, wire.Properties(0x0B, 1), wire.Filter{Name: "a/b", Options: 1})):                              0,
		string(wire.Unsubscribe(a.version, 1, "a/b")):                                0,
		string(wire.Packet(wire.PUBACK, uint16(1))):                                  0,
		string(wire.Packet(wire.PUBREC, uint16(1))):                                  0,
		string(wire.Packet(wire.PUBREL, uint16(1))):                                  0,
		string(wire.Packet(wire.PUBCOMP, uint16(1))):                                 0,
		string(wire.Packet(wire.PUBREL, uint16(1), 0, wire.Properties(0x1F, "why"))): 4,
		string(wire.Packet(wire.DISCONNECT, 0, wire.Properties(0x11, uint32(1)))):    2,
	} {
		if !five && ends > 0 {
			continue
		}
		body := wire.Body([]byte(packet))
		for cut := ends; cut < len(body); cut++ {
			if wholeAt(packet[0], body[:cut], five) {
				continue
			}
			if got := bytesLater(wire.Packet(packet[0], body[:cut])...)(a); got != a.want {
				return fmt.Sprintf("%#x cut to % x: %s", packet[0], body[:cut], got)
			}
		}
	}
	return a.want
}

// wholeAt says that what is left has an error of another kind: no topic filter at all.
func wholeAt(first byte, body []byte, five bool) bool {
	if first != wire.SUBSCRIBE && first != wire.UNSUBSCRIBE {
		return false
	}
	head := 2
	if five && len(body) > 2 {
		head += 1 + int(body[2])
	}
	return len(body) == head && (!five || head > 2)
}

// halvesOfGiants holds 30 connections at a time.
func halvesOfGiants(a *attacker) string {
	giant := wire.Bytes(wire.PUBLISH, wire.Length(250_000_000), []byte(strings.Repeat("x", 32<<10)))
	var all []*attacker
	for i := range 30 {
		b := *a
		b.id = fmt.Sprintf("%s-%d", a.id, i)
		b.connect()
		b.send(giant)
		all = append(all, &b)
	}
	for _, b := range all {
		if got := b.answer(); got != a.want {
			return got
		}
	}
	return a.want
}

// publishing is a PUBLISH to a topic that a rule takes, changed in one thing.
func publishing(change func(p *wire.Publish)) func(*attacker) string {
	return greeted(func(a *attacker) []byte {
		p := wire.Publish{Topic: a.topic(), QoS: 1, ID: 7, Payload: "x"}
		change(&p)
		return p.Packet(a.version)
	})
}

// carrying is such a PUBLISH with properties.
func carrying(properties ...any) func(*attacker) string {
	return publishing(func(p *wire.Publish) { p.Properties = wire.Properties(properties...) })
}

func publishes() []hostileRow {
	var texts, wild []func(*attacker) string
	for _, text := range badTexts {
		texts = append(texts, publishing(func(p *wire.Publish) { p.Topic = text }))
	}
	for _, topic := range []string{"#", "devices/+/telemetry/t", "a#", "+"} {
		wild = append(wild, publishing(func(p *wire.Publish) { p.Topic = topic }))
	}
	alias := func(n uint16) func(*attacker) string { return carrying(0x23, n) }
	return []hostileRow{
		{"QoS 3", closed, malformedPacket, "MQTT-3.3.1-4", publishing(func(p *wire.Publish) { p.QoS = 3 })},
		{"DUP with QoS 0", closed, malformedPacket, "MQTT-3.3.1-2", publishing(func(p *wire.Publish) { p.QoS, p.Dup = 0, true })},
		{"packet identifier 0, QoS 1 and 2", closed, protocolError, "MQTT-2.2.1-3", each(
			publishing(func(p *wire.Publish) { p.ID = 0 }), publishing(func(p *wire.Publish) { p.QoS, p.ID = 2, 0 }))},
		{"a wildcard in the topic", closed, malformedPacket, "MQTT-3.3.2-2", each(wild...)},
		{"an empty topic", closed, protocolError, "section 3.3.2.1", publishing(func(p *wire.Publish) { p.Topic = "" })},
		{"no UTF-8, U+0000 or a surrogate in the topic", closed, malformedPacket, "MQTT-1.5.4-1, -2", each(texts...)},
		{"topic alias 0", "", "DISCONNECT 0x94, closed", "MQTT-3.3.2-8", alias(0)},
		{"a topic alias above the maximum", "", "DISCONNECT 0x94, closed", "MQTT-3.3.2-9", each(alias(17), alias(65535))},
		{"a topic alias that was not set", "", protocolError, "section 3.3.2.3.4", publishing(func(p *wire.Publish) {
			p.Topic, p.Properties = "", wire.Properties(0x23, uint16(3))
		})},
		{"a property twice", "", protocolError, "section 3.3.2.3", each(carrying(0x01, 0, 0x01, 0), carrying(0x23, uint16(1), 0x23, uint16(1)))},
		{"a property of another packet", "", malformedPacket, "MQTT-2.2.2-2", each(carrying(0x11, uint32(1)), carrying(0x1F, "why"))},
		{"a Subscription Identifier", "", protocolError, "MQTT-3.3.4-6", carrying(0x0B, 1)},
		{"Payload Format Indicator 2", "", protocolError, "section 3.3.2.3.2", carrying(0x01, 2)},
		{"a wildcard in the Response Topic", "", malformedPacket, "MQTT-3.3.2-14", carrying(0x08, "answers/#")},
		{"properties longer than the packet", "", malformedPacket, "section 2.2.2.1", publishing(func(p *wire.Publish) { p.Properties = wire.Length(100_000) })},
		{"1 000 QoS 2 messages at once, more than the Receive Maximum", connected, connected, "section 4.9", flood(1000)},
		{"5 000 QoS 2 messages without a PUBREL", closed, "DISCONNECT 0x93, closed", "MQTT-3.3.4-9", flood(5000)},
	}
}

// flood is n PUBLISH packets with QoS 2 and no PUBREL. How many get their PUBREC before the end depends on Kafka's speed.
func flood(n int) func(*attacker) string {
	return func(a *attacker) string {
		a.connect()
		var b []byte
		for i := range n {
			b = append(b, wire.Publish{Topic: a.topic(), QoS: 2, ID: uint16(i + 1), Payload: "x"}.Packet(a.version)...)
		}
		a.send(b)
		got := a.answer()
		return strings.TrimPrefix(got, "PUBREC 0x00, ")
	}
}

func acknowledgements() []hostileRow {
	ack := func(first byte, parts ...any) func(*attacker) string {
		return bytesLater(wire.Packet(first, parts...)...)
	}
	return []hostileRow{
		{"PUBREL of an unknown identifier", "PUBCOMP 0x00, connected", "PUBCOMP 0x92, connected", "section 4.3.3", ack(wire.PUBREL, uint16(99))},
		{"PUBREC of an unknown identifier", "PUBREL 0x00, connected", "PUBREL 0x92, connected", "section 3.6.2.1", ack(wire.PUBREC, uint16(99))},
		{"PUBACK or PUBCOMP of an unknown identifier", connected, connected, "section 4.3", each(ack(wire.PUBACK, uint16(99)), ack(wire.PUBCOMP, uint16(99)))},
		{"identifier 0 in PUBACK, PUBREC, PUBREL, PUBCOMP", closed, protocolError, "MQTT-2.2.1-3", each(
			ack(wire.PUBACK, uint16(0)), ack(wire.PUBREC, uint16(0)), ack(wire.PUBREL, uint16(0)), ack(wire.PUBCOMP, uint16(0)))},
		{"bytes after the end", closed, malformedPacket, "section 4.13", each(
			ack(wire.PUBACK, uint16(1), 0, 0, 0), ack(wire.PUBREL, uint16(1), 0, 0, 0))},
		{"a QoS 2 message again and again, other bytes under the same identifier", "PUBREC 0x00, connected", "PUBREC 0x00, connected", "MQTT-4.3.3-10", sameAgain},
	}
}

// sameAgain sends a message with QoS 2 and then, one after the other, others under its identifier: each gets its PUBREC,
// and the first is what is stored.
func sameAgain(a *attacker) string {
	a.connect()
	for i := range 50 {
		a.send(wire.Publish{Topic: a.topic(), QoS: 2, ID: 9, Dup: i > 0, Payload: fmt.Sprint("again ", i)}.Packet(a.version))
		r, err := wire.Read(a.in)
		if err != nil || r.String() != "PUBREC 0x00" {
			return fmt.Sprint(r, err)
		}
	}
	return a.ping([]string{"PUBREC 0x00"})
}

// subscribing is a SUBSCRIBE to one filter.
func subscribing(filter string, options byte, properties ...any) func(*attacker) string {
	return greeted(func(a *attacker) []byte {
		return wire.Subscribe(a.version, 1, wire.Properties(properties...), wire.Filter{Name: filter, Options: options})
	})
}

// failure is how SUBACK says no: MQTT 3.1.1 has one code.
const failure = "SUBACK 0x80, connected"

func subscribes() []hostileRow {
	each3 := func(filters ...string) func(*attacker) string {
		var tries []func(*attacker) string
		for _, f := range filters {
			tries = append(tries, subscribing(f, 0))
		}
		return each(tries...)
	}
	return []hostileRow{
		{"wildcards in the wrong place: a#, #/a, a/#/b, a+, +a/b", closed, malformedPacket, "MQTT-4.7.1-1, -2", each3("a#", "#/a", "a/#/b", "a+", "+a/b")},
		{"an empty filter", closed, malformedPacket, "MQTT-4.7.3-1", each3("")},
		{"$share//x, $share/g, $share/g/, $share/+/x, $share/#", closed, malformedPacket, "MQTT-4.8.2-1, -2", each3("$share//x", "$share/g", "$share/g/", "$share/+/x", "$share/#")},
		{"No Local on a shared subscription", "", protocolError, "MQTT-3.8.3-4", subscribing("$share/g/x", 4)},
		{"QoS 3", closed, protocolError, "MQTT-3.8.3-5, section 3.8.3.1", subscribing("a", 3)},
		{"Retain Handling 3", "", protocolError, "section 3.8.3.1", subscribing("a", 0x30)},
		{"reserved bits of the options", closed, malformedPacket, "MQTT-3.8.3-5", each(subscribing("a", 0x40), subscribing("a", 0x81))},
		{"options of MQTT 5 in 3.1.1", closed, "", "3.1.1: MQTT-3.8.3-4", each(subscribing("a", 4), subscribing("a", 8))},
		{"Subscription Identifier 0, or two", "", protocolError, "section 3.8.2.1.2", each(subscribing("a", 0, 0x0B, 0), subscribing("a", 0, 0x0B, 1, 0x0B, 2))},
		{"no filter in SUBSCRIBE or UNSUBSCRIBE", closed, protocolError, "MQTT-3.8.3-2, MQTT-3.10.3-2", each(
			greeted(func(a *attacker) []byte { return wire.Subscribe(a.version, 1, nil) }),
			greeted(func(a *attacker) []byte { return wire.Unsubscribe(a.version, 1) }))},
		{"packet identifier 0", closed, protocolError, "MQTT-2.2.1-3", each(
			greeted(func(a *attacker) []byte { return wire.Subscribe(a.version, 0, nil, wire.Filter{Name: "a"}) }),
			greeted(func(a *attacker) []byte { return wire.Unsubscribe(a.version, 0, "a") }))},
		{"no UTF-8, U+0000 or a surrogate in a filter", closed, malformedPacket, "MQTT-1.5.4-1, -2", each3(badTexts...)},
		{"a filter of 60 000 bytes, or of 5 000 levels", failure, "SUBACK 0x8F, connected", "section 3.9.3", each3(strings.Repeat("x", 60_000), strings.Repeat("/", 5000))},
		{"200 subscriptions where limits.subscriptions is 100", "SUBACK 0x80, connected", "SUBACK 0x97, connected", "section 3.9.3", greeted(manyFilters(200))},
		{"UNSUBSCRIBE with wildcards in the wrong place", closed, malformedPacket, "MQTT-4.7.1-1", greeted(func(a *attacker) []byte {
			return wire.Unsubscribe(a.version, 1, "a/#/b")
		})},
		{"UNSUBSCRIBE of what was never subscribed to", "UNSUBACK 0x00, connected", "UNSUBACK 0x11, connected", "section 3.11.3", greeted(func(a *attacker) []byte {
			return wire.Unsubscribe(a.version, 1, "never")
		})},
	}
}

func manyFilters(n int) func(*attacker) []byte {
	return func(a *attacker) []byte {
		var filters []wire.Filter
		for i := range n {
			filters = append(filters, wire.Filter{Name: fmt.Sprint("many/", i)})
		}
		return wire.Subscribe(a.version, 1, nil, filters...)
	}
}

func farewells() []hostileRow {
	return []hostileRow{
		{"AUTH without an Authentication Method", closed, protocolError, "MQTT-4.12.0-6", bytesLater(wire.AUTH, 0)},
		{"AUTH with a method that CONNECT did not name", "", protocolError, "MQTT-4.12.0-6", bytesLater(wire.Packet(wire.AUTH, 0x19, wire.Properties(0x15, "PLAIN"))...)},
		{"DISCONNECT that gives a session a life it did not ask for", "", protocolError, "section 3.14.2.2.2", bytesLater(wire.Packet(wire.DISCONNECT, 0, wire.Properties(0x11, uint32(60)))...)},
		{"DISCONNECT with a property of another packet", "", malformedPacket, "MQTT-2.2.2-2", bytesLater(wire.Packet(wire.DISCONNECT, 0, wire.Properties(0x23, uint16(1)))...)},
		{"DISCONNECT with a body", closed, "", "3.1.1: section 3.14", bytesLater(wire.DISCONNECT, 1, 0)},
		{"packets behind DISCONNECT", closed, closed, "MQTT-3.14.4-2", greeted(func(a *attacker) []byte {
			return wire.Bytes(wire.DISCONNECT, 0, wire.Publish{Topic: a.topic(), QoS: 1, ID: 1}.Packet(a.version))
		})},
	}
}
