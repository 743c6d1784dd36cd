package mqtt

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"github.com/pires/go-proxyproto"

	"sluice/tls"
)

// A proxyState is what a connection still has to say of the load balancer before it.
type proxyState byte

const (
	proxyNone  proxyState = iota // nothing: there is none, or its header came
	proxyDue                     // the header must come before CONNECT
	proxyCheck                   // the header said LOCAL: the load balancer itself, asking whether we live
)

var (
	// errNotProxy ends a connection that does not come from a trusted load balancer.
	errNotProxy = errors.New("not the address of a trusted proxy")
	// errProxyHeader ends a connection whose PROXY header is missing or bad.
	errProxyHeader = errors.New("no PROXY protocol header")
)

// Lengths of headers. Version 1 is a line of text; version 2 has a length of its own for addresses and extensions,
// of which no more is taken than the library does.
const (
	proxyLineMax   = 107
	proxyFixed     = 16
	proxyHeaderMax = proxyFixed + 4096
)

// isTrusted looks for a peer's address. A listener for IPv6 too gives IPv4 peers in the form of the other.
func isTrusted(peer net.Addr, trusted []netip.Prefix) bool {
	tcp, ok := peer.(*net.TCPAddr)
	if !ok {
		return false
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	return slices.ContainsFunc(trusted, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// RemoteAddr gives the device's address: what the PROXY header says, if one is due, else that of the peer.
func (c *Conn) RemoteAddr() net.Addr {
	if c.device != nil {
		return c.device
	}
	return c.nc.RemoteAddr()
}

// proxyHeader takes the header from the start of what came and gives what follows it. A header that is not whole yet
// waits in c.partial.
func (c *Conn) proxyHeader(b []byte) (rest []byte, err error) {
	if len(c.partial) > 0 {
		b = append(c.partial, b...)
	}
	size, err := proxyHeaderSize(b)
	if err != nil {
		return nil, err
	}
	if size == 0 || size > len(b) {
		c.partial = append([]byte(nil), b...)
		return nil, nil
	}
	c.partial, c.proxy = nil, proxyNone
	return b[size:], c.identified(b[:size])
}

// proxyHeaderSize gives the length of the header at the start of b, 0 if b is too short to tell.
func proxyHeaderSize(b []byte) (int, error) {
	switch {
	case begins(b, proxyproto.SIGV2):
		if len(b) < proxyFixed {
			return 0, nil
		}
		size := proxyFixed + int(binary.BigEndian.Uint16(b[proxyFixed-2:]))
		if size > proxyHeaderMax {
			return 0, fmt.Errorf("%w: %d bytes are too long", errProxyHeader, size)
		}
		return size, nil
	case begins(b, proxyproto.SIGV1):
		line := b[:min(len(b), proxyLineMax)]
		if end := bytes.IndexByte(line, '\n'); end >= 0 || len(line) < proxyLineMax {
			return end + 1, nil
		}
		return 0, fmt.Errorf("%w: the line is too long", errProxyHeader)
	}
	return 0, errProxyHeader
}

// begins says whether b starts as want does, as far as b goes.
func begins(b, want []byte) bool {
	n := min(len(b), len(want))
	return bytes.Equal(b[:n], want[:n])
}

// identified takes the device's address from a whole header. A header without addresses of TCP leaves that of the peer.
func (c *Conn) identified(header []byte) error {
	h, err := proxyproto.Read(bufio.NewReaderSize(bytes.NewReader(header), len(header)))
	if err != nil {
		return fmt.Errorf("%w: %w", errProxyHeader, err)
	}
	if h.Command.IsLocal() {
		c.proxy = proxyCheck
		return nil
	}
	if source, _, ok := h.TCPAddrs(); ok {
		c.device = source
	}
	return c.srv.identify(c)
}

// isHealthCheck says that a connection was the load balancer's own and no device spoke on it.
func (c *Conn) isHealthCheck() bool { return c.proxy == proxyCheck && c.version == 0 }

// isProbe says that a connection was closed before anything came on it, as those do who look whether the port is open.
func (c *Conn) isProbe(err error) bool {
	if errors.Is(err, errNoTLS) {
		return errors.Is(err, tls.ErrNothing)
	}
	return c.now.IsZero() && (errors.Is(err, errHungUp) || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET))
}
