package mqtt

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPingIsAnswered(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.device(v, "dev")
		c.send(pingreq, pingreq, pingreq)
		c.expect(pingresp, pingresp, pingresp)
		c.send(packet(0xC0, 0))
		c.goodbye(MalformedPacket)
	})
}

func TestPingIsAnsweredWhileNothingIsAcknowledged(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.device(v, "dev")
		for id := uint16(1); id <= 256; id++ {
			c.publish(pub{topic: "t", qos: 1, id: id})
		}
		c.ping()
	})
}

func TestRequestFaults(t *testing.T) {
	fault := func(v byte, code Code, p []byte) {
		t.Helper()
		w := newWorld(t, nil)
		c := w.device(v, "dev")
		c.send(p)
		c.goodbye(code)
	}
	bothVersions(t, func(t *testing.T, v byte) {
		var none []byte
		if v == 5 {
			none = props()
		}
		sub := func(parts ...any) []byte { return packet(0x82, uint16(1), none, cat(parts...)) }
		unsub := func(parts ...any) []byte { return packet(0xA2, uint16(1), none, cat(parts...)) }
		fault(v, MalformedPacket, packet(0x80, uint16(1), none, str("a"), 0)) // [MQTT-3.8.1-1]
		fault(v, MalformedPacket, packet(0xA0, uint16(1), none, str("a")))    // [MQTT-3.10.1-1]
		fault(v, ProtocolError, packet(0x82, uint16(0), none, str("a"), 0))
		fault(v, ProtocolError, packet(0xA2, uint16(0), none, str("a")))
		fault(v, ProtocolError, sub())   // [MQTT-3.8.3-2]
		fault(v, ProtocolError, unsub()) // [MQTT-3.10.3-2]
		fault(v, MalformedPacket, packet(0x82))
		fault(v, MalformedPacket, packet(0x82, 1))
		fault(v, MalformedPacket, sub(str("a"))) // cut before its options
		fault(v, MalformedPacket, sub(str("a"), 0, str("b")))
		fault(v, MalformedPacket, sub(uint16(9), "a", 0))
		fault(v, MalformedPacket, unsub(uint16(9), "a"))
		fault(v, MalformedPacket, sub(str("a\xff"), 0))
		fault(v, MalformedPacket, sub(str("a"), 0x40))
		fault(v, MalformedPacket, sub(str("a"), 0x80))
		for _, filter := range []string{"", "a#", "#/a", "a/#/b", "a+", "+a/b", "a/+b", "$share/g", "$share//a", "$share/+/a", "$share/g/"} {
			fault(v, MalformedPacket, sub(str(filter), 0))
			fault(v, MalformedPacket, unsub(str(filter)))
		}
	})
	fault(4, MalformedPacket, packet(0x82, uint16(1), str("a"), 3))
	fault(4, MalformedPacket, packet(0x82, uint16(1), str("a"), 4))
	fault(5, ProtocolError, packet(0x82, uint16(1), props(), str("a"), 3))    // QoS 3 (section 3.8.3.1)
	fault(5, ProtocolError, packet(0x82, uint16(1), props(), str("a"), 0x30)) // Retain Handling 3
	fault(5, ProtocolError, packet(0x82, uint16(1), props(), str("$share/g/a"), 4))
	fault(5, ProtocolError, packet(0x82, uint16(1), props(0x0B, 0), str("a"), 0)) // section 3.8.2.1.2
	fault(5, ProtocolError, packet(0x82, uint16(1), props(0x0B, 1, 0x0B, 1), str("a"), 0))
	fault(5, MalformedPacket, packet(0x82, uint16(1), props(0x23, uint16(1)), str("a"), 0))
	fault(5, MalformedPacket, packet(0xA2, uint16(1), props(0x0B, 1), str("a")))
	fault(5, MalformedPacket, packet(0x82, uint16(1)))
	fault(5, MalformedPacket, packet(0x82, uint16(1), 0x80, 0x80, 0x80, 0x80, 0))
}

