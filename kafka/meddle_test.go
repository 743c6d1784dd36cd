package kafka

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
)

// A fate is what becomes of one request on its way.
type fate int

const (
	arrives    fate = iota
	vanishes        // the connection ends before the broker has it
	unanswered      // the connection ends when the broker has it
	late            // the connection ends, and the broker has it after the delay
	slow            // the broker has it after the delay
)

// A meddler stands before all brokers of a fake cluster and decides on each request, by its API key. A request that is
// late outlives its connection, as in a broker that stood still and finds it in its sockets later.
type meddler struct {
	decide func(key int16) (fate, func())
}

// meddled starts a fake cluster behind a meddler. decide gives the fate of a request, and what to wait for if it is late or
// slow; it is called by many goroutines.
func meddled(t testing.TB, decide func(key int16) (is fate, wait func()), opts ...kfake.Opt) *kfake.Cluster {
	m := &meddler{decide}
	return fake(t, append(opts, kfake.ListenFn(func(network, address string) (net.Listener, error) {
		l, err := net.Listen(network, address)
		return meddledListener{l, m}, err
	}))...)
}

type meddledListener struct {
	net.Listener
	m *meddler
}

func (l meddledListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &meddledConn{Conn: c, m: l.m}, nil
}

// A meddledConn is the broker's side of a connection. The broker gets whole requests.
type meddledConn struct {
	net.Conn
	m    *meddler
	left []byte // of the request, to be read

	mu  sync.Mutex
	cut bool // the client is gone, and the broker does not know
}

func (c *meddledConn) Read(b []byte) (int, error) {
	for len(c.left) == 0 {
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	n := copy(b, c.left)
	c.left = c.left[n:]
	return n, nil
}

// next takes a request from the client.
func (c *meddledConn) next() error {
	if c.isCut() {
		return io.EOF
	}
	size := make([]byte, 4)
	if _, err := io.ReadFull(c.Conn, size); err != nil {
		return err
	}
	body := make([]byte, binary.BigEndian.Uint32(size))
	if _, err := io.ReadFull(c.Conn, body); err != nil {
		return err
	}
	is, wait := c.m.decide(int16(binary.BigEndian.Uint16(body)))
	if is == vanishes || is == unanswered || is == late {
		c.end()
	}
	switch is {
	case vanishes:
		return io.EOF
	case late, slow:
		wait()
	}
	c.left = append(size, body...)
	return nil
}

func (c *meddledConn) isCut() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cut
}

// end cuts the client off.
func (c *meddledConn) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = true
	_ = c.Conn.Close()
}

// Write gives an answer to the client, if it is there.
func (c *meddledConn) Write(b []byte) (int, error) {
	if c.isCut() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}
