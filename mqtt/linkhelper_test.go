package mqtt

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/gobwas/ws"
	"github.com/stretchr/testify/require"

	"sluice/tls"
	"sluice/tls/tlstest"
)

// layers are what lies between the sockets of a test and the packets. The zero value is nothing.
type layers struct {
	tls, ws bool
	version string // of TLS at least
	auth    string // what is asked of devices
}

// underTest are the layers of every world that is made from now on, so that a test can be run again over each. Tests of
// this package do not run in parallel.
var underTest layers

func (l layers) String() string {
	switch {
	case l.tls && l.ws:
		return "websocket in tls" + l.version
	case l.tls:
		return "tls" + l.version
	case l.ws:
		return "websocket"
	}
	return "plain"
}

// A gate is what a device needs to come through the layers of a world.
type gate struct {
	layers
	ca     *tlstest.CA
	config *tls.Config
}

// endpoint gives the server's side of the layers, and what a device needs.
func (l layers) endpoint(t testing.TB) (Endpoint, *gate) {
	t.Helper()
	g, e := &gate{layers: l}, Endpoint{}
	if l.tls {
		g.ca = tlstest.NewCA(t, "ca")
		g.config = g.ca.ClientConfig(t, "127.0.0.1")
		cfg := tls.ServerConfig{MinVersion: l.version, ClientAuth: l.auth}
		cfg.Certificate, cfg.Key = g.ca.Server(t, t.TempDir(), "127.0.0.1")
		if l.auth != "" {
			cfg.ClientCA = g.ca.File(t, t.TempDir())
		}
		s, err := tls.NewServer(cfg)
		require.NoError(t, err)
		e.TLS = s
		if l.version == "1.2" {
			g.config.MaxVersion = 0x0303
		}
	}
	if l.ws {
		e.WebSocket = &WebSocket{Path: "/mqtt"}
	}
	return e, g
}

// newWorldBehind is newWorld behind these layers.
func newWorldBehind(t *testing.T, l layers, change func(*Config)) *world {
	t.Helper()
	underTest = l
	defer func() { underTest = layers{} }()
	return newWorld(t, change)
}

// listenAt makes devices dial a listener of their own, where e is spoken.
func (w *world) listenAt(e Endpoint) {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(w.t, err)
	var serving sync.WaitGroup
	serving.Go(func() { _ = w.s.ServeAt(l, e) }) // ends with Shutdown
	w.t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		w.s.Shutdown(ctx)
		serving.Wait()
	})
	w.addr = l.Addr().String()
}

// pass takes a device's socket through the layers.
func (g *gate) pass(t testing.TB, nc net.Conn) net.Conn {
	t.Helper()
	if g.tls {
		var err error
		nc, err = tlstest.Client(context.Background(), nc, g.config)
		require.NoError(t, err)
	}
	if g.ws {
		p := newPipe(nc)
		status, err := p.upgrade(upgradeRequest("/mqtt", "mqtt"))
		require.NoError(t, err)
		require.Equal(t, http.StatusSwitchingProtocols, status)
		return p
	}
	return nc
}

// A pipe is a device's side of a WebSocket.
type pipe struct {
	net.Conn
	in     *bufio.Reader
	rest   int64         // of the frame that is read
	got    []ws.OpCode   // control frames that came
	pongs  []string      // what they said
	status ws.StatusCode // of the close frame
	size   int           // of the frames to send; 0: one each time
}

func newPipe(nc net.Conn) *pipe { return &pipe{Conn: nc, in: bufio.NewReader(nc)} }

// upgradeRequest asks for a WebSocket; a field that is given replaces the usual one, and one that is empty is left out.
func upgradeRequest(path, protocol string, fields ...string) []byte {
	header := map[string]string{
		"Host": "broker.example:8083", "Upgrade": "websocket", "Connection": "keep-alive, Upgrade", "Sec-WebSocket-Version": "13",
		"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol": protocol,
	}
	for i := 0; i < len(fields); i += 2 {
		header[fields[i]] = fields[i+1]
	}
	request := "GET " + path + " HTTP/1.1\r\n"
	for k, v := range header {
		if v != "" {
			request += k + ": " + v + "\r\n"
		}
	}
	return []byte(request + "\r\n")
}

// upgrade sends such a request and gives the status of the answer.
func (p *pipe) upgrade(request []byte) (status int, err error) {
	if _, err := p.Conn.Write(request); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(p.in, nil)
	if err != nil {
		return 0, err
	}
	if resp.StatusCode == http.StatusSwitchingProtocols && resp.Header.Get("Sec-WebSocket-Protocol") != "mqtt" {
		return 0, fmt.Errorf("subprotocol %q", resp.Header.Get("Sec-WebSocket-Protocol"))
	}
	return resp.StatusCode, nil
}

// Write sends b in binary frames.
func (p *pipe) Write(b []byte) (int, error) {
	var out []byte
	for rest := b; len(rest) > 0; {
		n := len(rest)
		if p.size > 0 {
			n = min(n, p.size)
		}
		out = append(out, masked(0x80|byte(ws.OpBinary), rest[:n])...)
		rest = rest[n:]
	}
	if _, err := p.Conn.Write(out); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Read gives the content of data frames, which must be whole, binary and not masked.
func (p *pipe) Read(b []byte) (int, error) {
	for p.rest == 0 {
		h, err := ws.ReadHeader(p.in)
		if err != nil {
			return 0, err
		}
		switch {
		case h.Masked || !h.Fin || h.Rsv != 0:
			return 0, fmt.Errorf("not a frame of a server: %+v", h)
		case h.OpCode == ws.OpBinary:
			p.rest = h.Length
		default:
			if err := p.control(h); err != nil {
				return 0, err
			}
		}
	}
	n, err := p.in.Read(b[:min(int64(len(b)), p.rest)])
	p.rest -= int64(n)
	return n, err
}

func (p *pipe) control(h ws.Header) error {
	said := make([]byte, h.Length)
	if _, err := io.ReadFull(p.in, said); err != nil {
		return err
	}
	p.got = append(p.got, h.OpCode)
	switch h.OpCode {
	case ws.OpPong:
		p.pongs = append(p.pongs, string(said))
		return nil
	case ws.OpClose:
		p.status, _ = ws.ParseCloseFrameData(said)
		return io.EOF
	}
	return fmt.Errorf("opcode %d came", h.OpCode)
}

// masked makes a frame of a device.
func masked(first byte, content []byte) []byte {
	mask := [4]byte{0x12, 0x34, 0x56, 0x78}
	b := []byte{first}
	switch n := len(content); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = append(b, 0x80|126, byte(n>>8), byte(n))
	default:
		b = append(b, 0x80|127, 0, 0, 0, 0, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	b = append(b, mask[:]...)
	at := len(b)
	b = append(b, content...)
	ws.Cipher(b[at:], mask, 0)
	return b
}
