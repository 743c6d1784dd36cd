package mqtt

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// greet says CONNECT with a protocol name and level and gives the CONNACK as it came.
func (w *world) greet(name string, level byte, rest ...any) (c *client, connack []byte) {
	w.t.Helper()
	c = w.dial(level &^ bridgeBit)
	c.send(packet(0x10, str(name), level, 2, uint16(0), cat(rest...)))
	first, body := c.read()
	return c, packet(int(first), body)
}

// TestBridgesAreServed: they set the high bit of the protocol level. What they subscribe to comes with the RETAIN that it
// has, and not what they sent.
func TestBridgesAreServed(t *testing.T) {
	for _, d := range []struct {
		name  string
		level byte
		none  []byte
	}{{"MQIsdp", 3, nil}, {"MQIsdp", 0x83, nil}, {"MQTT", 0x84, nil}, {"MQTT", 0x85, props()}} {
		w := newWorld(t, nil).dispatcher()
		c, connack := w.greet(d.name, d.level, d.none, str("bridge"))
		require.Equal(t, byte(0), connack[3], "%s %#x", d.name, d.level)
		if c.version < 5 {
			require.Equal(t, packet(0x20, 0, 0), connack)
		}
		c.publish(pub{topic: "t", qos: 1, id: 1})
		m := w.next()
		require.Equal(t, "bridge", m.ClientID)
		w.ack(m)
		c.expect(puback(1))
		c.send(packet(0x82, uint16(7), d.none, str("t"), 1))
		c.expect(packet(0x90, uint16(7), d.none, 1))
		retained := pub{topic: "t", payload: "x", retain: true}
		w.send(&Command{Topic: []byte("t"), Payload: []byte("x"), Retain: true})
		retained.retain = d.level&bridgeBit != 0
		c.expect(retained.packet(c.version))
		w.send(&Command{Topic: []byte("t"), Payload: []byte("own"), From: "bridge"})
		if d.level&bridgeBit == 0 {
			c.expect(pub{topic: "t", payload: "own"}.packet(c.version))
		}
		c.ping()
		if c.version == 3 {
			c.send(packet(0x6A, uint16(9))) // PUBREL that is sent again has DUP
			c.expect(pubcomp(9))
		}
	}
}

// TestStateOfABridgeGoesNowhere: it is acknowledged in any case, and is no will either.
func TestStateOfABridgeGoesNowhere(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		kept, err := NewRetained(RetainedConfig{Messages: 1, Bytes: 1})
		require.NoError(t, err)
		w := newWorld(t, func(c *Config) { c.Retained = kept })
		for i, name := range []string{"bridge.one", "plant/7", "/"} { // the bridge's client ID
			state := "$SYS/broker/connection/" + name + "/state"
			c := w.connect(hello{version: v, id: name, will: &lastWill{topic: state, payload: "0", qos: 1, retain: true}})
			for qos := range 3 {
				c.publish(pub{topic: state, payload: "1", qos: qos, id: 5, retain: true})
				if qos > 0 {
					c.expect(packet(0x30+0x10*qos, uint16(5)))
				}
			}
			c.send(pubrel(5))
			c.expect(pubcomp(5))
			require.NoError(t, c.nc.Close())
			w.ended()
			w.noMessage()
			require.Equal(t, 3*(i+1), count(w.s.m.bridgeStates))
			require.Zero(t, w.reserved())
		}
		c := w.device(v, "bridge")
		for _, other := range []string{"$SYS/broker/connection/state", "$SYS/broker/connection//state", "$SYS/broker/connection/a/b/status", "$SYS/broker/load", "broker/connection/a/state"} {
			c.publish(pub{topic: other})
			require.Equal(t, other, string(w.next().Topic), "for the Handler to judge")
		}
	})
}

// TestProtocolLevelsThatAreNotOffered are refused in the language that their bridge or client is likely to know.
func TestProtocolLevelsThatAreNotOffered(t *testing.T) {
	w := newWorld(t, nil)
	for level := range 256 {
		for _, name := range []string{"MQTT", "MQIsdp"} {
			offered := map[string][]int{"MQTT": {4, 5}, "MQIsdp": {3}}[name]
			if base := level &^ bridgeBit; base == offered[0] || base == offered[len(offered)-1] {
				continue
			}
			c, connack := w.greet(name, byte(level), str("a"))
			if name == "MQTT" && level > 5 && level < bridgeBit {
				require.Equal(t, byte(UnsupportedProtocolVersion), connack[3], "level %d", level)
			} else {
				require.Equal(t, packet(0x20, 0, 1), connack, "%s, level %#x", name, level)
			}
			c.closed()
		}
	}
}

func TestMQTT31NeedsAClientID(t *testing.T) {
	w := newWorld(t, nil)
	c, connack := w.greet("MQIsdp", 3, str(""))
	require.Equal(t, packet(0x20, 0, 2), connack)
	c.closed()
	c, connack = w.greet("MQIsdp", 3, str(strings.Repeat("i", 200)))
	require.Equal(t, packet(0x20, 0, 0), connack, "as other brokers, more than its 23 characters")
	c.ping()
}

// TestConnectThatIsTooLargeIsAnswered, with the reset of the connection behind the answer and not before it.
func TestConnectThatIsTooLargeIsAnswered(t *testing.T) {
	w := newWorld(t, nil)
	f := func(want []byte, h []byte) {
		t.Helper()
		c := w.dial(4)
		sent := c.flood(h)
		first, body := c.read()
		require.Equal(t, want, packet(int(first), body)[:len(want)])
		<-sent
		c.closed()
	}
	id, half := strings.Repeat("i", 65535), strings.Repeat("u", 40_000)
	f(packet(0x20, 0, 2), hello{version: 4, id: id}.packet())
	f(packet(0x20, 0, 2), packet(0x10, str("MQIsdp"), 3, 2, uint16(0), str(id)))
	f(packet(0x20, 0, 3), hello{version: 4, id: "a", username: half, password: half}.packet())
	f(packet(0x20, 0, 1), packet(0x10, str("MQTT"), 2, 2, uint16(0), str(id)))
	too := hello{version: 5, id: id}.packet()
	c := w.dial(5)
	for _, b := range too[:40] { // in pieces too
		c.send(b)
	}
	first, body := c.read()
	require.Equal(t, byte(0x20), first)
	require.Equal(t, PacketTooLarge, Code(body[1]))
	c.closed()
}

// TestPaddedLengths: MQTT 3.1.1 does not ask for the shortest form.
func TestPaddedLengths(t *testing.T) {
	pad := func(p []byte) []byte { return cat(int(p[0]), p[1]|0x80, 0x80, 0, p[2:]) }
	w := newWorld(t, nil)
	c := w.dial(4)
	c.send(pad(hello{version: 4, id: "dev"}.packet()))
	c.expect(packet(0x20, 0, 0))
	c.send(pad(pub{topic: "t", payload: "x", qos: 1, id: 1}.packet(4)))
	m := w.next()
	require.Equal(t, "x", string(m.Payload))
	c.send(pad(pingreq))
	c.expect(pingresp)
	w.ack(m)
	c.expect(puback(1))
	c.send(pad(packet(0xE0)))
	c.closed()

	c = w.dial(5)
	c.send(pad(hello{version: 5, id: "dev"}.packet()))
	first, body := c.read()
	require.Equal(t, byte(0x20), first)
	require.Equal(t, MalformedPacket, Code(body[1]), "[MQTT-1.5.5-1]")
	c.closed()
}
