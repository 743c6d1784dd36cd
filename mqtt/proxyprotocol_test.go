package mqtt

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
)

// newProxied is a world whose listener trusts load balancers from these networks. log gets its lines.
func newProxied(t *testing.T, log *safeBuffer, trusted ...string) *world {
	t.Helper()
	return newProxiedWith(t, func(cfg *Config) { cfg.Logger = zerolog.New(log).Level(zerolog.DebugLevel) }, trusted...)
}

func newProxiedWith(t *testing.T, change func(*Config), trusted ...string) *world {
	t.Helper()
	w := newWorld(t, change)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var networks []netip.Prefix
	for _, s := range trusted {
		networks = append(networks, netip.MustParsePrefix(s))
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = w.s.ServeAt(l, Endpoint{Proxies: networks}) }) // ends with Shutdown
	t.Cleanup(func() {
		_ = l.Close()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		w.s.Shutdown(ctx)
		serving.Wait()
	})
	w.addr = l.Addr().String()
	return w
}

// ends waits until n connections have ended for a reason, which is counted after the close.
func (w *world) ends(n int, reason string) {
	w.t.Helper()
	until(w.t, reason, func() bool { return count(w.s.m.disconnects.WithLabelValues(reason)) == n })
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// proxyHeaderOf is what a load balancer says of a device at source.
func proxyHeaderOf(t testing.TB, version byte, source string) []byte {
	t.Helper()
	from := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(source))
	to := &net.TCPAddr{IP: net.ParseIP("192.0.2.1"), Port: 1883}
	b, err := proxyproto.HeaderProxyFromAddrs(version, from, to).Format()
	require.NoError(t, err)
	return b
}

func localHeader(t testing.TB) []byte {
	t.Helper()
	b, err := (&proxyproto.Header{Version: 2, Command: proxyproto.LOCAL}).Format()
	require.NoError(t, err)
	return b
}

// TestTheDevicesAddressIsThatOfTheProxyHeader: both versions, both families, in the log and for who asks.
func TestTheDevicesAddressIsThatOfTheProxyHeader(t *testing.T) {
	for _, version := range []byte{1, 2} {
		for _, source := range []string{"203.0.113.7:4711", "[2001:db8::7]:4711"} {
			log := &safeBuffer{}
			w := newProxied(t, log, "127.0.0.0/8")
			c := w.dial(5)
			c.send(proxyHeaderOf(t, version, source), hello{version: 5, id: "d"}.packet())
			first, _ := c.read()
			require.Equal(t, byte(0x20), first, "CONNACK")
			c.publish(pub{topic: "t", qos: 1, id: 1})
			m := w.next()
			require.Equal(t, source, m.conn.RemoteAddr().String())
			w.ack(m)
			_ = c.nc.Close()
			until(t, "the line of the end", func() bool { return bytes.Contains([]byte(log.String()), []byte("device disconnected")) })
			require.Contains(t, log.String(), `"remote":"`+source+`"`)
		}
	}
}

// TestAProxyHeaderMayComeInPiecesAndWithPackets: however the bytes are cut, none after the header is lost.
func TestAProxyHeaderMayComeInPiecesAndWithPackets(t *testing.T) {
	for _, version := range []byte{1, 2} {
		whole := cat(proxyHeaderOf(t, version, "203.0.113.7:4711"), hello{version: 5, id: "d"}.packet(), pub{topic: "t", payload: "x", qos: 1, id: 1}.packet(5))
		for cut := range len(whole) {
			c := proxiedConn(t)
			err := c.arrived(whole[:cut])
			if err == nil {
				err = c.arrived(whole[cut:])
			}
			require.NoError(t, err)
			require.Equal(t, "203.0.113.7:4711", c.RemoteAddr().String())
			require.Equal(t, "d", c.ClientID())
			require.Empty(t, c.partial)
			c.flush()
			c.finish(errHungUp)
		}
	}
}

func proxiedConn(t *testing.T) *fuzzed {
	t.Helper()
	c := fuzzConn(t)
	c.proxy = proxyDue
	return c
}

