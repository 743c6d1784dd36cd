package bench

import (
	"bytes"
	"fmt"
	"time"

	"sluice/bench/wire"
)

// A receiver is one device of a CommandsRun. All of it is guarded by its member's mu.
type receiver struct {
	r      *CommandsRun
	m      *member
	filter string

	open map[uint16]bool // identifiers of QoS 2 that are not released
	got  runs
	last uint64

	subscribed bool
	excused    runs // commands that nobody has promised it: those of the times without a subscription

	doubled, disordered, strange int
}

func (d *receiver) connected(c *conn) {
	clear(d.open)
	d.subscribed = false
	c.out = append(c.out, wire.Subscribe(d.r.c.Version, 1, d.r.c.QoS, d.filter)...)
}

func (d *receiver) packet(c *conn, first byte, body []byte) error {
	switch first >> 4 {
	case wire.PUBLISH:
		return d.publish(c, first, body)
	case wire.PUBREL:
		id, _, ok := wire.ParseAck(body)
		if !ok {
			return fmt.Errorf("the server sent a PUBREL of %d bytes", len(body))
		}
		delete(d.open, id)
		c.out = append(c.out, 0x70, 2, byte(id>>8), byte(id))
		return nil
	case wire.SUBACK:
		for _, code := range wire.SubackCodes(body, d.r.c.Version) {
			if code >= 0x80 {
				return refusal("SUBACK", code, "")
			}
		}
		d.r.granted.Add(1)
		d.excuse()
		d.subscribed = true
		return nil
	}
	return fmt.Errorf("the server sent a packet that begins with 0x%02X", first)
}

// excuse notes that the device was not subscribed until now, since the last command that it got.
func (d *receiver) excuse() {
	first, last := d.last+1, d.r.seq[d.m.number].Load()
	if n := len(d.excused); n > 0 {
		first = max(first, d.excused[n-1].last+1)
	}
	if first <= last {
		d.excused = append(d.excused, run{first, last})
	}
}

// publish takes a message and acknowledges it. One of QoS 2 whose identifier is not released is a repeat, and not
// delivered again [MQTT-4.3.3-10].
func (d *receiver) publish(c *conn, first byte, body []byte) error {
	m, err := wire.ParsePublish(first, body, d.r.c.Version)
	if err != nil {
		return err
	}
	if m.QoS == 0 {
		d.r.unsure.Store(true)
	}
	if m.QoS < 2 || !d.open[m.ID] {
		d.deliver(m.Payload)
	}
	switch m.QoS {
	case 1:
		c.out = append(c.out, 0x40, 2, byte(m.ID>>8), byte(m.ID))
	case 2:
		d.open[m.ID] = true
		c.out = append(c.out, 0x50, 2, byte(m.ID>>8), byte(m.ID))
	}
	return nil
}

func (d *receiver) deliver(payload []byte) {
	device, seq, ok := identityOf(d.r.c.Run).read(payload)
	if !ok || device != d.m.number {
		d.strange++
		return
	}
	if !d.got.add(seq) {
		d.doubled++
		return
	}
	if seq < d.last {
		d.disordered++
	}
	d.last = max(d.last, seq)
	d.r.received.Add(1)
	if _, at, found := bytes.Cut(payload, []byte(`,"at":`)); found {
		sent, _ := digits(at)
		d.r.delivered.Add(time.Duration(d.m.heard-int64(sent)), 1)
	}
}

func (d *receiver) burst(*conn) {}
func (d *receiver) done() bool  { return true }
