package mqtt

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

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

func TestWaitingCommandsExpireWithinASweep(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		d := commands(t, func(c *Config) { c.CommandsInFlight = 1 })
		c := d.subscribed(v, "dev", 1)
		inFlight := d.command("t", "0", 1)
		c.gets(0, 1, 1, 1)
		over := &Command{Topic: []byte("t"), QoS: 1, Expires: past()}
		never := d.command("t", "1", 1)
		notYet := &Command{Topic: []byte("t"), QoS: 1, Expires: late, Payload: []byte("2")}
		d.send(over)
		d.send(notYet)
		d.waits(over)
		d.pass(1)
		d.became(over, "dev expired")
		d.drop("dev")
		alsoOver := &Command{Topic: []byte("t"), QoS: 0, Expires: past()}
		d.send(alsoOver)
		d.pass(1)
		d.became(alsoOver, "dev expired")
		d.waits(inFlight, never, notYet)
		require.Equal(t, 1, d.s.backlog.len())
		c = d.stored(v, "dev")
		c.expect(command(0, 1, 1).again().packet(v))
		c.send(puback(1))
		c.gets(1, 1, 1, 2)
		c.send(puback(2))
		first, body := c.read()
		require.Equal(t, byte(0x32), first)
		require.Equal(t, byte('2'), body[len(body)-1])
		c.send(puback(3))
		d.became(notYet, "dev delivered")
		d.pass(1)
		require.Zero(t, d.s.backlog.len())
	})
}

func TestExpiredCommandIsNotSent(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		d := commands(t, nil)
		c := d.subscribed(v, "dev", 2)
		for qos := range 3 {
			cmd := &Command{Topic: []byte("t"), QoS: byte(qos), Expires: past()}
			n, _ := d.send(cmd)
			require.Equal(t, 1, n)
			d.became(cmd, "dev expired")
			require.Zero(t, d.timesSent(cmd))
		}
		c.ping()
	})
}

func TestCancelWithdrawsWhatWasNotSent(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		d := commands(t, func(c *Config) { c.CommandsInFlight = 2 })
		c := d.subscribed(v, "dev", 2)
		var all []*Command
		for i := range 6 {
			all = append(all, d.command("t", fmt.Sprint(i), byte(1+i%2)))
		}
		c.gets(0, 1, 1, 1)
		c.gets(1, 1, 2, 2)
		for _, i := range []int{0, 1, 2, 5} {
			all[i].Cancel()
		}
		d.waits(all...)
		c.send(puback(1))
		c.gets(3, 1, 2, 3)
		d.became(all[0], "dev delivered") // it was sent before
		d.became(all[2], "dev cancelled")
		d.waits(all[4], all[5])
		d.pass(1)
		d.became(all[5], "dev cancelled")
		d.waits(all[4])
		d.drop("dev")
		c = d.stored(v, "dev")
		c.expect(command(1, 2, 2).again().packet(v), command(3, 2, 3).again().packet(v)) // what has begun is completed
	})
}

// TestSweepSendsWhatWasBehindAnExpiredCommand: QoS 0 needs no place in the window, only its turn.
func TestSweepSendsWhatWasBehindAnExpiredCommand(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		d := commands(t, func(c *Config) { c.CommandsInFlight = 1 })
		c := d.subscribed(v, "dev", 1)
		d.command("t", "0", 1)
		c.gets(0, 1, 1, 1)
		first := d.command("t", "1", 1)
		d.command("t", "2", 0)
		c.ping()
		first.Cancel()
		d.pass(1)
		d.s.Flush()
		c.gets(2, 1, 0, 0)
	})
}

func TestQueueOfADeviceIsBounded(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		d := commands(t, func(c *Config) { c.CommandsInFlight, c.CommandsQueued = 2, 3 })
		c := d.subscribed(v, "dev", 1)
		other := d.subscribed(v, "other", 1)
		var all []*Command
		for i := range 7 {
			cmd := &Command{Topic: []byte("t"), Payload: []byte(fmt.Sprint(i)), QoS: 1, To: "dev"}
			d.send(cmd)
			all = append(all, cmd)
		}
		d.became(all[5], "dev dropped: "+reasonQueueFull)
		d.became(all[6], "dev dropped: "+reasonQueueFull)
		d.waits(all[:5]...)
		c.gets(0, 2, 1, 1)
		c.send(puback(1))
		c.gets(2, 1, 1, 3)
		last := &Command{Topic: []byte("t"), Payload: []byte("last"), QoS: 1}
		d.send(last) // there is room for one more
		other.expect(pub{topic: "t", payload: "last", qos: 1, id: 1}.packet(v))
		c.send(puback(2), puback(3), puback(4), puback(5))
		c.gets(3, 2, 1, 4)
		c.expect(pub{topic: "t", payload: "last", qos: 1, id: 6}.packet(v))
	})
}

