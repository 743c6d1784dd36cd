package mqtt

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// An admission holds the connections to their limits: how many there are, in all and of one address, and how many are
// let in a second. One that waits costs its socket and its Conn, no goroutine and no buffer, and nothing of it is read:
// TLS handshakes and CONNECT packets are what a storm of connections costs, and the devices that are connected already
// need the processor meanwhile.
//
// The queue is fair by peer, since nothing else is known before the first byte. Behind a PROXY protocol the peers are
// the load balancers, which take turns then; the device's own address counts for MaxConnectionsPerAddress only.
//
// What is left to an attacker: connections that say nothing hold their places until ConnectTimeout. Those of one address
// get half of the places at most. Of many addresses they can get all of them, and then only places that time out are
// given away: two seconds' worth in each ConnectTimeout, still in turn, so that the devices get in more slowly, by the
// part that their addresses are of all that try. What an attacker gains so follows the addresses it has, never how often
// it connects from one. Where all places there are at all (MaxConnections) are taken, those that wait from one source
// make room for another's.
type admission struct {
	most       int
	perAddress int
	lines      zerolog.Logger

	mu        sync.Mutex             // guards all below; no other lock is taken under it
	queue     *admissionQueue[*Conn] // nil: everybody is let in at once
	closed    bool
	open      int
	addresses map[netip.Addr]int // open connections of each, where that is limited
}

// An entrance is what a connection holds in the admission.
type entrance struct {
	source  *source[*Conn] // while it is unfinished
	address *netip.Addr    // that it counts for; nil: none
}

// patienceInQueue is how long a connection waits for admission: devices give up before that.
const patienceInQueue = time.Minute

// errCrowded ends a connection whose address, known by a PROXY protocol header, has too many.
var errCrowded = errors.New("too many connections of the address")

func (a *admission) init(cfg *Config) {
	a.most, a.perAddress = cfg.MaxConnections, cfg.MaxConnectionsPerAddress
	a.addresses = make(map[netip.Addr]int)
	a.lines = cfg.Logger.Sample(&zerolog.BurstSampler{Burst: 2, Period: time.Second})
	if cfg.ConnectsPerSecond > 0 {
		a.queue = newAdmissionQueue[*Conn](cfg.ConnectsPerSecond, time.Now())
	}
}

// networkOf gives what counts as one address: whoever has one IPv6 address has a network of them.
func networkOf(addr net.Addr) netip.Addr {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	if ip.Is6() {
		return netip.PrefixFrom(ip, 64).Masked().Addr()
	}
	return ip
}

// start takes a connection that was accepted: it is launched, waits for its turn, or is closed without an answer.
func (s *Server) start(c *Conn) {
	first, evicted, refused := s.admission.enter(c, time.Now(), s.limits)
	if evicted != nil {
		s.refused(evicted, s.limits.crowded)
	}
	switch {
	case refused != nil:
		s.turnAway(c, refused)
		return
	case first == c:
		s.launch(c)
		return
	case first != nil:
		s.launchOrDrop(first)
	}
	s.pacer.awaken()
}

// turnAway closes a connection of which nothing was read.
func (s *Server) turnAway(c *Conn, why prometheus.Counter) {
	s.admission.leave(c)
	s.refused(c, why)
}

// refused closes a connection that counts nowhere any more.
func (s *Server) refused(c *Conn, why prometheus.Counter) {
	_ = c.nc.Close()
	why.Inc()
	s.admission.lines.Warn().Stringer("remote", c.nc.RemoteAddr()).Int("open", s.admission.openCount()).Msg("connection refused")
}

// launchOrDrop starts a connection whose turn has come, unless the device has hung up.
func (s *Server) launchOrDrop(c *Conn) {
	if c.hungUp() {
		s.admission.spare(c)
		_ = c.nc.Close()
		s.admission.leave(c)
		s.limits.gone.Inc()
		return
	}
	s.launch(c)
}

// admitWaiting lets in whoever may be now. most bounds the work of one call.
func (s *Server) admitWaiting(most int) {
	for range most {
		c := s.admission.next(time.Now())
		if c == nil {
			return
		}
		s.launchOrDrop(c)
	}
}

// dropOverdue closes those that have waited too long for admission.
func (s *Server) dropOverdue(now time.Time) {
	for _, c := range s.admission.overdue(now.Add(-patienceInQueue)) {
		s.turnAway(c, s.limits.impatient)
	}
}

// dropWaiting closes all that wait for admission, and those that come later.
func (s *Server) dropWaiting() {
	for _, c := range s.admission.close() {
		_ = c.nc.Close()
		s.admission.leave(c)
	}
}

