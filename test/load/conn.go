package load

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"sluice/bench/wire"
)

// A conn writes and reads the packets of one connection.
type conn struct {
	nc      net.Conn
	r       *bufio.Reader
	version byte
	pinged  time.Time

	mu sync.Mutex
	w  *bufio.Writer
	b  []byte
}

// connect says CONNECT: with a session that is kept if the fleet reconnects.
func connect(ctx context.Context, f *Fleet, device int) (c *conn, present bool, err error) {
	nc, err := f.Dialer(ctx, device)
	if err != nil {
		return nil, false, err
	}
	c = &conn{nc: nc, r: bufio.NewReaderSize(nc, 4<<10), w: bufio.NewWriterSize(nc, 16<<10), version: f.Version}
	o := wire.Connect{ClientID: f.ClientID(device), Version: f.Version, Clean: !f.Reconnect, KeepAlive: 60, Username: f.Username, Password: f.Password}
	if f.Reconnect {
		o.Expiry = time.Hour
	}
	present, err = c.greet(o)
	return c, present, err
}

// greet says CONNECT and waits for the CONNACK; the connection is closed after an error.
func (c *conn) greet(o wire.Connect) (present bool, err error) {
	_ = c.nc.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err = c.nc.Write(o.Packet()); err == nil {
		present, err = c.connack()
	}
	if err != nil {
		_ = c.nc.Close()
		return false, err
	}
	return present, c.nc.SetDeadline(time.Time{})
}

func (c *conn) connack() (present bool, err error) {
	first, body, err := c.read()
	if err != nil {
		return false, fmt.Errorf("CONNACK: %w", err)
	}
	if first != 0x20 || len(body) < 2 || body[1] != 0 {
		return false, fmt.Errorf("CONNACK is % x % x", first, body)
	}
	return body[0] == 1, nil
}

// read gives the next packet.
func (c *conn) read() (first byte, body []byte, err error) {
	if first, err = c.r.ReadByte(); err != nil {
		return 0, nil, err
	}
	n, err := binary.ReadUvarint(c.r) // the same encoding as MQTT's
	if err != nil {
		return 0, nil, err
	}
	if n > 1<<20 {
		return 0, nil, errors.New("a packet of more than 1 MiB from the server")
	}
	body = make([]byte, n)
	_, err = io.ReadFull(c.r, body)
	return first, body, err
}

// publish queues a PUBLISH; flush sends it.
func (c *conn) publish(topic string, qos byte, id uint16, dup bool, payload []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := wire.Text(c.b[:0], topic)
	if qos > 0 {
		b = binary.BigEndian.AppendUint16(b, id)
	}
	if c.version == 5 {
		b = append(b, 0)
	}
	c.b = b
	first := 0x30 | qos<<1
	if dup && qos > 0 {
		first |= 8
	}
	var head [5]byte
	head[0] = first
	n := 1 + binary.PutUvarint(head[1:], uint64(len(b)+len(payload)))
	_, _ = c.w.Write(head[:n])
	_, _ = c.w.Write(b)
	_, err := c.w.Write(payload)
	return err
}

func (c *conn) flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.w.Flush()
}

func (c *conn) pubrel(id uint16) error { return c.send(0x62, 2, byte(id>>8), byte(id)) }

func (c *conn) ping() error { return c.send(0xC0, 0) }

func (c *conn) disconnect() { _ = c.send(0xE0, 0) }

func (c *conn) send(b ...byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = c.w.Write(b)
	return c.w.Flush()
}

func (c *conn) close() { _ = c.nc.Close() }
