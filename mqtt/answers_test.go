package mqtt

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAcksOfUnknownIDsAreHarmless(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		harmless := func(c *client) {
			t.Helper()
			c.send(puback(7), pubcomp(7))
			c.ping()
			c.send(pubrec(7)) // PUBREL lets the device end the exchange
			if v == 5 {
				c.expect(packet(0x62, uint16(7), PacketIdentifierNotFound))
			} else {
				c.expect(pubrel(7))
			}
			c.send(pubcomp(7))
			c.ping()
		}
		d := commands(t, nil)
		harmless(d.device(v, "never subscribed"))
		c := d.subscribed(v, "dev", 2)
		harmless(c)
		cmd := d.command("t", "0", 2)
		c.gets(0, 1, 2, 1)
		harmless(c)
		d.waits(cmd)
		c.send(pubrec(1))
		c.expect(pubrel(1))
		harmless(c)
		c.send(pubcomp(1), pubcomp(1))
		c.ping()
		d.became(cmd, "dev delivered")
		harmless(c)
	})
}

func TestAcksSaidTwiceAreHarmless(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		d := commands(t, nil)
		c := d.subscribed(v, "dev", 2)
		one, two := d.command("t", "0", 1), d.command("t", "1", 2)
		c.gets(0, 1, 1, 1)
		c.gets(1, 1, 2, 2)
		c.send(puback(1), puback(1), pubrec(2), pubrec(2))
		c.expect(pubrel(2), pubrel(2))
		c.send(pubcomp(2), pubcomp(2))
		c.ping()
		d.became(one, "dev delivered")
		d.became(two, "dev delivered")
	})
}

func TestAckThatDoesNotFitEndsTheConnection(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		fault := func(code Code, acks ...[]byte) {
			t.Helper()
			d := commands(t, nil)
			c := d.subscribed(v, "dev", 2)
			all := []*Command{d.command("t", "0", 1), d.command("t", "1", 2), d.command("t", "2", 2)}
			c.gets(0, 1, 1, 1)
			c.gets(1, 2, 2, 2)
			c.send(pubrec(3))
			c.expect(pubrel(3))
			for _, ack := range acks {
				c.send(ack)
			}
			c.goodbye(code)
			d.waits(all...)
			c = d.stored(v, "dev") // the session is whole
			c.expect(command(0, 1, 1).again().packet(v), command(1, 2, 2).again().packet(v), pubrel(3))
			c.send(puback(1), pubrec(2), pubcomp(3))
			c.expect(pubrel(2))
			c.send(pubcomp(2))
			for _, cmd := range all {
				d.became(cmd, "dev delivered")
			}
		}
		fault(ProtocolError, pubrec(1))
		fault(ProtocolError, pubcomp(1))
		fault(ProtocolError, puback(2))
		fault(ProtocolError, pubcomp(2)) // before PUBREC
		fault(ProtocolError, puback(3))
		fault(ProtocolError, puback(0))
		fault(ProtocolError, pubrec(0))
		fault(ProtocolError, pubcomp(0))
		fault(MalformedPacket, packet(0x40))
		fault(MalformedPacket, packet(0x40, 1))
		fault(MalformedPacket, packet(0x41, uint16(1)))
		if v == 4 {
			fault(MalformedPacket, packet(0x40, uint16(1), 0))
			fault(MalformedPacket, packet(0x70, uint16(3), 0))
			return
		}
		fault(MalformedPacket, packet(0x40, uint16(1), 0, 9))
		fault(MalformedPacket, packet(0x50, uint16(2), 0, props(), 1))
		fault(MalformedPacket, packet(0x50, uint16(2), 0, props(0x23, uint16(1))))
		fault(ProtocolError, packet(0x70, uint16(3), 0, props(0x1F, str("a"), 0x1F, str("a"))))
	})
}

// TestPubrecWithAnErrorAfterPubrec: the device takes back that it received the message.
func TestPubrecWithAnErrorAfterPubrec(t *testing.T) {
	d := commands(t, nil)
	c := d.subscribed(5, "dev", 2)
	cmd := d.command("t", "0", 2)
	c.gets(0, 1, 2, 1)
	c.send(pubrec(1), packet(0x50, uint16(1), QuotaExceeded), pubcomp(1))
	c.expect(pubrel(1))
	c.ping()
	d.became(cmd, "dev rejected 0x97")
}

