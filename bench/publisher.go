package bench

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"sluice/bench/wire"
)

// A publisher is one device of a PublishRun. All of it is guarded by its member's mu.
type publisher struct {
	r *PublishRun
	m *member

	packet0    []byte // a PUBLISH; where its identifier and its number are:
	idAt, atAt int

	start int64 // when it begins to publish; 0: not yet
	seq   uint64

	slots   []slot   // by packet identifier, from 1
	free    []uint16 // identifiers
	limit   int      // of unacknowledged messages, on this connection
	unacked int

	acked    runs
	again    runs // sent again
	repeats  int
	refused  int
	refusal  string
	burstAck int64 // in the burst under way
}

// A slot is a message that is under way.
type slot struct {
	seq  uint64 // 0: none
	at   int64  // when it was sent, or due
	recd bool   // PUBREC came
}

// A ledger is what a device was told.
type ledger struct {
	sent            uint64
	acked, repeated runs
}

// batchBytes is about how much is written at once.
const batchBytes = 16 << 10

func newPublisher(r *PublishRun, m *member) *publisher {
	p := r.p
	d := &publisher{r: r, m: m}
	load, at := payload(p.Run, m.number, p.Size)
	body := wire.Text(nil, p.expand(p.Topic, p.Run, m.number))
	d.idAt = len(body)
	if p.QoS > 0 {
		body = append(body, 0, 0)
		d.slots = make([]slot, p.Window+1)
		for id := p.Window; id > 0; id-- {
			d.free = append(d.free, uint16(id))
		}
	}
	if p.Version == 5 {
		body = append(body, 0)
	}
	d.atAt = len(body) + at
	d.packet0 = wire.Packet(0x30|p.QoS<<1, append(body, load...))
	head := len(d.packet0) - len(body) - len(load)
	d.idAt, d.atAt = d.idAt+head, d.atAt+head
	return d
}

func (d *publisher) ledger() ledger { return ledger{d.seq, d.acked, d.again} }

func (d *publisher) paced() bool { return d.r.p.Rate > 0 }

// period is the time between messages of one device.
func (d *publisher) period() float64 {
	return float64(time.Second) * float64(d.r.p.Connections) / float64(d.r.p.Rate)
}

// dueAt gives when message seq is due. The devices take turns.
func (d *publisher) dueAt(seq uint64) int64 {
	turn := float64(d.m.number) / float64(d.r.p.Connections)
	return d.start + int64((float64(seq-1)+turn)*d.period())
}

// due gives how many messages are due by now.
func (d *publisher) due(now int64) uint64 {
	turn := float64(d.m.number) / float64(d.r.p.Connections)
	n := float64(now-d.start)/d.period() - turn
	if n < 0 {
		return 0
	}
	return uint64(n) + 1
}

// connected sends again what was not acknowledged before.
func (d *publisher) connected(c *conn) {
	d.limit = min(d.r.p.Window, c.receiveMaximum)
	var open []uint16
	for id := range d.slots {
		switch s := &d.slots[id]; {
		case s.seq == 0:
		case s.recd: // stored, and the new session knows nothing of it
			d.release(uint16(id))
		default:
			open = append(open, uint16(id))
		}
	}
	slices.SortFunc(open, func(a, b uint16) int { return cmp.Compare(d.slots[a].seq, d.slots[b].seq) })
	for _, id := range open { // never more than the limit, which a server has for all connections
		d.repeats++
		if d.r.p.Keep {
			d.again.add(d.slots[id].seq)
		}
		d.put(c, id, d.slots[id].seq)
	}
	if d.start > 0 && d.r.p.QoS > 0 {
		d.fill(c)
	}
}

// put appends a PUBLISH.
func (d *publisher) put(c *conn, id uint16, seq uint64) {
	begin := len(c.out)
	c.out = append(c.out, d.packet0...)
	p := c.out[begin:]
	if id > 0 {
		binary.BigEndian.PutUint16(p[d.idAt:], id)
	}
	setSeq(p[d.atAt:], seq)
}

