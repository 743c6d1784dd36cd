package test

import (
	"strings"
	"time"

	"sluice/test/internal/wire"
)

// openGroups are the parts of the table that need no security configured.
func openGroups() []hostileGroup {
	return []hostileGroup{
		{"Before CONNECT", strangers()},
		{"CONNECT", greetings()},
		{"Properties of CONNECT", greetingProperties()},
		{"Every packet", anyPackets()},
		{"PUBLISH", publishes()},
		{"Acknowledgements and QoS 2", acknowledgements()},
		{"SUBSCRIBE and UNSUBSCRIBE", subscribes()},
		{"AUTH and DISCONNECT", farewells()},
		{"What becomes of it in Kafka", storedRows()},
		{"Sessions", sessionRows()},
	}
}

func strangers() []hostileRow {
	return []hostileRow{
		{"first packet PINGREQ", closed, closed, "MQTT-3.1.0-1", bytesFirst(wire.PINGREQ, 0)},
		{"first packet PUBLISH", closed, closed, "MQTT-3.1.0-1", opening(func(a *attacker) []byte {
			return wire.Publish{Topic: a.topic(), Payload: "x"}.Packet(a.version)
		})},
		{"first packet AUTH or DISCONNECT", closed, closed, "MQTT-3.1.0-1", each(bytesFirst(wire.AUTH, 0), bytesFirst(wire.DISCONNECT, 0))},
		{"HTTP on an MQTT listener", closed, closed, "MQTT-3.1.0-1", bytesFirst([]byte("GET /mqtt HTTP/1.1\r\nHost: x\r\n\r\n")...)},
		{"a TLS ClientHello on a plain listener", closed, closed, "MQTT-3.1.0-1", bytesFirst(0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3)},
		{"a PROXY header, version 1 or 2, where none is expected", closed, closed, "MQTT-3.1.0-1", each(
			bytesFirst([]byte("PROXY TCP4 10.1.1.1 10.1.1.2 1000 1883\r\n")...),
			bytesFirst([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c")...))},
		{"reserved bits of CONNECT's first byte", closed, closed, "MQTT-2.1.3-1", opening(func(a *attacker) []byte {
			b := a.greeting().Packet()
			b[0] |= 1
			return b
		})},
		{"overlong length of CONNECT", "CONNACK 0x00, connected", refusedMalformed, "MQTT-1.5.5-1", opening(func(a *attacker) []byte {
			return padded(a.greeting().Packet())
		})},
		{"five bytes of length", closed, closed, "section 2.1.4", bytesFirst(wire.CONNECT, 0xFF, 0xFF, 0xFF, 0xFF, 1)},
		{"CONNECT of no bytes, or of one", closed, closed, "section 3.1", each(bytesFirst(wire.CONNECT, 0), bytesFirst(wire.CONNECT, 1, 0))},
		{"CONNECT of more than 64 KiB", "CONNACK 0x03, closed", "CONNACK 0x95, closed", "MQTT-3.2.2-1", opening(func(a *attacker) []byte {
			h := a.greeting()
			h.Will = &wire.Will{Topic: "w", Payload: strings.Repeat("x", 60_000)}
			h.Username = strings.Repeat("u", 60_000)
			return h.Packet()
		})},
		{"nothing at all, for limits.connect_timeout", closed, closed, "MQTT-3.1.4-1", bytesFirst()},
		{"CONNECT byte by byte, slower than limits.connect_timeout", closed, closed, "MQTT-3.1.4-1", slowly},
	}
}

// padded is a packet with its length in one byte more than it needs.
func padded(packet []byte) []byte {
	at := 1
	for packet[at] >= 0x80 {
		at++
	}
	return append(append(append([]byte{}, packet[:at]...), packet[at]|0x80, 0), packet[at+1:]...)
}

// slowly sends a byte of CONNECT at a time. The server ends it: there are more bytes than its patience has moments.
func slowly(a *attacker) string {
	a.dial()
	h := a.greeting()
	h.ID = strings.Repeat("x", 500)
	pace := time.NewTicker(20 * time.Millisecond)
	defer pace.Stop()
	for _, b := range h.Packet() {
		<-pace.C
		if _, err := a.conn.Write([]byte{b}); err != nil {
			return closed
		}
	}
	return a.answer()
}

// badTexts are what no UTF-8 string of MQTT may hold: U+0000, surrogates, and bytes that are no UTF-8.
var badTexts = []string{"a\x00b", "a\xED\xA0\x80b", "a\xED\xBF\xBFb", "a\xC0\x80b", "a\xFFb", "a\xE2\x82", "\xF4\x90\x80\x80"}

// withBadTexts tries a CONNECT with each of them in one place.
func withBadTexts(put func(h *wire.Hello, text string)) func(*attacker) string {
	var tries []func(*attacker) string
	for _, text := range badTexts {
		tries = append(tries, saying(func(h *wire.Hello) { put(h, text) }))
	}
	return each(tries...)
}

// saying is a CONNECT that is changed in one thing.
func saying(change func(h *wire.Hello)) func(*attacker) string {
	return opening(func(a *attacker) []byte {
		h := a.greeting()
		change(&h)
		return h.Packet()
	})
}

// setting is a CONNECT with these properties.
func setting(properties ...any) func(*attacker) string {
	return saying(func(h *wire.Hello) { h.Properties = wire.Properties(properties...) })
}

const (
	refusedMalformed = "CONNACK 0x81, closed"
	refusedProtocol  = "CONNACK 0x82, closed"
)

func greetings() []hostileRow {
	will := func(w wire.Will) func(*attacker) string { return saying(func(h *wire.Hello) { h.Will = &w }) }
	flags := func(f byte) func(*attacker) string { return saying(func(h *wire.Hello) { h.Flags = f }) }
	return []hostileRow{
		{"protocol level 6 or 127", "", "CONNACK 0x84, closed", "MQTT-3.1.2-2", each(
			saying(func(h *wire.Hello) { h.Version = 6 }), saying(func(h *wire.Hello) { h.Version = 127 }))},
		{"protocol level 3, 0 or 255, and MQIsdp with 4", "CONNACK 0x01, closed", "", "3.1.1: MQTT-3.1.2-2", each(
			saying(func(h *wire.Hello) { h.Name, h.Version = "MQIsdp", 4 }), saying(func(h *wire.Hello) { h.Version = 3 }),
			saying(func(h *wire.Hello) { h.Version = 0 }), saying(func(h *wire.Hello) { h.Version = 255 }))},
		{"another protocol name", closed, closed, "MQTT-3.1.2-1", each(
			saying(func(h *wire.Hello) { h.Name = "MQTX" }), saying(func(h *wire.Hello) { h.Name = "mqtt" }))},
		{"the reserved flag", closed, refusedMalformed, "MQTT-3.1.2-3", flags(1)},
		{"will QoS 3", closed, refusedMalformed, "MQTT-3.1.2-12", will(wire.Will{Topic: "w", QoS: 3})},
		{"will QoS or will retain without a will", closed, refusedMalformed, "MQTT-3.1.2-11, -13", each(flags(0x08), flags(0x20))},
		{"a will on a wildcard", closed, refusedMalformed, "MQTT-4.7.1-1", each(will(wire.Will{Topic: "devices/+/x"}), will(wire.Will{Topic: "#"}))},
		{"a will without a topic", closed, "CONNACK 0x90, closed", "MQTT-4.7.3-1", will(wire.Will{})},
		{"no UTF-8, U+0000 or a surrogate in the client ID", closed, refusedMalformed, "MQTT-1.5.4-1, -2",
			withBadTexts(func(h *wire.Hello, s string) { h.ID = s })},
		{"the same in the user name", closed, refusedMalformed, "MQTT-1.5.4-1, -2", withBadTexts(func(h *wire.Hello, s string) { h.Username = s })},
		{"the same in the will topic", closed, refusedMalformed, "MQTT-1.5.4-1, -2",
			withBadTexts(func(h *wire.Hello, s string) { h.Will = &wire.Will{Topic: s} })},
		{"CR, LF, ESC, quotes and braces in the client ID and the user name", "CONNACK 0x00, connected", "CONNACK 0x00, connected", "section 1.5.4",
			saying(func(h *wire.Hello) {
				h.ID = "evil\r\n{\"level\":\"info\"}\x1b[2J"
				h.Username, h.Password = h.ID, hostilePassword
			})},
		{"a client ID of 2 000 bytes", "CONNACK 0x02, closed", "CONNACK 0x85, closed", "MQTT-3.1.3-8",
			saying(func(h *wire.Hello) { h.ID = strings.Repeat("i", 2000) })},
		{"a client ID of 65 535 bytes", "CONNACK 0x02, closed", "CONNACK 0x95, closed", "MQTT-3.1.3-8",
			saying(func(h *wire.Hello) { h.ID = strings.Repeat("i", 65535) })},
		{"no client ID and a session that stays", "CONNACK 0x02, closed", "", "3.1.1: MQTT-3.1.3-8",
			saying(func(h *wire.Hello) { h.ID, h.Persist = "", true })},
		{"a password without a user name", closed, "", "3.1.1: MQTT-3.1.2-22",
			saying(func(h *wire.Hello) { h.Username, h.Password = "", hostilePassword })},
		{"bytes after the end", closed, refusedMalformed, "section 4.13", saying(func(h *wire.Hello) { h.Tail = []byte{0} })},
		{"CONNECT that ends inside a field, at each byte", closed, refusedMalformed, "section 4.13", cutGreeting},
		{"CONNECT, then the device closes its side", closed, closed, "section 4.13", halfAndClose(func(a *attacker) []byte {
			return a.greeting().Packet()[:9]
		})},
		{"a second CONNECT", closed, "DISCONNECT 0x82, closed", "MQTT-3.1.0-2", greeted(func(a *attacker) []byte {
			h := a.greeting()
			h.Username, h.Password = "u", hostilePassword
			return h.Packet()
		})},
	}
}

// cutGreeting sends CONNECT with the end missing and the length right, from behind the protocol level to the last byte.
func cutGreeting(a *attacker) string {
	h := a.greeting()
	h.Username, h.Password = "u", hostilePassword
	h.Will = &wire.Will{Topic: "w", Payload: "p"}
	body := wire.Body(h.Packet())
	for cut := 8; cut < len(body); cut++ {
		a.dial()
		a.send(wire.Packet(wire.CONNECT, body[:cut]))
		if got := a.answer(); got != a.want {
			return got
		}
	}
	return a.want
}

// halfAndClose sends the beginning of a packet and the end of the stream.
func halfAndClose(b func(a *attacker) []byte) func(*attacker) string {
	return func(a *attacker) string {
		a.dial()
		a.send(b(a))
		_ = a.conn.(interface{ CloseWrite() error }).CloseWrite()
		return a.answer()
	}
}

func greetingProperties() []hostileRow {
	return []hostileRow{
		{"a property twice", "", refusedProtocol, "section 3.1.2.11", each(
			setting(0x11, uint32(1), 0x11, uint32(1)), setting(0x21, uint16(1), 0x21, uint16(2)), setting(0x17, 0, 0x17, 0))},
		{"a property of another packet", "", refusedMalformed, "MQTT-2.2.2-2", each(setting(0x23, uint16(1)), setting(0x0B, 1), setting(0x12, "x"))},
		{"an unknown property", "", refusedMalformed, "section 2.2.2.2", each(setting(0x7F, 0), setting(0x00), setting(0x80, 0x80, 1))},
		{"a will property twice", "", refusedProtocol, "section 3.1.3.2",
			saying(func(h *wire.Hello) {
				h.Will = &wire.Will{Topic: "w", Properties: wire.Properties(0x18, uint32(1), 0x18, uint32(1))}
			})},
		{"Receive Maximum 0", "", refusedProtocol, "section 3.1.2.11.3", setting(0x21, uint16(0))},
		{"Maximum Packet Size 0", "", refusedProtocol, "section 3.1.2.11.4", setting(0x27, uint32(0))},
		{"Request Problem or Response Information 2", "", refusedProtocol, "sections 3.1.2.11.6, .7", each(setting(0x17, 2), setting(0x19, 2))},
		{"Authentication Data without a Method", "", refusedProtocol, "section 3.1.2.11.10", setting(0x16, "data")},
		{"an Authentication Method that nobody offers", "", "CONNACK 0x8C, closed", "MQTT-4.12.0-1", setting(0x15, "SCRAM-SHA-1")},
		{"properties longer than the packet", "", refusedMalformed, "section 2.2.2.1", saying(func(h *wire.Hello) { h.Properties = wire.Length(1_000_000) })},
		{"overlong length of the properties", "", refusedMalformed, "MQTT-1.5.5-1", saying(func(h *wire.Hello) { h.Properties = []byte{0x80, 0} })},
		{"a User Property that is no UTF-8", "", refusedMalformed, "MQTT-1.5.4-1", setting(wire.User("k", "\xFF"))},
		{"Maximum Packet Size 1: no answer fits", "", closed, "MQTT-3.1.2-24", setting(0x27, uint32(1))},
	}
}

// topic is one that a rule takes.
func (a *attacker) topic() string { return "devices/" + a.id + "/telemetry/t" }
