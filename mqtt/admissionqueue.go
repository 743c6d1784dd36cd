package mqtt

import (
	"net/netip"
	"time"
)

// An admissionQueue says whose turn it is among those that want in: at most rate a second, at most most of them
// unfinished, and in turn by source, the oldest of each first, so that a source with ten thousand that wait holds up
// another with one by one place and no more. It has no clock and no lock of its own, and memory for those that wait or
// are unfinished only.
type admissionQueue[T any] struct {
	rate    float64 // a second
	burst   float64
	most    int // unfinished, in all
	share   int // unfinished, of one source
	tokens  float64
	filled  time.Time // up to when tokens were added
	sources map[netip.Addr]*source[T]
	turns   []*source[T] // that have somebody waiting and are below their share
	waiting int
	busy    int // unfinished
}

// A source is where connections come from: one address, or one network.
type source[T any] struct {
	from    netip.Addr
	waiting []candidate[T] // the oldest first
	busy    int            // unfinished
	inTurn  bool           // it stands in turns
}

type candidate[T any] struct {
	who   T
	since time.Time
}

// leastUnfinished is how many may be unfinished however low the rate.
const leastUnfinished = 256

// newAdmissionQueue makes a queue that lets rate a second in, a tenth of that at once. Two seconds' worth may be
// unfinished, half of that from one source: whoever sits silent in all the places it can get leaves the other half.
func newAdmissionQueue[T any](rate int, now time.Time) *admissionQueue[T] {
	q := &admissionQueue[T]{rate: float64(rate), most: max(leastUnfinished, 2*rate), sources: make(map[netip.Addr]*source[T]), filled: now}
	q.burst = max(1, q.rate/10)
	q.share, q.tokens = q.most/2, q.burst
	return q
}

// join enters who, from a source. It gets in by next.
func (q *admissionQueue[T]) join(from netip.Addr, who T, now time.Time) {
	s := q.sources[from]
	if s == nil {
		s = &source[T]{from: from}
		q.sources[from] = s
	}
	s.waiting = append(s.waiting, candidate[T]{who, now})
	q.waiting++
	q.line(s)
}

// line puts s at the end of the turns, if it has somebody to let in and may.
func (q *admissionQueue[T]) line(s *source[T]) {
	if !s.inTurn && len(s.waiting) > 0 && s.busy < q.share {
		s.inTurn = true
		q.turns = append(q.turns, s)
	}
}

// next lets one in, who is unfinished then until finish; false: nobody can be let in now.
func (q *admissionQueue[T]) next(now time.Time) (who T, s *source[T], ok bool) {
	q.fill(now)
	if len(q.turns) == 0 || q.tokens < 1 || q.busy >= q.most {
		return who, nil, false
	}
	s = q.turns[0]
	q.turns[0] = nil
	q.turns = q.turns[1:]
	s.inTurn = false
	who = q.pop(s)
	q.tokens--
	q.busy++
	s.busy++
	q.line(s)
	return who, s, true
}

// fill adds the tokens of the time that has passed.
func (q *admissionQueue[T]) fill(now time.Time) {
	if passed := now.Sub(q.filled); passed > 0 {
		q.tokens = min(q.burst, q.tokens+q.rate*passed.Seconds())
		q.filled = now
	}
}

// pop takes the oldest of s, which has one.
func (q *admissionQueue[T]) pop(s *source[T]) T {
	c := s.waiting[0]
	s.waiting[0] = candidate[T]{}
	s.waiting = s.waiting[1:]
	q.waiting--
	return c.who
}

// finish ends what next began.
func (q *admissionQueue[T]) finish(s *source[T]) {
	s.busy--
	q.busy--
	q.line(s)
	q.forget(s)
}

// spare takes next back for one that had left already: it used nothing of what is to be shared.
func (q *admissionQueue[T]) spare(s *source[T]) {
	q.tokens = min(q.burst, q.tokens+1)
	q.finish(s)
}

// evictionSamples is how many sources are looked at for one to evict from: enough to find a large one, and no work that
// grows with their number.
const evictionSamples = 16

// evict takes out the newest of a source that has clearly more waiting than the newcomer's; false: there is none.
func (q *admissionQueue[T]) evict(newcomer netip.Addr) (who T, ok bool) {
	least := 1
	if s := q.sources[newcomer]; s != nil {
		least += len(s.waiting)
	}
	var largest *source[T]
	looked := 0
	for _, s := range q.sources {
		if s.from != newcomer && len(s.waiting) > least && (largest == nil || len(s.waiting) > len(largest.waiting)) {
			largest = s
		}
		if looked++; looked == evictionSamples {
			break
		}
	}
	if largest == nil {
		return who, false
	}
	last := len(largest.waiting) - 1
	who = largest.waiting[last].who
	largest.waiting[last] = candidate[T]{}
	largest.waiting = largest.waiting[:last]
	q.waiting--
	return who, true
}

// overdue takes out all who joined before then.
func (q *admissionQueue[T]) overdue(then time.Time) (gone []T) {
	for _, s := range q.sources {
		for len(s.waiting) > 0 && s.waiting[0].since.Before(then) {
			gone = append(gone, q.pop(s))
		}
	}
	q.tidy()
	return gone
}

// tidy takes the sources out of the turns that have nobody waiting, and forgets those that have nobody at all.
func (q *admissionQueue[T]) tidy() {
	kept := q.turns[:0]
	for _, s := range q.turns {
		if s.inTurn = len(s.waiting) > 0; s.inTurn {
			kept = append(kept, s)
		}
	}
	clear(q.turns[len(kept):])
	q.turns = kept
	for _, s := range q.sources {
		q.forget(s)
	}
}

func (q *admissionQueue[T]) forget(s *source[T]) {
	if len(s.waiting) == 0 && s.busy == 0 {
		delete(q.sources, s.from)
	}
}
