package mqtt

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
)

// crowd opens n connections at once.
func (w *world) crowd(n int) (all []*client) {
	w.t.Helper()
	all = make([]*client, n)
	var dialing sync.WaitGroup
	for i := range all {
		dialing.Go(func() { all[i] = w.dial(4) })
	}
	dialing.Wait()
	return all
}

// from dials from an address of the loopback network.
func (w *world) from(ip string) *client {
	w.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	nc, err := d.DialContext(w.t.Context(), "tcp", w.addr)
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = nc.Close() })
	return &client{t: w.t, nc: nc.(*net.TCPConn), pipe: nc, in: bufio.NewReader(nc), version: 4}
}

// deserted waits until no connection is counted any more, and holds that nothing is kept of those that were.
func (w *world) deserted() {
	w.t.Helper()
	a := &w.s.admission
	until(w.t, "all connections are gone", func() bool { return a.openCount() == 0 && a.waitingCount() == 0 && w.open() == 0 })
	a.mu.Lock()
	defer a.mu.Unlock()
	require.Empty(w.t, a.addresses)
	if a.queue != nil {
		require.Empty(w.t, a.queue.sources)
		require.Zero(w.t, a.queue.busy)
	}
}

func TestConnectionsAreNeverMoreThanAllowed(t *testing.T) {
	const most, tries = 50, 200
	w := newWorld(t, func(c *Config) { c.MaxConnections = most })
	all := w.crowd(tries)
	until(t, "all were accepted", func() bool { return count(w.s.limits.crowded) == tries-most })
	require.Equal(t, most, w.s.admission.openCount())
	require.Equal(t, most, w.open())
	in := 0
	for i, c := range all {
		_, _ = c.nc.Write(hello{version: 4, id: fmt.Sprint(i)}.packet())
		if _, _, err := c.tryRead(); err == nil {
			in++
		}
	}
	require.Equal(t, most, in)
	for _, c := range all {
		_ = c.nc.Close()
	}
	w.deserted()
	w.device(5, "later")
}

func TestConnectionsOfOneAddressAreNeverMoreThanAllowed(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.MaxConnectionsPerAddress = 3 })
	all := w.crowd(20)
	until(t, "all were accepted", func() bool { return count(w.s.limits.fromOne) == 17 })
	require.Equal(t, 3, w.open())
	other := w.from("127.0.0.2")
	other.send(hello{version: 4, id: "other"}.packet())
	other.expect(packet(0x20, 0, 0))
	for _, c := range append(all, other) {
		_ = c.nc.Close()
	}
	w.deserted()
}

// TestAddressOfADeviceBehindALoadBalancerIsCounted: that of the load balancer has as many as it likes.
func TestAddressOfADeviceBehindALoadBalancerIsCounted(t *testing.T) {
	w := newProxiedWith(t, func(c *Config) { c.MaxConnectionsPerAddress = 2 }, "127.0.0.0/8")
	var all []*client
	connect := func(source string, in bool) {
		t.Helper()
		c := w.dial(4)
		c.send(proxyHeaderOf(t, 2, source), hello{version: 4, id: fmt.Sprint(len(all))}.packet())
		if in {
			c.expect(packet(0x20, 0, 0))
		} else {
			c.closed()
		}
		all = append(all, c)
	}
	connect("198.51.100.7:1000", true)
	connect("198.51.100.7:1001", true)
	connect("198.51.100.7:1002", false)
	connect("198.51.100.8:1000", true)
	connect("[2001:db8::1]:1000", true)
	connect("[2001:db8::2]:1000", true)
	connect("[2001:db8::3]:1000", false)
	connect("[2001:db8:0:1::1]:1000", true)
	require.Equal(t, 2, count(w.s.limits.fromOne))
	w.ends(2, "too many connections of the address")
	for _, c := range all {
		_ = c.nc.Close()
	}
	w.deserted()
}

func TestAnIPv6NetworkIsOneAddress(t *testing.T) {
	f := func(ip, want string) {
		t.Helper()
		require.Equal(t, netip.MustParseAddr(want), networkOf(&net.TCPAddr{IP: net.ParseIP(ip), Port: 1, Zone: "eth0"}))
	}
	f("198.51.100.7", "198.51.100.7")
	f("::ffff:198.51.100.7", "198.51.100.7")
	f("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::")
	f("fe80::1", "fe80::")
	require.False(t, networkOf(&net.UnixAddr{}).IsValid())
}

// queued is a world that lets one connection in, a device's, and has those wait that come after it.
func queued(t *testing.T, change func(*Config)) (*world, *client) {
	t.Helper()
	w := newWorld(t, func(c *Config) {
		c.ConnectsPerSecond = 1
		if change != nil {
			change(c)
		}
	})
	c := w.device(5, "connected")
	a := &w.s.admission
	a.mu.Lock()
	a.queue.rate = 0 // the test says when somebody's turn comes
	a.queue.tokens = 0
	a.mu.Unlock()
	return w, c
}

// turn lets n of those in that wait.
func (w *world) turn(n int) {
	a := &w.s.admission
	a.mu.Lock()
	defer a.mu.Unlock()
	a.queue.burst = float64(n)
	a.queue.tokens = float64(n)
}

func (w *world) waits(n int) {
	w.t.Helper()
	until(w.t, fmt.Sprint(n, " wait"), func() bool { return w.s.admission.waitingCount() == n })
}

