package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
)

// A device publishes its own sequence of messages and keeps the books of a QoS 1 or 2 sender.
type device struct {
	f       *Fleet
	number  int
	topic   string
	payload []byte

	mu       sync.Mutex
	conn     *conn
	seq      uint64
	inflight map[uint16]*sent
	free     chan uint16
	acked    []uint64
	repeated map[uint64][]time.Time
	refused  int
	sentN    int
	latency  []time.Duration
	ping     time.Time // of the PINGREQ that is unanswered
	worst    time.Duration
	again    int
	err      error
}

// sent is a message under way.
type sent struct {
	seq  uint64
	at   time.Time
	recd bool // PUBREC came, PUBREL is out
}

// keptLatencies bounds the memory of a long run.
const keptLatencies = 100_000

var errStopped = errors.New("the time is over")

func newDevice(f *Fleet, number int) *device {
	d := &device{f: f, number: number, topic: fmt.Sprintf(f.Topic, number), payload: make([]byte, f.Size),
		inflight: make(map[uint16]*sent), free: make(chan uint16, f.Window), repeated: make(map[uint64][]time.Time)}
	if fmt.Sprintf(f.Topic, 1) == fmt.Sprintf(f.Topic, 2) {
		d.topic = f.Topic
	}
	for id := 1; id <= f.Window; id++ {
		d.free <- uint16(id)
	}
	return d
}

func (d *device) ackedCount() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.acked)
}

func (d *device) refusedCount() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.refused
}

func (d *device) report(r *Result) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r.Sent += d.sentN
	r.Acked += len(d.acked)
	r.Refused += d.refused
	r.Reconnects += d.again
	r.PerDevice = append(r.PerDevice, d.acked)
	r.Repeated = append(r.Repeated, d.repeated)
	r.Latency = append(r.Latency, d.latency...)
	r.WorstPing = max(r.WorstPing, d.worst)
	if d.err != nil {
		r.Errors = append(r.Errors, fmt.Errorf("device %d: %w", d.number, d.err))
	}
}

// run connects, again if the fleet says so, until the time is over and nothing is unacknowledged.
func (d *device) run(ctx context.Context) {
	drained, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		time.AfterFunc(d.f.Drain, cancel)
	})
	defer stop()
	for {
		err := d.session(ctx, drained)
		if err == nil || errors.Is(err, errStopped) {
			return
		}
		if !d.f.Reconnect || drained.Err() != nil {
			d.err = err
			return
		}
		d.mu.Lock()
		d.again++
		d.mu.Unlock()
		select {
		case <-drained.Done():
			d.err = fmt.Errorf("%d messages unacknowledged at the end: %w", len(d.inflight), err)
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// session is the life of one connection.
func (d *device) session(ctx, drained context.Context) error {
	c, present, err := connect(drained, d.f, d.number)
	if err != nil {
		return err
	}
	defer c.close()
	d.mu.Lock()
	d.conn, d.ping = c, time.Time{}
	d.mu.Unlock()
	lost := make(chan struct{})
	var readErr error
	go func() { // ends with the connection
		readErr = d.read(c)
		close(lost)
	}()
	err = d.write(ctx, drained, c, present, lost)
	if err == nil || errors.Is(err, errStopped) {
		c.disconnect()
	}
	c.close()
	<-lost
	if err != nil && !errors.Is(err, errStopped) && !errors.Is(readErr, net.ErrClosed) {
		err = errors.Join(err, readErr)
	}
	return err
}

var errLost = errors.New("connection lost")

// write sends what is unacknowledged again and then new messages, until ctx ends and all is acknowledged.
func (d *device) write(ctx, drained context.Context, c *conn, present bool, lost <-chan struct{}) error {
	if err := d.resend(c, present); err != nil {
		return err
	}
	var pace <-chan time.Time
	if d.f.Rate > 0 {
		t := time.NewTicker(time.Second * time.Duration(d.f.Devices) / time.Duration(d.f.Rate))
		defer t.Stop()
		pace = t.C
	}
	for ctx.Err() == nil {
		if pace != nil {
			select {
			case <-pace:
			case <-ctx.Done():
				continue
			}
		}
		if err := d.maybePing(c); err != nil {
			return err
		}
		if err := d.publish(ctx, c, lost); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return d.drain(drained, c, lost)
}

// publish sends one message when the window has room.
func (d *device) publish(ctx context.Context, c *conn, lost <-chan struct{}) error {
	var id uint16
	if d.f.QoS > 0 {
		select {
		case id = <-d.free:
		default:
			if err := c.flush(); err != nil {
				return err
			}
			var err error
			if id, err = d.awaitFree(ctx, c, lost); err != nil {
				return err
			}
		}
	}
	d.mu.Lock()
	d.seq++
	seq := d.seq
	d.sentN++
	if id > 0 {
		d.inflight[id] = &sent{seq: seq, at: time.Now()}
	}
	d.mu.Unlock()
	if err := c.publish(d.topic, d.f.QoS, id, false, d.fill(seq)); err != nil {
		return err
	}
	if d.f.Rate > 0 {
		return c.flush()
	}
	return nil
}

// awaitFree waits for room in the window and goes on asking whether the server is alive meanwhile.
func (d *device) awaitFree(ctx context.Context, c *conn, lost <-chan struct{}) (uint16, error) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case id := <-d.free:
			return id, nil
		case <-lost:
			return 0, errLost
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-tick.C:
			if err := d.maybePing(c); err != nil {
				return 0, err
			}
		}
	}
}

