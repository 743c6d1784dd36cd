package netem

import (
	"net"
	"sync"
	"time"
)

// link is one forwarded connection.
type link struct {
	client *net.TCPConn
	once   sync.Once
	ended  chan struct{} // closed by reset

	mu     sync.Mutex
	server *net.TCPConn // nil until connected
}

// run connects to the target and copies both ways until both ends have closed
// or the link is reset. gate returns the channel that is closed while bytes may
// move.
func (k *link) run(target string, gate func() <-chan struct{}) {
	defer k.reset()
	if !k.connect(target) {
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { k.copy(k.server, k.client, gate) })
	wg.Go(func() { k.copy(k.client, k.server, gate) })
	wg.Wait()
}

// connect returns false when the target cannot be reached or the link has been
// reset meanwhile.
func (k *link) connect(target string) bool {
	c, err := net.DialTimeout("tcp", target, 10*time.Second)
	if err != nil {
		return false
	}
	k.mu.Lock()
	k.server = c.(*net.TCPConn)
	k.mu.Unlock()
	if isClosed(k.ended) {
		abort(k.server) // reset did not see it
		return false
	}
	return true
}

// copy moves bytes, and then the end of the stream, each time the gate lets
// it. What it has read while the gate is shut waits in its buffer.
func (k *link) copy(dst, src *net.TCPConn, gate func() <-chan struct{}) {
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		if !k.pass(gate) {
			return
		}
		if _, werr := dst.Write(buf[:n]); werr != nil {
			k.reset()
			return
		}
		if err != nil {
			k.finish(dst, err)
			return
		}
	}
}

// pass waits for the gate and returns false when the link is reset first. The
// gate may have shut again by then, so it looks once more.
func (k *link) pass(gate func() <-chan struct{}) bool {
	for {
		g := gate()
		select {
		case <-k.ended:
			return false
		case <-g:
		}
		if gate() == g {
			return true
		}
	}
}

// finish tells dst how src ended: in good order, or by a reset.
func (k *link) finish(dst *net.TCPConn, err error) {
	if isReset(err) {
		k.reset()
		return
	}
	_ = dst.CloseWrite() // fails when dst has gone, and then there is nobody to tell
}

// reset ends both connections with a TCP RST. It may be called repeatedly.
func (k *link) reset() {
	k.once.Do(func() {
		close(k.ended)
		abort(k.client)
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.server != nil {
			abort(k.server)
		}
	})
}

func abort(c *net.TCPConn) {
	_ = c.SetLinger(0) // both fail only on a connection already closed
	_ = c.Close()
}
