package kafka

import (
	"sync"
	"time"
)

const (
	// shareOfFree bounds what one destination may hold: this many times what is free besides. A destination that is
	// stuck alone gets two thirds of the budget, two get two fifths each, and something is always left for others.
	shareOfFree = 2
	// stuckAfter is how long a destination gives nothing back before it is taken for stuck: nobody counts on what it holds,
	// and it gets no more where all that are stuck would have more than the budget divided by stuckShare.
	stuckAfter = time.Second
	stuckShare = 2
	// stuckKnown is how old the sum of what they hold may be for who comes anew.
	stuckKnown = 100 * time.Millisecond
)

// A Destination is where records go that are stuck together, if they are: a partition. The zero Destination is nowhere
// in particular.
type Destination struct {
	Topic     string
	Partition int32 // AnyPartition: it is not known, or does not matter
}

// AnyPartition is the Partition of a Destination that stands for a whole topic.
const AnyPartition = -1

// A Budget bounds the bytes held in memory for records that Kafka has not acknowledged. All methods may be
// called from any goroutine.
//
// What is taken is taken for a Destination, and one of them can't have it all: as long as it holds something it gets
// more only up to twice what is free, and those that give nothing back for a second get nothing more once they have half
// of the budget together. So destinations that make no progress leave room for the others, without a part of the budget
// that is set aside for anybody.
//
// Who waits is served in the order of waiting for its destination, and the destinations are served in turn. Nobody takes
// bytes past who waits for the same destination, nor past a large waiter for whom they are kept. They are kept for it
// only while what it lacks can be expected back soon.
type Budget struct {
	max   int64
	start time.Time
	sizes sync.Map // topic name -> number of its partitions, for Destination

	mu       sync.Mutex
	used     int64
	accounts map[Destination]*account
	spare    *account // that are not in use, linked by next
	first    *account // of those that are waited for, the one whose turn it is; a ring
	waiters  int
	stuck    int64         // what those that are stuck held
	summed   time.Duration // when that was
	kept     bool          // what is free is for the first waiter of first
	look     *time.Timer   // set while kept
}

// An account is what one Destination holds. It is there only while it holds something or is waited for.
type account struct {
	of         Destination
	held       int64
	moved      time.Duration // when it gave something back last, or began
	head, tail *Waiter
	prev, next *account // in the ring of those that are waited for
}

// A Waiter waits for room.
type Waiter struct {
	b          *Budget
	of         Destination
	to         *account // nil: it is done
	n          int
	wake       func()
	granted    bool
	prev, next *Waiter
}

func newBudget(max int64) *Budget {
	return &Budget{max: max, start: time.Now(), accounts: map[Destination]*account{}}
}

// Destination gives where a record with this key, nil for none, is stuck if it is: the partition of a topic that is in
// use by a Producer or Transactor of this Budget, or the topic.
func (b *Budget) Destination(topic string, key []byte) Destination {
	if key != nil {
		if n, ok := b.sizes.Load(topic); ok {
			return Destination{topic, PartitionOf(key, n.(int32))}
		}
	}
	return Destination{topic, AnyPartition}
}

// TryTake takes n bytes for to if there is room and nobody waits for it. More bytes than the whole budget has are
// taken when all of it is free, or one large message would wait for ever.
func (b *Budget) TryTake(to Destination, n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.kept {
		return false
	}
	s := b.accounts[to]
	if s == nil {
		if b.need(n) > b.max-b.used {
			return false
		}
		s = b.add(to)
	} else if s.head != nil || !b.fits(s, n, stuckKnown) {
		return false
	}
	b.take(s, n)
	b.dropIdle(s) // of nothing, nothing is kept
	return true
}

func (b *Budget) take(s *account, n int) {
	if s.held == 0 {
		s.moved = b.now()
	}
	s.held += int64(n)
	b.used += int64(n)
}

// need is how much must be free for n bytes.
func (b *Budget) need(n int) int64 { return min(int64(n), b.max) }

// fits says whether s may have n bytes more. The caller holds mu.
func (b *Budget) fits(s *account, n int, age time.Duration) bool {
	need, free := b.need(n), b.max-b.used
	switch {
	case need > free:
		return false
	case s.held == 0:
		return true
	case s.held+need > shareOfFree*(free-need):
		return false
	case b.used+need <= b.max/stuckShare:
		return true
	}
	now := b.now()
	return now <= s.moved+stuckAfter || b.stuckBytes(now, age)+need <= b.max/stuckShare
}

// stuckBytes is what those hold that are stuck, as it was no longer than age ago. The caller holds mu.
func (b *Budget) stuckBytes(now, age time.Duration) int64 {
	if now < b.summed+age {
		return b.stuck
	}
	b.stuck, b.summed = 0, now
	for _, s := range b.accounts {
		if now > s.moved+stuckAfter {
			b.stuck += s.held
		}
	}
	return b.stuck
}

// add makes the account of a Destination that has none. The caller holds mu.
func (b *Budget) add(to Destination) *account {
	s := b.spare
	if s == nil {
		s = new(account)
	} else {
		b.spare = s.next
	}
	s.of, s.next = to, nil
	b.accounts[to] = s
	return s
}

