package proxy

import (
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	lru "github.com/hashicorp/golang-lru/v2"
)

// openDevices counts the devices at which a command is not settled. Outcomes may come before their number is
// known, so it counts down from far above any number.
type openDevices struct{ n atomic.Int64 }

const manyDevices = 1 << 40

// expect says at how many devices the command is; true if all have settled it already.
func (o *openDevices) expect(devices int) bool {
	return o.n.Add(int64(devices)+manyDevices) == manyDevices
}

// settled counts one outcome; true if it was the last.
func (o *openDevices) settled() bool { return o.n.Add(-1) == manyDevices }

// pending finds the commands that can still be cancelled. Only those with correlation data are entered, and
// none stays longer than it is open at a device, which its expiry and the bounds of the outboxes limit.
type pending struct {
	mu  sync.Mutex
	all map[string]*command // the last of each name, before it those that came earlier
}

// A link holds a command among those of its name. They are linked, because a sender that gives all its commands
// one name must not make the end of each look at all the others. Guarded by pending.mu.
type link struct {
	name          string // "": not entered
	earlier, next *command
}

// cancelKey joins what names a command to its sender: Kafka topic, key and correlation data.
func cancelKey(topic string, key, correlationData []byte) string {
	b := make([]byte, 0, len(topic)+len(key)+len(correlationData)+8)
	b = append(b, topic...)
	b = append(b, 0)
	b = strconv.AppendInt(b, int64(len(key)), 10)
	b = append(b, 0)
	b = append(b, key...)
	return string(append(b, correlationData...))
}

func (p *pending) add(c *command) {
	if c.CorrelationData == nil {
		return
	}
	c.name = cancelKey(c.topic, c.key, c.CorrelationData)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all == nil {
		p.all = make(map[string]*command)
	}
	if c.earlier = p.all[c.name]; c.earlier != nil {
		c.earlier.next = c
	}
	p.all[c.name] = c
}

// remove forgets c, if add entered it.
func (p *pending) remove(c *command) {
	if c.CorrelationData == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.name == "" {
		return
	}
	switch {
	case c.next != nil:
		c.next.earlier = c.earlier
	case c.earlier != nil:
		p.all[c.name] = c.earlier
	default:
		delete(p.all, c.name)
	}
	if c.earlier != nil {
		c.earlier.next = c.next
	}
	c.link = link{}
}

// find gives the open commands of this name.
func (p *pending) find(topic string, key, correlationData []byte) (found []*command) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := p.all[cancelKey(topic, key, correlationData)]; c != nil; c = c.earlier {
		found = append(found, c)
	}
	return found
}

// withdrawn remembers the last cancellations, for commands that still wait in Kafka when theirs is read.
type withdrawn struct {
	mu   sync.Mutex
	last *lru.Cache[string, cancelPlace]
}

// A cancelPlace is where the last cancellation of a name is.
type cancelPlace struct {
	st     *stream
	offset int64
}

// withdrawnKept is how many cancellations are remembered.
const withdrawnKept = 10_000

func newWithdrawn(most int) *withdrawn {
	last, _ := lru.NewWithEvict(most, func(_ string, p cancelPlace) { p.st.forgot(p.offset) }) // fails only for a size of 0
	return &withdrawn{last: last}
}

// add notes a cancellation in the partition that has the commands it names.
func (w *withdrawn) add(name string, st *stream, offset int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last.Add(name, cancelPlace{st, offset})
}

// forget forgets the cancellations that are no more, since their stream has ended before them.
func (w *withdrawn) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range w.last.Keys() {
		if p, _ := w.last.Peek(name); !p.st.has(p.offset) {
			w.last.Remove(name)
		}
	}
}

// has says whether c was cancelled after it was written.
func (w *withdrawn) has(c *command) bool {
	if c.CorrelationData == nil {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	p, ok := w.last.Get(cancelKey(c.topic, c.key, c.CorrelationData))
	return ok && p.offset > c.offset
}

// cancels are the cancellations in a piece of a stream and behind it, as far as they may be unknown to withdrawn.
type cancels struct {
	from, next int64              // the piece
	upTo       int64              // below which it may be unknown
	all        []map[string]int64 // as chunk.cancels
}

// has says whether c, which is in the piece, was cancelled after it was written.
func (s *cancels) has(c *command) bool {
	if c.CorrelationData == nil || len(s.all) == 0 {
		return false
	}
	name := cancelKey(c.topic, c.key, c.CorrelationData)
	return slices.ContainsFunc(s.all, func(m map[string]int64) bool { return m[name] > c.offset })
}