// TestFloodOfAcks: whatever a device says of ids, what it costs is bounded, and it is closed if it does not read
// what it makes us say.
func TestFloodOfAcks(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		d := newWorldOn(t, narrowListener(t), nil).dispatcher()
		d.s.rates.controlBurst = time.Hour // it is not their rate that must end this
		other := d.subscribed(v, "other", 1)
		c := d.stored(v, "dev")
		c.subscribe("u", 2)
		_ = c.nc.SetReadBuffer(32 << 10)
		inFlight := d.command("u", "0", 2)
		var flood []byte
		for i := range 4000 {
			flood = cat(flood, pubrec(uint16(1000+i)), pubrec(1), puback(uint16(1000+i)), pubcomp(uint16(1000+i)), pubrel(uint16(1000+i)))
		}
		for check := enough(t); count(d.s.m.slowReaders) == 0; check() {
			_, _ = c.pipe.Write(flood)
			d.command("t", "x", 0)
			other.expect(pub{topic: "t", payload: "x"}.packet(v))
		}
		d.left("dev")
		d.waits(inFlight)
		c = d.stored(v, "dev")
		c.expect(pubrel(1))
		c.send(pubcomp(1))
		d.became(inFlight, "dev delivered")
		d.settled()
	})
}

// TestFloodOfSubscriptions: SUBSCRIBE and UNSUBSCRIBE without end cost no memory that stays.
func TestFloodOfSubscriptions(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		d := commands(t, nil)
		c := d.device(v, "dev")
		before := heap()
		for round := range 200 {
			var filters, options []byte
			for i := range 100 {
				filter := fmt.Sprintf("%d/%s/%d", round, strings.Repeat("+/", 60), i)
				filters = cat(filters, str(filter))
				options = cat(options, str(filter), round%3)
			}
			c.send(packet(0x82, uint16(1), c.none(), options))
			_, body := c.read()
			require.Equal(t, byte(round%3), body[len(body)-1])
			if round%2 == 0 {
				c.send(packet(0xA2, uint16(1), c.none(), filters))
				_, _ = c.read()
				require.Zero(t, d.s.index.len())
			} else {
				require.Equal(t, 100, d.s.index.len())
				c.send(packet(0xE0))
				c.closed()
				c = d.device(v, "dev")
			}
		}
		require.Less(t, heap(), before+(4<<20))
	})
}

// TestManyFiltersInOneSubscribe: each has its code, in a packet as large as we take.
func TestManyFiltersInOneSubscribe(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		d := commands(t, nil)
		c := d.device(v, "dev")
		request, codes := cat(uint16(1), c.none()), cat(uint16(1), c.none())
		full := map[byte]Code{4: 0x80, 5: QuotaExceeded}[v]
		for i := range 25_000 {
			request = append(request, cat(str(fmt.Sprint(i)), 1)...)
			if i < 100 {
				codes = append(codes, 1)
			} else {
				codes = append(codes, byte(full))
			}
		}
		c.send(packet(0x82, request))
		c.expect(packet(0x90, codes))
		c.ping()
		require.Equal(t, 100, d.s.index.len())
	})
}

// TestDeviceThatDoesNotReadItsSubacks is closed like any slow reader, and its subscriptions stay bounded.
func TestDeviceThatDoesNotReadItsSubacks(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorldOn(t, narrowListener(t), nil)
		w.s.rates.controlBurst = time.Hour // it is not their rate that must end this
		other := w.device(v, "other")
		c := w.device(v, "dev")
		_ = c.nc.SetReadBuffer(32 << 10)
		request := packet(0x82, uint16(1), c.none(), bytes.Repeat(cat(str("a"), 1), 5000))
		for check := enough(t); count(w.s.m.slowReaders) == 0; check() {
			_, _ = c.pipe.Write(request)
			other.ping()
		}
		until(t, "closed", func() bool { return w.open() == 1 })
		require.Zero(t, w.s.index.len())
	})
}
