package mqtt

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSubscribeGrantsWhatIsAsked(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.device(v, "dev")
		c.send(packet(0x82, uint16(5), c.none(), str("a"), 0, str("a/+"), 1, str("#"), 2, str("$SYS/x"), 1))
		c.expect(packet(0x90, uint16(5), c.none(), 0, 1, 2, 1))
		require.Equal(t, 4, w.s.index.len())
	})
}

func TestSubscribeTellsWhichFilterIsRefusedAndWhy(t *testing.T) {
	deepest := strings.Repeat("a/", 127) + "a"
	longest := strings.Repeat("x", 4096)
	refused := func(v byte, filter string, code Code) {
		t.Helper()
		w := newWorld(t, nil)
		c := w.device(v, "dev")
		if v == 4 {
			code = 0x80 // section 3.9.3 of 3.1.1
		}
		c.send(packet(0x82, uint16(5), c.none(), str(filter), 1, str("fine"), 1))
		c.expect(packet(0x90, uint16(5), c.none(), code, 1))
		require.Equal(t, 1, w.s.index.len())
		c.ping()
	}
	bothVersions(t, func(t *testing.T, v byte) {
		refused(v, "$share/group/a", SharedSubscriptionsUnsupported)
		refused(v, deepest+"/a", TopicFilterInvalid)
		refused(v, deepest+"/#", TopicFilterInvalid)
		refused(v, strings.Repeat("/", 65535), TopicFilterInvalid)
		refused(v, longest+"x", TopicFilterInvalid)
		d := commands(t, nil)
		c := d.device(v, "dev")
		for _, filter := range []string{deepest, longest} {
			c.subscribe(filter, 0)
			d.command(filter, "x", 0)
			c.expect(pub{topic: filter, payload: "x"}.packet(v))
		}
	})
}

func TestSubscriptionsOfASessionAreBounded(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		d := commands(t, func(c *Config) { c.MaxSubscriptions = 3 })
		c := d.device(v, "dev")
		full := map[byte]Code{4: 0x80, 5: QuotaExceeded}[v]
		c.send(packet(0x82, uint16(5), c.none(), str("a"), 1, str("b"), 1, str("c"), 1, str("d"), 1, str("b"), 0))
		c.expect(packet(0x90, uint16(5), c.none(), 1, 1, 1, full, 0)) // one in place of another is no more
		c.send(packet(0xA2, uint16(6), c.none(), str("a")))
		c.expect(c.unsuback(6, Success))
		c.subscribe("d", 1)
		require.Equal(t, 3, d.s.index.len())
		other := d.device(v, "other")
		other.subscribe("a", 1) // bounded for each session
	})
}

// unsuback is the UNSUBACK with a code for each filter, which only MQTT 5 has.
func (c *client) unsuback(id uint16, codes ...Code) []byte {
	if c.version < 5 {
		return packet(0xB0, id)
	}
	b := cat(id, props())
	for _, code := range codes {
		b = cat(b, code)
	}
	return packet(0xB0, b)
}

func TestSubscribeReplacesTheSubscriptionToTheSameFilter(t *testing.T) {
	w := commands(t, nil)
	c := w.device(5, "dev")
	c.send(packet(0x82, uint16(1), props(0x0B, 7), str("t"), 2|8))
	c.expect(packet(0x90, uint16(1), props(), 2))
	retained := &Command{Topic: []byte("t"), QoS: 2, Retain: true}
	w.send(retained)
	c.expect(pub{topic: "t", qos: 2, id: 1, retain: true, props: cat(0x0B, 7)}.packet(5))
	c.subscribe("t", 1) // [MQTT-3.8.4-3]: QoS, Subscription Identifier and Retain As Published are the new ones
	require.Equal(t, 1, w.s.index.len())
	for i, to := range []string{"", "dev"} {
		w.send(&Command{Topic: []byte("t"), QoS: 2, Retain: true, To: to})
		c.expect(pub{topic: "t", qos: 1, id: uint16(2 + i)}.packet(5))
	}
}

func TestUnsubscribeTellsWhatWasThere(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := commands(t, nil)
		c := w.device(v, "dev")
		c.send(packet(0xA2, uint16(3), c.none(), str("a"))) // before the first SUBSCRIBE
		c.expect(c.unsuback(3, NoSubscriptionExisted))
		w.device(v, "other").subscribe("b", 0)
		c.subscribe("a/+", 1)
		c.subscribe("c", 1)
		c.send(packet(0xA2, uint16(4), c.none(), str("a/+"), str("a/+"), str("a/b"), str("b"), str("$share/g/c")))
		c.expect(c.unsuback(4, Success, NoSubscriptionExisted, NoSubscriptionExisted, NoSubscriptionExisted, NoSubscriptionExisted))
		devices, _ := w.send(&Command{Topic: []byte("a/b")})
		require.Zero(t, devices)
		devices, _ = w.send(&Command{Topic: []byte("a/b"), To: "dev"})
		require.Zero(t, devices)
		w.command("c", "x", 0)
		c.expect(pub{topic: "c", payload: "x"}.packet(v))
		require.Equal(t, 2, w.s.index.len())
	})
}

