package mqtt

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// limited is the CONNECT of a device with a stored session and a Receive Maximum.
func limited(id string, receiveMaximum uint16) hello {
	h := persistent(5, id)
	h.props = cat(h.props, 0x21, receiveMaximum)
	return h
}

func TestWindowIsTheSmallerOfOursAndTheDevices(t *testing.T) {
	window := func(h hello, ours, want int) {
		t.Helper()
		for qos := 1; qos <= 2; qos++ {
			d := commands(t, func(c *Config) { c.CommandsInFlight = ours })
			c := d.connect(h)
			c.subscribe("t", 2)
			d.numbered(0, 30, byte(qos))
			c.gets(0, want, qos, 1)
			c.ping() // no more
			if qos == 1 {
				c.send(puback(1))
			} else {
				c.send(pubrec(1))
				c.expect(pubrel(1))
				c.ping() // PUBREC keeps the place [MQTT-4.9.0-2]
				c.send(pubcomp(1))
			}
			c.gets(want, 1, qos, uint16(want+1))
			c.ping()
			d.command("t", "0", 0) // behind those that wait
			c.ping()
		}
	}
	window(persistent(4, "dev"), 5, 5)
	window(persistent(5, "dev"), 5, 5)
	window(limited("dev", 3), 5, 3)
	window(limited("dev", 65535), 5, 5)
	window(limited("dev", 1), 5, 1)
	window(limited("dev", 19), 65535, 19)
}

func TestRejectedCommandsFreeTheirPlace(t *testing.T) {
	d := commands(t, func(c *Config) { c.CommandsInFlight = 2 })
	c := d.subscribed(5, "dev", 2)
	for i := range 4 {
		d.command("t", fmt.Sprint(i), byte(1+i%2))
	}
	c.gets(0, 1, 1, 1)
	c.gets(1, 1, 2, 2)
	c.send(packet(0x50, uint16(2), QuotaExceeded))
	c.gets(2, 1, 1, 3)
	c.send(packet(0x40, uint16(1), QuotaExceeded))
	c.gets(3, 1, 2, 4)
	c.ping()
}

func TestAcksInAnyOrderFreeTheirPlaces(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		d := commands(t, func(c *Config) { c.CommandsInFlight = 4 })
		c := d.subscribed(v, "dev", 1)
		all := d.numbered(0, 8, 1)
		c.gets(0, 4, 1, 1)
		c.send(puback(4), puback(2))
		c.gets(4, 2, 1, 5)
		c.send(puback(5), puback(1), puback(3), puback(6))
		c.gets(6, 2, 1, 7)
		d.waits(all[6], all[7])
		for _, cmd := range all[:6] {
			d.became(cmd, "dev delivered")
		}
	})
}

func TestPacketIdentifiersAreNeverZeroAndNeverInUse(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		const batch = 200 // commands at once
		d := commands(t, func(c *Config) { c.CommandsInFlight = batch })
		c := d.subscribed(v, "dev", 2)
		d.command("t", "stuck", 1)
		d.command("t", "begun", 2)
		c.expect(pub{topic: "t", payload: "stuck", qos: 1, id: 1}.packet(v), pub{topic: "t", payload: "begun", qos: 2, id: 2}.packet(v))
		c.send(pubrec(2))
		c.expect(pubrel(2))
		last := uint16(2)
		for sent := 0; sent < 66_000; {
			var acks []byte
			for range batch - 2 {
				sent++
				d.send(&Command{Topic: []byte("t"), QoS: 1})
			}
			for range batch - 2 {
				_, body := c.read()
				id := binary.BigEndian.Uint16(body[3:])
				want := last + 1
				if want == 0 {
					want = 3 // 0 is none, 1 and 2 are in use
				}
				require.Equal(t, want, id)
				last = id
				acks = append(acks, puback(id)...)
			}
			c.send(acks)
		}
	})
}

// TestPacketIdentifiersAreApartFromTheDevices: each side has its own, and an acknowledgement of one says nothing
// of the other's (section 2.2.1).
func TestPacketIdentifiersAreApartFromTheDevices(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		d := commands(t, nil)
		c := d.subscribed(v, "dev", 2)
		c.publish(q2(1, "up"))
		up := d.next()
		c.publish(pub{topic: "t", qos: 1, id: 2})
		d.ack(d.next())
		down := []*Command{d.command("t", "1", 2), d.command("t", "2", 1)}
		c.gets(1, 1, 2, 1)
		c.gets(2, 1, 1, 2)
		d.ack(up)
		c.expect(pubrec(1), puback(2))
		d.waits(down...)
		c.send(pubrec(1))
		c.expect(pubrel(1))
		c.send(pubrel(1)) // of the device's own message
		c.expect(pubcomp(1))
		d.waits(down...)
		c.send(puback(2), pubcomp(1))
		for _, cmd := range down {
			d.became(cmd, "dev delivered")
		}
		c.ping()
	})
}
