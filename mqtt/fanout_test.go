package mqtt

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestLargeCommandIsHeldOnceForAllDevices: the copies of one command may not be as many as its devices.
func TestLargeCommandIsHeldOnceForAllDevices(t *testing.T) {
	const devices, size = 200, 256 << 10
	bothVersions(t, func(t *testing.T, v byte) {
		d := commands(t, nil)
		var all []*client
		for i := range devices {
			all = append(all, d.subscribed(v, fmt.Sprint("dev", i), i%2))
		}
		c := &Command{Topic: []byte("t"), Payload: []byte(strings.Repeat("x", size)), QoS: 1, Owner: d}
		if v == 5 {
			c.User = []Property{{[]byte("k"), []byte(strings.Repeat("u", 60000))}}
		}
		n := d.s.Send(c).Devices // and nothing is flushed
		require.Equal(t, devices, n)
		d.mu.Lock()
		d.counted[c], d.promised = n, n
		d.mu.Unlock()
		outputs := 0
		d.s.conns.each(func(c *Conn) {
			c.mu.Lock()
			outputs += cap(c.out)
			c.mu.Unlock()
		})
		require.Less(t, outputs, size, "in all outputs together")
		require.Less(t, d.s.held.Load(), int64(3*size))
		d.s.Flush()
		for i, dev := range all {
			p := pub{topic: "t", payload: string(c.Payload), qos: i % 2, id: 1}
			if v == 5 {
				p.props = user("k", strings.Repeat("u", 60000))
			}
			first, body := dev.read()
			if string(p.packet(v)) != string(packet(int(first), body)) {
				t.Fatal("the PUBLISH differs")
			}
			if i%2 == 1 {
				dev.send(puback(1))
			}
		}
		d.settled()
	})
}

// TestAnswersDoNotComeInTheMiddleOfALargeCommand: what is appended to the output while a large command is in it
// comes after the command.
func TestAnswersDoNotComeInTheMiddleOfALargeCommand(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		d := commands(t, nil)
		c := d.subscribed(v, "dev", 1)
		conn := d.outbox("dev").conn
		for range 20 {
			until(t, "the output is empty", func() bool {
				conn.mu.Lock()
				defer conn.mu.Unlock()
				return conn.waiting() == 0 && !conn.writing
			})
			large := &Command{Topic: []byte("t"), Payload: []byte(strings.Repeat("x", 100<<10)), QoS: 0, Owner: d}
			n := d.s.Send(large).Devices
			require.Equal(t, 1, n)
			d.mu.Lock()
			d.counted[large]++
			d.promised++
			d.mu.Unlock()
			conn.mu.Lock()
			conn.out = append(conn.out, pingresp...) // as the reading goroutine does
			conn.mu.Unlock()
			d.s.Flush()
			c.expect(pub{topic: "t", payload: string(large.Payload)}.packet(v), pingresp)
		}
		d.settled()
	})
}
