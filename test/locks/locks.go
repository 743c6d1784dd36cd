// Package locks has locks that let others come first, at random. run.sh builds a copy of the program with them in the place of
// sync's, so that goroutines meet in orders that a quiet machine shows once in months.
package locks

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"time"
)

// A Mutex is a sync.Mutex.
type Mutex struct{ sync.Mutex }

// Lock is that of sync.Mutex, after a while.
func (m *Mutex) Lock() {
	yield()
	m.Mutex.Lock()
}

// Unlock is that of sync.Mutex, and a while after it.
func (m *Mutex) Unlock() {
	m.Mutex.Unlock()
	yield()
}

// An RWMutex is a sync.RWMutex.
type RWMutex struct{ sync.RWMutex }

// Lock is that of sync.RWMutex, after a while.
func (m *RWMutex) Lock() {
	yield()
	m.RWMutex.Lock()
}

// Unlock is that of sync.RWMutex, and a while after it.
func (m *RWMutex) Unlock() {
	m.RWMutex.Unlock()
	yield()
}

// RLock is that of sync.RWMutex, after a while.
func (m *RWMutex) RLock() {
	yield()
	m.RWMutex.RLock()
}

// RUnlock is that of sync.RWMutex, and a while after it.
func (m *RWMutex) RUnlock() {
	m.RWMutex.RUnlock()
	yield()
}

// yield takes no time as a rule, and 20 ms at most.
func yield() {
	switch n := rand.IntN(2000); {
	case n == 0:
		time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
	case n < 20:
		time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
	case n < 200:
		runtime.Gosched()
	}
}
