package mqtt

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// slow is a dispatcher whose sockets hold little.
func slow(t testing.TB, change func(*Config)) *dispatcher {
	t.Helper()
	return newWorldOn(t, narrowListener(t), change).dispatcher()
}

// enough fails the test when a loop of it has gone on for too long.
func enough(t testing.TB) (check func()) {
	end := time.Now().Add(tooLong)
	return func() {
		t.Helper()
		require.True(t, time.Now().Before(end), "it takes too long")
	}
}

// unread connects a device that subscribes to "t" and never reads again.
func (d *dispatcher) unread(v byte, id string) *client {
	d.t.Helper()
	c := d.subscribed(v, id, 2)
	_ = c.nc.SetReadBuffer(32 << 10)
	return c
}

func TestDeviceThatStopsReadingHoldsUpNobodyAndIsBounded(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		const queued, bytes = 300, 5000
		d := slow(t, func(c *Config) { c.WriteTimeout, c.CommandsQueued, c.CommandsInFlight = time.Hour, queued, 1000 })
		d.unread(v, "dev")
		other := d.device(v, "other")
		other.subscribe("u", 1)
		payload := strings.Repeat("x", bytes)
		last := 0
		for check := enough(t); len(d.dropped()) < 100; check() {
			d.send(&Command{Topic: []byte("t"), Payload: []byte(payload), QoS: byte(last % 3)})
			last++
			if last%50 == 0 {
				d.command("u", fmt.Sprint(last), 0)
				other.expect(pub{topic: "u", payload: fmt.Sprint(last)}.packet(v))
			}
		}
		c, o := d.holder("dev"), d.outbox("dev")
		require.LessOrEqual(t, o.waiting(), queued)
		c.mu.Lock()
		defer c.mu.Unlock()
		require.LessOrEqual(t, len(c.out), commandBytes+bytes+100)
		require.False(t, c.ending)
	})
}

// TestOutputOfCommandsIsBoundedBeforeItIsFlushed: what does not fit waits in the queue, and comes after it in order.
func TestOutputOfCommandsIsBoundedBeforeItIsFlushed(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		const commands, bytes = 100, 1000
		d := newWorld(t, nil).dispatcher()
		c := d.subscribed(v, "dev", 0)
		conn := d.holder("dev")
		until(t, "nobody writes", func() bool { // nor will a flush that was asked for before
			conn.mu.Lock()
			defer conn.mu.Unlock()
			free := !conn.writing
			conn.writing = true
			return free
		})
		for i := range commands {
			n := d.s.Send(&Command{Topic: []byte("t"), Payload: fmt.Appendf(nil, "%0*d", bytes, i), Owner: unowned{}}).Devices
			require.Equal(t, 1, n)
		}
		require.Positive(t, d.outbox("dev").waiting())
		conn.mu.Lock()
		require.LessOrEqual(t, len(conn.out), commandBytes+bytes+20)
		conn.writing = false
		conn.mu.Unlock()
		conn.flush()
		for i := range commands {
			c.expect(pub{topic: "t", payload: fmt.Sprintf("%0*d", bytes, i)}.packet(v))
		}
	})
}

// TestCommandsForAStuckDeviceWaitWhereTheyCanBeCancelled: the output of a device that does not read takes no more.
func TestCommandsForAStuckDeviceWaitWhereTheyCanBeCancelled(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		d := slow(t, func(c *Config) { c.WriteTimeout = time.Hour })
		d.unread(v, "dev")
		d.command("t", strings.Repeat("x", 4<<20), 0) // more than sockets hold
		until(t, "stuck", func() bool { return d.holder("dev").isStuck() })
		c := d.command("t", "x", 0)
		require.Equal(t, 1, d.outbox("dev").waiting())
		c.Cancel()
		d.pass(1)
		d.became(c, "dev cancelled")
	})
}

// dropped gives the reasons of the commands that were dropped.
func (d *dispatcher) dropped() (reasons []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, all := range d.fates {
		for _, f := range all {
			if f.fate == Dropped {
				reasons = append(reasons, f.reason)
			}
		}
	}
	return reasons
}

