package mqtt

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

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
