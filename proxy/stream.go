package proxy

import (
	"slices"
	"sync"
	"sync/atomic"
)

// A stream is one partition of a command topic. Sessions say by streams how far they have got.
type stream struct {
	id        int32 // from 1
	topic     string
	partition int32
	reading   chan struct{} // has one element while a chunk is read

	// mu is held while a record is handed to the devices that are here, so that who holds it knows that everything
	// below next was, and nothing at or above it.
	mu     sync.Mutex
	halted bool         // nothing more is handed out
	next   atomic.Int64 // changed with mu held; an offset below 0: not yet known
}

// A streamKey names a stream.
type streamKey struct {
	topic     string
	partition int32
}

// streams are all that were heard of, by name and by number. Reading takes no lock: it happens for each command.
type streams struct {
	mu  sync.Mutex // of changes
	now atomic.Pointer[streamTable]
}

type streamTable struct {
	byName map[streamKey]*stream
	all    []*stream // id - 1
	ids    []int32
}

func newStreams() *streams {
	s := &streams{}
	s.now.Store(&streamTable{})
	return s
}

// of gives the stream of a partition, and makes it if need be.
func (s *streams) of(topic string, partition int32) *stream {
	key := streamKey{topic, partition}
	if st := s.now.Load().byName[key]; st != nil {
		return st
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.now.Load()
	if st := old.byName[key]; st != nil {
		return st
	}
	st := &stream{id: int32(len(old.all) + 1), topic: topic, partition: partition, reading: make(chan struct{}, 1)}
	st.next.Store(-1)
	table := &streamTable{byName: make(map[streamKey]*stream, len(old.all)+1), all: append(slices.Clip(old.all), st), ids: append(slices.Clip(old.ids), st.id)}
	for k, v := range old.byName {
		table.byName[k] = v
	}
	table.byName[key] = st
	s.now.Store(table)
	return st
}

// get gives a stream by its number.
func (s *streams) get(id int32) *stream { return s.now.Load().all[id-1] }

// ids gives the numbers of all streams.
func (s *streams) ids() []int32 { return s.now.Load().ids }

// all gives all streams.
func (s *streams) all() []*stream { return s.now.Load().all }

// next says up to which offset a stream was handed to the devices that are here.
func (s *streams) next(id int32) (int64, bool) {
	next := s.get(id).next.Load()
	return next, next >= 0
}

// advance notes that everything below next was handed out. mu is held.
func (s *stream) advance(next int64) {
	if next > s.next.Load() && !s.halted {
		s.next.Store(next)
	}
}
