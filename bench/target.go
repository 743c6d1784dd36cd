package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"time"

	"sluice/bench/wire"
	"sluice/tls"
)

// A Target is where devices connect, and as whom.
type Target struct {
	// Addresses are host:port; the devices are spread over them.
	Addresses []string
	// TLS is what the server has to prove, and what we can. nil: no TLS.
	TLS *tls.Config
	// WebSocket is the path to ask for, such as /mqtt; "": MQTT without WebSocket.
	WebSocket string
	// Version of MQTT: 4 for 3.1.1, or 5.
	Version byte
	// ClientID and Username of a device; {run} and {device} stand for the run and its number, and in Username {client_id}.
	ClientID, Username, Password string
	// KeepAlive is what devices say in CONNECT.
	KeepAlive time.Duration
	// ConnectRate is how many connections are begun in a second; 0: as fast as they are made, some at a time.
	ConnectRate int
}

const (
	// connectTime is how long one connection may take until its CONNACK. The server may have it wait for its turn.
	connectTime = 30 * time.Second
	// sources is how many loopback addresses connections to a loopback address come from, each with some 28 000 ports.
	sources = 16
)

// ClientIDOf gives the client ID of a device.
func (t *Target) ClientIDOf(run string, device int) string {
	return strings.NewReplacer("{run}", run, "{device}", strconv.Itoa(device)).Replace(t.ClientID)
}

// expand fills in the names of a text: {run}, {device} and {client_id}.
func (t *Target) expand(text, run string, device int) string {
	return strings.NewReplacer("{run}", run, "{device}", strconv.Itoa(device), "{client_id}", t.ClientIDOf(run, device)).Replace(text)
}

// A conn is one connection after its CONNACK. What is not said otherwise is guarded by its member's mu.
type conn struct {
	nc     net.Conn
	in     []byte // of the goroutine that reads
	out    []byte // what is to be written
	wrote  int64  // when something was written last, on the fleet's clock
	pinged int64  // when the PINGREQ was sent that is not answered; 0: none
	broken bool   // a write failed

	receiveMaximum int
	keepAlive      time.Duration // 0: none
}

// write sends what is in out. After an error the connection is closed, and who reads will see it.
func (c *conn) write(now int64) {
	if len(c.out) == 0 || c.broken {
		return
	}
	if _, err := c.nc.Write(c.out); err != nil {
		c.broken = true
		_ = c.nc.Close()
	}
	c.out, c.wrote = c.out[:0], now
}

// connect makes a connection and waits for its CONNACK. It reads into a buffer of so many bytes, which grows.
func (t *Target) connect(ctx context.Context, run string, device, buffer int) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	nc, err := t.dial(ctx, device)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = nc.Close() })
	defer stop()
	c := &conn{nc: nc, in: make([]byte, buffer)}
	if err := t.greet(c, run, device); err != nil {
		_ = nc.Close()
		if ctx.Err() != nil {
			err = fmt.Errorf("no CONNACK: %w", context.Cause(ctx))
		}
		return nil, err
	}
	return c, nil
}

// greet says CONNECT and reads the CONNACK, and nothing behind it: no server says more before it is asked.
func (t *Target) greet(c *conn, run string, device int) error {
	hello := wire.Connect{ClientID: t.ClientIDOf(run, device), Version: t.Version, Clean: true, KeepAlive: uint16(t.KeepAlive / time.Second),
		Username: t.expand(t.Username, run, device), Password: t.Password}
	if _, err := c.nc.Write(hello.Packet()); err != nil {
		return err
	}
	for n := 0; ; {
		k, err := c.nc.Read(c.in[n:])
		n += k
		first, body, _, ok, cutErr := wire.Cut(c.in[:n])
		switch {
		case ok:
			return c.accepted(first, body, t)
		case cutErr != nil:
			return cutErr
		case errors.Is(err, io.EOF):
			return errors.New("the server closed the connection before its CONNACK")
		case err != nil:
			return err
		case n == len(c.in):
			c.in = append(c.in, make([]byte, n)...)
		}
	}
}

func (c *conn) accepted(first byte, body []byte, t *Target) error {
	if first>>4 != wire.CONNACK {
		return fmt.Errorf("the first packet of the server begins with 0x%02X and is no CONNACK", first)
	}
	a, err := wire.ParseConnack(body, t.Version)
	if err != nil {
		return fmt.Errorf("CONNACK: %w", err)
	}
	if a.Code != 0 {
		return refusal("CONNACK", a.Code, a.Reason)
	}
	c.receiveMaximum, c.keepAlive = a.ReceiveMaximum, t.KeepAlive
	if a.KeepAlive >= 0 {
		c.keepAlive = time.Duration(a.KeepAlive) * time.Second
	}
	return nil
}

func refusal(packet string, code byte, reason string) error {
	if reason != "" {
		return fmt.Errorf("%s 0x%02X: %q", packet, code, reason)
	}
	return fmt.Errorf("%s 0x%02X", packet, code)
}

// dial makes the connection that packets go over.
func (t *Target) dial(ctx context.Context, device int) (net.Conn, error) {
	addr := t.Addresses[device%len(t.Addresses)]
	d := net.Dialer{LocalAddr: source(addr, device)}
	nc, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if t.TLS != nil {
		if nc, err = tls.Secure(ctx, t.TLS, nc, addr); err != nil {
			return nil, err
		}
	}
	if t.WebSocket == "" {
		return nc, nil
	}
	stop := context.AfterFunc(ctx, func() { _ = nc.Close() })
	defer stop()
	upgraded, err := upgrade(nc, addr, t.WebSocket)
	if err != nil {
		_ = nc.Close()
		return nil, err
	}
	return upgraded, nil
}

// source gives the address to connect from: to a loopback address of IPv4 one of several, as one address has ports for
// some 28 000 connections. Only Linux has them all without being asked.
func source(addr string, device int) net.Addr {
	to, err := netip.ParseAddrPort(addr)
	if err != nil || runtime.GOOS != "linux" || !to.Addr().Is4() || !to.Addr().IsLoopback() {
		return nil
	}
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(1+device%sources))}
}
