package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/time/rate"

	"sluice/bench/wire"
)

// A device is what one connection after the other of a member is for. All calls come with the member's mu held.
type device interface {
	// connected is called when c is up, also after a lost one.
	connected(c *conn)
	// packet handles a packet of the server; an error ends the connection.
	packet(c *conn, first byte, body []byte) error
	// burst is called when all packets that were read at once are handled. What is in c.out is sent then.
	burst(c *conn)
	// done reports whether the device waits for nothing more, so that it may say DISCONNECT once the fleet stops.
	done() bool
}

// A member is a device and its connection.
type member struct {
	f      *fleet
	number int
	d      device

	mu    sync.Mutex           // guards what the device knows, and its connection
	conn  atomic.Pointer[conn] // nil: not connected; changes with mu held
	left  bool                 // DISCONNECT is sent
	heard int64                // when the packets under way were read, on the fleet's clock
}

// A fleet keeps devices connected.
type fleet struct {
	target Target
	run    string
	buffer int // bytes to read into, at first
	epoch  time.Time

	members []*member
	ctx     context.Context // ends when the fleet stops
	cancel  context.CancelFunc
	wg      sync.WaitGroup // of all its goroutines

	connects, pings         Histogram
	begun                   atomic.Int64 // attempts to connect that have ended, the first of each device
	online                  atomic.Int64
	failed, lost, reconnect atomic.Int64
	connecting              time.Duration // how long the first connections took, all together

	mu      sync.Mutex
	reasons map[string]int // of failures
}

const (
	// connectsAtOnce is how many connections are made at a time.
	connectsAtOnce = 64
	// reconnectWait is before a lost connection is made again.
	reconnectWait = 200 * time.Millisecond
	// maxReasons is how many different reasons are told apart.
	maxReasons = 10
)

func newFleet(t Target, run string, devices, buffer int, make func(m *member) device) *fleet {
	f := &fleet{target: t, run: run, buffer: buffer, epoch: time.Now(), reasons: map[string]int{}}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	for i := range devices {
		m := &member{f: f, number: i}
		m.d = make(m)
		f.members = append(f.members, m)
	}
	return f
}

// now is the time on the fleet's clock in nanoseconds; never 0.
func (f *fleet) now() int64 { return int64(time.Since(f.epoch)) + 1 }

func (f *fleet) stopping() bool { return f.ctx.Err() != nil }

// connect makes the first connection of every device, until ctx ends.
func (f *fleet) connect(ctx context.Context) {
	begin := time.Now()
	limit := rate.NewLimiter(rate.Inf, 1)
	if f.target.ConnectRate > 0 {
		limit = rate.NewLimiter(rate.Limit(f.target.ConnectRate), 1)
	}
	next := make(chan *member)
	var workers sync.WaitGroup
	for range min(connectsAtOnce, len(f.members)) {
		workers.Go(func() { // ends with next
			for m := range next {
				f.first(ctx, m)
			}
		})
	}
	for _, m := range f.members {
		if limit.Wait(ctx) != nil {
			break
		}
		next <- m
	}
	close(next)
	workers.Wait()
	f.connecting = time.Since(begin)
	f.wg.Go(f.keepAlive) // ends with stop
}

// connectSome is connect; the error says that no device could.
func (f *fleet) connectSome(ctx context.Context) error {
	f.connect(ctx)
	if f.connects.Count() > 0 {
		return nil
	}
	f.stop(0)
	if err := f.connections().fault(); err != nil {
		return err
	}
	return errors.New("interrupted before a device was connected")
}

// first makes the first connection of a device.
func (f *fleet) first(ctx context.Context, m *member) {
	defer f.begun.Add(1)
	begin := time.Now()
	c, err := f.target.connect(ctx, f.run, m.number, f.buffer)
	if err != nil {
		if ctx.Err() == nil {
			f.failed.Add(1)
			f.because(err)
		}
		return
	}
	f.connects.Add(time.Since(begin), 1)
	f.wg.Go(func() { m.live(c) }) // ends with stop
}

// because counts a reason.
func (f *fleet) because(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	reason := plain(err)
	if _, known := f.reasons[reason]; !known && len(f.reasons) == maxReasons {
		reason = "other reasons"
	}
	f.reasons[reason]++
}

// plain says why without addresses, so that the same reason of many connections is one.
func plain(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Err != nil {
		err = op.Err
	}
	if sys, ok := errors.AsType[*os.SyscallError](err); ok {
		err = sys.Err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		return "the server closed the connection"
	}
	return err.Error()
}

// live goes from connection to connection until the fleet stops.
func (m *member) live(c *conn) {
	for {
		err := m.session(c)
		if err == nil {
			return
		}
		m.f.lost.Add(1)
		m.f.because(err)
		if c = m.again(); c == nil {
			return
		}
		m.f.reconnect.Add(1)
	}
}

// again connects until it works; nil: the fleet stops.
func (m *member) again() *conn {
	for {
		select {
		case <-m.f.ctx.Done():
			return nil
		case <-time.After(reconnectWait):
		}
		c, err := m.f.target.connect(m.f.ctx, m.f.run, m.number, m.f.buffer)
		if err == nil {
			return c
		}
	}
}

// session is the life of one connection. It gives why it was lost; nil: it was not, or the fleet's time is over.
func (m *member) session(c *conn) error {
	defer c.nc.Close()
	if !m.begin(c) {
		return nil
	}
	m.f.online.Add(1)
	defer m.f.online.Add(-1)
	err := m.read(c)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.conn.Store(nil)
	if m.left || m.f.stopping() && errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

// begin makes c the member's connection, unless it comes too late.
func (m *member) begin(c *conn) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.f.stopping() {
		return false // stop may have passed this member by already
	}
	c.wrote = m.f.now()
	m.conn.Store(c)
	m.d.connected(c)
	c.write(m.f.now())
	return true
}

