package mqtt

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFates(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		d := commands(t, nil)
		c := d.subscribed(v, "dev", 2)
		cmd := d.command("t", "1", 0)
		c.expect(command(1, 0, 0).packet(v))
		d.became(cmd, "dev sent")
		d.wasSent(cmd, 1)

		cmd = d.command("t", "2", 1)
		c.gets(2, 1, 1, 1)
		d.waits(cmd)
		c.send(puback(1))
		d.became(cmd, "dev delivered")

		cmd = d.command("t", "3", 2)
		c.gets(3, 1, 2, 2)
		c.send(pubrec(2))
		c.expect(pubrel(2))
		d.waits(cmd)
		c.send(pubcomp(2))
		d.became(cmd, "dev delivered")
		d.wasSent(cmd, 1)
	})
}

func TestDeviceMayRejectACommand(t *testing.T) {
	d := commands(t, nil)
	c := d.subscribed(5, "dev", 2)
	cmd := d.command("t", "1", 1)
	c.gets(1, 1, 1, 1)
	c.send(packet(0x40, uint16(1), NotAuthorized))
	d.became(cmd, "dev rejected 0x87")

	cmd = d.command("t", "2", 2)
	c.gets(2, 1, 2, 2)
	c.send(packet(0x50, uint16(2), PayloadFormatInvalid, props(0x1F, str("no"), user("a", "b"))))
	d.became(cmd, "dev rejected 0x99")
	c.ping() // [MQTT-4.3.3-4]: it is over, without a PUBREL

	cmd = d.command("t", "3", 1)
	c.gets(3, 1, 1, 3)
	c.send(packet(0x40, uint16(3), NoMatchingSubscribers, props()))
	d.became(cmd, "dev delivered 0x10")

	cmd = d.command("t", "4", 2)
	c.gets(4, 1, 2, 4)
	c.send(packet(0x50, uint16(4), NoMatchingSubscribers))
	c.expect(pubrel(4))
	c.send(packet(0x70, uint16(4), 0))
	d.became(cmd, "dev delivered")
}

// TestPubcompOfAnUnknownIDCompletesTheExchange: the device had completed it, and its PUBCOMP was lost.
func TestPubcompOfAnUnknownIDCompletesTheExchange(t *testing.T) {
	d := commands(t, nil)
	c := d.subscribed(5, "dev", 2)
	cmd := d.command("t", "1", 2)
	c.gets(1, 1, 2, 1)
	c.send(pubrec(1))
	c.expect(pubrel(1))
	c.send(packet(0x70, uint16(1), PacketIdentifierNotFound))
	d.became(cmd, "dev delivered")
}

func TestCommandLargerThanTheDevicesMaximumPacketSize(t *testing.T) {
	d := commands(t, nil)
	h := persistent(5, "dev")
	h.props = cat(h.props, 0x27, uint32(100))
	c := d.connect(h)
	c.subscribe("t", 2)
	for qos := range 3 {
		overhead := len(pub{topic: "t", qos: qos, id: 1}.packet(5))
		fits := d.command("t", strings.Repeat("x", 100-overhead), byte(qos))
		tooLarge := d.command("t", strings.Repeat("y", 101-overhead), byte(qos))
		d.became(tooLarge, "dev dropped: "+reasonTooLarge) // [MQTT-3.1.2-24]
		_, body := c.read()
		require.Contains(t, string(body), "xxx")
		d.wasSent(fits, 1)
		require.Zero(t, d.timesSent(tooLarge))
		if qos == 2 {
			c.send(packet(0x50, d.outbox("dev").nextID, NotAuthorized))
		} else if qos == 1 {
			c.send(puback(d.outbox("dev").nextID))
		}
	}
	c.ping()
	small := d.command("t", "small", 1)
	_, _ = c.read()
	d.drop("dev")
	large := d.command("t", strings.Repeat("y", 200), 1)
	c = d.connect(h)
	c.expect(pub{topic: "t", payload: "small", qos: 1, id: 3, dup: true}.packet(5))
	d.became(large, "dev dropped: "+reasonTooLarge)
	c.send(puback(3))
	d.became(small, "dev delivered")
}

// TestWhatIsInFlightMayBecomeTooLarge: the device comes back with a smaller Maximum Packet Size.
func TestWhatIsInFlightMayBecomeTooLarge(t *testing.T) {
	d := commands(t, nil)
	c := d.subscribed(5, "dev", 2)
	var all []*Command
	for i, payload := range []string{"small", strings.Repeat("x", 200), strings.Repeat("y", 200), strings.Repeat("z", 200), "last"} {
		qos := byte(1 + i%2)
		all = append(all, d.command("t", payload, qos))
		_, _ = c.read()
	}
	c.send(pubrec(4))
	c.expect(pubrel(4))
	d.drop("dev")
	h := persistent(5, "dev")
	h.props = cat(h.props, 0x27, uint32(100))
	c = d.connect(h)
	c.expect(pub{topic: "t", payload: "small", qos: 1, id: 1, dup: true}.packet(5))
	c.expect(pubrel(4), pub{topic: "t", payload: "last", qos: 1, id: 5, dup: true}.packet(5))
	d.became(all[1], "dev dropped: "+reasonTooLarge)
	d.became(all[2], "dev dropped: "+reasonTooLarge)
	c.send(puback(5), pubcomp(4), puback(1))
	for _, i := range []int{0, 3, 4} {
		d.became(all[i], "dev delivered")
	}
}
