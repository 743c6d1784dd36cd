package mqtt

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestManySendersAndDevicesThatComeAndGo is for the race detector, for deadlocks, and for what dispatcher counts.
// The commands of each sender must come in order on each connection.
func TestManySendersAndDevicesThatComeAndGo(t *testing.T) {
	const senders, devices, visits = 6, 12, 25
	d := newWorldOn(t, narrowListener(t), func(c *Config) {
		c.CommandsInFlight, c.CommandsQueued, c.MaxStoredSessions, c.CommandMemory = 8, 20, devices/2, 1<<20
	}).dispatcher()
	var visiting, sending sync.WaitGroup
	done := make(chan bool)
	always := func(f func(n int)) func() { // ends with done
		return func() {
			for n := 0; ; n++ {
				select {
				case <-done:
					return
				default:
					f(n)
				}
			}
		}
	}
	sending.Go(always(func(int) {
		d.pass(1)
		d.s.Flush()
	}))
	for i := range senders {
		sending.Go(always(func(n int) {
			if d.unsettled() < 1000 {
				d.chatter(i, n, devices)
			}
		}))
	}
	faults := make(chan string, devices*visits)
	for i := range devices {
		visiting.Go(func() { // ends with its loop
			for range visits {
				if fault := d.visit(fmt.Sprint("dev", i%(devices-2)), byte(4+i%2)); fault != "" { // some share an id
					faults <- fault
				}
			}
		})
	}
	visiting.Wait()
	close(done)
	sending.Wait()
	close(faults)
	for fault := range faults {
		t.Error(fault)
	}
}

// chatter sends the n-th command of a sender, whatever it is.
func (d *dispatcher) chatter(sender, n, devices int) {
	c := &Command{Topic: []byte("t"), QoS: byte(rand.IntN(3)), Connected: rand.IntN(4) == 0}
	c.Payload = fmt.Appendf(nil, "%d %d ", sender, n)
	switch rand.IntN(8) {
	case 0:
		c.Payload = append(c.Payload, strings.Repeat("x", 20_000)...)
	case 1:
		c.Expires = past()
	}
	if rand.IntN(2) == 0 {
		c.To = fmt.Sprint("dev", rand.IntN(devices))
	}
	d.send(c)
	if rand.IntN(8) == 0 {
		c.Cancel()
	}
}

// visit is one connection of a device: it subscribes, takes and completes some commands, perhaps unsubscribes, and
// goes. It says what was wrong.
func (d *dispatcher) visit(id string, v byte) (fault string) {
	c := d.dial(v)
	defer c.nc.Close()
	h := persistent(v, id)
	h.persist = rand.IntN(3) > 0
	c.post(h.packet(), packet(0x82, uint16(1), c.none(), str("t"), rand.IntN(3)))
	last := map[int]int{}
	for range rand.IntN(60) {
		first, body, err := c.tryRead()
		if err != nil {
			return "" // taken over, or our own doing
		}
		if first>>4 == typePublish {
			var sender, n int
			at := 3 + min(int(first&6), 2)
			if v == 5 {
				at += 1 + int(body[at])
			}
			if _, err := fmt.Sscanf(string(body[at:min(len(body), at+20)]), "%d %d ", &sender, &n); err != nil {
				return fmt.Sprintf("%s: a payload that nobody sent: %v", id, err)
			}
			if n <= last[sender]-1 {
				return fmt.Sprintf("%s: command %d of sender %d after %d", id, n, sender, last[sender]-1)
			}
			last[sender] = n + 1
		}
		c.reply(first, body)
	}
	switch rand.IntN(4) {
	case 0:
		_ = c.nc.SetLinger(0)
	case 1:
		c.post(packet(0xE0))
	case 2:
		c.post(packet(0xA2, uint16(2), c.none(), str("t")))
	}
	return ""
}

// post is send for a connection that may be gone.
func (c *client) post(parts ...any) { _, _ = c.pipe.Write(cat(parts...)) }

// reply completes a command.
func (c *client) reply(first byte, body []byte) {
	switch first &^ 9 {
	case 0x32:
		c.post(packet(0x40, body[3:5]))
	case 0x34:
		c.post(packet(0x50, body[3:5]))
	case 0x62:
		c.post(packet(0x70, body))
	}
}

// TestSubscribingWhileCommandsAreSent: a command sent after SUBACK is never missed, whatever else happens to the
// index, and none comes after UNSUBACK.
func TestSubscribingWhileCommandsAreSent(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		d := commands(t, nil)
		done := make(chan bool)
		var others sync.WaitGroup
		defer others.Wait()
		defer close(done)
		for i := range 3 {
			c := d.device(v, fmt.Sprint("other", i))
			others.Go(func() { // ends with done
				for n := 0; ; n++ {
					select {
					case <-done:
						return
					default:
					}
					c.post(packet(0x82, uint16(1), c.none(), str(fmt.Sprintf("t/%d", n%20)), 0), packet(0xA2, uint16(2), c.none(), str(fmt.Sprintf("t/%d", (n+7)%20))))
					for range 2 {
						if _, _, err := c.tryRead(); err != nil {
							return
						}
					}
				}
			})
		}
		c := d.device(v, "dev")
		for n := range 200 {
			topic := fmt.Sprintf("u/%d", n)
			c.subscribe(topic, 1)
			d.command(topic, "x", 0)
			c.expect(pub{topic: topic, payload: "x"}.packet(v))
			c.send(packet(0xA2, uint16(2), c.none(), str(topic)))
			c.expect(c.unsuback(2, Success))
			devices, _ := d.send(&Command{Topic: []byte(topic)})
			require.Zero(t, devices)
		}
	})
}