func TestUnsubscribeKeepsWhatWaitsAndWhatIsInFlight(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) { // section 3.10.4
		d := commands(t, func(c *Config) { c.CommandsInFlight = 1 })
		c := d.subscribed(v, "dev", 1)
		sent := d.numbered(1, 2, 1)
		c.gets(1, 1, 1, 1)
		c.send(packet(0xA2, uint16(4), c.none(), str("t")))
		c.expect(c.unsuback(4, Success))
		d.waits(sent...)
		c.send(puback(1))
		c.gets(2, 1, 1, 2)
		c.send(puback(2))
		d.became(sent[0], "dev delivered")
		d.became(sent[1], "dev delivered")
	})
}

func TestSubscriptionsLastAsLongAsTheirSession(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		gone := func(how string, f func(w *world)) {
			t.Helper()
			w := newWorld(t, func(c *Config) { c.MaxStoredSessions = 2 })
			c := w.stored(v, "dev")
			for _, filter := range []string{"a", "a/+", "#", strings.Repeat("a/", 100)} {
				c.subscribe(filter, 1)
			}
			f(w)
			require.Zero(t, w.s.index.len(), how)
		}
		kept := func(w *world) {
			t.Helper()
			require.Equal(t, 4, w.s.index.len())
		}
		drop := func(w *world) {
			w.drop("dev")
			kept(w)
		}
		gone("a clean start", func(w *world) { drop(w); w.device(v, "dev") })
		gone("a clean start that takes over", func(w *world) { w.device(v, "dev") })
		gone("its time", func(w *world) {
			drop(w)
			w.outbox("dev").session.endsAt = 1
			w.pass(1)
		})
		gone("its time, and its device comes first", func(w *world) {
			drop(w)
			w.outbox("dev").session.endsAt = 1
			require.False(t, w.stored(v, "dev").present())
		})
		gone("shutdown", func(w *world) {
			w.stop()
		})
		gone("shutdown while stored", func(w *world) {
			drop(w)
			w.stop()
		})
		gone("no room to store it", func(w *world) {
			for i := range 2 {
				w.stored(v, fmt.Sprint(i))
				w.drop(fmt.Sprint(i))
			}
			w.drop("dev")
			until(t, "ended", func() bool { return w.s.index.len() == 0 })
		})
		gone("the takeovers did not harm it", func(w *world) {
			for range 3 {
				require.True(t, w.stored(v, "dev").present())
				kept(w)
			}
			w.stop()
		})
	})
}

// drop ends the connection of id from our side, as if it were lost, and waits until it has left.
func (w *world) drop(id string) {
	w.t.Helper()
	w.holder(id).shutdown(errHungUp)
	w.left(id)
}

// stop is Shutdown without patience.
func (w *world) stop() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	w.s.Shutdown(ctx)
}

func TestSubscriptionsOfATransientSessionEndWithTheConnection(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.device(v, "dev")
		c.subscribe("t", 1)
		c.send(packet(0xE0))
		c.closed()
		w.ended()
		require.Zero(t, w.s.index.len())
	})
}

func TestDisconnectMayEndTheSubscriptions(t *testing.T) {
	w := newWorld(t, nil)
	c := w.subscribed(5, "dev", 1)
	c.send(packet(0xE0, 0, props(0x11, uint32(0))))
	c.closed()
	w.ended()
	require.Zero(t, w.s.index.len())
}

// TestSubackThatCannotBeSentLeavesNothing: the SUBACK does not fit the device's Maximum Packet Size.
func TestSubackThatCannotBeSentLeavesNothing(t *testing.T) {
	w := newWorld(t, nil)
	c := w.connect(hello{version: 5, id: "dev", props: cat(0x27, uint32(30))})
	request := cat(uint16(5), props())
	for i := range 50 {
		request = cat(request, str(fmt.Sprint(i)), 0)
	}
	c.send(packet(0x82, request))
	c.goodbye(PacketTooLarge)
	w.ended()
	require.Zero(t, w.s.index.len())
}

// TestSubscriptionsOfAllSessionsAreBounded: those of sessions without a connection count too, and what ends is
// given back.
func TestSubscriptionsOfAllSessionsAreBounded(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		d := commands(t, func(c *Config) { c.SubscriptionMemory = 3 * (subscriptionOverhead + 100) })
		filter := strings.Repeat("f", 99)
		refused := byte(UnspecifiedError)
		if v == 5 {
			refused = byte(QuotaExceeded)
		}
		code := func(c *client, filter string) byte {
			t.Helper()
			c.send(packet(0x82, uint16(7), c.none(), str(filter), 1))
			_, body := c.read()
			return body[len(body)-1]
		}
		a, b := d.stored(v, "a"), d.device(v, "b")
		require.Equal(t, byte(1), code(a, filter+"1"))
		require.Equal(t, byte(1), code(a, filter+"2"))
		_ = a.nc.Close()
		d.left("a")
		require.Equal(t, byte(1), code(b, filter+"1"))
		require.Equal(t, byte(1), code(b, filter+"1"), "the same again is no other")
		require.Equal(t, refused, code(b, filter+"2"))
		a = d.connect(hello{version: v, id: "a"}) // clean
		require.Equal(t, byte(1), code(b, filter+"2"))
		require.Equal(t, byte(1), code(a, filter+"3"))
		require.Equal(t, refused, code(a, filter+"4"))
		a.send(packet(0xA2, uint16(7), a.none(), str(filter+"3")))
		_, _ = a.read()
		require.Equal(t, byte(1), code(a, filter+"4"))
		for _, c := range []*client{a, b} {
			_ = c.nc.Close()
		}
		until(t, "nothing is counted any more", func() bool { return d.s.filters.Load() == 0 && d.s.index.len() == 0 })
	})
}
