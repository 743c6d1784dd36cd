package load

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"sluice/bench/wire"
)

// publish takes a message into the books and acknowledges it. A message of QoS 2 whose identifier is not released yet
// is a repeat, and not delivered again [MQTT-4.3.3-10].
func (d *receiver) publish(c *conn, first byte, body []byte) error {
	now := time.Now()
	m, err := wire.ParsePublish(first, body, d.f.Version)
	if err != nil {
		return fmt.Errorf("%w: %w", errProtocol, err)
	}
	d.mu.Lock()
	repeat := m.QoS == 2 && d.open[m.ID]
	if m.QoS > 0 {
		d.unacked++
		d.books.maxUnacked = max(d.books.maxUnacked, d.unacked)
	}
	if m.QoS == 2 {
		d.open[m.ID] = true
	}
	if !repeat {
		d.deliver(m, now)
	}
	d.mu.Unlock()
	if repeat && !m.Dup {
		return fmt.Errorf("%w: PUBLISH without DUP and with identifier %d, which is not released", errProtocol, m.ID)
	}
	switch m.QoS {
	case 1:
		err = d.acknowledge(c, 0x40, m.ID)
	case 2:
		err = d.acknowledge(c, 0x50, m.ID)
	}
	if err == nil && !repeat {
		err = d.answer(c, m)
	}
	return err
}

// deliver is called under the lock.
func (d *receiver) deliver(m *Message, now time.Time) {
	if d.f.Keep {
		d.books.messages = append(d.books.messages, m)
	}
	run, device, seq, sent, ok := parsePayload(m.Payload)
	switch {
	case !ok && d.f.Keep: // not of a stream
	case !ok, run != d.f.Run, device != d.number && !d.f.Shared:
		d.books.strange++
	default:
		d.books.got = append(d.books.got, delivery{seq: seq, latency: now.Sub(sent)})
	}
}

// acknowledge sends PUBACK, PUBREC or PUBCOMP, or keeps it while acknowledgements are held.
func (d *receiver) acknowledge(c *conn, kind byte, id uint16) error {
	packet := [4]byte{kind, 2, byte(id >> 8), byte(id)}
	d.mu.Lock()
	if d.holding {
		d.held = append(d.held, packet[:]...)
		d.mu.Unlock()
		return nil
	}
	if kind != 0x50 {
		d.unacked--
	}
	d.mu.Unlock()
	if d.f.CutOneIn == 0 || rand.IntN(d.f.CutOneIn) > 0 {
		return c.send(packet[:]...)
	}
	if rand.IntN(2) == 0 {
		_ = c.send(packet[:]...) // the connection ends anyway
	}
	c.close()
	return net.ErrClosed
}

// pubrel releases an identifier. One that is not open is answered all the same: the PUBCOMP before may be lost.
func (d *receiver) pubrel(c *conn, body []byte) error {
	if len(body) < 2 {
		return fmt.Errorf("%w: PUBREL % x", errProtocol, body)
	}
	id := binary.BigEndian.Uint16(body)
	d.mu.Lock()
	if !d.open[id] {
		d.unacked++ // acknowledge takes it away again
	}
	delete(d.open, id)
	d.mu.Unlock()
	return d.acknowledge(c, 0x70, id)
}

// answer publishes what the fleet answers to a message.
func (d *receiver) answer(c *conn, m *Message) error {
	if d.f.Answer == nil {
		return nil
	}
	a := d.f.Answer(d.number, m)
	if a == nil {
		return nil
	}
	return d.send(c, a)
}

// send publishes with QoS 1 and keeps the packet until its PUBACK.
func (d *receiver) send(c *conn, a *Answer) error {
	d.mu.Lock()
	d.lastID++
	for d.lastID == 0 || d.answers[d.lastID] != nil {
		d.lastID++
	}
	p := wire.Publish(d.f.Version, d.lastID, a.Topic, a.Payload, a.CorrelationData)
	d.answers[d.lastID] = p
	d.mu.Unlock()
	return c.send(p...)
}

func (d *receiver) answerAcked(body []byte) error {
	if len(body) < 2 {
		return fmt.Errorf("%w: PUBACK % x", errProtocol, body)
	}
	if len(body) > 2 && body[2] >= 0x80 {
		return fmt.Errorf("%w: an answer was refused with 0x%02x", errProtocol, body[2])
	}
	id := binary.BigEndian.Uint16(body)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.answers[id] == nil {
		return fmt.Errorf("%w: PUBACK of %d, which is not under way", errProtocol, id)
	}
	delete(d.answers, id)
	d.books.answered++
	return nil
}
