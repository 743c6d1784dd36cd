package proxy

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A device is an MQTT 5 client, or one of 3.1.1: a socket. It reads and writes packets byte by byte, so that it does not judge the
// server by the server's own code.
type device struct {
	t  testing.TB
	nc net.Conn
	in *bufio.Reader
	id string
	v4 bool // MQTT 3.1.1
}

// A delivered is a PUBLISH that a device got.
type delivered struct {
	topic, payload string
	qos            byte
	retain         bool
	id             uint16
	props          string // in one line
}

// patience ends a test that waits for what never comes. No test passes or fails by how long something took.
const patience = 30 * time.Second

// options of a subscription besides the QoS.
const (
	noLocal           = 4
	retainAsPublished = 8
)

// A connecting is what a CONNECT says.
type connecting struct {
	id, user  string
	clean     bool
	expiry    uint32
	will      string // topic and payload; "": none
	willDelay uint32
	willProps []byte // beside the delay
	retain    bool   // of the will
	v4        bool   // MQTT 3.1.1, which knows no expiry
}

// lasting is a CONNECT that resumes or begins a session that lasts.
func lasting(id string) connecting { return connecting{id: id, expiry: 3600} }

func (c connecting) packet() []byte {
	flags := byte(0)
	if c.clean {
		flags |= 2
	}
	if c.will != "" {
		flags |= 4
		if c.retain {
			flags |= 0x20
		}
	}
	if c.user != "" {
		flags |= 0x80
	}
	body := append(text16("MQTT"), 5, flags, 0, 0)
	if c.v4 {
		body[6] = 4
	} else {
		body = binary.BigEndian.AppendUint32(append(body, 5, 0x11), c.expiry)
	}
	body = append(body, text16(c.id)...)
	if c.will != "" {
		if !c.v4 {
			body = append(body, 5+byte(len(c.willProps)), 0x18)
			body = binary.BigEndian.AppendUint32(body, c.willDelay)
			body = append(body, c.willProps...)
		}
		body = append(append(body, text16(c.will)...), text16(c.will)...)
	}
	if c.user != "" {
		body = append(body, text16(c.user)...)
	}
	return body
}

// try connects and gives the Reason Code of CONNACK.
func (c connecting) try(t testing.TB, addr string) (d *device, present bool, code byte) {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = nc.Close() })
	d = &device{t: t, nc: nc, in: bufio.NewReader(nc), id: c.id, v4: c.v4}
	d.send(0x10, c.packet())
	first, body := d.read()
	require.Equal(t, byte(0x20), first, "CONNACK")
	return d, body[0] == 1, body[1]
}

// to connects, with a session or without one as present says.
func (c connecting) to(t testing.TB, addr string, present bool) *device {
	t.Helper()
	d, was, code := c.try(t, addr)
	require.Zero(t, code, "CONNACK")
	require.Equal(t, present, was, "Session Present")
	return d
}

// dial connects with a clean start, or with a session that lasts when keep says so.
func dial(t testing.TB, addr, id string, keep bool) *device {
	t.Helper()
	c := connecting{id: id, clean: true}
	if keep {
		c = lasting(id)
	}
	d, _, code := c.try(t, addr)
	require.Zero(t, code, "CONNACK")
	return d
}

func text16(s string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...)
}

func (d *device) send(first byte, body []byte) {
	d.t.Helper()
	packet := binary.AppendUvarint([]byte{first}, uint64(len(body))) // the same as a Variable Byte Integer
	_, err := d.nc.Write(append(packet, body...))
	require.NoError(d.t, err)
}

func (d *device) tryRead() (first byte, body []byte, err error) {
	_ = d.nc.SetReadDeadline(time.Now().Add(patience))
	if first, err = d.in.ReadByte(); err != nil {
		return 0, nil, err
	}
	n, err := binary.ReadUvarint(d.in)
	if err != nil {
		return 0, nil, err
	}
	body = make([]byte, n)
	_, err = io.ReadFull(d.in, body)
	return first, body, err
}

func (d *device) read() (first byte, body []byte) {
	d.t.Helper()
	first, body, err := d.tryRead()
	require.NoError(d.t, err)
	return first, body
}

// subscribe takes the SUBACK: what is written after it comes here.
func (d *device) subscribe(filter string, options byte) {
	d.t.Helper()
	d.send(0x82, append(append(d.request(), text16(filter)...), options))
	first, body := d.read()
	require.Equal(d.t, byte(0x90), first, "SUBACK")
	require.Equal(d.t, options&3, body[len(body)-1])
}

