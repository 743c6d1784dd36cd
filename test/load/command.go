package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"sluice/bench/wire"
)

// A CommandFleet is devices that subscribe and receive. Each keeps the books of a receiver: with QoS 2 it knows which
// identifiers are not released, over its connections, as long as the server says that its session is present.
type CommandFleet struct {
	Addr    string
	Addrs   []string // when set, device n connects to Addrs[n%len(Addrs)]
	Run     string   // in every payload and client ID
	Devices int
	QoS     byte   // of the subscriptions
	Options byte   // of the subscriptions, MQTT 5: 4 No Local, 8 Retain As Published
	Version byte   // 4 or 5; 0: 5
	Filter  string // one filter, %s is the client ID; "": devices/%s/#
	Clean   bool   // Clean Start, and the session ends with the connection unless SessionExpiry is said
	// SessionExpiry of MQTT 5; 0: an hour, or none with Clean.
	SessionExpiry  time.Duration
	ReceiveMaximum uint16 // 0: not said
	Reconnect      bool   // a lost connection is not a failure
	CutOneIn       int    // at one in so many acknowledgements, at random, the connection is lost: before it, or after it
	Keep           bool   // Messages gives every message with its properties
	Shared         bool   // all devices get the messages of all
	// Answer, when set, gives what a device publishes for a message, with QoS 1; nil: nothing. It is called on the
	// device's own goroutine and must not block.
	Answer func(device int, m *Message) *Answer
	// Dialer is used to connect; nil: spread over loopback source addresses.
	Dialer func(ctx context.Context, device int) (net.Conn, error)

	receivers []*receiver
	dials     chan struct{}
	cancel    context.CancelFunc
	wg        sync.WaitGroup
}

// A Message is a PUBLISH that a device got.
type Message = wire.Message

// An Answer is what a device publishes.
type Answer struct {
	Topic           string
	Payload         []byte
	CorrelationData []byte // MQTT 5
}

// connecting is how many devices connect at a time.
const connecting = 64

// ClientID gives the client ID of a device.
func (f *CommandFleet) ClientID(device int) string { return fmt.Sprintf("cmd-%s-%d", f.Run, device) }

func (f *CommandFleet) filters(device int) []string {
	if strings.Contains(f.Filter, "%s") {
		return []string{fmt.Sprintf(f.Filter, f.ClientID(device))}
	}
	return []string{f.Filter}
}

func (f *CommandFleet) defaults() {
	f.Devices = max(f.Devices, 1)
	if f.Version == 0 {
		f.Version = 5
	}
	if f.Filter == "" {
		f.Filter = "devices/%s/#"
	}
	if f.SessionExpiry == 0 && !f.Clean {
		f.SessionExpiry = time.Hour
	}
	if f.Dialer == nil {
		f.Dialer = f.dial
	}
	f.dials = make(chan struct{}, connecting)
}

// dial connects from one of several loopback addresses, each of which has ports of its own.
func (f *CommandFleet) dial(ctx context.Context, device int) (net.Conn, error) {
	addr := f.Addr
	if len(f.Addrs) > 0 {
		addr = f.Addrs[device%len(f.Addrs)]
	}
	d := net.Dialer{Timeout: 5 * time.Second}
	if strings.HasPrefix(addr, "127.") {
		d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 3, byte(1+device%16))}
	}
	return d.DialContext(ctx, "tcp", addr)
}

func (f *CommandFleet) dialLimited(ctx context.Context, device int) (net.Conn, error) {
	select {
	case f.dials <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-f.dials }()
	return f.Dialer(ctx, device)
}

// Start connects and subscribes all devices and returns when each subscription is granted, or with why not. Stop ends
// the devices.
func (f *CommandFleet) Start(ctx context.Context) error {
	f.defaults()
	f.receivers = make([]*receiver, f.Devices)
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f.cancel = cancel
	for i := range f.receivers {
		d := newReceiver(f, i)
		f.receivers[i] = d
		f.wg.Go(func() { d.run(run) }) // ends with Stop
	}
	for i := range f.receivers {
		if err := f.AwaitOnline(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

// Stop disconnects all devices and waits for them.
func (f *CommandFleet) Stop() {
	f.cancel()
	f.wg.Wait()
}

// AwaitOnline waits until a device is connected and subscribed.
func (f *CommandFleet) AwaitOnline(ctx context.Context, device int) error {
	d := f.receivers[device]
	err := d.await(ctx, func() bool { return d.online || len(d.failures) > 0 })
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil && len(d.failures) > 0 {
		err = errors.Join(d.failures...)
	}
	if err != nil {
		return fmt.Errorf("device %d: %w", device, err)
	}
	return nil
}

// Leave makes a device say DISCONNECT and stay away until Return; it returns when the connection is closed.
func (f *CommandFleet) Leave(device int) {
	f.end(device, true)
}

// Vanish is Leave without DISCONNECT.
func (f *CommandFleet) Vanish(device int) {
	f.end(device, false)
}

func (f *CommandFleet) end(device int, goodbye bool) {
	d := f.receivers[device]
	var c *conn
	d.change(func() { d.away, c = true, d.conn })
	if c != nil {
		if goodbye {
			c.disconnect()
		}
		c.close()
	}
	_ = d.await(context.Background(), func() bool { return d.conn == nil }) // the device's goroutine sees to it
}

// Return makes a device that left connect again, and waits until it has.
func (f *CommandFleet) Return(ctx context.Context, device int) error {
	d := f.receivers[device]
	d.change(func() { d.away = false })
	return f.AwaitOnline(ctx, device)
}

// Cut closes a device's connection without DISCONNECT; with Reconnect it connects again by itself.
func (f *CommandFleet) Cut(device int) {
	d := f.receivers[device]
	d.mu.Lock()
	c := d.conn
	d.mu.Unlock()
	if c != nil {
		c.close()
	}
}

// Stall makes a device stop reading after at most one more packet, until Resume.
func (f *CommandFleet) Stall(device int) {
	d := f.receivers[device]
	d.change(func() {
		d.stalled = true
		if d.conn == nil {
			return
		}
		if tcp, ok := d.conn.nc.(*net.TCPConn); ok {
			// The socket is full sooner. With much less than this Linux stays slow after Resume.
			_ = tcp.SetReadBuffer(64 << 10)
		}
	})
}

// Resume ends Stall.
func (f *CommandFleet) Resume(device int) {
	d := f.receivers[device]
	d.change(func() { d.stalled = false })
}

// Hold makes a device read but acknowledge nothing, until Release.
func (f *CommandFleet) Hold(device int) {
	d := f.receivers[device]
	d.change(func() { d.holding = true })
}

// Release sends what Hold kept back, if the connection is still the same.
func (f *CommandFleet) Release(device int) error {
	d := f.receivers[device]
	var held []byte
	var c *conn
	d.change(func() {
		held, c = d.held, d.conn
		d.held, d.holding = nil, false
		for i := 0; i < len(held); i += 4 {
			if held[i] != 0x50 {
				d.unacked--
			}
		}
	})
	if c == nil || len(held) == 0 {
		return nil
	}
	return c.send(held...)
}

// Publish sends a message of a device's own, with QoS 1.
func (f *CommandFleet) Publish(device int, a Answer) error {
	d := f.receivers[device]
	d.mu.Lock()
	c := d.conn
	d.mu.Unlock()
	if c == nil {
		return net.ErrClosed
	}
	return d.send(c, &a)
}