func TestDeviceThatStopsReadingIsClosedAndItsCommandsSettled(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		for _, h := range []hello{{version: v, id: "dev"}, persistent(v, "dev")} {
			d := slow(t, func(c *Config) { c.WriteTimeout, c.CommandsInFlight = 50*time.Millisecond, 1000 })
			c := d.connect(h)
			c.subscribe("t", 2)
			_ = c.nc.SetReadBuffer(32 << 10)
			var all []*Command
			for range 500 {
				cmd := &Command{Topic: []byte("t"), Payload: make([]byte, 5000), QoS: byte(len(all) % 3)}
				if n, _ := d.send(cmd); n == 0 {
					break // closed already
				}
				all = append(all, cmd)
			}
			until(t, "closed", func() bool { return d.open() == 0 })
			require.Equal(t, 1, count(d.s.m.slowReaders))
			require.Equal(t, 1, count(d.s.m.disconnects.WithLabelValues("slow reader")))
			if !h.persist {
				d.settled()
				continue
			}
			rest := d.unsettled()
			c = d.stored(v, "dev")
			for rest > 0 {
				rest -= c.completes()
			}
			for _, cmd := range all {
				if cmd.QoS > 0 {
					d.became(cmd, "dev delivered")
				}
			}
		}
	})
}

// completes takes a packet of a command and answers it, and gives 1 if that ends the exchange.
func (c *client) completes() int {
	c.t.Helper()
	first, body := c.read()
	switch first &^ 8 {
	case 0x32:
		c.send(packet(0x40, body[3:5]))
	case 0x34:
		c.send(packet(0x50, body[3:5]))
		return 0
	case 0x62:
		c.send(packet(0x70, body))
	}
	return 1
}

// unsettled is how many fates are still to come.
func (d *dispatcher) unsettled() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.promised - d.told
}

// TestDeviceThatReadsSlowlyAndSteadilyIsNotClosed: each command takes it longer than the write time-out.
func TestDeviceThatReadsSlowlyAndSteadilyIsNotClosed(t *testing.T) {
	const timeout, commands, bytes = 2 * time.Second, 2, 1 << 20
	d := slow(t, func(c *Config) { c.WriteTimeout, c.MaxPacketSize = timeout, 2*bytes })
	c := d.unread(4, "dev")
	var all []*Command
	for range commands {
		all = append(all, d.command("t", strings.Repeat("x", bytes), 0))
	}
	step := make([]byte, 16<<10)
	steady := time.NewTicker(timeout * 5 / 4 * time.Duration(len(step)) / bytes)
	defer steady.Stop()
	_ = c.nc.SetReadDeadline(time.Now().Add(tooLong))
	for read := 0; read < commands*bytes; {
		<-steady.C
		n, err := c.in.Read(step)
		require.NoError(t, err, "after %d bytes", read)
		read += n
	}
	for _, cmd := range all {
		d.became(cmd, "dev sent")
	}
	require.Zero(t, count(d.s.m.slowReaders))
}

// TestLargeCommandsAmongMuchElse: a large command waits for an empty output, which must be noticed whoever empties
// it: the flusher, the reading goroutine, or the one that waits for the device.
func TestLargeCommandsAmongMuchElse(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		const commands, bytes, messages = 40, 300_000, 10_000
		d := slow(t, func(c *Config) { c.CommandMemory = 1 << 30 })
		d.answer = func(m *Message) {
			m.Ack(Success)
			d.s.Flush()
		}
		c := d.subscribed(v, "dev", 1)
		acks := make(chan bool, 100) // fewer than the Receive Maximum
		var work sync.WaitGroup
		t.Cleanup(work.Wait)
		work.Go(func() { // ends with its loop, the connection or the test
			for i := range messages {
				select {
				case acks <- true:
				case <-t.Context().Done():
					return
				}
				if _, err := c.pipe.Write(pub{topic: "up", qos: 1, id: uint16(1 + i%200)}.packet(v)); err != nil {
					return
				}
			}
		})
		var all []*Command
		for i := range commands {
			all = append(all, d.command("t", strings.Repeat("x", bytes*(i%2)), byte(i%4/2)))
		}
		for got, acked := 0, 0; got < commands || acked < messages; {
			first, body := c.read()
			switch first {
			case 0x40:
				acked++
				<-acks
			case 0x32:
				c.send(packet(0x40, body[3:5]))
				got++
			default:
				got++
			}
		}
		for _, cmd := range all {
			until(t, "settled", func() bool { return len(d.of(cmd)) == 1 })
		}
		require.Zero(t, count(d.s.m.slowReaders))
	})
}