func (d *device) unsubscribe(filter string) {
	d.t.Helper()
	d.send(0xA2, append(d.request(), text16(filter)...))
	first, _ := d.read()
	require.Equal(d.t, byte(0xB0), first, "UNSUBACK")
}

// request gives a packet identifier, and no properties.
func (d *device) request() []byte {
	if d.v4 {
		return []byte{0, 1}
	}
	return []byte{0, 1, 0}
}

func (d *device) publish(topic, payload string) {
	d.t.Helper()
	body := append(text16(topic), 0, 1)
	if !d.v4 {
		body = append(body, 0)
	}
	d.send(0x32, append(body, payload...))
}

// ack sends PUBACK with a Reason Code.
func (d *device) ack(m delivered, code byte) {
	d.t.Helper()
	body := binary.BigEndian.AppendUint16(nil, m.id)
	if !d.v4 {
		body = append(body, code, 0)
	}
	d.send(0x40, body)
}

// complete does a receiver's part of QoS 2.
func (d *device) complete(m delivered) {
	d.t.Helper()
	d.send(0x50, binary.BigEndian.AppendUint16(nil, m.id))
	first, body := d.read()
	require.Equal(d.t, byte(0x62), first, "PUBREL")
	require.Equal(d.t, m.id, binary.BigEndian.Uint16(body))
	d.send(0x70, body[:2])
}

// next takes a PUBLISH. Acknowledgements of the device's own are passed over.
func (d *device) next() delivered {
	d.t.Helper()
	first, body := d.read()
	for first == 0x40 {
		first, body = d.read()
	}
	require.Equal(d.t, byte(0x30), first&0xF0, "PUBLISH, and not % x % x", first, body)
	if d.v4 { // it has no properties
		at := 2 + int(binary.BigEndian.Uint16(body))
		if first&6 != 0 {
			at += 2
		}
		body = slices.Insert(body, at, 0)
	}
	return decode(first, body)
}

// nothing holds that no PUBLISH came before the answer to a ping.
func (d *device) nothing() {
	d.t.Helper()
	d.send(0xC0, nil)
	first, body := d.read()
	for first == 0x40 {
		first, body = d.read()
	}
	require.Equal(d.t, byte(0xD0), first, "PINGRESP, and not % x", body)
}

// ended takes the DISCONNECT with which the server ends the connection.
func (d *device) ended(code byte) {
	d.t.Helper()
	first, body := d.read()
	require.Equal(d.t, byte(0xE0), first, "DISCONNECT")
	require.Equal(d.t, code, body[0])
	_, _, err := d.tryRead()
	require.ErrorIs(d.t, err, io.EOF)
}

// leave says DISCONNECT and waits until the server has let go. What is still on its way to the device is lost.
func (d *device) leave() {
	d.t.Helper()
	d.send(0xE0, nil)
	var err error
	for err == nil {
		_, _, err = d.tryRead()
	}
	require.ErrorIs(d.t, err, io.EOF)
}

func decode(first byte, body []byte) (m delivered) {
	take := func(n int) []byte {
		part := body[:n]
		body = body[n:]
		return part
	}
	text := func() string { return string(take(int(binary.BigEndian.Uint16(take(2))))) }
	m.qos, m.retain = first>>1&3, first&1 == 1
	m.topic = text()
	if m.qos > 0 {
		m.id = binary.BigEndian.Uint16(take(2))
	}
	length, n := binary.Uvarint(body)
	take(n)
	payload := body[length:]
	body = body[:length]
	var props []string
	for len(body) > 0 {
		switch p := take(1)[0]; p {
		case 1:
			props = append(props, fmt.Sprint("format=", take(1)[0]))
		case 2:
			take(4)
			props = append(props, "expiry")
		case 3:
			props = append(props, "type="+text())
		case 8:
			props = append(props, "response="+text())
		case 9:
			props = append(props, fmt.Sprintf("correlation=%q", text()))
		case 0x26:
			name := text()
			props = append(props, name+":"+text())
		default:
			props = append(props, fmt.Sprintf("unknown property %#x", p))
			body = nil
		}
	}
	m.payload, m.props = string(payload), strings.Join(props, " ")
	return m
}
