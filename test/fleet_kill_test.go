package test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/test/load"
)

// A willful fleet is devices whose every connection has a will of its own: its payload tells the device and which of
// its connections it was.
type willful struct {
	*load.CommandFleet
	dial      func(ctx context.Context, device int) (net.Conn, error)
	delay     func(device int) uint32
	willTopic string // %s is the client ID

	mu    sync.Mutex
	dials map[int]int // connections of each device
}

// newWillful makes a fleet that connects by dial; delay gives the Will Delay of a device in seconds.
func newWillful(devices int, dial func(ctx context.Context, device int) (net.Conn, error), delay func(int) uint32) *willful {
	w := &willful{CommandFleet: &load.CommandFleet{Devices: devices, QoS: 2}, dial: dial, delay: delay, willTopic: "devices/%s/will", dials: make(map[int]int)}
	w.Dialer = w.connect
	return w
}

func (w *willful) connect(ctx context.Context, device int) (net.Conn, error) {
	c, err := w.dial(ctx, device)
	if err != nil {
		return nil, err
	}
	return &willConn{Conn: c, will: func() rawWill {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.dials[device]++
		return rawWill{topic: fmt.Sprintf(w.willTopic, w.ClientID(device)), payload: willName(w.ClientID(device), w.dials[device]), delay: w.delay(device)}
	}}, nil
}

func willName(id string, connection int) string { return fmt.Sprintf("%s %d", id, connection) }

// A willConn puts a will into the CONNECT of a fleet's device, which is its first write.
type willConn struct {
	net.Conn
	will func() rawWill
}

func (c *willConn) Write(b []byte) (int, error) {
	if c.will == nil {
		return c.Conn.Write(b)
	}
	will := c.will()
	c.will = nil
	_, n := binary.Uvarint(b[1:])
	body := slices.Clone(b[1+n:])
	body[7] |= 4 | 1<<3 // Will Flag, Will QoS 1
	if _, err := c.Conn.Write(rawPacket(b[0], will.appendTo(body, body[6]))); err != nil {
		return 0, err
	}
	return len(b), nil
}

// dropped gives the devices that lost the connection they began with.
func (w *willful) dropped() (devices []int) {
	for device := range w.Devices {
		if w.connections(device) > 1 {
			devices = append(devices, device)
		}
	}
	return devices
}

func (w *willful) connections(device int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dials[device]
}

// A willBook is what a Kafka topic holds of wills: how often each.
type willBook struct {
	client *kgo.Client
	ended  chan struct{}

	mu    sync.Mutex
	wills map[string]int
	where map[string][]string // partition, offset, time and producer of each
}

// followWills reads the topic from its start until the test ends.
func (b *fleetBench) followWills() *willBook {
	b.t.Helper()
	return followWills(b.t, b.kafka.Direct(), b.wills)
}

func followWills(t testing.TB, brokers []string, topic string) *willBook {
	t.Helper()
	c, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	require.NoError(t, err)
	book := &willBook{client: c, ended: make(chan struct{}), wills: make(map[string]int), where: make(map[string][]string)}
	go book.follow() // ends with the client
	t.Cleanup(func() {
		c.Close()
		<-book.ended
	})
	return book
}

func (b *willBook) follow() {
	defer close(b.ended)
	for {
		fetches := b.client.PollFetches(context.Background())
		if fetches.IsClientClosed() {
			return
		}
		b.mu.Lock()
		fetches.EachRecord(func(r *kgo.Record) {
			b.wills[string(r.Value)]++
			b.where[string(r.Value)] = append(b.where[string(r.Value)], fmt.Sprintf("%d/%d at %v by %d/%d", r.Partition, r.Offset, r.Timestamp, r.ProducerID, r.ProducerEpoch))
		})
		b.mu.Unlock()
	}
}

func (b *willBook) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.wills)
}

// exactly requires that these wills were published, once each, and no others.
func (b *willBook) exactly(t testing.TB, want []string) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	var twice, strange, missing []string
	for name, n := range b.wills {
		if n > 1 {
			twice = append(twice, name)
		}
		if !slices.Contains(want, name) {
			strange = append(strange, name)
		}
	}
	for _, name := range want {
		if b.wills[name] == 0 {
			missing = append(missing, name)
		}
	}
	require.Empty(t, twice, "wills published twice")
	require.Empty(t, strange, "wills of devices that are connected")
	require.Empty(t, missing, "wills that were lost")
}

