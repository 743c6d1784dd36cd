package topicmap

import (
	"hash/maphash"
	"slices"
	"sync/atomic"
)

// The memo's bounds: how many topics it remembers, how long a topic may be, and how many regexes may match it, to be
// remembered. Together they bound its memory against devices that make up topics: full of topics of the greatest length
// with one match each it holds 13 MB.
const (
	memoSlots    = 1 << 15
	maxMemoTopic = 256
	maxMemoHits  = 8
)

// memoWays is how many slots a topic may lie in. With one, a quarter of 10 000 topics share theirs and push each
// other out for ever; each more is one more read for a topic that is not there.
const memoWays = 4

// memoAdmission: where all slots are taken, one in so many topics gets one. A topic in use gets in soon, while a
// flood of topics that never come again costs little more than asking the regexes.
const memoAdmission = 8

// hit is a regex rule that matches a topic, with what it captured. Whether its conditions hold, the message says.
type hit struct {
	rule   *compiledRule
	groups []int
}

// regexMemo remembers which regex rules match a topic: an answer that is costly, always the same, and asked again
// with each message. There is no lock: a slot is an immutable entry behind an atomic pointer, and what one writer
// takes from another is only found again. docs/decisions/0001-route-cache.md says why this and not an LRU.
type regexMemo struct {
	seed  maphash.Seed
	slots []atomic.Pointer[memoEntry] // a power of two of them
	luck  atomic.Uint64               // steps by the golden ratio: its upper bits fall evenly, whatever comes in turn
}

// memoEntry is immutable.
type memoEntry struct {
	topic string
	hits  []hit
}

func newRegexMemo(slots int) *regexMemo {
	return &regexMemo{seed: maphash.MakeSeed(), slots: make([]atomic.Pointer[memoEntry], slots)}
}

// hits are the regex rules that match the topic, in order, up to the first without conditions. They may lie in
// scratch or be shared: nobody changes them.
func (m *regexMemo) hits(scratch []hit, rules []*compiledRule, mqttTopic []byte) []hit {
	if len(mqttTopic) > maxMemoTopic {
		return appendHits(scratch, rules, mqttTopic)
	}
	home := maphash.Bytes(m.seed, mqttTopic)
	known, free := m.find(home, mqttTopic)
	if known != nil {
		return known.hits
	}
	hits := appendHits(scratch, rules, mqttTopic)
	if free == nil {
		free = m.admit(home)
	}
	if free != nil && len(hits) <= maxMemoHits {
		free.Store(&memoEntry{string(mqttTopic), slices.Clone(hits)})
	}
	return hits
}

// find looks for the topic in its slots, or for a free one. None is ever emptied, so behind a free one is nothing.
func (m *regexMemo) find(home uint64, mqttTopic []byte) (known *memoEntry, free *atomic.Pointer[memoEntry]) {
	for way := range uint64(memoWays) {
		slot := m.slot(home + way)
		e := slot.Load()
		if e == nil {
			return nil, slot
		}
		if e.topic == string(mqttTopic) {
			return e, nil
		}
	}
	return nil, nil
}

// admit gives one in memoAdmission topics a slot of another, and the rest none.
func (m *regexMemo) admit(home uint64) *atomic.Pointer[memoEntry] {
	luck := m.luck.Add(0x9E3779B97F4A7C15) >> 32
	if luck >= 1<<32/memoAdmission {
		return nil
	}
	return m.slot(home + luck%memoWays)
}

func (m *regexMemo) slot(i uint64) *atomic.Pointer[memoEntry] {
	return &m.slots[i&uint64(len(m.slots)-1)]
}

// appendHits asks the regexes.
func appendHits(hits []hit, rules []*compiledRule, mqttTopic []byte) []hit {
	for _, rule := range rules {
		groups := rule.regex.find(mqttTopic)
		if groups == nil {
			continue
		}
		hits = append(hits, hit{rule, groups})
		if rule.when == nil {
			break
		}
	}
	return hits
}
