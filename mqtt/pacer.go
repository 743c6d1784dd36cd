package mqtt

import (
	"sync"
	"time"
)

// A pacer does what must happen soon and not at once: it lets in those that wait for admission, and resumes those whose
// reading is delayed. Nothing ticks while there is nobody of either kind.
type pacer struct {
	signal chan struct{}

	mu      sync.Mutex          // guards all below; taken under a connection's
	slots   [pacerSlots][]*Conn // a wheel: who is resumed at which tick
	at      int
	delayed int
}

// A delay is at most a turn of the wheel.
const (
	pacerTick  = 10 * time.Millisecond
	pacerSlots = 100
)

// admitPerTick bounds the work between two looks at the wheel.
const admitPerTick = 1000

// awaken has the ticks go on. It must be called after whatever they are needed for.
func (p *pacer) awaken() {
	select {
	case p.signal <- struct{}{}:
	default:
	}
}

// resumeIn has c resumed after wait, or sooner if that is long.
func (p *pacer) resumeIn(c *Conn, wait time.Duration) {
	ticks := min(int(wait/pacerTick)+1, pacerSlots-1)
	p.mu.Lock()
	slot := &p.slots[(p.at+ticks)%pacerSlots]
	*slot = append(*slot, c)
	p.delayed++
	p.mu.Unlock()
	p.awaken()
}

// due turns the wheel by one slot and gives those in it.
func (p *pacer) due() []*Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at = (p.at + 1) % pacerSlots
	all := p.slots[p.at]
	p.slots[p.at] = nil
	p.delayed -= len(all)
	return all
}

func (p *pacer) idle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.delayed == 0
}

// runPacer works until stop is closed.
func (s *Server) runPacer(stop <-chan struct{}) {
	tick := time.NewTicker(pacerTick)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			s.pace()
		}
		if !s.pacer.idle() || s.admission.waitingCount() > 0 {
			continue
		}
		tick.Stop()
		select {
		case <-stop:
			return
		case <-s.pacer.signal:
			tick.Reset(pacerTick)
		}
	}
}

// pace is the work of one tick.
func (s *Server) pace() {
	for _, c := range s.pacer.due() {
		c.undelay()
	}
	s.admitWaiting(admitPerTick)
}