// fill appends what may be sent now, and gives how many messages that is. It stops at about batchBytes.
func (d *publisher) fill(c *conn) (n int) {
	if d.m.f.stopping() {
		return 0
	}
	now := d.m.f.now()
	due := ^uint64(0)
	if d.paced() {
		due = d.due(now)
	}
	for ; d.seq < due && len(c.out) < batchBytes; n++ {
		var id uint16
		if d.r.p.QoS > 0 {
			if d.unacked >= d.limit {
				break
			}
			id = d.free[len(d.free)-1]
			d.free = d.free[:len(d.free)-1]
			d.unacked++
		}
		d.seq++
		if id > 0 {
			at := now
			if d.paced() {
				at = d.dueAt(d.seq)
			}
			d.slots[id] = slot{seq: d.seq, at: at}
		}
		d.put(c, id, d.seq)
	}
	d.r.sent.Add(int64(n))
	return n
}

// fillAll sends all that may be sent now. QoS 1 and 2 bound that by the window.
func (d *publisher) fillAll(c *conn) {
	for d.fill(c) > 0 && len(c.out) >= batchBytes && !c.broken {
		c.write(d.m.f.now())
	}
}

// packet takes an acknowledgement into the books. A message of QoS 2 counts as acknowledged with PUBREC: that is when
// the device may forget its payload.
func (d *publisher) packet(c *conn, first byte, body []byte) error {
	kind := first >> 4
	id, code, ok := wire.ParseAck(body)
	if !ok || kind != wire.PUBACK && kind != wire.PUBREC && kind != wire.PUBCOMP {
		return fmt.Errorf("the server sent a packet that begins with 0x%02X", first)
	}
	if int(id) >= len(d.slots) || d.slots[id].seq == 0 || (kind == wire.PUBACK) != (d.r.p.QoS == 1) || (kind == wire.PUBCOMP) != d.slots[id].recd {
		return fmt.Errorf("the server sent an acknowledgement 0x%02X of a packet that does not wait for one", first)
	}
	s := &d.slots[id]
	switch {
	case kind == wire.PUBCOMP:
		d.release(id)
		return nil
	case code >= 0x80:
		d.refused++
		d.refusal = refusal(names[kind], code, "").Error()
		d.release(id)
		return nil
	}
	d.burstAck++
	if d.r.p.Keep {
		d.acked.add(s.seq)
	}
	d.r.times.Add(time.Duration(d.m.heard-s.at), 1)
	if kind == wire.PUBACK {
		d.release(id)
		return nil
	}
	s.recd = true
	c.out = append(c.out, 0x62, 2, byte(id>>8), byte(id))
	return nil
}

var names = map[byte]string{wire.PUBACK: "PUBACK", wire.PUBREC: "PUBREC"}

func (d *publisher) release(id uint16) {
	d.slots[id] = slot{}
	d.free = append(d.free, id)
	d.unacked--
}

// burst sends what the acknowledgements made room for.
func (d *publisher) burst(c *conn) {
	d.r.acked.Add(d.burstAck)
	d.burstAck = 0
	if d.start > 0 && d.r.p.QoS > 0 {
		d.fillAll(c)
	}
}

func (d *publisher) done() bool { return d.unacked == 0 }

// write sends messages that are due, or with QoS 0 as many as the server reads, until the fleet stops.
func (d *publisher) write() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-d.m.f.ctx.Done():
			return
		}
		timer.Reset(d.writeOnce())
	}
}

// writeOnce gives when to come again.
func (d *publisher) writeOnce() time.Duration {
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	c := d.m.conn.Load()
	if c == nil || c.broken {
		return reconnectWait / 4
	}
	if d.fill(c) > 0 {
		c.write(d.m.f.now())
	}
	now := d.m.f.now()
	switch {
	case !d.paced():
		return 0
	case d.r.p.QoS > 0 && d.unacked >= d.limit:
		return 2 * time.Millisecond // the next acknowledgement makes room, and sends
	}
	return time.Duration(max(0, d.dueAt(d.seq+1)-now))
}
