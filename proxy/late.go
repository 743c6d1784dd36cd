package proxy

import (
	"errors"
	"slices"
	"sync"

	"sluice/kafka"
	"sluice/mqtt"
)

// late finds the retained messages in flight that could not be read when their devices came back (see findRetained), and gives
// them then. A partition is read by one goroutine, however many devices wait for it.
type late struct {
	s *sessions

	mu      sync.Mutex // guards waiting, and keeper.unread
	waiting map[*stream][]lateOne
}

// A lateOne is a delivery to the device of a session.
type lateOne struct {
	session *mqtt.Session
	mqtt.Unfinished
}

// want has what k could not read found.
func (l *late) want(k *keeper) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, u := range k.unread {
		st := l.s.streams.of(l.s.streams.retained, -1-u.Place.Stream)
		if _, reads := l.waiting[st]; !reads {
			l.s.work.Go(func() { l.read(st) }) // ends when nobody waits, or with the sessions' context
		}
		l.waiting[st] = append(l.waiting[st], lateOne{k.session, u})
	}
	k.unread = nil
}

// forget takes out what waits for a session that has left.
func (l *late) forget(session *mqtt.Session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for st, all := range l.waiting {
		l.waiting[st] = slices.DeleteFunc(all, func(o lateOne) bool { return o.session == session })
	}
}

// next gives one that waits for a partition.
func (l *late) next(st *stream) (o lateOne, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting[st]) == 0 {
		delete(l.waiting, st)
		return o, false
	}
	o = l.waiting[st][0]
	l.waiting[st] = l.waiting[st][1:]
	return o, true
}

// read finds all that waits for a partition.
func (l *late) read(st *stream) {
	for {
		o, ok := l.next(st)
		if !ok {
			return
		}
		cmd, err := l.s.finder.find(l.s.ctx, o.Place, st, l.s.finder.retained)
		if err != nil && !errors.Is(err, kafka.ErrTopicMissing) {
			return
		}
		o.Command, o.Unread = cmd, false
		o.session.Found(o.Unfinished)
	}
}