// hungUp says whether the device has closed its side and sent nothing before.
func (c *Conn) hungUp() (gone bool) {
	err := c.raw.Read(func(fd uintptr) bool {
		var b [1]byte
		n, err := peekFD(int(fd), b[:])
		gone = n == 0 && err == nil || errors.Is(err, syscall.ECONNRESET)
		return true
	})
	return gone || err != nil
}

// enter counts a new connection and gives the one to launch, which need not be this one: nil if nobody's turn has come.
// refused is the counter of the reason why it must be closed. evicted had to make room for it: where there are as many as
// there may be, those that wait and come from where many others wait are the ones to go.
func (a *admission) enter(c *Conn, now time.Time, m *limitMetrics) (first, evicted *Conn, refused prometheus.Counter) {
	a.mu.Lock()
	defer a.mu.Unlock()
	from := networkOf(c.nc.RemoteAddr())
	if a.most > 0 && a.open >= a.most {
		if evicted = a.evict(from); evicted == nil {
			return nil, nil, m.crowded
		}
	}
	if c.proxy != proxyDue && !a.count(c, c.nc.RemoteAddr()) {
		return nil, evicted, m.fromOne
	}
	a.open++
	c.counted = true
	if a.queue == nil || a.closed { // the server's set of connections refuses it when the server stops
		return c, evicted, nil
	}
	a.queue.join(from, c, now)
	return a.nextLocked(now), evicted, nil
}

// evict takes out one that waits, for a newcomer from another source. mu is held.
func (a *admission) evict(newcomer netip.Addr) *Conn {
	if a.queue == nil || a.closed {
		return nil
	}
	c, ok := a.queue.evict(newcomer)
	if !ok {
		return nil
	}
	a.leaveLocked(c)
	return c
}

// count counts c for its address; false: that has too many. mu is held.
func (a *admission) count(c *Conn, addr net.Addr) bool {
	if a.perAddress == 0 {
		return true
	}
	from := networkOf(addr)
	if a.addresses[from] >= a.perAddress {
		return false
	}
	a.addresses[from]++
	c.entrance.address = &from
	return true
}

// identify counts c for the address that its PROXY protocol header says.
func (s *Server) identify(c *Conn) error {
	a := &s.admission
	a.mu.Lock()
	counted := a.count(c, c.RemoteAddr())
	a.mu.Unlock()
	if counted {
		return nil
	}
	s.limits.fromOne.Inc()
	return errCrowded
}

// next gives the connection whose turn it is; nil: there is none now.
func (a *admission) next(now time.Time) *Conn {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.nextLocked(now)
}

func (a *admission) nextLocked(now time.Time) *Conn {
	if a.queue == nil {
		return nil
	}
	c, from, ok := a.queue.next(now)
	if !ok {
		return nil
	}
	c.entrance.source = from
	return c
}

// finished gives the place back that c had until its CONNECT was answered, or it ended before. Its own goroutine calls it.
func (a *admission) finished(c *Conn) { a.endTurn(c, (*admissionQueue[*Conn]).finish) }

// spare is finished for one that was not let in after all.
func (a *admission) spare(c *Conn) { a.endTurn(c, (*admissionQueue[*Conn]).spare) }

func (a *admission) endTurn(c *Conn, end func(*admissionQueue[*Conn], *source[*Conn])) {
	if c.entrance.source == nil {
		return
	}
	a.mu.Lock()
	end(a.queue, c.entrance.source)
	a.mu.Unlock()
	c.entrance.source = nil
}

// leave ends what c counts for, when its socket is closed.
func (a *admission) leave(c *Conn) {
	a.finished(c)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.leaveLocked(c)
}

func (a *admission) leaveLocked(c *Conn) {
	if !c.counted {
		return
	}
	a.open--
	if from := c.entrance.address; from != nil {
		if a.addresses[*from]--; a.addresses[*from] == 0 {
			delete(a.addresses, *from)
		}
	}
	c.entrance, c.counted = entrance{}, false
}

// overdue takes those out of the queue that joined before then.
func (a *admission) overdue(then time.Time) []*Conn {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.queue == nil {
		return nil
	}
	return a.queue.overdue(then)
}

// close empties the queue for good.
func (a *admission) close() []*Conn {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	if a.queue == nil {
		return nil
	}
	return a.queue.overdue(time.Now().Add(time.Hour))
}

func (a *admission) openCount() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.open
}

func (a *admission) waitingCount() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.queue == nil {
		return 0
	}
	return a.queue.waiting
}

func (a *admission) unfinishedCount() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.queue == nil {
		return 0
	}
	return a.queue.busy
}