func (d *device) fill(seq uint64) []byte {
	n := copy(d.payload, fmt.Sprintf("%s %d %d ", d.f.Run, d.number, seq))
	for i := n; i < len(d.payload); i++ {
		d.payload[i] = 'x'
	}
	return d.payload
}

// resend repeats what is unacknowledged, in its order: by the books of the session if the server has it,
// as new messages if not.
func (d *device) resend(c *conn, present bool) error {
	d.mu.Lock()
	ids := make([]uint16, 0, len(d.inflight))
	for id := range d.inflight {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b uint16) int { return int(int64(d.inflight[a].seq) - int64(d.inflight[b].seq)) })
	d.mu.Unlock()
	for _, id := range ids {
		d.mu.Lock()
		s := *d.inflight[id]
		d.mu.Unlock()
		var err error
		if s.recd && present {
			err = c.pubrel(id)
		} else {
			d.noteRepeat(&s)
			err = c.publish(d.topic, d.f.QoS, id, present, d.fill(s.seq))
		}
		if err != nil {
			return err
		}
	}
	return c.flush()
}

// noteRepeat notes when a message was sent, now and before.
func (d *device) noteRepeat(s *sent) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.repeated[s.seq] == nil {
		d.repeated[s.seq] = []time.Time{s.at}
	}
	d.repeated[s.seq] = append(d.repeated[s.seq], time.Now())
}

// drain waits until everything is acknowledged.
func (d *device) drain(drained context.Context, c *conn, lost <-chan struct{}) error {
	if err := c.flush(); err != nil {
		return err
	}
	for {
		d.mu.Lock()
		left := len(d.inflight)
		d.mu.Unlock()
		if left == 0 {
			return errStopped
		}
		select {
		case <-drained.Done():
			return fmt.Errorf("%d messages unacknowledged at the end", left)
		case <-lost:
			return errLost
		case <-time.After(5 * time.Millisecond):
		}
		if err := d.maybePing(c); err != nil {
			return err
		}
	}
}

// maybePing sends a PINGREQ if it is time for one.
func (d *device) maybePing(c *conn) error {
	if !d.f.Ping || time.Since(c.pinged) < 200*time.Millisecond {
		return nil
	}
	d.mu.Lock()
	waiting := !d.ping.IsZero()
	if waiting {
		d.worst = max(d.worst, time.Since(d.ping))
	} else {
		d.ping = time.Now()
	}
	d.mu.Unlock()
	if waiting {
		return nil
	}
	c.pinged = time.Now()
	return c.ping()
}
