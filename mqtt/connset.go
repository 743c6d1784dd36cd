package mqtt

import "sync"

// A connSet holds all open connections, also those that have not said CONNECT.
type connSet struct {
	mu     sync.Mutex
	all    map[*Conn]struct{}
	spare  []*Conn // for each
	closed bool
	empty  chan struct{} // closed when closed and all is empty
}

// add takes a new connection; false after close.
func (s *connSet) add(c *Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = make(map[*Conn]struct{})
	}
	if s.closed {
		return false
	}
	s.all[c] = struct{}{}
	return true
}

// done takes one out that has ended.
func (s *connSet) done(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, c)
	if s.closed && len(s.all) == 0 {
		close(s.empty)
	}
}

// close refuses new connections from now on.
func (s *connSet) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	s.empty = make(chan struct{})
	if len(s.all) == 0 {
		close(s.empty)
	}
}

// wait returns when all connections are gone, after close.
func (s *connSet) wait() { <-s.empty }

func (s *connSet) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all)
}

// each calls f for every connection that was there when it began, without holding the set's lock, since f
// takes the connections' locks. The sweep calls it each second: the list is used again.
func (s *connSet) each(f func(*Conn)) {
	s.mu.Lock()
	list := s.spare[:0]
	s.spare = nil
	for c := range s.all {
		list = append(list, c)
	}
	s.mu.Unlock()
	for i, c := range list {
		f(c)
		list[i] = nil
	}
	s.mu.Lock()
	s.spare = list
	s.mu.Unlock()
}
