package mqtt

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A dispatcher sends commands and is told what became of them. At the end of its test it shuts the server down
// and holds it to what CommandOwner promises: each command is settled exactly once at each device that Send
// counted, and nothing is left of any of them.
type dispatcher struct {
	*world
	mu       sync.Mutex
	counted  map[*Command]int
	sent     map[*Command]int
	fates    map[*Command][]fated
	told     int // calls of CommandSettled
	promised int // devices that Send counted
}

// A fated is one call of CommandSettled.
type fated struct {
	client string
	fate   Fate
	code   Code
	reason string
}

func (f fated) String() string {
	s := f.client + " " + f.fate.String()
	if f.code != 0 {
		s += fmt.Sprintf(" 0x%02X", byte(f.code))
	}
	if f.reason != "" {
		s += ": " + f.reason
	}
	return s
}

func (w *world) dispatcher() *dispatcher {
	d := &dispatcher{world: w, counted: map[*Command]int{}, sent: map[*Command]int{}, fates: map[*Command][]fated{}}
	w.t.Cleanup(d.reckon)
	return d
}

// commands is newWorld with a dispatcher.
func commands(t testing.TB, change func(*Config)) *dispatcher {
	t.Helper()
	return newWorld(t, change).dispatcher()
}

func (d *dispatcher) CommandSent(c *Command) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sent[c]++
}

func (d *dispatcher) CommandSettled(c *Command, clientID string, fate Fate, code Code, reason string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fates[c] = append(d.fates[c], fated{clientID, fate, code, reason})
	d.told++
}

// send is Send and Flush, and gives what is asked for most.
func (d *dispatcher) send(c *Command) (devices int, known bool) {
	reach := d.reach(c)
	return reach.Devices, reach.Known
}

// reach is send with all that Send gives.
func (d *dispatcher) reach(c *Command) Reach {
	c.Owner = d
	reach := d.s.Send(c)
	d.mu.Lock()
	d.counted[c] += reach.Devices
	d.promised += reach.Devices
	d.mu.Unlock()
	d.s.Flush()
	return reach
}

// command sends a command that one device is there for.
func (d *dispatcher) command(topic, payload string, qos byte) *Command {
	d.t.Helper()
	c := &Command{Topic: []byte(topic), Payload: []byte(payload), QoS: qos}
	devices, _ := d.send(c)
	require.Equal(d.t, 1, devices, "devices that get the command")
	return c
}

// numbered sends n commands to the topic "t", the payloads of which are their numbers from first on.
func (d *dispatcher) numbered(first, n int, qos byte) (sent []*Command) {
	d.t.Helper()
	for i := range n {
		sent = append(sent, d.command("t", fmt.Sprint(first+i), qos))
	}
	return sent
}

// became waits until c has as many fates as want and holds that they are these.
func (d *dispatcher) became(c *Command, want ...string) {
	d.t.Helper()
	until(d.t, "settled", func() bool { return len(d.of(c)) >= len(want) })
	require.ElementsMatch(d.t, want, d.of(c), "payload %.20s", c.Payload)
}

// waits holds that c is not settled.
func (d *dispatcher) waits(all ...*Command) {
	d.t.Helper()
	for _, c := range all {
		require.Empty(d.t, d.of(c), "payload %.20s", c.Payload)
	}
}

// of gives the fates of c until now.
func (d *dispatcher) of(c *Command) (all []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.fates[c] {
		all = append(all, f.String())
	}
	return all
}

// wasSent waits until CommandSent was called n times for c, which may be after CommandSettled.
func (d *dispatcher) wasSent(c *Command, n int) {
	d.t.Helper()
	until(d.t, "CommandSent", func() bool { return d.timesSent(c) >= n })
	require.Equal(d.t, n, d.timesSent(c))
}

func (d *dispatcher) timesSent(c *Command) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sent[c]
}

// settled waits until every command is, and holds that nothing is left of them.
func (d *dispatcher) settled() {
	d.t.Helper()
	until(d.t, "every command is settled", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.told >= d.promised
	})
	until(d.t, "the memory of commands that are over is free", func() bool { return d.s.held.Load() == 0 })
	d.mu.Lock()
	defer d.mu.Unlock()
	for c, n := range d.counted {
		require.Len(d.t, d.fates[c], n, "settled once for each device, payload %.20s", c.Payload)
	}
}

// reckon ends every session and holds that nothing of subscriptions and commands is left.
func (d *dispatcher) reckon() {
	if d.t.Failed() {
		return
	}
	at, cancel := context.WithCancel(context.Background())
	cancel()
	d.s.Shutdown(at)
	d.settled()
	require.Zero(d.t, d.s.index.len(), "subscriptions of sessions that ended")
	require.Zero(d.t, d.s.filters.Load(), "bytes of subscriptions of sessions that ended")
	require.Zero(d.t, d.s.backlog.len(), "sessions that ended and have a queue")
}

// outbox gives that of a client ID.
func (w *world) outbox(id string) *outbox {
	s, _ := w.s.sessions.find(id)
	require.NotNil(w.t, s, "session of %s", id)
	return s.outbox.Load()
}

// left waits until id has no connection.
func (w *world) left(id string) {
	w.t.Helper()
	until(w.t, "the connection has left", func() bool {
		_, connected := w.s.sessions.find(id)
		return !connected
	})
}

// none is the empty property section, which only MQTT 5 has.
func (c *client) none() []byte {
	if c.version < 5 {
		return nil
	}
	return props()
}

// subscribe takes a subscription and holds that the QoS which options ask for is granted.
func (c *client) subscribe(filter string, options int) {
	c.t.Helper()
	c.send(packet(0x82, uint16(9), c.none(), str(filter), options))
	c.expect(packet(0x90, uint16(9), c.none(), options&3))
}

// subscribed connects with a stored session and subscribes to "t".
func (w *world) subscribed(v byte, id string, qos int) *client {
	w.t.Helper()
	c := w.stored(v, id)
	c.subscribe("t", qos)
	return c
}

// gets takes the PUBLISH packets of commands to "t", with numbers from first on and packet identifiers from id on.
func (c *client) gets(first, n, qos int, id uint16) {
	c.t.Helper()
	for i := range n {
		c.expect(command(first+i, qos, id+uint16(i)).packet(c.version))
	}
}

func command(number, qos int, id uint16) pub {
	return pub{topic: "t", payload: fmt.Sprint(number), qos: qos, id: id}
}

// late is a time that does not come while a test runs. A device is told the largest Message Expiry Interval.
var late = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

func past() time.Time { return time.Now().Add(-time.Millisecond) }
