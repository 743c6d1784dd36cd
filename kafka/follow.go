package kafka

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
)

const (
	// atEnd is the place of a follower whose start is to be the end of the log, which is still to be asked for.
	atEnd = -1
	// maxQueued is how many fetched blocks of a partition may wait while one is handled; then no more is fetched.
	// More than one, since the next fetch is on its way before the goroutine that handles has been given the CPU.
	maxQueued = 4
)

// A follower is one partition that is followed. Guarded by Consumer.mu, save what says otherwise.
type follower struct {
	topic   string
	topicID string
	id      int32

	fetcher *fetcher // of its leader; nil: none known
	epoch   int32    // of the leader
	next    int64    // offset to fetch next, or atEnd
	lost    bool     // next is not in the log: where to go on is to be asked for
	end     int64    // of the log, as last heard
	target  int64    // what has to be handled for Consumer.Positioned
	told    int64    // below this everything was handled, and Progress knows; below 0: it was not told where it begins
	limit   int32    // bytes to ask for
	settled bool     // listed since the last trouble
	doubt   int      // the listing that was the last to begin before the trouble
	fails   int      // answers in a row that refused it
	after   time.Time
	suspect bool // an answer with it could not be read, so it is fetched alone

	queue   []span // fetched and not handled, at most maxQueued
	running bool   // a goroutine handles the queue
	waits   bool   // one of the topic's predecessor still does
	heir    *follower

	dropped atomic.Bool  // the topic was made anew
	handled atomic.Int64 // the offset after the last record that was handled
	record  Fetched      // of the goroutine that handles
}

// A span is a block of records in one answer. From it, records at from and later are handled, and then all before next
// are.
type span struct {
	block      *sarama.FetchResponseBlock // nil: there was nothing to read
	from, next int64
	begins     bool // at next: Begin is to be told
}

func newFollower(topic, topicID string, id int32, start int64) *follower {
	p := &follower{topic: topic, topicID: topicID, id: id, next: start, limit: fetchPart, told: min(start, 0)}
	p.record.Topic, p.record.Partition = topic, id
	if start != atEnd {
		p.queue = []span{{next: start, begins: true}}
	}
	return p
}

// moveTo makes f the fetcher of p; nil: none. The caller holds mu.
func (p *follower) moveTo(f *fetcher) {
	if p.fetcher == f {
		return
	}
	if p.fetcher != nil {
		delete(p.fetcher.parts, p)
	}
	if f != nil {
		f.parts[p] = struct{}{}
	}
	p.fetcher = f
}

// drop gives up a partition of a topic that is no more. The caller holds mu.
func (c *Consumer) drop(p *follower) {
	p.dropped.Store(true)
	p.queue = nil
	p.moveTo(nil)
}

// bequeath names the follower of the same partition of the topic's successor. It has to wait for the call of Handle
// that may still be under way: calls for one partition are not made at once. The caller holds Consumer.mu.
func (p *follower) bequeath(heir *follower) {
	p.heir = heir
	heir.waits = p.running || p.waits
}

// push adds a span to what is to be handled. The caller holds mu and is a goroutine that c.work waits for.
func (c *Consumer) push(ctx context.Context, p *follower, r span) {
	p.queue = append(p.queue, r)
	p.next = r.next
	c.start(ctx, p)
}

// start has the queue of p handled. A goroutine for each time there is something to do costs less than one that
// waits for each partition. The caller holds mu.
func (c *Consumer) start(ctx context.Context, p *follower) {
	if p.running || p.waits || p.dropped.Load() || len(p.queue) == 0 {
		return
	}
	p.running = true
	c.work.Go(func() { c.drain(ctx, p) }) // ends when the queue is empty or ctx ends
}

// drain handles the queue until it is empty.
func (c *Consumer) drain(ctx context.Context, p *follower) {
	for calls := 0; ; {
		r, ok := c.take(ctx, p, calls == 0)
		if ok {
			calls = c.handle(ctx, p, r, calls)
			continue
		}
		if calls == 0 {
			return
		}
		c.cfg.Burst()
		calls = 0
	}
}

// take gives the next span. If there is none and the goroutine would end then, it has ended.
func (c *Consumer) take(ctx context.Context, p *follower, end bool) (span, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(p.queue) > 0 && ctx.Err() == nil {
		r := p.queue[0]
		if p.queue = p.queue[1:]; len(p.queue) == 0 {
			p.queue = nil // or the backing array keeps what was fetched
		}
		if len(p.queue) == maxQueued/2 && p.fetcher != nil {
			p.fetcher.wake.wake() // it may have nothing else to fetch, and wait for this one to have room
		}
		return r, true
	}
	if end {
		p.running = false
		for heir := p.heir; heir != nil; heir = heir.heir {
			heir.waits = false
			c.start(ctx, heir)
			if heir.running {
				break
			}
		}
	}
	return span{}, false
}

// burst is how many records are handled before Burst is called.
const burst = 256

// handle calls Handle for the records of r, and Burst when there were many. It takes and gives how many calls of
// Handle there were since the last of Burst.
func (c *Consumer) handle(ctx context.Context, p *follower, r span, calls int) int {
	if r.block != nil {
		for batch, rec := range committed(r.block, r.from) {
			if p.dropped.Load() || ctx.Err() != nil {
				return calls
			}
			size := p.record.fill(batch, rec)
			c.cfg.Handle(&p.record)
			p.handled.Store(p.record.Offset + 1)
			c.m.handled.Inc()
			c.m.bytes.Add(float64(size))
			if calls++; calls == burst {
				c.cfg.Burst()
				calls = 0
			}
		}
		p.record.clear()
	}
	if r.begins {
		c.cfg.Begin(p.topic, p.topicID, p.id, r.next)
	}
	c.cfg.Progress(p.topic, p.id, r.next)
	p.handled.Store(r.next)
	c.tell(p, r.next)
	return calls
}

// tell notes that Progress knows of what is below next.
func (c *Consumer) tell(p *follower, next int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.told = next
	c.checkPositioned()
}

// fill makes r the record rec of batch, and gives how many bytes its key, value and headers have.
func (r *Fetched) fill(batch *sarama.RecordBatch, rec *sarama.Record) (size int) {
	r.Offset = batch.FirstOffset + rec.OffsetDelta
	r.Key, r.Value = rec.Key, rec.Value
	if r.Timestamp, r.Appended = batch.FirstTimestamp.Add(rec.TimestampDelta), batch.LogAppendTime; r.Appended {
		r.Timestamp = batch.MaxTimestamp
	}
	r.Headers = r.Headers[:0]
	size = len(r.Key) + len(r.Value)
	for _, h := range rec.Headers {
		r.Headers = append(r.Headers, Header{h.Key, h.Value})
		size += len(h.Key) + len(h.Value)
	}
	return size
}

// clear lets go of the memory of the fetch.
func (r *Fetched) clear() {
	r.Key, r.Value = nil, nil
	clear(r.Headers)
}
