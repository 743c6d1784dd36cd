package mqtt

import "sync"

// A flusher sends what was settled, apart from the goroutines that settle.
type flusher struct {
	mu    sync.Mutex
	dirty []*Conn
	spare []*Conn
	wake  chan struct{}
}

// flushListed is flush for a connection just taken off the list. dirty ends here and not whenever the slots
// are drained: the reading goroutine drains too, and the list would grow by every message settled in between.
func (c *Conn) flushListed() {
	c.mu.Lock()
	c.dirty = false
	c.drain()
	c.send()
	sent, hungry := c.marked(), c.hungry()
	c.mu.Unlock()
	c.followUp(sent, hungry)
}

func (s *Server) enlist(c *Conn) {
	s.flusher.mu.Lock()
	s.flusher.dirty = append(s.flusher.dirty, c)
	s.flusher.mu.Unlock()
}

// Flush sends the acknowledgements of all messages settled since the last call, one write per connection.
// A Handler calls it after a burst of Ack, Refuse and Abandon. It does not block.
func (s *Server) Flush() {
	select {
	case s.flusher.wake <- struct{}{}:
	default: // a flush that begins later than now is already asked for
	}
}

// runFlusher ends with stop.
func (s *Server) runFlusher(stop <-chan struct{}) {
	f := &s.flusher
	for {
		select {
		case <-stop:
			return
		case <-f.wake:
		}
		f.mu.Lock()
		list := f.dirty
		f.dirty = f.spare[:0]
		f.mu.Unlock()
		for i, c := range list {
			c.flushListed()
			list[i] = nil
		}
		f.mu.Lock()
		f.spare = list[:0]
		f.mu.Unlock()
	}
}
