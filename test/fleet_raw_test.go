package test

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A rawConnect is a CONNECT that the test writes byte for byte, to say what no library would and to time the answer.
type rawConnect struct {
	version  byte // 4 or 5; 0: 5
	id       string
	clean    bool
	expiry   uint32 // MQTT 5; MQTT 3.1.1 has clean session for that
	username string
	will     *rawWill
}

// A rawWill is a will with QoS 1.
type rawWill struct {
	topic, payload string
	delay          uint32 // MQTT 5
	retain         bool
}

func rawText(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

// rawPacket is for packets below 2 MiB.
func rawPacket(first byte, body []byte) []byte {
	return append(binary.AppendUvarint([]byte{first}, uint64(len(body))), body...)
}

func (r rawConnect) packet() []byte {
	version := r.version
	if version == 0 {
		version = 5
	}
	flags := byte(0)
	if r.clean {
		flags |= 2
	}
	if r.will != nil {
		flags |= 4 | 1<<3
		if r.will.retain {
			flags |= 0x20
		}
	}
	if r.username != "" {
		flags |= 0x80
	}
	b := append(rawText(nil, "MQTT"), version, flags, 0, 60)
	if version == 5 {
		b = binary.BigEndian.AppendUint32(append(b, 5, 0x11), r.expiry)
	}
	b = r.will.appendTo(rawText(b, r.id), version)
	if r.username != "" {
		b = rawText(b, r.username)
	}
	return rawPacket(0x10, b)
}

func (w *rawWill) appendTo(b []byte, version byte) []byte {
	if w == nil {
		return b
	}
	if version == 5 {
		b = binary.BigEndian.AppendUint32(append(b, 5, 0x18), w.delay)
	}
	return rawText(rawText(b, w.topic), w.payload)
}

// A rawDevice is a connection that was accepted. A goroutine reads it to its end.
type rawDevice struct {
	conn    net.Conn
	present bool
	took    time.Duration // from CONNECT to CONNACK
	since   time.Time     // of CONNACK
	ended   chan struct{} // closed with the connection; what follows is valid then
	until   time.Time
	reason  byte // of DISCONNECT; 0: none came
}

// A refusal is a CONNACK that says no.
type refusal byte

func (r refusal) Error() string { return fmt.Sprintf("CONNACK 0x%02X", byte(r)) }

// rawDial connects; the error is a refusal if the server said no.
func rawDial(ctx context.Context, addr string, r rawConnect) (*rawDevice, error) {
	conn, err := dialDevice(ctx, addr, len(r.id))
	if err != nil {
		return nil, err
	}
	d, err := greetRaw(conn, r)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return d, nil
}

func greetRaw(conn net.Conn, r rawConnect) (*rawDevice, error) {
	_ = conn.SetDeadline(time.Now().Add(patience))
	d := &rawDevice{conn: conn, ended: make(chan struct{})}
	begin := time.Now()
	if _, err := conn.Write(r.packet()); err != nil {
		return nil, err
	}
	in := bufio.NewReader(conn)
	first, body, err := readRaw(in)
	d.since = time.Now()
	d.took = d.since.Sub(begin)
	switch {
	case err != nil:
		return nil, err
	case first != 0x20 || len(body) < 2:
		return nil, fmt.Errorf("% x % x in place of CONNACK", first, body)
	case body[1] != 0:
		return nil, refusal(body[1])
	}
	_ = conn.SetDeadline(time.Time{})
	d.present = body[0] == 1
	go d.read(in) // ends with the connection
	return d, nil
}

func readRaw(in *bufio.Reader) (first byte, body []byte, err error) {
	if first, err = in.ReadByte(); err != nil {
		return 0, nil, err
	}
	n, err := binary.ReadUvarint(in)
	if err != nil || n > 1<<20 {
		return 0, nil, fmt.Errorf("a packet of %d bytes: %w", n, err)
	}
	body = make([]byte, n)
	_, err = io.ReadFull(in, body)
	return first, body, err
}

// read takes what comes until the end. A DISCONNECT is the end: the server sends nothing after it, and takes nothing.
func (d *rawDevice) read(in *bufio.Reader) {
	defer close(d.ended)
	defer func() { d.until = time.Now() }()
	for {
		first, body, err := readRaw(in)
		if err != nil {
			return
		}
		if first == 0xE0 {
			if len(body) > 0 {
				d.reason = body[0]
			}
			_ = d.conn.Close()
			return
		}
	}
}

// leave says DISCONNECT; vanish only closes. Both wait for the end.
func (d *rawDevice) leave() {
	_, _ = d.conn.Write([]byte{0xE0, 0})
	d.vanish()
}

func (d *rawDevice) vanish() {
	_ = d.conn.Close()
	<-d.ended
}

// alive says whether the connection has not ended.
func (d *rawDevice) alive() bool {
	select {
	case <-d.ended:
		return false
	default:
		return true
	}
}

// connectRaw requires that the server says yes.
func connectRaw(t testing.TB, addr string, r rawConnect) *rawDevice {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	d, err := rawDial(ctx, addr, r)
	require.NoError(t, err)
	t.Cleanup(d.vanish)
	return d
}
