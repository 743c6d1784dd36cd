package tlstest

import (
	"crypto/tls"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// A Relay is TLS in front of a server without it, with a certificate that can be changed.
type Relay struct {
	shows atomic.Pointer[tls.Config]
	mu    sync.Mutex
	conns []net.Conn
}

// Show changes what it shows on connections to come.
func (r *Relay) Show(cfg *tls.Config) { r.shows.Store(cfg) }

// To starts a listener that ends with the test and hands its connections on to addr. It gives the listener's address.
func (r *Relay) To(t testing.TB, addr string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close(); r.Cut() })
	go func() { // ends with l
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", addr)
			if err != nil {
				_ = nc.Close()
				continue
			}
			from := tls.Server(nc, r.shows.Load())
			r.mu.Lock()
			r.conns = append(r.conns, nc, to)
			r.mu.Unlock()
			pipe := func(to, from net.Conn) { // ends with one of them
				_, _ = io.Copy(to, from)
				_, _ = nc.Close(), to.Close()
			}
			go pipe(to, from)
			go pipe(from, to)
		}
	}()
	return l.Addr().String()
}

// Cut ends all connections.
func (r *Relay) Cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		_ = c.Close()
	}
	r.conns = nil
}
