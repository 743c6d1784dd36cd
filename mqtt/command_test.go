package mqtt

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCommandReachesEveryDeviceThatSubscribed(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		d := commands(t, nil)
		var devices []*client
		for i := range 40 {
			c := d.device(v, fmt.Sprint("dev", i))
			c.subscribe("fleet/+/"+fmt.Sprint(i%2), 1)
			devices = append(devices, c)
		}
		d.device(v, "other").subscribe("fleet/+", 1)
		cmd := &Command{Topic: []byte("fleet/x/1"), Payload: []byte("go"), QoS: 1}
		n, known := d.send(cmd)
		require.Equal(t, 20, n)
		require.False(t, known, "that is said of a command with To")
		var want []string
		for i, c := range devices {
			if i%2 == 1 {
				c.expect(pub{topic: "fleet/x/1", payload: "go", qos: 1, id: 1}.packet(v))
				c.send(puback(1))
				want = append(want, fmt.Sprintf("dev%d delivered", i))
			}
			c.ping()
		}
		d.became(cmd, want...)
		d.wasSent(cmd, 20)
		n, _ = d.send(&Command{Topic: []byte("nobody"), QoS: 1})
		require.Zero(t, n)
	})
}

func TestOverlappingSubscriptionsMakeOnePublish(t *testing.T) {
	overlapping := func(filters int) {
		d := commands(t, nil)
		c := d.device(5, "dev")
		var want []int
		for i := range filters {
			options := 0
			if i == filters/2 {
				options = 2 | 8
			}
			filter := strings.Repeat("+/", i) + "#"
			c.send(packet(0x82, uint16(1), props(0x0B, vbi(100+i)), str(filter), options))
			c.expect(packet(0x90, uint16(1), props(), options&3))
			want = append(want, 100+i)
		}
		c.subscribe(strings.Repeat("a/", filters)+"a", 1) // no identifier
		d.command(strings.Repeat("a/", filters)+"a", "", 2)
		first, body := c.read()
		require.Equal(t, byte(0x34), first, "one PUBLISH with the highest QoS [MQTT-3.3.4-2]")
		r := cursor{b: body}
		_, _ = r.string(), r.uint16()
		for rest := r.take(r.varint()); len(rest) > 0; { // [MQTT-3.3.4-3]
			one := cursor{b: rest}
			require.Equal(t, byte(0x0B), one.byte())
			at := slices.Index(want, one.varint())
			require.GreaterOrEqual(t, at, 0, "each identifier once")
			want = slices.Delete(want, at, at+1)
			rest = one.b
		}
		require.Empty(t, want)
		require.Empty(t, r.b)
		c.ping() // and no other
		d.send(&Command{Topic: []byte(strings.Repeat("a/", filters) + "a"), Retain: true})
		first, _ = c.read()
		require.Equal(t, byte(0x31), first, "one of them asked for Retain As Published")
	}
	overlapping(3)
	overlapping(40)
}

func TestQoSIsTheLowerOfCommandAndSubscription(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		d := commands(t, nil)
		for granted := range 3 {
			c := d.subscribed(v, fmt.Sprint("dev", granted), granted)
			id := uint16(0)
			for qos := range 3 {
				cmd := &Command{Topic: []byte("t"), Payload: []byte("x"), QoS: byte(qos), To: fmt.Sprint("dev", granted)}
				d.send(cmd)
				want := pub{topic: "t", payload: "x", qos: min(granted, qos)}
				if want.qos > 0 {
					id++
					want.id = id
				}
				c.expect(want.packet(v))
			}
		}
	})
}

func TestRetainIsSeenByThoseWhoAskedForIt(t *testing.T) {
	d := commands(t, nil)
	for _, retain := range []bool{false, true} {
		for _, options := range []int{0, 8} {
			c := d.device(5, "dev")
			c.subscribe("t", options)
			d.send(&Command{Topic: []byte("t"), Retain: retain})
			c.expect(pub{topic: "t", retain: retain && options == 8}.packet(5)) // [MQTT-3.3.1-12] [MQTT-3.3.1-13]
		}
	}
	c := d.device(4, "dev")
	c.subscribe("t", 0)
	d.send(&Command{Topic: []byte("t"), Retain: true})
	c.expect(pub{topic: "t"}.packet(4)) // [MQTT-3.3.1-9] of 3.1.1
}

func TestNoLocalSparesItsOwnDevice(t *testing.T) {
	d := commands(t, nil)
	const noLocal = 4
	a, b := d.device(5, "a"), d.device(5, "b")
	for _, c := range []*client{a, b} {
		c.subscribe("t/#", noLocal)
	}
	n, _ := d.send(&Command{Topic: []byte("t/x"), From: "a"})
	require.Equal(t, 1, n) // [MQTT-3.8.3-3]
	b.expect(pub{topic: "t/x"}.packet(5))
	n, _ = d.send(&Command{Topic: []byte("t/x")})
	require.Equal(t, 2, n, "nobody's command is everybody's")
	for _, c := range []*client{a, b} {
		c.expect(pub{topic: "t/x"}.packet(5))
	}
	n, known := d.send(&Command{Topic: []byte("t/x"), From: "a", To: "a"})
	require.Zero(t, n)
	require.True(t, known)
	a.subscribe("+/x", 1)
	n, _ = d.send(&Command{Topic: []byte("t/x"), From: "a", To: "a", QoS: 1})
	require.Equal(t, 1, n, "the other subscription has no such wish")
	a.expect(pub{topic: "t/x", qos: 1, id: 1}.packet(5))
	a.ping()
	b.ping()
}