func TestPacketsADeviceMayNotSend(t *testing.T) {
	fault := func(v byte, code Code, p []byte) {
		t.Helper()
		w := newWorld(t, nil)
		c := w.device(v, "dev")
		c.send(p)
		c.goodbye(code)
	}
	bothVersions(t, func(t *testing.T, v byte) {
		fault(v, MalformedPacket, packet(0x00))
		fault(v, ProtocolError, packet(0x20, 0, 0))
		fault(v, ProtocolError, packet(0x90, uint16(1), 0))
		fault(v, ProtocolError, packet(0xB0, uint16(1)))
		fault(v, ProtocolError, packet(0xD0))
		fault(v, ProtocolError, packet(0xF0))
		for _, reserved := range []int{0x11, 0x41, 0x52, 0x63, 0x71, 0xC1, 0xE1, 0xF1} {
			fault(v, MalformedPacket, packet(reserved, uint16(1)))
		}
		fault(v, MalformedPacket, cat(0xC0, 0x80, 0x80, 0x80, 0x80))
	})
}

func TestDisconnectFaults(t *testing.T) {
	fault := func(v byte, code Code, parts ...any) {
		t.Helper()
		w := newWorld(t, nil)
		c := w.device(v, "dev")
		c.send(packet(0xE0, parts...))
		c.goodbye(code)
	}
	fault(4, MalformedPacket, 0)
	fault(5, MalformedPacket, 0, 9)
	fault(5, MalformedPacket, 0, props(), 1)
	fault(5, MalformedPacket, 0, props(0x23, uint16(1)))
	fault(5, ProtocolError, 0, props(0x11, uint32(0), 0x11, uint32(0)))
}

func TestDisconnectMayCarryAReason(t *testing.T) {
	w := newWorld(t, nil)
	c := w.device(5, "dev")
	c.send(packet(0xE0, 0x82, props(0x1F, str("you are wrong"), user("a", "b"))))
	c.closed()
	c = w.device(5, "dev")
	c.send(packet(0xE0, 0))
	c.closed()
	w.ended()
	require.Equal(t, 1, count(w.s.m.disconnects.WithLabelValues("normal disconnection")))
	require.Equal(t, 1, count(w.s.m.disconnects.WithLabelValues("disconnect with a reason code of the device")))
}

func TestNothingIsHandledAfterDisconnect(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.device(v, "dev")
		c.send(packet(0xE0), pub{topic: "t"}.packet(v), pingreq)
		c.closed()
		w.ended()
		w.noMessage()
	})
}

// TestWhatIsSaidFitsTheClientsMaximumPacketSize: reasons are left out rather than the packets that carry them.
func TestWhatIsSaidFitsTheClientsMaximumPacketSize(t *testing.T) {
	for size := 40; size <= 60; size++ {
		w := newWorld(t, nil)
		c := w.connect(hello{version: 5, id: "dev", props: cat(0x27, uint32(size))})
		fits := func(kind byte) {
			t.Helper()
			first, body := c.read()
			require.Equal(t, kind, first)
			require.LessOrEqual(t, len(packet(int(first), body)), size)
		}
		c.send(packet(0x82, uint16(5), props(), str("a"), 0, str("b"), 0))
		fits(0x90)
		c.publish(pub{topic: "t", qos: 1, id: 1})
		w.refuse(w.next(), NotAuthorized, strings.Repeat("x", 45))
		fits(0x40)
		w.device(5, "dev")
		fits(0xE0)
		c.closed()
	}
}

func TestAnswerThatCannotFitEndsTheConnection(t *testing.T) {
	w := newWorld(t, nil)
	c := w.connect(hello{version: 5, id: "dev", props: cat(0x27, uint32(40))})
	request := cat(uint16(5), props())
	for range 50 {
		request = cat(request, str("a"), 0)
	}
	c.send(packet(0x82, request))
	c.goodbye(PacketTooLarge)
}