// comeBack waits until all devices that were at an instance have come back elsewhere.
func (w *willful) comeBack(t testing.TB, lost int) {
	t.Helper()
	await(t, func() bool { return len(w.dropped()) >= lost }, func() string {
		return fmt.Sprintf("%d of %d devices have noticed; %v", len(w.dropped()), lost, w.Failures())
	})
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	defer cancel()
	for device := range w.Devices {
		require.NoError(t, w.AwaitOnline(ctx, device))
	}
}

// TestADeadInstancesDevicesGoOn: devices with wills and sessions behind HAProxy, commands for all of them all the time.
// One of three instances is killed. The wills of its devices are published, each once, and no other; all come back to
// their sessions; every command is delivered, once.
func TestADeadInstancesDevicesGoOn(t *testing.T) {
	besideOthers(t)
	b := serveFleet(t, fleetOptions{})
	devices := either(300, 10_000)
	f := newWillful(devices, b.balance(devices), func(int) uint32 { return 0 })
	w := b.devices(f.CommandFleet)
	book := b.followWills()
	b.write(w, f.CommandFleet, 2)
	lost := int(b.instances[1].metric("sluice_mqtt_connections"))
	require.Greater(t, lost, devices/6, "leastconn spreads the devices")

	begin := time.Now()
	since := func() time.Duration { return time.Since(begin).Round(10 * time.Millisecond) }
	b.instances[1].kill()
	b.write(w, f.CommandFleet, either(5, 3))
	f.comeBack(t, lost)
	t.Logf("%d of %d devices are back after %v", lost, devices, since())
	report := delivered(t, f.CommandFleet, w.Written(nil))
	t.Logf("all commands are delivered after %v: %s", since(), report)
	await(t, func() bool { return book.count() >= lost }, func() string { return fmt.Sprintf("%d of %d wills", book.count(), lost) })
	t.Logf("all wills are published after %v", since())

	b.write(w, f.CommandFleet, 1)
	delivered(t, f.CommandFleet, w.Written(nil))
	var want []string
	more := 0
	for _, device := range f.dropped() {
		more += f.connections(device) - 2
		want = append(want, willName(f.ClientID(device), 1))
	}
	t.Logf("%d CONNECTs beside the %d that brought the devices back", more, lost)
	require.Len(t, want, lost, "no device of another instance noticed anything")
	book.exactly(t, want)
	require.Zero(t, f.NewSessions())
	b.healthy()
}

// TestAnInstanceThatStopsHandsItsDevicesOver: SIGTERM in place of the kill. The devices go on elsewhere with their
// sessions. A will without delay is published, as MQTT asks for when the server closes the connection; one whose device
// comes back within its delay is not.
func TestAnInstanceThatStopsHandsItsDevicesOver(t *testing.T) {
	besideOthers(t)
	b := serveFleet(t, fleetOptions{})
	devices := either(90, 3000)
	f := newWillful(devices, b.balance(devices), func(device int) uint32 { return uint32(device % 2 * 600) })
	w := b.devices(f.CommandFleet)
	book := b.followWills()
	b.write(w, f.CommandFleet, 2)
	lost := int(b.instances[2].metric("sluice_mqtt_connections"))
	begin := time.Now()
	require.Zero(t, b.instances[2].terminate())
	b.write(w, f.CommandFleet, 3)
	f.comeBack(t, lost)
	delivered(t, f.CommandFleet, w.Written(nil))
	t.Logf("%d of %d devices are back and have their commands after %v", lost, devices, time.Since(begin).Round(time.Millisecond))
	var want []string
	for _, device := range f.dropped() {
		if f.delay(device) == 0 {
			want = append(want, willName(f.ClientID(device), 1))
		}
	}
	await(t, func() bool { return book.count() >= len(want) }, func() string { return fmt.Sprintf("%d of %d wills", book.count(), len(want)) })
	book.exactly(t, want)
	require.Zero(t, f.NewSessions())
	b.healthy()
}
