package mqtt

import (
	"os"
	"sync"
	"syscall"
)

// A lot is where idle connections are parked: they have no goroutine, and an epoll of our own says which of them has
// something to read. Go's poller waits for that one as for any file.
type lot struct {
	mu    sync.Mutex // guards all below; Conn.mu may be held
	epoll int
	open  bool
	conns []*Conn // by file descriptor: what was parked last; it may be awake
}

// arm has c unparked when its socket has something to read, or has that now. False: it can't be parked.
func (l *lot) arm(c *Conn) (armed bool) {
	err := c.raw.Control(func(fd uintptr) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if !l.open {
			return
		}
		what := syscall.EPOLL_CTL_ADD
		if int(fd) < len(l.conns) && l.conns[fd] == c {
			what = syscall.EPOLL_CTL_MOD
		}
		event := syscall.EpollEvent{Events: syscall.EPOLLIN | epollOneshot, Fd: int32(fd)}
		if syscall.EpollCtl(l.epoll, what, int(fd), &event) != nil {
			return
		}
		for int(fd) >= len(l.conns) {
			l.conns = append(l.conns, nil)
		}
		l.conns[fd], armed = c, true
	})
	return armed && err == nil
}

const epollOneshot = 1 << 30 // EPOLLONESHOT; syscall has it as a negative number on some systems

// leave forgets c, whose socket is about to be closed.
func (l *lot) leave(c *Conn) {
	_ = c.raw.Control(func(fd uintptr) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if int(fd) < len(l.conns) && l.conns[fd] == c {
			l.conns[fd] = nil
		}
	})
}

// at gives who was parked last with a file descriptor. It may not be that one's event: who is woken for nothing parks again.
func (l *lot) at(fd int) *Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if fd >= len(l.conns) {
		return nil
	}
	return l.conns[fd]
}

// close lets nobody park any more and gives those who may be parked.
func (l *lot) close() []*Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	left := l.conns
	l.open, l.conns = false, nil
	return left
}

// runLot unparks connections, until stop. Without an epoll nobody parks.
func (s *Server) runLot(stop <-chan struct{}) {
	epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err == nil {
		err = syscall.SetNonblock(epoll, true) // or os.NewFile would not have Go's poller wait for it
	}
	if err != nil {
		s.log.Warn().Err(err).Msg("idle connections keep their goroutines")
		return
	}
	f := os.NewFile(uintptr(epoll), "epoll")
	defer f.Close()
	s.lot.mu.Lock()
	s.lot.epoll, s.lot.open = epoll, true
	s.lot.mu.Unlock()
	stopped := make(chan struct{})
	defer func() { <-stopped }()
	over := make(chan struct{})
	defer close(over)
	go func() { // ends with runLot
		defer close(stopped)
		select {
		case <-stop:
		case <-over:
		}
		s.clearLot()
		_ = f.SetReadDeadline(longAgo)
	}()
	events := make([]syscall.EpollEvent, 256)
	raw, err := f.SyscallConn()
	if err == nil {
		err = raw.Read(func(uintptr) bool {
			for {
				n, err := syscall.EpollWait(epoll, events, 0)
				switch {
				case err == syscall.EINTR:
				case err != nil:
					return true
				case n == 0: // Go's poller tells only of what comes from now on
					return false
				}
				for i := range max(n, 0) {
					if c := s.lot.at(int(events[i].Fd)); c != nil {
						c.unpark()
					}
				}
			}
		})
	}
	select {
	case <-stop:
	default:
		s.log.Error().Err(err).Msg("idle connections keep their goroutines from now on")
	}
}

// clearLot gives everybody a goroutine.
func (s *Server) clearLot() {
	for _, c := range s.lot.close() {
		if c != nil {
			c.unpark()
		}
	}
}
