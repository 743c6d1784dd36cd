package mqtt

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// serverProps splits a property section as a server may send it; a repeated identifier fails.
func serverProps(t *testing.T, b []byte) map[byte]string {
	t.Helper()
	n, used := 0, 1
	for shift := 0; ; shift += 7 {
		n |= int(b[used-1]&0x7F) << shift
		if b[used-1] < 0x80 {
			break
		}
		used++
	}
	b = b[used : used+n]
	all := map[byte]string{}
	for len(b) > 0 {
		id, size := b[0], 0
		switch id {
		case 0x25, 0x28, 0x29, 0x2A, 0x24:
			size = 1
		case 0x13, 0x21, 0x22:
			size = 2
		case 0x11, 0x27:
			size = 4
		case 0x12, 0x1F:
			size = 2 + int(b[1])<<8 + int(b[2])
		default:
			t.Fatalf("property %#x in a packet of the server", id)
		}
		require.NotContains(t, all, id)
		all[id] = string(b[1 : 1+size])
		b = b[1+size:]
	}
	return all
}

func TestConnackAdvertisesExactlyWhatIsOffered(t *testing.T) {
	w := newWorld(t, func(c *Config) {
		c.ReceiveMaximum, c.MaxPacketSize, c.TopicAliasMaximum, c.KeepAliveMax = 77, 5000, 3, 50*time.Second
		c.SessionExpiryMax = 100 * time.Second
	})
	connack := func(h hello) map[byte]string {
		h.version = 5
		c := w.connect(h)
		require.False(t, c.present())
		return serverProps(t, c.connack[2:])
	}
	offer := func(more ...any) map[byte]string {
		m := map[byte]string{
			0x21: string(cat(uint16(77))), 0x27: string(cat(uint32(5000))), 0x22: string(cat(uint16(3))),
			0x25: "\x00", 0x2A: "\x00", // retained messages, shared subscriptions: no
		}
		for i := 0; i < len(more); i += 2 {
			m[byte(more[i].(int))] = string(cat(more[i+1]))
		}
		return m
	}
	require.Equal(t, offer(), connack(hello{id: "a", keep: 50}))
	require.Equal(t, offer(), connack(hello{id: "b", keep: 50, props: cat(0x11, uint32(100))}))
	require.Equal(t, offer(0x11, uint32(100)), connack(hello{id: "c", keep: 50, props: cat(0x11, uint32(101))}))
	require.Equal(t, offer(0x11, uint32(100)), connack(hello{id: "d", keep: 50, props: cat(0x11, uint32(1<<32-1))}))
	require.Equal(t, offer(0x13, uint16(50)), connack(hello{id: "e", keep: 51}))
	require.Equal(t, offer(0x13, uint16(50)), connack(hello{id: "f", keep: 0}), "no keep-alive is longer than any")
}

func TestConnackOfferNothingConfiguredIsLeftOut(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.TopicAliasMaximum, c.KeepAliveMax = 0, 0 })
	got := serverProps(t, w.connect(hello{version: 5, id: "a", keep: 65535}).connack[2:])
	require.NotContains(t, got, byte(0x22))
	require.NotContains(t, got, byte(0x13))
}

func TestConnackOf311HasNoProperties(t *testing.T) {
	w := newWorld(t, nil)
	require.Equal(t, []byte{0, 0}, w.device(4, "a").connack)
	require.Equal(t, []byte{0, 0}, w.connect(hello{version: 4}).connack, "an assigned client ID is not told")
}

func TestConfigurationOutOfRangeIsRefused(t *testing.T) {
	refused := func(change func(*Config)) {
		t.Helper()
		cfg := DefaultConfig()
		change(&cfg)
		_, err := New(cfg, &recorder{})
		require.Error(t, err)
	}
	refused(func(c *Config) { c.ReceiveMaximum = 65536 })
	refused(func(c *Config) { c.ReceiveMaximum = -1 })
	refused(func(c *Config) { c.TopicAliasMaximum = 65536 })
	refused(func(c *Config) { c.TopicAliasMaximum = -1 })
	refused(func(c *Config) { c.MaxPacketSize = 268435461 })
	refused(func(c *Config) { c.MaxPacketSize = -1 })
}

func TestAssignedClientIDsAreToldAndDiffer(t *testing.T) {
	w := newWorld(t, nil)
	seen := map[string]bool{}
	for range 3 {
		c := w.connect(hello{version: 5})
		id := serverProps(t, c.connack[2:])[0x12]
		require.Greater(t, len(id), 10)
		require.False(t, seen[id])
		seen[id] = true
		c.publish(pub{topic: "t"})
		require.Equal(t, id[2:], w.next().ClientID)
	}
}

func TestAssignedClientIDKeepsItsSession(t *testing.T) {
	w := newWorld(t, nil)
	c := w.connect(hello{version: 5, persist: true, props: cat(0x11, uint32(60))})
	id := serverProps(t, c.connack[2:])[0x12][2:]
	require.True(t, w.stored(5, id).present())
}

