package mqtt

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

// tooLong ends a test that waits for what never comes. No test passes or fails by how long something took.
const tooLong = 20 * time.Second

// A world is a Server on a loopback socket whose clock the test turns, and the recorder it hands messages to.
type world struct {
	*recorder
	t    testing.TB
	s    *Server
	addr string
	gate *gate // what devices have to come through

	endpoint Endpoint
}

// newWorld starts a server. change may change its Config.
func newWorld(t testing.TB, change func(*Config)) *world {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return newWorldOn(t, l, change)
}

func newWorldOn(t testing.TB, l net.Listener, change func(*Config)) *world {
	t.Helper()
	cfg := DefaultConfig()
	cfg.TopicAliasMaximum = 16
	if change != nil {
		change(&cfg)
	}
	rec := &recorder{got: make(chan *Message, 1<<14)}
	s, err := New(cfg, rec)
	require.NoError(t, err)
	stop := make(chan struct{})
	var parts sync.WaitGroup
	parts.Go(func() { s.runFlusher(stop) }) // not Run: its ticker would turn the clock
	parts.Go(func() { s.runPacer(stop) })
	parts.Go(func() { s.runLot(stop) })
	e, g := underTest.endpoint(t)
	parts.Go(func() { _ = s.ServeAt(l, e) })
	t.Cleanup(func() {
		w, cancel := context.WithCancel(context.Background())
		cancel()
		s.Shutdown(w)
		close(stop)
		parts.Wait()
	})
	return &world{recorder: rec, t: t, s: s, addr: l.Addr().String(), gate: g, endpoint: e}
}

// pass turns the clock on by n seconds and does the work of each.
func (w *world) pass(n int) {
	for range n {
		w.s.tick.Add(1)
		w.s.sweep(time.Now())
	}
}

func (w *world) ack(m *Message) {
	m.Ack(Success)
	w.s.Flush()
}

func (w *world) refuse(m *Message, code Code, reason string) {
	m.Refuse(code, reason)
	w.s.Flush()
}

// count reads one of the server's metrics.
func count(c prometheus.Collector) int { return int(testutil.ToFloat64(c)) }

// open counts the connections the server holds, also those before CONNECT.
func (w *world) open() int {
	w.s.conns.mu.Lock()
	defer w.s.conns.mu.Unlock()
	return len(w.s.conns.all)
}

// parked counts the connections that have no goroutine.
func (w *world) parked() (n int) {
	w.s.conns.each(func(c *Conn) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.parked {
			n++
		}
	})
	return n
}

// allParked turns the clock until n connections are parked.
func (w *world) allParked(n int) {
	until(w.t, "parked", func() bool {
		w.pass(1)
		return w.parked() == n
	})
}

// until waits for a condition.
func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	require.Eventually(t, cond, tooLong, time.Millisecond, what)
}

// A recorder is a Handler that keeps every message until the test settles it, or passes it to answer.
type recorder struct {
	got    chan *Message
	answer func(*Message) // set before the first connection

	mu      sync.Mutex
	full    bool // Admit says no
	used    int
	resumes []func()
	turns   int // given, not used and not left
}

func (r *recorder) Admit(m *Message, resume func()) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.full {
		if resume != nil {
			r.resumes = append(r.resumes, resume)
			if m.Turn == nil {
				m.Turn = (*recorderTurn)(r)
				r.turns++
			}
		}
		return false
	}
	if m.Turn != nil {
		r.turns--
	}
	r.used += m.Reserved
	return true
}

// A recorderTurn is a place among those that wait for a recorder's memory.
type recorderTurn recorder

func (t *recorderTurn) Leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.turns--
}

func (r *recorder) Release(m *Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.used -= m.Reserved
}

func (r *recorder) Publish(m *Message) {
	if r.answer != nil {
		r.answer(m)
		return
	}
	r.got <- m
}

func (r *recorder) setFull(full bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.full = full
}

func (r *recorder) waiting() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.resumes)
}

// makeRoom lets Admit say yes and resumes all who wait.
func (r *recorder) makeRoom() {
	r.mu.Lock()
	r.full = false
	all := r.resumes
	r.resumes = nil
	r.mu.Unlock()
	for _, resume := range all {
		resume()
	}
}

// reserved is what Admit granted and Release did not take back.
func (r *recorder) reserved() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.used
}