// dropIdle forgets an account that nobody needs. The caller holds mu.
func (b *Budget) dropIdle(s *account) {
	if s.held == 0 && s.head == nil {
		delete(b.accounts, s.of)
		*s = account{next: b.spare}
		b.spare = s
	}
}

func (b *Budget) now() time.Duration { return time.Since(b.start) }

// account gives the account of a Destination. The caller holds mu.
func (b *Budget) account(to Destination) *account {
	s := b.accounts[to]
	if s == nil {
		s = b.add(to)
	}
	return s
}

// Take takes n bytes for to, free or not: for what can't wait.
func (b *Budget) Take(to Destination, n int) {
	b.mu.Lock()
	s := b.account(to)
	b.take(s, n)
	b.dropIdle(s)
	b.mu.Unlock()
}

// Give gives back n bytes that were taken for to. It calls wakes of waiters.
func (b *Budget) Give(to Destination, n int) {
	if n == 0 {
		return
	}
	b.mu.Lock()
	b.give(b.account(to), n)
	woken := b.serve()
	b.mu.Unlock()
	run(woken)
}

func (b *Budget) give(s *account, n int) {
	s.held -= int64(n)
	s.moved = b.now()
	b.used -= int64(n)
	b.dropIdle(s)
}

// Wait waits for n bytes for to. wake is called once, when they are taken for the Waiter, unless it leaves before; it
// must not block, and is never called from inside Wait. Whoever waits calls Take when it is woken, or Leave.
func (b *Budget) Wait(to Destination, n int, wake func()) *Waiter {
	b.mu.Lock()
	s := b.account(to)
	w := &Waiter{b: b, of: to, to: s, n: n, wake: wake, prev: s.tail}
	if s.tail == nil {
		s.head = w
		b.enter(s)
	} else {
		s.tail.next = w
	}
	s.tail = w
	b.waiters++
	woken := b.serve()
	b.mu.Unlock()
	if len(woken) > 0 {
		go run(woken) // ends with the last wake; the caller may hold a lock that wake takes
	}
	return w
}

// For is the Destination that the Waiter waits for, and that what it took is given back for.
func (w *Waiter) For() Destination { return w.of }

// Take says whether the bytes were taken for the Waiter. They belong to the caller then, who gives them back to the
// Budget, and the Waiter is done.
func (w *Waiter) Take() bool {
	w.b.mu.Lock()
	defer w.b.mu.Unlock()
	granted := w.granted
	if granted {
		w.granted, w.to = false, nil
	}
	return granted
}

// Leave ends the wait. Bytes that were taken for the Waiter meanwhile are given back.
func (w *Waiter) Leave() {
	b := w.b
	b.mu.Lock()
	switch s := w.to; {
	case w.granted:
		b.give(s, w.n)
	case s != nil:
		b.remove(w)
		b.dropIdle(s)
	}
	w.granted, w.to = false, nil
	woken := b.serve()
	b.mu.Unlock()
	run(woken)
}

// remove takes w out of its queue. The caller holds mu.
func (b *Budget) remove(w *Waiter) {
	s := w.to
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		s.head = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		s.tail = w.prev
	}
	w.prev, w.next = nil, nil
	b.waiters--
	if s.head == nil {
		b.leave(s)
	}
}

// enter puts s at the end of the ring. The caller holds mu.
func (b *Budget) enter(s *account) {
	if b.first == nil {
		b.first, s.prev, s.next = s, s, s
		return
	}
	s.prev, s.next = b.first.prev, b.first
	s.prev.next, s.next.prev = s, s
}

// leave takes s out of the ring. The caller holds mu.
func (b *Budget) leave(s *account) {
	if s.next == s {
		b.first = nil
	} else {
		s.prev.next, s.next.prev = s.next, s.prev
		if b.first == s {
			b.first = s.next
		}
	}
	s.prev, s.next = nil, nil
}

// serve takes what is free for those who wait, and gives whom to wake. The caller holds mu.
func (b *Budget) serve() (woken []*Waiter) {
	b.kept = false
	for s, last := b.first, (*account)(nil); s != nil && s != last; s = b.first {
		w := s.head
		if b.fits(s, w.n, 0) {
			b.remove(w)
			w.granted = true
			b.take(s, w.n)
			woken, last = append(woken, w), nil
		} else if b.need(w.n) > b.max-b.used && b.need(w.n) <= b.max-b.stuckBytes(b.now(), 0) {
			b.kept = true
			break
		} else if last == nil {
			last = s // once round without room for anybody, and it is enough
		}
		if b.first == s {
			b.first = s.next
		}
	}
	if b.kept && b.look == nil {
		// What it waits for may turn out to be stuck. No Give would say so.
		b.look = time.AfterFunc(stuckAfter, func() {
			b.mu.Lock()
			b.look = nil
			woken := b.serve()
			b.mu.Unlock()
			run(woken)
		})
	}
	return woken
}

func run(woken []*Waiter) {
	for _, w := range woken {
		w.wake()
	}
}

// InUse gives how many bytes are taken.
func (b *Budget) InUse() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// Max gives how many bytes the budget has.
func (b *Budget) Max() int64 { return b.max }

// waiting gives how many wait for room.
func (b *Budget) waiting() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.waiters
}
