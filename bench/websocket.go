package bench

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"

	"github.com/gobwas/ws"
)

func upgrade(nc net.Conn, addr, path string) (net.Conn, error) {
	d := ws.Dialer{Protocols: []string{"mqtt"}}
	early, hs, err := d.Upgrade(nc, &url.URL{Scheme: "ws", Host: addr, Path: path})
	if err != nil {
		return nil, fmt.Errorf("cannot upgrade to WebSocket: %w", err)
	}
	if hs.Protocol != "mqtt" {
		return nil, errors.New("the server does not speak the WebSocket subprotocol mqtt")
	}
	w := &webSocket{Conn: nc, r: bufio.NewReaderSize(nc, 1<<10)}
	if early != nil {
		w.r = early
	}
	return w, nil
}

// A webSocket is a connection whose bytes go in binary frames. Read and Write may be called at once, each by one
// goroutine.
type webSocket struct {
	net.Conn
	r    *bufio.Reader
	left int64 // of the frame that is being read

	frame bytes.Buffer // that is being written
}

// Read gives bytes of binary frames. A ping needs no answer here: Sluice sends none.
func (w *webSocket) Read(b []byte) (int, error) {
	for w.left == 0 {
		h, err := ws.ReadHeader(w.r)
		switch {
		case err != nil:
			return 0, err
		case h.OpCode == ws.OpClose:
			return 0, io.EOF
		case h.OpCode.IsControl():
			if _, err := w.r.Discard(int(h.Length)); err != nil {
				return 0, err
			}
		default:
			w.left = h.Length
		}
	}
	n, err := w.r.Read(b[:min(int64(len(b)), w.left)])
	w.left -= int64(n)
	return n, err
}

// Write sends b as one frame.
func (w *webSocket) Write(b []byte) (int, error) {
	w.frame.Reset()
	h := ws.Header{Fin: true, OpCode: ws.OpBinary, Masked: true, Mask: ws.NewMask(), Length: int64(len(b))}
	if err := ws.WriteHeader(&w.frame, h); err != nil {
		return 0, err
	}
	begin := w.frame.Len()
	_, _ = w.frame.Write(b) // never fails
	ws.Cipher(w.frame.Bytes()[begin:], h.Mask, 0)
	n, err := w.Conn.Write(w.frame.Bytes())
	return max(0, n-begin), err
}
