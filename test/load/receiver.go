package load

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"sluice/bench/wire"
)

// A receiver is one device of a CommandFleet. Its goroutine connects, subscribes and reads; the fleet's calls change
// what it should do under mu.
type receiver struct {
	f      *CommandFleet
	number int
	id     string // client ID

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced at every change of the fields below
	conn     *conn         // nil: not connected
	online   bool          // subscribed, or the session is present
	away     bool          // was told to leave
	stalled  bool          // reads nothing
	holding  bool          // acknowledges nothing
	held     []byte        // acknowledgements that wait
	unacked  int           // PUBLISH packets with QoS > 0 that the server waits for
	open     map[uint16]bool
	answers  map[uint16][]byte // PUBLISH packets of ours without PUBACK
	lastID   uint16
	books    receiverBooks
	failures []error
}

// receiverBooks is what a device saw.
type receiverBooks struct {
	got         []delivery
	messages    []*Message // with Keep
	reconnects  int
	newSessions int // CONNACKs that said no session is present, after the first
	answered    int // answers acknowledged
	maxUnacked  int
	strange     int // messages that are not of this device and run
}

// delivery is a message of a stream.
type delivery struct {
	seq     uint64
	latency time.Duration
}

func newReceiver(f *CommandFleet, number int) *receiver {
	return &receiver{f: f, number: number, id: f.ClientID(number), changed: make(chan struct{}),
		open: make(map[uint16]bool), answers: make(map[uint16][]byte)}
}

// change runs f under the lock and wakes who waits.
func (d *receiver) change(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
	close(d.changed)
	d.changed = make(chan struct{})
}

// await waits until cond, which is called under the lock, holds.
func (d *receiver) await(ctx context.Context, cond func() bool) error {
	for {
		d.mu.Lock()
		ok, changed := cond(), d.changed
		d.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// run lives through connections until ctx ends. A lost connection is a failure only if the fleet does not reconnect.
func (d *receiver) run(ctx context.Context) {
	for first := true; ctx.Err() == nil && d.await(ctx, func() bool { return !d.away }) == nil; first = false {
		err := d.session(ctx, first)
		d.change(func() {
			d.conn, d.online = nil, false
			if !d.away && ctx.Err() == nil {
				d.books.reconnects++
				if !d.f.Reconnect || !lostConnection(err) {
					d.failures = append(d.failures, err)
				}
			}
		})
		if !d.f.Reconnect && ctx.Err() == nil && !d.isAway() {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (d *receiver) isAway() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.away
}

// errProtocol marks what a server may not do; a device that reconnects reports it all the same.
var errProtocol = errors.New("protocol error")

func lostConnection(err error) bool { return !errors.Is(err, errProtocol) }

// session is the life of one connection.
func (d *receiver) session(ctx context.Context, first bool) error {
	nc, err := d.f.dialLimited(ctx, d.number)
	if err != nil {
		return err
	}
	c := &conn{nc: nc, r: bufio.NewReaderSize(nc, 512), w: bufio.NewWriterSize(nc, 64), version: d.f.Version}
	defer c.close()
	stop := context.AfterFunc(ctx, func() {
		_ = nc.SetWriteDeadline(time.Now().Add(time.Second)) // the server may not read
		c.disconnect()
		c.close()
	})
	defer stop()
	present, err := c.greet(wire.Connect{ClientID: d.id, Version: d.f.Version, Clean: d.f.Clean, Expiry: d.f.SessionExpiry, ReceiveMaximum: d.f.ReceiveMaximum})
	if err != nil {
		return err
	}
	if err := d.begin(c, present, first); err != nil {
		return err
	}
	return d.read(ctx, c)
}

// begin brings the books in line with the session, and subscribes if there is none.
func (d *receiver) begin(c *conn, present, first bool) error {
	var again [][]byte
	away := false
	d.change(func() {
		if away = d.away; away {
			return // it was told to leave while it connected
		}
		d.conn, d.held, d.unacked = c, nil, 0
		if !present {
			clear(d.open)
			if !first {
				d.books.newSessions++
			}
		}
		d.online = present
		ids := make([]uint16, 0, len(d.answers))
		for id := range d.answers {
			ids = append(ids, id)
		}
		slices.Sort(ids)
		for _, id := range ids {
			p := slices.Clone(d.answers[id])
			p[0] |= 8
			again = append(again, p)
		}
	})
	if away {
		return net.ErrClosed
	}
	if !present {
		if err := c.send(wire.Subscribe(c.version, 1, d.f.QoS|d.f.Options, d.f.filters(d.number)...)...); err != nil {
			return err
		}
	}
	for _, p := range again {
		if err := c.send(p...); err != nil {
			return err
		}
	}
	return nil
}

// read handles packets until the connection ends.
func (d *receiver) read(ctx context.Context, c *conn) error {
	for {
		if err := d.await(ctx, func() bool { return !d.stalled || d.conn != c || d.away }); err != nil {
			return err
		}
		first, body, err := c.read()
		if err != nil {
			return err
		}
		if err := d.handle(c, first, body); err != nil {
			return fmt.Errorf("device %d: %w", d.number, err)
		}
	}
}

func (d *receiver) handle(c *conn, first byte, body []byte) error {
	switch first >> 4 {
	case 3:
		return d.publish(c, first, body)
	case 4:
		return d.answerAcked(body)
	case 6:
		return d.pubrel(c, body)
	case 9:
		return d.suback(body)
	case 13:
		return nil
	case 14:
		return fmt.Errorf("DISCONNECT % x: %w", body, net.ErrClosed)
	}
	return fmt.Errorf("%w: packet % x % x", errProtocol, first, body)
}

func (d *receiver) suback(body []byte) error {
	codes := wire.SubackCodes(body, d.f.Version)
	for _, code := range codes {
		if code != d.f.QoS {
			return fmt.Errorf("%w: SUBACK %x for QoS %d", errProtocol, codes, d.f.QoS)
		}
	}
	d.change(func() { d.online = true })
	return nil
}
