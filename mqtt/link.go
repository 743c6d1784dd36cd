package mqtt

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"

	"sluice/tls"
)

// An Endpoint says what is spoken on a listener. The zero value is MQTT over plain TCP.
type Endpoint struct {
	// TLS proves who we are and may ask devices for their certificate; nil: no TLS.
	TLS *tls.Server
	// WebSocket carries MQTT in WebSocket frames, inside TLS if there is both; nil: none.
	WebSocket *WebSocket
	// Proxies are the load balancers that put a PROXY protocol header, version 1 or 2, before all else. Peers outside of
	// these networks are closed before a byte of theirs is looked at, since they could claim any address; those inside
	// must send the header, or are closed too. nil: there are none, and no header is understood.
	Proxies []netip.Prefix
}

// A link is what lies between the socket and the packets of a connection: TLS records, WebSocket frames. A connection
// over plain TCP has none.
type link struct {
	endpoint *Endpoint

	// Only the reading goroutine uses these.
	frames *unframer // nil: no WebSocket, or not yet
	over   error     // nothing follows what was read, and why
	kept   int       // what is counted in Server.records

	// Conn.mu guards what is below. tls is set before anything is sent; the reading goroutine decrypts with it without
	// the lock.
	tls    *tls.Conn // nil: no TLS, or not yet
	framed bool      // what is sent goes in WebSocket frames
	owing  bool      // something must be sent beside out: an answer of TLS, pong, farewell
	pong   []byte    // what the last ping that is not answered said, nil: there is none
	bye    farewell
	code   closeCode
	buffer *[sealedBuffer]byte // where what is written now lies
}

// A farewell is how far a connection has come in saying that it ends.
type farewell byte

const (
	byeNone farewell = iota
	byeDue           // when all else was sent
	byeSaid          // or never to be: the output broke off within a record or frame
)

// Certificate gives what the device's certificate says; nil: it showed none, or there is no TLS.
func (c *Conn) Certificate() *tls.Identity {
	if c.link == nil || c.link.tls == nil {
		return nil
	}
	return c.link.tls.Identity()
}

var (
	// errTLSRecord ends a connection whose bytes are no TLS records of its own.
	errTLSRecord = errors.New("bad TLS record")
	// errNoTLS ends a connection that did not come through the TLS handshake.
	errNoTLS = errors.New("no TLS handshake")
	// errNoWebSocket ends a connection that did not come through the WebSocket handshake.
	errNoWebSocket = errors.New("no WebSocket handshake")
)

// plainBuffer is what one buffer of TLS records holds, with a record that was begun before.
const plainBuffer = 2 * readBuffer

var plainBuffers = sync.Pool{New: func() any { return new([plainBuffer]byte) }}

// unwrap takes the layers off b, the next bytes from the socket, and gives what was inside to pass. If nothing can
// follow, the error says why, unless pass had one of its own; link.over has it then.
func (c *Conn) unwrap(b []byte, pass func(*Conn, []byte) error) error {
	l := c.link
	if l.tls != nil {
		buf := plainBuffers.Get().(*[plainBuffer]byte)
		defer plainBuffers.Put(buf)
		var err error
		b, err = l.tls.Open(b, buf[:0])
		l.ends(err)
	}
	return c.unframe(b, pass)
}

// unframe is unwrap for what TLS gave.
func (c *Conn) unframe(b []byte, pass func(*Conn, []byte) error) error {
	l := c.link
	var pong []byte
	if l.frames != nil {
		var err error
		b, pong, err = l.frames.open(b)
		l.ends(err)
	}
	if pong != nil || l.tls != nil && l.tls.Owes() {
		c.owe(pong)
	}
	if err := pass(c, b); err != nil {
		return err
	}
	if err := c.chargeRecords(); err != nil {
		return err
	}
	return l.over
}

// ends notes why nothing follows. The first reason stays.
func (l *link) ends(err error) {
	var fault *frameFault
	switch {
	case err == nil || l.over != nil:
	case errors.Is(err, io.EOF):
		l.over = errHungUp
	case errors.Is(err, errHungUp) || errors.As(err, &fault):
		l.over = err
	default:
		l.over = errors.Join(errTLSRecord, err)
	}
}

// isOver says that what came before was the last. A pause has its own end.
func (c *Conn) isOver() bool { return c.link != nil && c.link.over != nil }

// owe has the next write answer a ping, if pong is not nil, and send what TLS owes. A ping that is not answered when
// the next one comes is not answered any more (RFC 6455, section 5.5.3), so that pings cost no memory.
func (c *Conn) owe(pong []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.link.owing = true
	if pong != nil {
		c.link.pong = pong
	}
}

// accept takes what a listener gives.
func (s *Server) accept(nc net.Conn, e *Endpoint) {
	c := s.connOf(nc)
	if c == nil {
		return
	}
	if e.Proxies != nil {
		if !isTrusted(nc.RemoteAddr(), e.Proxies) {
			_ = nc.Close()
			s.ended(c, errNotProxy)
			return
		}
		c.proxy = proxyDue
	}
	if e.TLS != nil || e.WebSocket != nil {
		c.link = &link{endpoint: e}
	}
	s.start(c)
}