// end sends what is to be sent, and DISCONNECT if the time for it has come. The caller holds mu.
func (m *member) end(c *conn) {
	if m.f.stopping() && !m.left && m.d.done() {
		c.out = append(c.out, wire.Disconnect...)
		m.left = true
	}
	c.write(m.f.now())
}

// read handles what the server sends until the connection ends.
func (m *member) read(c *conn) error {
	for n := 0; ; {
		k, err := c.nc.Read(c.in[n:])
		if n += k; k > 0 {
			used, fault := m.handle(c, c.in[:n])
			if fault != nil {
				return fault
			}
			n = copy(c.in, c.in[used:n])
		}
		if err != nil {
			return err
		}
		if n == len(c.in) {
			c.in = append(c.in, make([]byte, n)...)
		}
	}
}

// handle gives how many bytes of in were whole packets.
func (m *member) handle(c *conn, in []byte) (used int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.heard = m.f.now()
	rest := in
	for {
		first, body, after, ok, err := wire.Cut(rest)
		if err != nil {
			return 0, err
		}
		if !ok {
			break
		}
		if err := m.packet(c, first, body); err != nil {
			return 0, err
		}
		rest = after
	}
	if len(rest) < len(in) {
		m.d.burst(c)
		m.end(c)
	}
	return len(in) - len(rest), nil
}

func (m *member) packet(c *conn, first byte, body []byte) error {
	switch first >> 4 {
	case wire.PINGRESP:
		if c.pinged > 0 {
			m.f.pings.Add(time.Duration(m.heard-c.pinged), 1)
			c.pinged = 0
		}
		return nil
	case wire.DISCONNECT:
		if len(body) == 0 {
			return errors.New("DISCONNECT")
		}
		return refusal("DISCONNECT", body[0], "")
	}
	return m.d.packet(c, first, body)
}

// keepAlive sends a PINGREQ wherever nothing was sent for half of the Keep Alive, and closes what does not answer.
func (f *fleet) keepAlive() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-f.ctx.Done():
			return
		case <-tick.C:
		}
		for _, m := range f.members {
			// Who holds the lock is writing, or will be at once: no PINGREQ is needed, and one stuck connection
			// must not keep the others from theirs.
			if m.conn.Load() == nil || !m.mu.TryLock() {
				continue
			}
			if c := m.conn.Load(); c != nil {
				c.ping(f.now())
			}
			m.mu.Unlock()
		}
	}
}

// ping is called with the member's mu held.
func (c *conn) ping(now int64) {
	switch {
	case c.keepAlive == 0:
	case c.pinged > 0 && now-c.pinged > int64(c.keepAlive):
		_ = c.nc.Close()
	case c.pinged == 0 && now-c.wrote > int64(c.keepAlive/2):
		c.pinged = now
		c.out = append(c.out, wire.PingReq...)
		c.write(now)
	}
}

// stop has every device say DISCONNECT when it waits for nothing more, and the rest cut off after some time. It
// returns when all is closed.
func (f *fleet) stop(wait time.Duration) {
	f.cancel()
	end := time.Now().Add(wait)
	for _, m := range f.members {
		if c := m.conn.Load(); c != nil {
			_ = c.nc.SetDeadline(end) // before the lock, which a write that waits may hold
		}
	}
	for _, m := range f.members {
		m.mu.Lock()
		if c := m.conn.Load(); c != nil {
			_ = c.nc.SetDeadline(end)
			m.end(c)
		}
		m.mu.Unlock()
	}
	f.wg.Wait()
}

// Connections is what became of connections.
type Connections struct {
	Wanted    int            `json:"wanted"`
	Made      int            `json:"made"`
	Failed    int            `json:"failed"` // the first of their device
	Lost      int            `json:"lost"`
	Again     int            `json:"again"` // made again after they were lost
	Seconds   float64        `json:"seconds"`
	PerSecond float64        `json:"per_second"`
	Times     *Times         `json:"connack_ms,omitempty"`  // from the first SYN to CONNACK
	Pings     *Times         `json:"pingresp_ms,omitempty"` // from PINGREQ to PINGRESP
	Reasons   map[string]int `json:"reasons,omitempty"`     // of what failed or was lost
}

func (f *fleet) connections() Connections {
	made := int(f.connects.Count())
	return Connections{Wanted: len(f.members), Made: made, Failed: int(f.failed.Load()), Lost: int(f.lost.Load()), Again: int(f.reconnect.Load()),
		Seconds: seconds(f.connecting), PerSecond: perSecond(made, f.connecting), Times: f.connects.Times(), Pings: f.pings.Times(), Reasons: f.reasons}
}

// fault says what failed, nil if nothing did.
func (c Connections) fault() error {
	if c.Failed == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d devices could not connect: %s", c.Failed, c.Wanted, c.why())
}

// why gives the most frequent reason.
func (c Connections) why() string {
	reasons := sortedReasons(c.Reasons)
	if len(reasons) == 0 {
		return "no reason is known"
	}
	return reasons[0]
}

// sortedReasons gives reasons, the most frequent first.
func sortedReasons(reasons map[string]int) (sorted []string) {
	for r := range reasons {
		sorted = append(sorted, r)
	}
	slices.SortFunc(sorted, func(a, b string) int { return cmp.Or(reasons[b]-reasons[a], cmp.Compare(a, b)) })
	return sorted
}

func seconds(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }

func perSecond(n int, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return float64(int(float64(n)/d.Seconds()*10+.5)) / 10
}
