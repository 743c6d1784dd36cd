package test

import (
	"bufio"
	"encoding/binary"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/test/internal/wire"
)

// A wireDevice is a connection of MQTT 5 whose packets the test writes and looks at one by one.
type wireDevice struct {
	net.Conn
	t       testing.TB
	in      *bufio.Reader
	present bool
	id      uint16
	early   []wire.Reply // messages that came before an answer
}

// sayHello connects and requires that the server says yes.
func sayHello(t testing.TB, address string, h wire.Hello) *wireDevice {
	t.Helper()
	nc, err := dialFrom(address, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = nc.Close() })
	return sayHelloOn(t, nc, h)
}

// sayHelloOn says CONNECT on a connection.
func sayHelloOn(t testing.TB, nc net.Conn, h wire.Hello) *wireDevice {
	t.Helper()
	require.NoError(t, nc.SetDeadline(time.Now().Add(patience)))
	d := &wireDevice{Conn: nc, t: t, in: bufio.NewReader(nc)}
	d.send(h.Packet())
	r := d.next(wire.CONNACK)
	require.Zero(t, r.Code(), r)
	d.present = r.Body[0] == 1
	return d
}

func (d *wireDevice) send(b []byte) {
	d.t.Helper()
	_, err := d.Write(b)
	require.NoError(d.t, err)
}

// next takes packets up to one of a type. Messages that come before an answer are kept.
func (d *wireDevice) next(of byte) wire.Reply {
	d.t.Helper()
	if of == wire.PUBLISH && len(d.early) > 0 {
		r := d.early[0]
		d.early = d.early[1:]
		return r
	}
	for {
		r, err := wire.Read(d.in)
		require.NoError(d.t, err)
		if r.First&0xF0 == of&0xF0 {
			return r
		}
		if r.First&0xF0 == wire.PUBLISH {
			d.early = append(d.early, r)
		}
	}
}

// publish sends a message, and gives the reason code of the answer that ends it.
func (d *wireDevice) publish(p wire.Publish) byte {
	d.t.Helper()
	d.id++
	p.ID = d.id
	d.send(p.Packet(5))
	switch p.QoS {
	case 0:
		return 0
	case 1:
		return d.next(wire.PUBACK).Code()
	}
	if r := d.next(wire.PUBREC); r.Code() >= 0x80 {
		return r.Code()
	}
	d.send(wire.Packet(wire.PUBREL, d.id))
	return d.next(wire.PUBCOMP).Code()
}

// subscribe subscribes and gives the reason code of the answer.
func (d *wireDevice) subscribe(filter string, options byte) byte {
	d.t.Helper()
	d.id++
	d.send(wire.Subscribe(5, d.id, nil, wire.Filter{Name: filter, Options: options}))
	return d.next(wire.SUBACK).Code()
}

// A gottenMessage is what a PUBLISH of MQTT 5 holds.
type gottenMessage struct {
	topic, payload, properties string
	retain                     bool
}

// message takes the next message and acknowledges it.
func (d *wireDevice) message() gottenMessage {
	d.t.Helper()
	r := d.next(wire.PUBLISH)
	topic := r.Topic()
	rest := r.Body[2+len(topic):]
	if qos := r.First >> 1 & 3; qos > 0 {
		d.send(wire.Packet([]byte{0, wire.PUBACK, wire.PUBREC}[qos], rest[:2]))
		rest = rest[2:]
	}
	n, head := binary.Uvarint(rest)
	return gottenMessage{topic, string(rest[head+int(n):]), string(rest[head : head+int(n)]), r.First&1 != 0}
}
