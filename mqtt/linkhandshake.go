package mqtt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// handshake lets the device come through the layers: the PROXY header, the handshake of TLS, that of WebSocket, all by
// the deadline; then it handles what came behind them. It waits in reads that hold their buffer, as CONNECT is never
// far.
func (c *Conn) handshake(deadline time.Time) error {
	_ = c.nc.SetWriteDeadline(deadline)
	early, err := c.awaitProxyHeader()
	if err == nil && c.link.endpoint.TLS != nil {
		err = c.timed("tls", errNoTLS, func() error {
			early, err = c.acceptTLS(early)
			return err
		})
	}
	if ws := c.link.endpoint.WebSocket; err == nil && ws != nil {
		err = c.timed("websocket", errNoWebSocket, func() error {
			early, err = c.acceptWebSocket(ws, early)
			return err
		})
	}
	_ = c.nc.SetWriteDeadline(time.Time{}) // else it would fail a write long after this
	if err != nil {
		return err
	}
	return c.first(early)
}

// first handles what came behind the handshakes, as readOnce does.
func (c *Conn) first(b []byte) error {
	c.now = time.Now()
	err := c.unframe(b, (*Conn).feed)
	if err == errPause {
		c.pause()
		err = nil
	}
	if c.answer() && err == nil {
		err = os.ErrDeadlineExceeded
	}
	return err
}

// timed counts a handshake of a layer, and how long it took. One that fails is fault, or a time-out.
func (c *Conn) timed(layer string, fault error, shake func() error) error {
	begun := time.Now()
	err := shake()
	result := handshakeResult(err)
	c.srv.m.link.handshakes.WithLabelValues(layer, result).Inc()
	switch result {
	case "ok":
		c.srv.m.link.took.WithLabelValues(layer).Observe(time.Since(begun).Seconds())
		return nil
	case "timeout":
		return os.ErrDeadlineExceeded
	}
	return fmt.Errorf("%w: %w", fault, err)
}

func handshakeResult(err error) string {
	var timeout net.Error
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	}
	return "failed"
}

// awaitProxyHeader reads a PROXY header, if one is due, and gives what came behind it.
func (c *Conn) awaitProxyHeader() (early []byte, err error) {
	for c.proxy == proxyDue && err == nil {
		var b []byte
		if b, err = c.readSome(nil); err == nil {
			early, err = c.proxyHeader(b)
		}
	}
	return early, err
}

// acceptTLS does the handshake of TLS and gives what came in records behind it. Its time is bounded by the deadlines of
// the socket, which a shutdown moves too; a context would cost a goroutine each.
func (c *Conn) acceptTLS(early []byte) (plain []byte, err error) {
	accepted, err := c.link.endpoint.TLS.Accept(context.Background(), c.nc, early, c.countHandshake)
	if err != nil {
		return nil, err
	}
	c.now = time.Now()
	c.mu.Lock()
	c.link.tls = accepted
	c.mu.Unlock()
	plain, err = accepted.Open(nil, nil)
	c.link.ends(err) // told once what came before it was handled
	return plain, nil
}

// readSome waits for bytes and appends what they say, without TLS if there is any.
func (c *Conn) readSome(b []byte) ([]byte, error) {
	buf := readBuffers.Get().(*[readBuffer]byte)
	defer readBuffers.Put(buf)
	n, err := c.nc.Read(buf[:])
	c.srv.m.bytesIn.Add(float64(n))
	if n > 0 {
		c.now = time.Now()
	}
	if err != nil {
		return b, err
	}
	if c.link.tls == nil {
		return append(b, buf[:n]...), nil
	}
	b, err = c.link.tls.Open(buf[:n], b)
	if len(b) > 0 {
		c.link.ends(err)
		return b, nil
	}
	return b, err
}

// say writes b, in TLS if there is any, before anything else is sent on this connection.
func (c *Conn) say(b []byte) error {
	if c.link.tls != nil {
		var err error
		if b, err = c.link.tls.Seal(b, nil); err != nil {
			return err
		}
	}
	n, err := c.nc.Write(b)
	c.srv.m.bytesOut.Add(float64(n))
	return err
}