func TestDevicesAreServedWhileOthersWaitToConnect(t *testing.T) {
	w, c := queued(t, nil)
	before := runtime.NumGoroutine()
	waiting := w.crowd(300)
	for i, o := range waiting {
		o.send(hello{version: 4, id: fmt.Sprint(i)}.packet())
	}
	w.waits(300)
	c.ping()
	c.publish(pub{topic: "t", qos: 1, id: 1})
	w.ack(w.next())
	c.expect(puback(1))
	require.Equal(t, 1, w.open(), "those that wait are not read")
	require.LessOrEqual(t, runtime.NumGoroutine(), before+10, "those that wait have no goroutine")
	w.turn(300)
	for _, o := range waiting {
		o.expect(packet(0x20, 0, 0))
	}
	w.waits(0)
}

func TestAFloodFromOneAddressLetsAnotherIn(t *testing.T) {
	w, _ := queued(t, nil)
	flood := w.crowd(300)
	w.waits(300)
	device := w.from("127.0.0.2")
	device.send(hello{version: 4, id: "device"}.packet())
	w.waits(301)
	w.turn(2)
	device.expect(packet(0x20, 0, 0))
	w.waits(299)
	for _, c := range flood {
		_ = c.nc.Close()
	}
}

func TestWhoHangsUpInTheQueueCostsNoTurn(t *testing.T) {
	w, _ := queued(t, nil)
	for _, c := range w.crowd(100) {
		require.NoError(t, c.nc.Close())
	}
	w.waits(100)
	last := w.dial(4)
	last.send(hello{version: 4, id: "last"}.packet())
	w.waits(101)
	w.turn(1)
	last.expect(packet(0x20, 0, 0))
	require.Equal(t, 100, count(w.s.limits.gone))
	require.Equal(t, 2, w.s.admission.openCount())
}

func TestWhoWaitsTooLongInTheQueueIsClosed(t *testing.T) {
	log := &safeBuffer{}
	w, c := queued(t, func(c *Config) { c.Logger = zerolog.New(log) })
	waiting := w.crowd(10)
	w.waits(10)
	w.s.sweep(time.Now().Add(patienceInQueue - time.Second))
	w.waits(10)
	w.s.sweep(time.Now().Add(patienceInQueue + time.Second))
	for _, o := range waiting {
		o.closed()
	}
	require.Equal(t, 10, count(w.s.limits.impatient))
	require.Equal(t, 1, w.s.admission.openCount())
	require.Contains(t, log.String(), "connection refused")
	c.ping()
}

// TestTheWaitIsNotPartOfTheConnectTimeout: the time limit begins when the connection is read.
func TestTheWaitIsNotPartOfTheConnectTimeout(t *testing.T) {
	w, _ := queued(t, func(c *Config) { c.ConnectTimeout = time.Second })
	c := w.dial(4)
	w.waits(1)
	<-time.After(1500 * time.Millisecond) // longer than the time limit: nothing tells of what must not happen
	w.turn(1)
	w.waits(0)
	c.send(hello{version: 4, id: "dev"}.packet())
	c.expect(packet(0x20, 0, 0))
}

func TestShutdownClosesThoseThatWait(t *testing.T) {
	w, _ := queued(t, nil)
	waiting := w.crowd(50)
	w.waits(50)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	w.s.Shutdown(ctx)
	for _, c := range waiting {
		c.closed()
	}
	w.deserted()
}

// TestSilentConnectionsDoNotKeepOthersOut: they have half of the places, until their time is over.
func TestSilentConnectionsDoNotKeepOthersOut(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.ConnectsPerSecond = 100_000 })
	a := &w.s.admission
	a.mu.Lock()
	a.queue.most, a.queue.share = 20, 10
	a.mu.Unlock()
	silent := w.crowd(50)
	w.waits(40)
	require.Equal(t, 10, a.unfinishedCount())
	for i := range 30 {
		c := w.from("127.0.0.2")
		c.send(hello{version: 5, id: fmt.Sprint(i)}.packet())
		first, _ := c.read()
		require.Equal(t, byte(0x20), first)
	}
	for _, c := range silent {
		_ = c.nc.Close()
	}
	w.waits(0)
	until(t, "no place is taken", func() bool { return a.unfinishedCount() == 0 })
}

func TestConnectionsComeAndGoUnderAllLimits(t *testing.T) {
	w := newWorld(t, func(c *Config) {
		c.MaxConnections, c.MaxConnectionsPerAddress, c.ConnectsPerSecond = 30, 15, 100_000
	})
	var devices sync.WaitGroup
	for i := range 60 {
		devices.Go(func() {
			for j := range 10 {
				c := w.from(fmt.Sprint("127.0.0.", 1+i%4))
				_, _ = c.nc.Write(hello{version: 4, id: fmt.Sprint(i, "-", j)}.packet())
				_, _, _ = c.tryRead()
				if n := w.s.admission.openCount(); n > 30 {
					t.Errorf("%d are open", n)
				}
				_ = c.nc.Close()
			}
		})
	}
	devices.Wait()
	w.deserted()
}

// TestOneAddressCannotKeepEverybodyOut: silent connections of one address have taken every place there is.
func TestOneAddressCannotKeepEverybodyOut(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.MaxConnections, c.ConnectsPerSecond, c.ConnectTimeout = 600, 50, time.Minute })
	dialFrom := func(ip string) net.Conn {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
		nc, err := d.Dial("tcp", w.addr)
		require.NoError(t, err)
		t.Cleanup(func() { _ = nc.Close() })
		return nc
	}
	for range 620 {
		dialFrom("127.0.0.99")
	}
	until(t, "every place is taken", func() bool { return count(w.s.limits.crowded) >= 20 })
	nc := dialFrom("127.0.0.98")
	_, err := nc.Write(hello{version: 5, id: "dev"}.packet())
	require.NoError(t, err)
	_ = nc.SetReadDeadline(time.Now().Add(tooLong))
	var first [1]byte
	_, err = io.ReadFull(nc, first[:])
	require.NoError(t, err)
	require.Equal(t, byte(0x20), first[0], "CONNACK")
}
