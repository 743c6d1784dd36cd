package kafka

import (
	"sync"
	"time"
)

// pledgeTime is how long room is kept for a waiter that was woken, while others wait.
const pledgeTime = 50 * time.Millisecond

// A Budget bounds the bytes held in memory for records that Kafka has not acknowledged. All methods may be
// called from any goroutine.
//
// Waiters are served in the order they came: nobody takes bytes past them. A waiter is not given its bytes but
// woken to take them, and until it does, or pledgeTime is over, they are kept for it.
type Budget struct {
	max int64

	mu      sync.Mutex
	used    int64
	pledged int64 // of what is free, for waiters that were woken and have not come yet
	waiters []waiter
	expiry  *time.Timer // set while waiters stand behind a pledge
}

type waiter struct {
	n    int64
	wake func()
}

func newBudget(max int64) *Budget { return &Budget{max: max} }

// TryTake takes n bytes if they are free and nobody waits for them. More bytes than the whole budget has are
// taken when all of it is free, or one large message would wait for ever.
func (b *Budget) TryTake(n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	need, free := b.need(n), b.max-b.used-b.pledged
	switch {
	case len(b.waiters) == 0 && need <= free:
	case b.pledged > 0 && b.pledged >= need:
		b.pledged -= need
	case len(b.waiters) == 0 && need <= free+b.pledged:
		b.pledged -= need - free
	default:
		return false
	}
	b.used += int64(n)
	return true
}

// need is how much must be free for n bytes.
func (b *Budget) need(n int) int64 { return min(int64(n), b.max) }

// Take takes n bytes, free or not: for what can't wait.
func (b *Budget) Take(n int) {
	b.mu.Lock()
	b.used += int64(n)
	b.mu.Unlock()
}

// Give gives n bytes back. It calls wakes of OnRoom.
func (b *Budget) Give(n int) {
	b.mu.Lock()
	b.used -= int64(n)
	if len(b.waiters) == 0 {
		b.mu.Unlock()
		return
	}
	woken := b.admit()
	b.mu.Unlock()
	run(woken)
}

// OnRoom calls wake once, when n bytes are free and those who came earlier were served. wake then calls TryTake,
// which succeeds unless it took longer than 50 ms or someone else forced in between; it must not block, and is
// never called from inside OnRoom.
func (b *Budget) OnRoom(n int, wake func()) {
	b.mu.Lock()
	b.waiters = append(b.waiters, waiter{b.need(n), wake})
	woken := b.admit()
	b.mu.Unlock()
	if len(woken) > 0 {
		go run(woken) // ends with the last wake; the caller may hold a lock that wake takes
	}
}

// admit pledges what is free to the first waiters and returns them. The caller holds mu.
func (b *Budget) admit() []waiter {
	i := 0
	for i < len(b.waiters) && b.waiters[i].n <= b.max-b.used-b.pledged {
		b.pledged += b.waiters[i].n
		i++
	}
	woken := b.waiters[:i:i]
	if b.waiters = b.waiters[i:]; len(b.waiters) == 0 {
		b.waiters = nil
	} else if b.pledged > 0 && b.expiry == nil {
		// Whoever was woken may be gone and never come. Its bytes are not in use, so no Give follows that
		// would serve the next.
		b.expiry = time.AfterFunc(pledgeTime, b.expire)
	}
	return woken
}

// expire takes back what nobody came for.
func (b *Budget) expire() {
	b.mu.Lock()
	b.expiry, b.pledged = nil, 0
	woken := b.admit()
	b.mu.Unlock()
	run(woken)
}

func run(woken []waiter) {
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
	return len(b.waiters)
}