func TestCommandToOneDeviceGoesToNoOther(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		d := commands(t, nil)
		a, b := d.subscribed(v, "a", 1), d.subscribed(v, "b", 1)
		n, known := d.send(&Command{Topic: []byte("t"), To: "a"})
		require.Equal(t, 1, n)
		require.False(t, known, "it has subscribed to it")
		a.expect(pub{topic: "t"}.packet(v))
		a.ping()
		b.ping()
		n, known = d.send(&Command{Topic: []byte("u"), To: "a"})
		require.Zero(t, n)
		require.True(t, known, "it is there and has not subscribed to it")
		d.device(v, "c")
		n, known = d.send(&Command{Topic: []byte("u"), To: "c"})
		require.Zero(t, n)
		require.True(t, known, "it is there and has never subscribed")
		n, known = d.send(&Command{Topic: []byte("t"), To: "nobody"})
		require.Zero(t, n)
		require.False(t, known)
	})
}

// TestOwnSubscriptionsAreMatchedLikeAllSubscriptions: a command with To asks the session, one without asks the
// index; they must agree.
func TestOwnSubscriptionsAreMatchedLikeAllSubscriptions(t *testing.T) {
	filters := []string{"#", "+", "+/+", "a", "a/", "a/#", "a/+", "a/+/b", "/", "/#", "+/", "a//b", "a/+/#", "$SYS/#", "$SYS/+", "$SYS", "+/x", "b"}
	topics := []string{"a", "b", "a/", "/", "a/b", "a//b", "a/x/b", "a/b/c/d", "/a", "//", "$SYS", "$SYS/x", "$SYS/x/y", "$x", "A", "é"}
	d := commands(t, nil)
	for i, filter := range filters {
		d.device(5, fmt.Sprint(i)).subscribe(filter, 0)
		for _, topic := range topics {
			all, _ := d.send(&Command{Topic: []byte(topic)})
			one, _ := d.send(&Command{Topic: []byte(topic), To: fmt.Sprint(i)})
			others := 0
			for j := range i {
				n, _ := d.send(&Command{Topic: []byte(topic), To: fmt.Sprint(j)})
				others += n
			}
			require.Equal(t, all, one+others, "%q with %q and those before it", topic, filter)
		}
	}
}

func TestCommandForConnectedDevicesOnly(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		d := commands(t, func(c *Config) { c.CommandsInFlight = 1 })
		c := d.subscribed(v, "dev", 1)
		for _, to := range []string{"", "dev"} {
			cmd := &Command{Topic: []byte("t"), QoS: 1, Connected: true, To: to}
			n, _ := d.send(cmd)
			require.Equal(t, 1, n)
			_, _ = c.read()
			c.send(puback(d.outbox("dev").nextID))
			d.became(cmd, "dev delivered")
		}
		inFlight, kept := d.command("t", "in flight", 1), d.command("t", "kept", 1)
		waits := &Command{Topic: []byte("t"), QoS: 1, Connected: true}
		d.send(waits)
		d.drop("dev")
		d.became(waits, "dev offline: "+reasonNotSent)
		d.waits(inFlight, kept)
		for _, to := range []string{"", "dev"} {
			n, known := d.send(&Command{Topic: []byte("t"), QoS: 1, Connected: true, To: to})
			require.Zero(t, n)
			require.False(t, known)
		}
		c = d.stored(v, "dev")
		c.expect(pub{topic: "t", payload: "in flight", qos: 1, id: 3, dup: true}.packet(v))
		c.send(puback(3))
		c.expect(pub{topic: "t", payload: "kept", qos: 1, id: 4}.packet(v))
		c.send(puback(4))
		c.ping()
	})
}

// TestDeviceThatIsJustLeavingIsNotOneThatDidNotSubscribe: its connection holds the session until all of its end
// is done, and commands for connected devices are over before.
func TestDeviceThatIsJustLeavingIsNotOneThatDidNotSubscribe(t *testing.T) {
	d := commands(t, nil)
	d.subscribed(5, "dev", 1)
	d.outbox("dev").detach()
	n, known := d.send(&Command{Topic: []byte("t"), QoS: 1, Connected: true, To: "dev"})
	require.Zero(t, n)
	require.False(t, known)
}

func TestOrderIsKeptWhateverTheQoS(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		d := commands(t, func(c *Config) { c.CommandsInFlight = 4 })
		c := d.subscribed(v, "dev", 2)
		for i := range 60 {
			d.command("t", fmt.Sprint(i), byte(i*7%3))
		}
		for i := range 60 {
			first, body := c.read()
			for first == 0x62 {
				c.send(pubcomp(uint16(body[0])<<8 | uint16(body[1])))
				first, body = c.read()
			}
			qos := int(first >> 1 & 3)
			require.Equal(t, i*7%3, qos)
			id := uint16(0)
			if qos > 0 {
				id = uint16(body[3])<<8 | uint16(body[4])
			}
			require.Equal(t, command(i, qos, id).packet(v), packet(int(first), body))
			switch qos {
			case 1:
				c.send(puback(id))
			case 2:
				c.send(pubrec(id))
			}
		}
	})
}

func TestSentMessagesAreCountedByTheirQoS(t *testing.T) {
	d := commands(t, nil)
	c := d.subscribed(5, "dev", 2)
	for qos := range 3 {
		for range qos + 1 {
			d.command("t", "x", byte(qos))
			_, _ = c.read()
		}
	}
	d.drop("dev")
	c = d.stored(5, "dev")
	for range 5 {
		_, _ = c.read()
	}
	for qos, want := range []int{1, 2 + 2, 3 + 3} {
		require.Equal(t, want, count(d.s.m.sent[qos]), "QoS %d, those sent again included", qos)
	}
}
