package proxy

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"sluice/fleet"
	"sluice/fleet/driver"
)

// A stream is one partition of a command topic, as long as its offsets mean the same records: when the topic is deleted
// and made anew, or the log is cut, another stream takes its place. Sessions say by streams how far they have got.
type stream struct {
	id        int32 // from 1
	topic     string
	partition int32
	reading   chan struct{} // has one element while a chunk is read
	ends      driver.Joined[int64]

	// Set by begin, and not looked at before next is known.
	topicID string
	first   int64 // offset

	// mu is held while a record is handed to the devices that are here, so that who holds it knows that everything
	// below next was, and nothing at or above it.
	mu     sync.Mutex
	halted bool         // nothing more is handed out
	next   atomic.Int64 // changed with mu held; an offset below 0: not yet known
	until  atomic.Int64 // changed with mu held; what is at or above it is not of this stream, or is no more

	dim atomic.Int64 // cancellations that were read here below this offset may be forgotten
}

// A streamKey names a stream.
type streamKey struct {
	topic     string
	partition int32
}

// streams are all that were heard of, by name and by number. Reading takes no lock: it happens for each command.
type streams struct {
	retained string // the topic of retained messages; sessions have no position in it

	mu  sync.Mutex // of changes
	now atomic.Pointer[streamTable]
}

type streamTable struct {
	byName map[streamKey]*stream // those that go on
	all    []*stream             // id - 1
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
	if st := s.now.Load().byName[key]; st != nil {
		return st
	}
	return s.make(key)
}

// make makes the stream of a partition, in the place of one that it may have. mu is held.
func (s *streams) make(key streamKey) *stream {
	old := s.now.Load()
	st := &stream{id: int32(len(old.all) + 1), topic: key.topic, partition: key.partition, reading: make(chan struct{}, 1)}
	st.next.Store(-1)
	st.until.Store(math.MaxInt64)
	table := &streamTable{byName: make(map[streamKey]*stream, len(old.byName)+1), all: append(slices.Clip(old.all), st), ids: append(slices.Clip(old.ids), st.id)}
	for k, v := range old.byName {
		table.byName[k] = v
	}
	table.byName[key] = st
	s.now.Store(table)
	return st
}

// begin notes that a partition begins at next: it was not known where, or its topic was made anew, or its log was cut.
// It gives the stream that so has come to its end; nil: none.
func (s *streams) begin(topic, topicID string, partition int32, next int64) (ended *stream) {
	if ended = s.replace(topic, topicID, partition, next); ended == nil || ended.has(0) {
		return ended
	}
	// The topic may have fewer partitions now. Those that are there still have another stream as soon as that begins.
	for _, st := range s.all() {
		if st.topic == topic {
			st.endUnless(topicID)
		}
	}
	return ended
}

func (s *streams) replace(topic, topicID string, partition int32, next int64) (ended *stream) {
	st := s.of(topic, partition)
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.next.Load() >= 0 {
		ended = st
		if st.topicID == topicID {
			st.until.Store(next)
		} else {
			st.until.Store(0)
		}
		s.mu.Lock()
		st = s.make(streamKey{topic, partition})
		s.mu.Unlock()
	}
	st.topicID, st.first = topicID, next
	st.next.Store(next)
	return ended
}

// endUnless ends the stream of a topic that was there before the one with this ID.
func (s *stream) endUnless(topicID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next.Load() >= 0 && s.topicID != topicID {
		s.until.Store(0)
	}
}

// get gives a stream by its number.
func (s *streams) get(id int32) *stream { return s.now.Load().all[id-1] }

// ids gives the numbers of all streams, also of those that have ended: sessions may have something open in them.
func (s *streams) ids() []int32 { return s.now.Load().ids }

// all gives all streams that go on.
func (s *streams) all() []*stream {
	return slices.DeleteFunc(slices.Clone(s.now.Load().all), (*stream).ended)
}

// next says up to which offset a stream was handed to the devices that are here; not of one that has ended.
func (s *streams) next(id int32) (int64, bool) {
	st := s.get(id)
	next := st.next.Load()
	return next, next >= 0 && !st.ended()
}

// ends gives the offsets, by the numbers of streams, below which the devices here have got everything.
func (s *streams) ends() driver.Ends {
	ends := make(driver.Ends)
	for _, st := range s.all() {
		ends[st.id] = st.next.Load()
	}
	return ends
}

// positions gives ends as a session's record has them.
func (s *streams) positions(ends driver.Ends) *fleet.Progress {
	p := new(fleet.Progress)
	for id, end := range ends {
		if st := s.get(id); end >= 0 && !st.ended() {
			p.Start(st.topic, st.partition, end)
			p.Bind(st.topic, st.topicID)
		}
	}
	return p
}

// mark is the place of a command as a session's record has it.
func (s *streams) mark(id int32, offset int64) fleet.Mark {
	return s.get(id).mark(offset)
}

func (s *stream) mark(offset int64) fleet.Mark {
	m := fleet.Mark{Topic: s.topic, Partition: s.partition, Offset: offset}
	if s.next.Load() >= 0 {
		m.ID = s.topicID
	}
	return m
}

// ahead gives how far a session has got in the streams in which that is farther than the devices here.
func (s *streams) ahead(p *fleet.Progress) (ahead driver.Ends) {
	for _, st := range s.all() {
		if at := p.Reach(st.topic, st.partition); at > st.next.Load() && st.means(p) {
			if ahead == nil {
				ahead = make(driver.Ends)
			}
			ahead[st.id] = at
		}
	}
	return ahead
}

// ended says whether another stream has taken its place.
func (s *stream) ended() bool { return s.until.Load() != math.MaxInt64 }

// forgot notes that the cancellation at an offset is not remembered any more.
func (s *stream) forgot(offset int64) {
	for at := s.dim.Load(); at <= offset && !s.dim.CompareAndSwap(at, offset+1); at = s.dim.Load() {
	}
}

// recalls says from which offset on all cancellations that were read are remembered: this process has read none before
// first.
func (s *stream) recalls() int64 {
	if s.next.Load() < 0 {
		return 0 // it is new, and will be read from its beginning
	}
	return min(max(s.first, s.dim.Load()), s.until.Load())
}

// has says whether an offset is that of a record which is still there, or may be, or is to come.
func (s *stream) has(offset int64) bool { return offset < s.until.Load() }

// end is what a replay has to reach: where the devices here are, or the end of a stream that has one.
func (s *stream) end() int64 { return min(s.next.Load(), s.until.Load()) }

// means says whether the positions of a session are in this stream's topic, and not in one before it that had its name.
func (s *stream) means(p *fleet.Progress) bool {
	return s.next.Load() < 0 || p.Means(s.topic, s.topicID)
}

// advance notes that everything below next was handed out. mu is held.
func (s *stream) advance(next int64) {
	if next > s.next.Load() && !s.halted {
		s.next.Store(next)
	}
}
