package topicmap

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// nameTable holds names, at most max of them, each with a value: the Kafka topics one template has made, of which it
// hands out one string each, so that a topic seen before costs no allocation; or those that records came from, with
// what the command rules say of them. Readers take no lock; a name is never taken out.
//
// It is a hash table with linear probing that is at most half full. A writer puts a name into the first empty
// slot of its chain, so a reader who finds an empty slot either has seen all names of the chain or reads the slot
// just before the writer filled it; then it asks again under the lock.
type nameTable[V any] struct {
	max  int
	seed maphash.Seed

	slots atomic.Pointer[nameSlots[V]] // a power of two of them
	full  atomic.Bool                  // set after the last name went in; then a miss needs no lock

	mu   sync.Mutex // guards adding: slots are filled and replaced only under it
	used int        // guarded by mu
}

// named is a name with its value; immutable.
type named[V any] struct {
	name  string
	value V
}

type nameSlots[V any] []atomic.Pointer[named[V]]

const firstSlots = 16

func newNameTable[V any](limit int) *nameTable[V] {
	t := &nameTable[V]{max: limit, seed: maphash.MakeSeed()}
	slots := make(nameSlots[V], firstSlots)
	t.slots.Store(&slots)
	return t
}

// get finds a name added before, or nil. When final is true and it is not there, it never will be: the table is full.
func (t *nameTable[V]) get(name []byte) (e *named[V], final bool) {
	// full is read before the slots: once it is true they no longer change, so a flood of names that come too
	// late takes no lock.
	final = t.full.Load()
	return t.find(*t.slots.Load(), name), final
}

// add makes name known with that value, unless it has another already; nil means that the table is full.
func (t *nameTable[V]) add(name []byte, value V) *named[V] {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.find(*t.slots.Load(), name); e != nil {
		return e
	}
	if t.used >= t.max {
		return nil
	}
	e := &named[V]{string(name), value}
	t.grow()
	t.put(*t.slots.Load(), e)
	t.used++
	t.full.Store(t.used == t.max)
	return e
}

// grow doubles the slots when one more name would fill more than half of them. Called with mu held.
func (t *nameTable[V]) grow() {
	old := *t.slots.Load()
	if 2*(t.used+1) <= len(old) {
		return
	}
	bigger := make(nameSlots[V], 2*len(old))
	for i := range old {
		if e := old[i].Load(); e != nil {
			t.put(bigger, e)
		}
	}
	t.slots.Store(&bigger)
}

// put fills the first empty slot of the name's chain. Called with mu held.
func (t *nameTable[V]) put(slots nameSlots[V], e *named[V]) {
	i := maphash.String(t.seed, e.name) & uint64(len(slots)-1)
	for slots[i].Load() != nil {
		i = (i + 1) & uint64(len(slots)-1)
	}
	slots[i].Store(e)
}

// find follows the name's chain to the name or to its end, which is nil.
func (t *nameTable[V]) find(slots nameSlots[V], name []byte) *named[V] {
	i := maphash.Bytes(t.seed, name) & uint64(len(slots)-1)
	for {
		e := slots[i].Load()
		if e == nil || e.name == string(name) {
			return e
		}
		i = (i + 1) & uint64(len(slots)-1)
	}
}

// topicNames are the Kafka topics that one template makes.
type topicNames struct {
	made    *nameTable[struct{}] // those that there are; added to only under mu
	creates bool                 // missing ones are created

	mu    sync.Mutex
	tried map[string]int // if they are created: handed out and not known to be there, each with how often
}

func newTopicNames(rule *Rule) *topicNames {
	return &topicNames{made: newNameTable[struct{}](rule.maxTopics()), creates: rule.Creates, tried: map[string]int{}}
}

// try hands out a name of which it is not known whether there is such a topic. false: it would be one too many. Where
// missing topics are created those that are tried count as made; otherwise trying makes nothing.
func (t *topicNames) try(name []byte) (topic string, tried, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	made, full := t.made.get(name)
	switch {
	case made != nil:
		return made.name, false, true
	case full:
		return "", false, false
	case !t.creates:
		return string(name), true, true
	}
	if _, known := t.tried[string(name)]; !known && t.made.used+len(t.tried) >= t.made.max {
		return "", false, false
	}
	topic = string(name)
	t.tried[topic]++
	return topic, true, true
}

// settle ends what try began.
func (t *topicNames) settle(topic string, exists bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if exists {
		t.made.add([]byte(topic), struct{}{})
	}
	if n := t.tried[topic]; exists || n <= 1 {
		delete(t.tried, topic)
	} else {
		t.tried[topic] = n - 1
	}
}
