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
	o := connectOptions{clientID: f.ClientID(device), version: f.Version, clean: !f.Reconnect, keepAlive: 60, username: f.Username, password: f.Password}
	if f.Reconnect {
		o.expiry = time.Hour
	}
	present, err = c.greet(o)
	return c, present, err
}

// connectOptions are what a CONNECT says.
type connectOptions struct {
	clientID       string
	version        byte
	clean          bool
	keepAlive      uint16        // seconds
	expiry         time.Duration // of the session; MQTT 5
	receiveMaximum uint16        // 0: not said; MQTT 5
	username       string        // with password; "": not said
	password       string
}

// greet says CONNECT and waits for the CONNACK; the connection is closed after an error.
func (c *conn) greet(o connectOptions) (present bool, err error) {
	_ = c.nc.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err = c.nc.Write(o.packet()); err == nil {
		present, err = c.connack()
	}
	if err != nil {
		_ = c.nc.Close()
		return false, err
	}
	return present, c.nc.SetDeadline(time.Time{})
}

func (o connectOptions) packet() []byte {
	flags := byte(0)
	if o.clean {
		flags = 2
	}
	if o.username != "" {
		flags |= 0xC0
	}
	b := append(text(nil, "MQTT"), o.version, flags)
	b = binary.BigEndian.AppendUint16(b, o.keepAlive)
	if o.version == 5 {
		var p []byte
		if o.expiry > 0 {
			p = binary.BigEndian.AppendUint32(append(p, 0x11), uint32(o.expiry/time.Second))
		}
		if o.receiveMaximum > 0 {
			p = binary.BigEndian.AppendUint16(append(p, 0x21), o.receiveMaximum)
		}
		b = append(append(b, byte(len(p))), p...)
	}
	b = text(b, o.clientID)
	if o.username != "" {
		b = text(text(b, o.username), o.password)
	}
	return packet(0x10, b)
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

func text(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

func packet(first byte, body []byte) []byte {
	b := binary.AppendUvarint([]byte{first}, uint64(len(body)))
	return append(b, body...)
}

// publish queues a PUBLISH; flush sends it.
func (c *conn) publish(topic string, qos byte, id uint16, dup bool, payload []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := text(c.b[:0], topic)
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