// TestMemoryOfOneDeviceIsBounded: what one holds that is away or does not answer is not taken from all others.
func TestMemoryOfOneDeviceIsBounded(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		d := commands(t, func(c *Config) { c.CommandMemory = commandShare * 10_000 })
		a, b := d.subscribed(v, "a", 1), d.subscribed(v, "b", 1)
		large := &Command{Topic: []byte("t"), Payload: []byte(strings.Repeat("x", 8000)), QoS: 1}
		d.send(large) // its bytes count once, however many devices get it
		held := d.s.held.Load()
		require.Equal(t, large.measured().memory+2*deliveryOverhead, held)
		over := &Command{Topic: []byte("t"), Payload: []byte(strings.Repeat("x", 2000)), QoS: 1}
		n, _ := d.send(over)
		require.Equal(t, 2, n)
		d.became(over, "a dropped: "+reasonQueueFull, "b dropped: "+reasonQueueFull)
		require.Equal(t, held, d.s.held.Load())
		small := &Command{Topic: []byte("t"), QoS: 1}
		d.send(small)
		for _, c := range []*client{a, b} {
			c.expect(pub{topic: "t", payload: string(large.Payload), qos: 1, id: 1}.packet(v), pub{topic: "t", qos: 1, id: 2}.packet(v))
			c.send(puback(1), puback(2))
		}
		d.settled()
		require.Zero(t, d.outbox("a").held)
		huge := &Command{Topic: []byte("t"), Payload: []byte(strings.Repeat("x", 15_000)), QoS: 1, To: "a"}
		n, _ = d.send(huge) // alone, it may be larger than the share
		require.Equal(t, 1, n)
		_, _ = a.read()
		a.send(puback(3))
		d.became(huge, "a delivered")
	})
}

func TestMemoryOfCommandsIsBounded(t *testing.T) {
	d := commands(t, func(c *Config) { c.CommandMemory = commandShare * 10_000 })
	fitting := 0
	for i := range 2 * commandShare {
		id := fmt.Sprint("dev", i)
		d.subscribed(5, id, 1)
		c := &Command{Topic: []byte("t"), Payload: []byte(strings.Repeat("x", 8000)), QoS: 1, To: id}
		if n, _ := d.send(c); n == 1 && len(d.of(c)) == 0 {
			fitting++
			continue
		}
		d.became(c, id+" dropped: "+reasonMemory)
	}
	require.Equal(t, commandShare*10_000/(8000+commandOverhead+1+deliveryOverhead), fitting)
	require.LessOrEqual(t, d.s.held.Load(), int64(commandShare*10_000))
}

// TestMemoryMayEndAmongTheDevices: some of them get the command and the others do not.
func TestMemoryMayEndAmongTheDevices(t *testing.T) {
	cmd := &Command{Topic: []byte("t"), Payload: []byte(strings.Repeat("x", 5000)), QoS: 1}
	d := commands(t, func(c *Config) { c.CommandMemory = cmd.measured().memory + 3*deliveryOverhead })
	for i := range 5 {
		d.subscribed(5, fmt.Sprint(i), 1)
	}
	n, _ := d.send(cmd)
	require.Equal(t, 5, n)
	until(t, "two are settled", func() bool { return len(d.of(cmd)) == 2 })
	for _, f := range d.of(cmd) {
		require.Contains(t, f, "dropped: "+reasonMemory)
	}
}

// TestSubscriptionIdentifiersCountAsMemory: with a hundred filters that match they are most of a delivery.
func TestSubscriptionIdentifiersCountAsMemory(t *testing.T) {
	d := commands(t, nil)
	c := d.stored(5, "dev")
	deep := strings.Repeat("a/", 6) + "a"
	for i := range 64 { // each level of the topic by its name or by +: all of them match
		levels := strings.Split(deep, "/")
		for l := range 6 {
			if i>>l&1 == 1 {
				levels[l] = "+"
			}
		}
		c.send(packet(0x82, uint16(9), props(0x0B, vbi(1+i)), str(strings.Join(levels, "/")), 1))
		_, _ = c.read()
	}
	_ = c.nc.Close()
	d.left("dev")
	d.command(deep, "x", 1)
	require.GreaterOrEqual(t, d.s.held.Load(), int64(64*8+commandOverhead+deliveryOverhead))
}