func TestSessionPresentToTheLetter(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		leave := func(c *client) {
			t.Helper()
			c.send(packet(0xE0))
			c.closed()
		}
		first := w.stored(v, "d")
		require.False(t, first.present(), "nothing was stored before")
		leave(first)
		again := w.stored(v, "d")
		require.True(t, again.present(), "stored, resumed")
		require.True(t, w.stored(v, "d").present(), "taken over, resumed")
		clean := w.device(v, "d")
		require.False(t, clean.present(), "clean start [MQTT-3.2.2-2]")
		leave(clean)
		require.False(t, w.stored(v, "d").present(), "a clean session leaves nothing")
	})
}

func TestSessionPresentNeedsAnExpiry(t *testing.T) {
	w := newWorld(t, nil)
	c := w.connect(hello{version: 5, id: "d", persist: true}) // Session Expiry Interval 0
	c.send(packet(0xE0))
	c.closed()
	require.False(t, w.stored(5, "d").present())
	c = w.stored(5, "d")
	require.True(t, c.present())
	c.send(packet(0xE0, 0, props(0x11, uint32(0)))) // DISCONNECT ends it after all
	c.closed()
	require.False(t, w.stored(5, "d").present())
}

func TestDisconnectMayLengthenTheSession(t *testing.T) {
	w := newWorld(t, nil)
	c := w.connect(hello{version: 5, id: "d", persist: true, props: cat(0x11, uint32(1))})
	c.send(packet(0xE0, 0, props(0x11, uint32(1000))))
	c.closed()
	_, over := w.s.sessions.sweep(time.Now().Add(999*time.Second), false)
	require.Empty(t, over)
	require.True(t, w.stored(5, "d").present())
	c = w.connect(hello{version: 5, id: "e"})
	c.send(packet(0xE0, 0, props(0x11, uint32(1000))))
	c.goodbye(ProtocolError) // [MQTT-3.14.2-2]
	require.False(t, w.stored(5, "e").present())
}

func TestConnectRefusedSaysWhy(t *testing.T) {
	w := newWorld(t, nil)
	const silent = Code(0xFF)
	refused := func(name string, v byte, want Code, parts ...any) {
		t.Helper()
		c := w.dial(v)
		c.send(parts...)
		if want != silent {
			first, body := c.read()
			require.Equal(t, byte(0x20), first, name)
			require.Equal(t, byte(0), body[0], "%s: Session Present", name) // [MQTT-3.2.2-6]
			require.Equal(t, byte(want), body[1], name)
			if v < 5 {
				require.Len(t, body, 2, name)
			}
		}
		c.closed()
		w.noMessage()
	}
	raw := func(v byte, flags int, rest ...any) []byte {
		return packet(0x10, str("MQTT"), v, flags, uint16(0), cat(rest...))
	}
	refused("other protocol", 4, silent, packet(0x10, str("MQTX"), 4, 2, uint16(0), str("a")))
	refused("empty", 4, silent, packet(0x10))
	refused("empty client ID, stored session", 4, 2, hello{version: 4, persist: true}.packet())
	for _, v := range []byte{4, 5} {
		code := func(c Code) Code {
			if v < 5 {
				return silent
			}
			return c
		}
		var none []byte
		if v == 5 {
			none = props()
		}
		refused("reserved flag", v, code(MalformedPacket), raw(v, 3, none, str("a")))
		refused("will QoS without will", v, code(MalformedPacket), raw(v, 2|8, none, str("a")))
		refused("will retain without will", v, code(MalformedPacket), raw(v, 2|0x20, none, str("a")))
		refused("will QoS 3", v, code(MalformedPacket), raw(v, 2|4|0x18, none, str("a"), none, str("t"), str("p")))
		refused("will topic with a wildcard", v, code(MalformedPacket), hello{version: v, id: "a", will: &lastWill{topic: "a/#"}}.packet())
		refused("empty will topic", v, code(TopicNameInvalid), hello{version: v, id: "a", will: &lastWill{}}.packet())
		refused("client ID is not UTF-8", v, code(MalformedPacket), hello{version: v, id: "\xff"}.packet())
		refused("client ID with U+0000", v, code(MalformedPacket), hello{version: v, id: "a\x00"}.packet())
		refused("bytes left over", v, code(MalformedPacket), raw(v, 2, none, str("a"), 0))
		refused("user name missing", v, code(MalformedPacket), raw(v, 2|0x80, none, str("a")))
		refused("password cut", v, code(MalformedPacket), raw(v, 2|0xC0, none, str("a"), str("u"), 0, 5, 1))
	}
	refused("password without user name", 4, silent, hello{version: 4, id: "a", password: "x"}.packet())
	v5 := func(p ...any) []byte { return hello{version: 5, id: "a", props: cat(p...)}.packet() }
	refused("will retain", 5, RetainNotSupported, hello{version: 5, id: "a", will: &lastWill{topic: "t", retain: true}}.packet())
	refused("authentication method", 5, BadAuthenticationMethod, v5(0x15, str("SCRAM-SHA-1")))
	refused("authentication data alone", 5, ProtocolError, v5(0x16, str("x")))
	refused("Receive Maximum 0", 5, ProtocolError, v5(0x21, uint16(0)))
	refused("Maximum Packet Size 0", 5, ProtocolError, v5(0x27, uint32(0)))
	refused("property twice", 5, ProtocolError, v5(0x21, uint16(1), 0x21, uint16(1)))
	refused("Request Problem Information 2", 5, ProtocolError, v5(0x17, 2))
	refused("unknown property", 5, MalformedPacket, v5(0x7E, 1))
	refused("property of PUBLISH", 5, MalformedPacket, v5(0x23, uint16(1)))
	refused("property cut", 5, MalformedPacket, raw(5, 2, 3, 0x21, 0))
	refused("will property outside the will", 5, MalformedPacket, v5(0x18, uint32(1)))
}

