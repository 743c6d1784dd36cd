package test

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"sluice/test/internal/wire"
)

// A fuzzScript says what a well-behaved device says next. It knows what its session has: packet identifiers, aliases.
type fuzzScript struct {
	f       *sessionFuzz
	rng     *rand.Rand
	version byte
	id      string
	next    uint16 // packet identifier; no session of the fuzzer uses all of them
	aliases [17]string
}

// A fuzzStep is a packet, and the message in it if its acknowledgement is to be believed.
type fuzzStep struct {
	packet []byte
	id     uint16
	number uint64 // 0: no QoS 1 or 2 message
}

// hello is a CONNECT of any valid kind. User name and password are those of the run.
func (s *fuzzScript) hello() wire.Hello {
	h := s.f.hello
	h.Version, h.ID, h.KeepAlive = s.version, s.id, uint16(s.rng.IntN(3)*30)
	h.Persist = s.rng.IntN(3) == 0
	if s.rng.IntN(3) == 0 {
		h.Will = &wire.Will{Topic: s.topic(), Payload: "gone", QoS: byte(s.rng.IntN(3)), Retain: s.rng.IntN(2) == 0}
		if s.version == 5 && s.rng.IntN(2) == 0 {
			h.Will.Properties = wire.Properties(0x18, uint32(s.rng.IntN(3)), wire.User("k", "v"), 0x03, "text")
		}
	}
	if s.version == 5 {
		h.Properties = wire.Properties(s.some(wire.Bytes(0x11, uint32(s.rng.IntN(30))), wire.Bytes(0x21, uint16(1+s.rng.IntN(50))),
			wire.Bytes(0x22, uint16(10)), wire.Bytes(0x17, s.rng.IntN(2)), wire.User("k", "v")))
	}
	return h
}

// some gives some of the properties, one behind the other.
func (s *fuzzScript) some(properties ...[]byte) (b []byte) {
	for _, p := range properties {
		if s.rng.IntN(3) == 0 {
			b = append(b, p...)
		}
	}
	return b
}

func (s *fuzzScript) topic() string {
	first := "devices"
	if s.rng.IntN(8) == 0 {
		first = "once"
	}
	return fmt.Sprintf("%s/%s/t%d", first, s.id, s.rng.IntN(5))
}

func (s *fuzzScript) fresh() uint16 {
	s.next++
	return s.next
}

// step gives the next packet.
func (s *fuzzScript) step() fuzzStep {
	switch n := s.rng.IntN(100); {
	case n < 70:
		return s.publish()
	case n < 82:
		return fuzzStep{packet: s.subscribe()}
	case n < 88:
		return fuzzStep{packet: wire.Unsubscribe(s.version, s.fresh(), s.filter(), s.filter())}
	case n < 92: // an identifier that is not in use
		return fuzzStep{packet: wire.Packet([]byte{wire.PUBACK, wire.PUBREL, wire.PUBREC, wire.PUBCOMP}[s.rng.IntN(4)], uint16(60_000+s.rng.IntN(9)))}
	default:
		return fuzzStep{packet: wire.Ping()}
	}
}

func (s *fuzzScript) publish() fuzzStep {
	p := wire.Publish{Topic: s.topic(), QoS: byte(s.rng.IntN(3)), Retain: s.rng.IntN(20) == 0}
	step := fuzzStep{number: s.f.serial.Add(1)}
	p.Payload = ledgerPayload(step.number) + strings.Repeat("x", s.rng.IntN(3)*s.rng.IntN(100))
	if p.QoS > 0 {
		step.id = s.fresh()
		p.ID = step.id
	} else {
		step.number = 0
	}
	if s.version == 5 {
		s.adorn(&p)
	}
	step.packet = p.Packet(s.version)
	return step
}

// adorn adds properties, and a topic alias: a new one, or the one in place of the topic.
func (s *fuzzScript) adorn(p *wire.Publish) {
	properties := [][]byte{wire.Bytes(0x01, 1), wire.Bytes(0x02, uint32(60)), wire.Bytes(0x03, "text"), wire.Bytes(0x08, "answer/here"),
		wire.Bytes(0x09, "correlation"), wire.User("k", "v"), wire.User("mqtt.qos", "7")}
	section := s.some(properties...)
	if s.rng.IntN(3) == 0 {
		alias := 1 + s.rng.IntN(16)
		if known := s.aliases[alias]; known != "" && s.rng.IntN(3) > 0 {
			p.Topic = ""
		} else {
			s.aliases[alias] = p.Topic
		}
		section = append(section, wire.Bytes(0x23, uint16(alias))...)
	}
	p.Properties = wire.Properties(section)
}

func (s *fuzzScript) filter() string {
	filters := []string{"devices/" + s.id + "/commands", "#", "+/+/commands", "devices/+/t1/#", "$share/g/devices/+/commands", "never/" + s.id}
	return filters[s.rng.IntN(len(filters))]
}

func (s *fuzzScript) subscribe() []byte {
	var filters []wire.Filter
	for range 1 + s.rng.IntN(3) {
		options := byte(s.rng.IntN(3))
		f := wire.Filter{Name: s.filter(), Options: options}
		if s.version == 5 {
			f.Options |= byte(s.rng.IntN(3))<<4 | byte(s.rng.IntN(2))<<3
		}
		filters = append(filters, f)
	}
	var properties []byte
	if s.version == 5 {
		properties = wire.Properties(s.some(wire.Bytes(0x0B, wire.Length(1+s.rng.IntN(300_000))), wire.User("k", "v")))
	}
	return wire.Subscribe(s.version, s.fresh(), properties, filters...)
}
