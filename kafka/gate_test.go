package kafka

import (
	"net"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
)

type mode int

const (
	passing  mode = iota
	down          // connections are closed, old and new
	swallows      // connections stay and no byte moves
)

// A gate stands before all brokers of a fake cluster.
type gate struct {
	mu    sync.Mutex
	cond  *sync.Cond
	mode  mode
	conns map[*gatedConn]struct{}
}

// gated starts a fake cluster behind a gate.
func gated(t testing.TB, opts ...kfake.Opt) (*kfake.Cluster, *gate) {
	g := &gate{conns: map[*gatedConn]struct{}{}}
	g.cond = sync.NewCond(&g.mu)
	t.Cleanup(func() { g.set(down) }) // before the cluster ends, or it waits for what is swallowed
	listen := func(network, address string) (net.Listener, error) {
		l, err := net.Listen(network, address)
		return gatedListener{l, g}, err
	}
	c := fake(t, append(opts, kfake.ListenFn(listen))...)
	t.Cleanup(func() { g.set(down) })
	return c, g
}

// set changes the mode.
func (g *gate) set(m mode) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mode = m
	g.cond.Broadcast()
	if m == down {
		g.dropLocked()
	}
}

// drop closes the connections there are.
func (g *gate) drop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dropLocked()
}

func (g *gate) dropLocked() {
	for c := range g.conns {
		_ = c.Conn.Close()
		delete(g.conns, c)
	}
}

// wait blocks while bytes are swallowed.
func (g *gate) wait() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.mode == swallows {
		g.cond.Wait()
	}
}

type gatedListener struct {
	net.Listener
	g *gate
}

func (l gatedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		l.g.mu.Lock()
		if l.g.mode == down {
			l.g.mu.Unlock()
			_ = c.Close()
			continue
		}
		gc := &gatedConn{c, l.g}
		l.g.conns[gc] = struct{}{}
		l.g.mu.Unlock()
		return gc, nil
	}
}

type gatedConn struct {
	net.Conn
	g *gate
}

func (c *gatedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.g.wait()
	return n, err
}

func (c *gatedConn) Write(b []byte) (int, error) {
	c.g.wait()
	return c.Conn.Write(b)
}
