package mqtt

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestReconnectSendsAgainWhatWasNotCompleted(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		d := commands(t, func(c *Config) { c.CommandsInFlight = 5 })
		c := d.subscribed(v, "dev", 2)
		var all []*Command
		for i := range 8 {
			all = append(all, d.command("t", fmt.Sprint(i), byte(1+i%2)))
		}
		for i := range 5 {
			c.gets(i, 1, 1+i%2, uint16(i+1))
		}
		c.send(pubrec(2), puback(3))
		c.expect(pubrel(2))
		c.gets(5, 1, 2, 6)
		for range 3 { // as often as it takes
			d.drop("dev")
			c = d.stored(v, "dev")
			require.True(t, c.present())
			c.expect(command(0, 1, 1).again().packet(v)) // the order of the first time [MQTT-4.4.0-1] [MQTT-4.6.0-6]
			c.expect(pubrel(2))
			c.expect(command(3, 2, 4).again().packet(v), command(4, 1, 5).again().packet(v), command(5, 2, 6).again().packet(v))
			c.ping()
		}
		d.drop("dev")
		d.waits(all[0], all[1], all[3])
		all = append(all, d.command("t", "8", 1))
		c = d.stored(v, "dev")
		c.expect(command(0, 1, 1).again().packet(v), pubrel(2), command(3, 2, 4).again().packet(v), command(4, 1, 5).again().packet(v), command(5, 2, 6).again().packet(v))
		c.send(puback(1), pubcomp(2))
		c.gets(6, 1, 1, 7)
		c.gets(7, 1, 2, 8)
		c.send(pubrec(4), puback(5), pubrec(6), puback(7), pubrec(8))
		c.expect(pubrel(4))
		c.gets(8, 1, 1, 9)
		c.expect(pubrel(6), pubrel(8))
		c.send(pubcomp(4), pubcomp(6), pubcomp(8), puback(9))
		for _, cmd := range all {
			d.became(cmd, "dev delivered")
			require.LessOrEqual(t, d.timesSent(cmd), 1, "on the first connection that took it")
		}
		c.ping()
	})
}

func TestReconnectWithASmallerReceiveMaximum(t *testing.T) {
	d := commands(t, nil)
	c := d.subscribed(5, "dev", 2)
	all := d.numbered(0, 6, 1)
	all = append(all, d.command("t", "6", 2), d.command("t", "7", 2))
	c.gets(0, 6, 1, 1)
	c.gets(6, 2, 2, 7)
	c.send(pubrec(7))
	c.expect(pubrel(7))
	d.drop("dev")
	c = d.connect(limited("dev", 2))
	c.expect(command(0, 1, 1).again().packet(5), command(1, 1, 2).again().packet(5))
	c.ping()
	c.send(puback(1))
	c.expect(command(2, 1, 3).again().packet(5))
	c.ping()
	d.drop("dev")
	c = d.connect(limited("dev", 3))
	all = append(all, d.command("t", "8", 1))
	for i := 1; i < 4; i++ {
		c.expect(command(i, 1, uint16(i+1)).again().packet(5))
	}
	c.ping()
	c.send(puback(4), puback(3), puback(2))
	c.expect(command(4, 1, 5).again().packet(5), command(5, 1, 6).again().packet(5), pubrel(7))
	c.ping() // all three places are taken
	c.send(puback(6), pubcomp(7))
	c.expect(command(7, 2, 8).again().packet(5))
	c.gets(8, 1, 1, 9)
	c.ping()
	c.send(pubrec(8), puback(5), puback(9))
	c.expect(pubrel(8))
	c.send(pubcomp(8))
	for _, cmd := range all {
		d.became(cmd, "dev delivered")
	}
}