// next waits for the next message handed over.
func (w *world) next() *Message {
	w.t.Helper()
	select {
	case m := <-w.got:
		return m
	case <-time.After(tooLong):
		w.t.Fatal("no message was handed over")
		return nil
	}
}

// noMessage holds that nothing waits to be handed over. Call it after a fence: a ping, a closed connection.
func (w *world) noMessage() {
	w.t.Helper()
	select {
	case m := <-w.got:
		w.t.Fatalf("handed over: %s %q", m.Topic, m.Payload)
	default:
	}
}

// A client is one device: a socket.
type client struct {
	t       testing.TB
	nc      *net.TCPConn
	pipe    net.Conn // nc, or what is at the end of the layers over it
	in      *bufio.Reader
	version byte
	connack []byte // the body
}

func (w *world) dial(version byte) *client {
	w.t.Helper()
	nc, err := net.Dial("tcp", w.addr)
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = nc.Close() })
	p := w.gate.pass(w.t, nc)
	return &client{t: w.t, nc: nc.(*net.TCPConn), pipe: p, in: bufio.NewReader(p), version: version}
}

// connect dials, says h and takes a CONNACK that says yes.
func (w *world) connect(h hello) *client {
	w.t.Helper()
	c := w.dial(h.version)
	c.send(h.packet())
	first, body := c.read()
	require.Equal(w.t, byte(0x20), first, "CONNACK")
	require.Equal(w.t, byte(0), body[1], "reason code of CONNACK")
	c.connack = body
	return c
}

// device is connect with nothing but a client ID.
func (w *world) device(version byte, id string) *client {
	w.t.Helper()
	return w.connect(hello{version: version, id: id})
}

// stored connects with a session that outlives the connection.
func (w *world) stored(version byte, id string) *client {
	w.t.Helper()
	return w.connect(persistent(version, id))
}

func persistent(version byte, id string) hello {
	h := hello{version: version, id: id, persist: true}
	if version == 5 {
		h.props = cat(0x11, uint32(3600))
	}
	return h
}

func (c *client) present() bool { return c.connack[0] == 1 }

func (c *client) send(parts ...any) {
	c.t.Helper()
	_, err := c.pipe.Write(cat(parts...))
	require.NoError(c.t, err)
}

func (c *client) publish(p pub) {
	c.t.Helper()
	c.send(p.packet(c.version))
}

// tryRead takes a packet. At the end of the connection the client closes it too, as devices do: the server waits for that.
func (c *client) tryRead() (first byte, body []byte, err error) {
	_ = c.nc.SetReadDeadline(time.Now().Add(tooLong))
	defer func() {
		if errors.Is(err, io.EOF) {
			_ = c.nc.Close()
		}
	}()
	if first, err = c.in.ReadByte(); err != nil {
		return 0, nil, err
	}
	n, err := binary.ReadUvarint(c.in) // the same encoding as a Variable Byte Integer
	if err != nil {
		return 0, nil, err
	}
	body = make([]byte, n)
	_, err = io.ReadFull(c.in, body)
	return first, body, err
}

func (c *client) read() (first byte, body []byte) {
	c.t.Helper()
	first, body, err := c.tryRead()
	require.NoError(c.t, err)
	return first, body
}

// expect takes packets that must be exactly want.
func (c *client) expect(want ...[]byte) {
	c.t.Helper()
	for _, w := range want {
		first, body := c.read()
		require.Equal(c.t, w, packet(int(first), body))
	}
}

// ping takes a PINGRESP and nothing before it: all that was sent has been handled then.
func (c *client) ping() {
	c.t.Helper()
	c.send(pingreq)
	c.expect(pingresp)
}

// closed takes the end of the connection and nothing before it.
func (c *client) closed() {
	c.t.Helper()
	first, body, err := c.tryRead()
	require.Error(c.t, err, "%#x % x came instead of the end", first, body)
	if ne, ok := err.(net.Error); ok {
		require.False(c.t, ne.Timeout(), "the connection stays open")
	}
}

// goodbye takes DISCONNECT with code, which only MQTT 5 has, and the end of the connection.
func (c *client) goodbye(code Code) {
	c.t.Helper()
	if c.version == 5 {
		first, body := c.read()
		require.Equal(c.t, byte(0xE0), first, "DISCONNECT")
		require.Equal(c.t, code.String(), Code(body[0]).String())
	}
	c.closed()
}
