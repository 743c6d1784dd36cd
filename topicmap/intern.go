package topicmap

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// topicTable holds the Kafka topics one template has made: it bounds their number and hands out one string for each,
// so that a topic seen before costs no allocation. Readers take no lock; a topic is never taken out.
//
// It is a hash table with linear probing that is at most half full. A writer puts a name into the first empty
// slot of its chain, so a reader who finds an empty slot either has seen all names of the chain or reads the slot
// just before the writer filled it; then it asks again under the lock.
type topicTable struct {
	max  int
	seed maphash.Seed

	slots atomic.Pointer[[]atomic.Pointer[string]] // a power of two of them
	full  atomic.Bool                              // set after the last name went in; then a miss needs no lock

	mu   sync.Mutex // guards adding: slots are filled and replaced only under it
	used int        // guarded by mu
}

const firstSlots = 16

func newTopicTable(limit int) *topicTable {
	t := &topicTable{max: limit, seed: maphash.MakeSeed()}
	slots := make([]atomic.Pointer[string], firstSlots)
	t.slots.Store(&slots)
	return t
}

// get finds a name made before. When final is true and it is not there, it never will be: the table is full.
func (t *topicTable) get(name []byte) (topic string, ok, final bool) {
	// full is read before the slots: once it is true they no longer change, so a flood of names that come too
	// late takes no lock.
	final = t.full.Load()
	topic, ok = t.find(*t.slots.Load(), name)
	return topic, ok, final
}

// add makes name known; false means that the table is full.
func (t *topicTable) add(name []byte) (string, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if topic, ok := t.find(*t.slots.Load(), name); ok {
		return topic, true
	}
	if t.used >= t.max {
		return "", false
	}
	topic := string(name)
	t.grow()
	t.put(*t.slots.Load(), &topic)
	t.used++
	t.full.Store(t.used == t.max)
	return topic, true
}

// grow doubles the slots when one more name would fill more than half of them. Called with mu held.
func (t *topicTable) grow() {
	old := *t.slots.Load()
	if 2*(t.used+1) <= len(old) {
		return
	}
	bigger := make([]atomic.Pointer[string], 2*len(old))
	for i := range old {
		if topic := old[i].Load(); topic != nil {
			t.put(bigger, topic)
		}
	}
	t.slots.Store(&bigger)
}

// put fills the first empty slot of the name's chain. Called with mu held.
func (t *topicTable) put(slots []atomic.Pointer[string], topic *string) {
	i := maphash.String(t.seed, *topic) & uint64(len(slots)-1)
	for slots[i].Load() != nil {
		i = (i + 1) & uint64(len(slots)-1)
	}
	slots[i].Store(topic)
}

// find follows the name's chain to the name or to its end.
func (t *topicTable) find(slots []atomic.Pointer[string], name []byte) (string, bool) {
	i := maphash.Bytes(t.seed, name) & uint64(len(slots)-1)
	for {
		topic := slots[i].Load()
		if topic == nil {
			return "", false
		}
		if *topic == string(name) {
			return *topic, true
		}
		i = (i + 1) & uint64(len(slots)-1)
	}
}