// TestWindowHoldsThroughReconnects: PUBREL sent again takes a place too, or a device that completes nothing
// would be sent a window more by each of its connections.
func TestWindowHoldsThroughReconnects(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		const window = 3
		d := commands(t, func(c *Config) { c.CommandsInFlight = window })
		c := d.subscribed(v, "dev", 2)
		d.numbered(0, 10, 2)
		c.gets(0, window, 2, 1)
		c.send(pubrec(1), pubrec(2), pubrec(3))
		c.expect(pubrel(1), pubrel(2), pubrel(3))
		for range 4 {
			c.ping()
			d.drop("dev")
			c = d.stored(v, "dev")
			c.expect(pubrel(1), pubrel(2), pubrel(3))
		}
		c.ping()
		c.send(pubcomp(2))
		c.gets(3, 1, 2, 4)
		c.ping()
	})
}

// TestReceiveMaximumHoldsWhenPubrelIsSentAgain: the PUBCOMP of an earlier connection's exchange makes no room
// that this connection's messages have taken.
func TestReceiveMaximumHoldsWhenPubrelIsSentAgain(t *testing.T) {
	d := commands(t, nil)
	c := d.connect(limited("dev", 2))
	c.subscribe("t", 2)
	d.numbered(0, 5, 2)
	c.gets(0, 2, 2, 1)
	c.send(pubrec(1))
	c.expect(pubrel(1))
	d.drop("dev")
	c = d.connect(limited("dev", 2))
	c.expect(pubrel(1), command(1, 2, 2).again().packet(5))
	c.ping()
	c.send(pubcomp(1))
	c.gets(2, 1, 2, 3)
	c.ping() // two PUBLISH of this connection are not completed
}

// TestAckBeforeItsPublishIsSentAgain: the device's acknowledgement was late, and comes on its next connection
// before our PUBLISH, which waits for room.
func TestAckBeforeItsPublishIsSentAgain(t *testing.T) {
	d := commands(t, nil)
	c := d.subscribed(5, "dev", 2)
	var all []*Command
	for i := range 6 {
		all = append(all, d.command("t", fmt.Sprint(i), byte(1+i%2)))
		c.gets(i, 1, 1+i%2, uint16(i+1))
	}
	d.drop("dev")
	c = d.connect(limited("dev", 1))
	c.expect(command(0, 1, 1).again().packet(5))
	c.send(puback(3), pubrec(4))
	c.expect(pubrel(4))
	c.ping() // no room was made by these
	d.became(all[2], "dev delivered")
	c.send(puback(1))
	c.expect(command(1, 2, 2).again().packet(5), pubrel(4))
	c.send(pubcomp(4))
	d.became(all[3], "dev delivered")
	c.ping()
	c.send(pubrec(2))
	c.expect(pubrel(2))
	c.send(pubcomp(2))
	c.expect(command(4, 1, 5).again().packet(5))
}

func TestQoS1ThatExpiredIsNotSentAgainAndQoS2ThatBeganIs(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		d := commands(t, nil)
		c := d.subscribed(v, "dev", 2)
		var all []*Command
		expires := time.Now().Add(time.Hour)
		for i := range 4 {
			cmd := &Command{Topic: []byte("t"), QoS: byte(1 + i%2), Expires: expires}
			d.send(cmd)
			_, _ = c.read()
			all = append(all, cmd)
		}
		c.send(pubrec(4))
		c.expect(pubrel(4))
		d.drop("dev")
		o := d.outbox("dev")
		o.mu.Lock()
		for i := range o.flight { // two hours later
			o.flight[i].cmd.Expires = past()
		}
		o.mu.Unlock()
		c = d.stored(v, "dev")
		again := pub{topic: "t", qos: 2, id: 2, dup: true}
		if v == 5 {
			again.props = cat(0x02, uint32(1))
		}
		c.expect(again.packet(v), pubrel(4))
		d.became(all[0], "dev expired")
		d.became(all[2], "dev expired")
		c.send(pubrec(2), pubcomp(4))
		c.expect(pubrel(2))
		c.send(pubcomp(2))
		d.became(all[1], "dev delivered")
		d.became(all[3], "dev delivered")
	})
}
