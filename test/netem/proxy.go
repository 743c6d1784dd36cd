package netem

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"sluice/test/internal/ports"
)

// Proxy forwards TCP connections from its own address to a target. It starts
// out passing everything. Its modes are changed by one goroutine at a time.
type Proxy struct {
	target string
	port   *ports.Port

	door sync.Mutex // serialises the changes of mode; taken before mu
	l    *net.TCPListener
	done chan struct{} // closed when the accept loop of l has ended; nil if none runs
	plug []net.Conn    // connections that fill the accept queue while swallowing

	mu    sync.Mutex
	gate  chan struct{} // closed while bytes may move
	links map[*link]struct{}
	wg    sync.WaitGroup // accept loop and links
}

// New starts a forwarder to target, on an address of its own.
func New(target string) (*Proxy, error) {
	ps, err := ports.Take(1)
	if err != nil {
		return nil, err
	}
	p := &Proxy{target: target, port: ps[0], gate: make(chan struct{}), links: map[*link]struct{}{}}
	if err := p.Heal(); err != nil {
		return nil, errors.Join(err, p.port.Release())
	}
	return p, nil
}

// Addr is where clients connect. It stays the same in every mode.
func (p *Proxy) Addr() string { return p.port.Addr() }

// Heal lets new connections in and bytes move again, also those held back.
func (p *Proxy) Heal() error {
	p.door.Lock()
	defer p.door.Unlock()
	if p.done != nil {
		return nil // passes already
	}
	if err := p.listen(); err != nil {
		return err
	}
	unplugged := p.unplug()
	p.open()
	p.done = make(chan struct{})
	p.wg.Go(func() { p.accept(p.l, p.done, unplugged) }) // ends when l is closed or its deadline passes
	return nil
}

// listen makes the listener, or the one of a Swallow usable again.
func (p *Proxy) listen() error {
	if p.l != nil {
		return errors.Join(setBacklog(p.l, 128), p.l.SetDeadline(time.Time{}))
	}
	l, err := net.Listen("tcp", p.Addr())
	for end := time.Now().Add(time.Second); errors.Is(err, syscall.EADDRINUSE) && time.Now().Before(end); l, err = net.Listen("tcp", p.Addr()) {
		time.Sleep(time.Millisecond) // a listener that is closed lives on in a child that has been forked and has not begun its program
	}
	if err != nil {
		return fmt.Errorf("cannot listen for %s: %w", p.target, err)
	}
	p.l = l.(*net.TCPListener)
	return nil
}

// Refuse resets all connections and refuses new ones, as a host does whose
// server has died.
func (p *Proxy) Refuse() {
	p.door.Lock()
	defer p.door.Unlock()
	p.refuse()
}

func (p *Proxy) refuse() {
	if p.l != nil {
		p.l.Close()
		p.stopAccepting()
		p.l = nil
	}
	p.unplug()
	p.Reset()
}

// Swallow keeps all connections open and moves no byte on them; new ones hang,
// on Linux already in connect, as on a network that drops every packet.
func (p *Proxy) Swallow() {
	p.door.Lock()
	defer p.door.Unlock()
	p.shut()
	if p.done == nil {
		return // refuses or swallows already
	}
	_ = p.l.SetDeadline(time.Unix(1, 0)) // fails only when closed, which it is not
	p.stopAccepting()
	p.fillQueue()
}

// Reset resets all connections there are, once, in any mode.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k := range p.links {
		k.reset()
	}
}

// Close refuses everything, waits for the goroutines and gives the port back.
func (p *Proxy) Close() error {
	p.Refuse()
	p.wg.Wait()
	return p.port.Release()
}

// stopAccepting waits for the accept loop, which has been given its reason to
// end.
func (p *Proxy) stopAccepting() {
	if p.done != nil {
		<-p.done
		p.done = nil
	}
}

// fillQueue makes the kernel drop the next connection requests: it does so
// while a listener's accept queue is full, and this one holds a single
// connection. Where the queue does not fill, connections are made and hang.
func (p *Proxy) fillQueue() {
	if setBacklog(p.l, 0) != nil {
		return
	}
	for range 8 {
		c, err := net.DialTimeout("tcp", p.Addr(), 200*time.Millisecond)
		if err != nil {
			return
		}
		p.plug = append(p.plug, c)
	}
}

// unplug closes what fillQueue opened and returns the addresses, for the
// accept loop finds those connections in the queue.
func (p *Proxy) unplug() map[string]bool {
	addrs := map[string]bool{}
	for _, c := range p.plug {
		addrs[c.LocalAddr().String()] = true
		c.Close()
	}
	p.plug = nil
	return addrs
}

func (p *Proxy) accept(l *net.TCPListener, done chan<- struct{}, ignore map[string]bool) {
	defer close(done)
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			return
		}
		if ignore[c.RemoteAddr().String()] {
			c.Close()
			continue
		}
		p.forward(c)
	}
}

// forward starts a link for c; it ends when both directions have ended.
func (p *Proxy) forward(c *net.TCPConn) {
	k := &link{client: c, ended: make(chan struct{})}
	p.mu.Lock()
	p.links[k] = struct{}{}
	p.mu.Unlock()
	p.wg.Go(func() {
		k.run(p.target, p.await)
		p.mu.Lock()
		delete(p.links, k)
		p.mu.Unlock()
	})
}

// await returns the gate, closed while bytes may move.
func (p *Proxy) await() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gate
}

func (p *Proxy) open() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !isClosed(p.gate) {
		close(p.gate)
	}
}

func (p *Proxy) shut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if isClosed(p.gate) {
		p.gate = make(chan struct{})
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
