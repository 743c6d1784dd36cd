package load

import (
	"encoding/binary"
	"fmt"
	"time"
)

// read handles what the server sends until the connection ends.
func (d *device) read(c *conn) error {
	for {
		first, body, err := c.read()
		if err != nil {
			return err
		}
		switch first >> 4 {
		case 4, 5, 7: // PUBACK, PUBREC, PUBCOMP
			err = d.acknowledged(c, first>>4, body)
		case 13:
			d.pong()
		case 14:
			err = fmt.Errorf("DISCONNECT % x", body)
		default:
			err = fmt.Errorf("unexpected packet % x % x", first, body)
		}
		if err != nil {
			return err
		}
	}
}

func (d *device) pong() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.ping.IsZero() {
		d.worst = max(d.worst, time.Since(d.ping))
		d.ping = time.Time{}
	}
}

// acknowledged keeps the books. A message of QoS 2 counts as acknowledged with PUBREC: that is when the
// device may forget its payload.
func (d *device) acknowledged(c *conn, kind byte, body []byte) error {
	if len(body) < 2 {
		return fmt.Errorf("acknowledgement of %d bytes", len(body))
	}
	id := binary.BigEndian.Uint16(body)
	code := byte(0)
	if len(body) > 2 {
		code = body[2]
	}
	d.mu.Lock()
	s := d.inflight[id]
	if s == nil {
		d.mu.Unlock()
		return fmt.Errorf("acknowledgement of packet %d, which is not under way", id)
	}
	refused := code >= 0x80 && kind != 7
	if kind != 7 && !s.recd {
		if refused {
			d.refused++
		} else {
			d.acked = append(d.acked, s.seq)
			if len(d.latency) < keptLatencies {
				d.latency = append(d.latency, time.Since(s.at))
			}
		}
	}
	if kind == 5 && !refused {
		s.recd = true
		d.mu.Unlock()
		return c.pubrel(id)
	}
	delete(d.inflight, id)
	d.mu.Unlock()
	d.free <- id
	return nil
}