// TestAProxyWithoutHeaderIsClosed: its bytes are no CONNECT, even if they look like one.
func TestAProxyWithoutHeaderIsClosed(t *testing.T) {
	w := newProxied(t, &safeBuffer{}, "127.0.0.1/32")
	for _, b := range [][]byte{
		hello{version: 5, id: "d"}.packet(),
		[]byte("PROXY TCP4 203.0.113.7 192.0.2.1 99999 1883\r\n"),
		[]byte("PROXY TCP4 203.0.113.7 192.0.2.1 4711 1883\n"),
		append([]byte("PROXY TCP4 "), bytes.Repeat([]byte{'1'}, 200)...),
		append(bytes.Clone(proxyproto.SIGV2), 0x21, 0x11, 0xFF, 0xFF),
		append(bytes.Clone(proxyproto.SIGV2), 0x31, 0x11, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12),
	} {
		c := w.dial(5)
		c.send(b)
		c.closed()
	}
	w.ends(6, "no PROXY protocol header")
	until(t, "all are closed", func() bool { return w.open() == 0 })
}

// TestAStrangerIsClosedBeforeItSpeaks: who is no trusted proxy could claim any address.
func TestAStrangerIsClosedBeforeItSpeaks(t *testing.T) {
	w := newProxied(t, &safeBuffer{}, "10.0.0.0/8", "::1/128")
	w.dial(5).closed()
	w.ends(1, "not a trusted proxy")
	require.Zero(t, w.open())
}

// TestALoadBalancersHealthCheckIsNoDevice: LOCAL is answered as any connection, with the peer's own address, and is no
// line in the log when it closes without a word.
func TestALoadBalancersHealthCheckIsNoDevice(t *testing.T) {
	log := &safeBuffer{}
	w := newProxied(t, log, "127.0.0.0/8")
	c := w.dial(5)
	c.send(localHeader(t))
	_ = c.nc.Close()
	w.ends(1, "health check")
	until(t, "the line", func() bool { return bytes.Contains([]byte(log.String()), []byte("health check")) })
	require.NotContains(t, log.String(), `"level":"info"`)

	c = w.dial(5)
	c.send(localHeader(t), hello{version: 5, id: "d"}.packet())
	first, _ := c.read()
	require.Equal(t, byte(0x20), first, "CONNACK")
	c.publish(pub{topic: "t", qos: 1, id: 1})
	m := w.next()
	require.Equal(t, c.nc.LocalAddr().String(), m.conn.RemoteAddr().String())
	w.ack(m)
}

// TestTheProxyHeaderSharesTheTimeLimitOfConnect: a proxy that is silent, or says half of it, does not stay.
func TestTheProxyHeaderSharesTheTimeLimitOfConnect(t *testing.T) {
	for _, half := range []int{0, 5, 20} {
		w := newProxiedWith(t, func(cfg *Config) { cfg.ConnectTimeout = 50 * time.Millisecond }, "127.0.0.0/8")
		c := w.dial(5)
		c.send(proxyHeaderOf(t, 2, "203.0.113.7:4711")[:half])
		c.closed()
		w.ends(1, "connect timeout")
	}
}

// FuzzProxyHeader: whatever a proxy sends, and however it is cut, memory is bounded and the outcome is the same, and a
// header that the library takes is taken.
func FuzzProxyHeader(f *testing.F) {
	for _, version := range []byte{1, 2} {
		f.Add(cat(proxyHeaderOf(f, version, "203.0.113.7:4711"), hello{version: 5, id: "d"}.packet()), 7)
		f.Add(proxyHeaderOf(f, version, "[2001:db8::7]:4711"), 20)
	}
	f.Add(cat(localHeader(f), pingreq), 3)
	f.Add([]byte("PROXY UNKNOWN\r\n"), 14)
	f.Add(append(bytes.Clone(proxyproto.SIGV2), 0x21, 0x31, 0, 0), 15)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		cut = min(max(cut, 0), len(b))
		s := &Server{}
		whole, pieces := &Conn{srv: s, proxy: proxyDue}, &Conn{srv: s, proxy: proxyDue}
		want, wantErr := whole.proxyHeader(b)
		rest, err := pieces.proxyHeader(b[:cut])
		if err == nil && pieces.proxy == proxyDue {
			rest, err = pieces.proxyHeader(b[cut:])
		} else {
			rest = append(bytes.Clone(rest), b[cut:]...)
		}
		require.Equal(t, wantErr == nil, err == nil)
		if err != nil {
			return
		}
		require.Equal(t, whole.proxy, pieces.proxy)
		require.Equal(t, whole.device, pieces.device)
		require.Equal(t, string(want), string(rest))
		require.Equal(t, whole.partial, pieces.partial)
		require.Less(t, len(whole.partial), proxyHeaderMax)
		if whole.proxy == proxyDue {
			require.Len(t, whole.partial, len(b), "what waits is all there")
		}
	})
}