func TestPasswordWithoutUsernameIsLegalIn5(t *testing.T) {
	w := newWorld(t, nil)
	w.connect(hello{version: 5, id: "a", password: "token"}).ping()
}

func TestUsernameComesWithEveryMessage(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.connect(hello{version: v, id: "a", username: "anna", password: "secret"})
		c.publish(pub{topic: "t"})
		m := w.next()
		require.Equal(t, "anna", m.Username)
		require.Equal(t, "a", m.ClientID)
	})
}

func TestFirstPacketMustBeConnect(t *testing.T) {
	w := newWorld(t, nil)
	for first := range 256 {
		if first == 0x10 {
			continue
		}
		c := w.dial(4)
		c.send(first, 2, "ab")
		c.closed()
	}
	w.noMessage()
}

func TestSecondConnectIsAProtocolError(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.device(v, "a")
		c.send(hello{version: v, id: "a"}.packet())
		c.goodbye(ProtocolError)
	})
}

func TestConnectionWithoutConnectEnds(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.ConnectTimeout = 30 * time.Millisecond })
	silent := w.dial(4)
	half := w.dial(4)
	half.send(hello{version: 4, id: "abcdef"}.packet()[:9])
	silent.closed()
	half.closed()
}

func TestConnectInSmallPiecesDoesNotExtendItsDeadline(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.ConnectTimeout = 50 * time.Millisecond })
	c := w.dial(4)
	c.send(0x10, vbi(60000))
	for range 1 << 20 {
		if _, err := c.pipe.Write([]byte{0}); err != nil {
			return // it ended although something came all the time
		}
		time.Sleep(time.Millisecond) // the pace of a slow device, nothing is waited for
	}
	t.Fatal("the connection stays open")
}

func TestConnectDeadlineEndsWithConnack(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.ConnectTimeout = 50 * time.Millisecond })
	c := w.device(4, "a")
	for end := time.Now().Add(200 * time.Millisecond); time.Now().Before(end); {
		c.ping()
	}
}

func TestConnectIsBoundedBeforeAnybodyIsKnown(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.MaxPacketSize = 1 << 20 })
	fits := hello{version: 4, id: "a", username: "u", password: strings.Repeat("p", 60_000)}
	w.connect(fits).ping()
	c := w.dial(4)
	c.send(0x10, vbi(connectPacketMax)) // with its header one of the bytes too many
	c.closed()
}

func TestPacketsInOnePieceWithConnect(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.dial(v)
		half := pub{topic: "t", payload: "second", qos: 1, id: 2}.packet(v)
		c.send(hello{version: v, id: "a"}.packet(), pub{topic: "t", payload: "first", qos: 1, id: 1}.packet(v), pingreq, half[:5])
		first, _ := c.read()
		require.Equal(t, byte(0x20), first)
		c.expect(pingresp)
		w.ack(w.next())
		c.expect(puback(1))
		c.send(half[5:])
		m := w.next()
		require.Equal(t, "second", string(m.Payload))
		w.ack(m)
		c.expect(puback(2))
	})
}

func TestConnackKeepsToTheClientsMaximumPacketSize(t *testing.T) {
	w := newWorld(t, nil)
	c := w.dial(5)
	c.send(hello{version: 5, id: "a", props: cat(0x27, uint32(20), 0x15, str("x"))}.packet())
	c.expect(packet(0x20, 0, BadAuthenticationMethod, props())) // without its Reason String [MQTT-3.2.2-19]
	c.closed()
	c = w.dial(5)
	c.send(hello{version: 5, id: "a", props: cat(0x27, uint32(10))}.packet())
	c.closed() // its CONNACK does not fit, and what must be told can't be left out
}
