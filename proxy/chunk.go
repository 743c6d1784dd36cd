package proxy

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"

	"sluice/kafka"
)

// A chunk is a run of records of a stream: all that are committed from its first offset up to next.
type chunk struct {
	from, next int64
	records    []kafka.Fetched
	bytes      int
	cancels    map[string]int64 // offset of the last cancellation of each name; nil: none
	gone       bool             // its records were deleted
}

// chunks reads records of streams and keeps those read last: devices that return together, but not at once, are
// behind on the same ones.
type chunks struct {
	reader *kafka.Reader

	mu    sync.Mutex
	kept  *lru.Cache[chunkKey, chunk]
	heads map[*stream][]int64 // the first offsets of the chunks that are kept, ascending
	bytes int
}

type chunkKey struct {
	st   *stream
	from int64
}

// chunkLooks is how many chunks that begin before an offset are looked at for it: they can overlap.
const chunkLooks = 4

// chunkMemory bounds the chunks that are kept, in bytes.
const chunkMemory = 16 << 20

func newChunks(reader *kafka.Reader) *chunks {
	c := &chunks{reader: reader, heads: map[*stream][]int64{}}
	c.kept, _ = lru.NewWithEvict(4096, c.evicted) // fails only for a size of 0
	return c
}

// read gives a chunk that has everything from an offset on; it may begin before that, and about most bytes are read for
// it. Its next is from if there is nothing to read. What is no longer in Kafka is passed over: the chunk is empty then and
// ends where something is.
//
// One chunk of a stream is read at a time: what many want at once is so read once.
func (c *chunks) read(ctx context.Context, st *stream, from int64, most int32) (chunk, error) {
	if ch, ok := c.find(st, from); ok {
		return ch, nil
	}
	select {
	case st.reading <- struct{}{}:
		defer func() { <-st.reading }()
	case <-ctx.Done():
		return chunk{from: from}, ctx.Err()
	}
	if ch, ok := c.find(st, from); ok { // read meanwhile
		return ch, nil
	}
	ch := chunk{from: from}
	next, err := c.reader.Read(ctx, st.topic, st.partition, from, most, func(r *kafka.Fetched) bool {
		own := *r
		own.Headers = append([]kafka.Header(nil), r.Headers...)
		ch.records = append(ch.records, own)
		if data, ok := cancellation(&own); ok {
			if ch.cancels == nil {
				ch.cancels = make(map[string]int64)
			}
			name := cancelKey(r.Topic, r.Key, data)
			ch.cancels[name] = r.Offset
			ch.bytes += len(name) + 64
		}
		ch.bytes += len(r.Key) + len(r.Value) + 128
		for _, h := range r.Headers {
			ch.bytes += len(h.Key) + len(h.Value) + 48
		}
		return true
	})
	if errors.Is(err, kafka.ErrOffsetGone) {
		ch.gone = true
		if ch.next, err = c.reader.Start(ctx, st.topic, st.partition); err == nil && ch.next <= from {
			err = kafka.ErrOffsetGone
		}
		return ch, err
	}
	if err != nil {
		return ch, err
	}
	if ch.next = next; next > from {
		c.keep(st, ch)
	}
	return ch, nil
}

// await is read, with cancels, for who has nothing else to do: it tries again until there is something, from an offset on
// that was handed out here. An error: ctx has ended, or there is nothing to wait for. kafka.ErrOffsetGone: the stream does
// not go so far any more; kafka.ErrTopicMissing: its topic is no more.
func (c *chunks) await(ctx context.Context, st *stream, from int64, most int32) (ch chunk, found cancels, err error) {
	for misses := 0; ; {
		if !st.has(from) {
			return ch, found, kafka.ErrOffsetGone
		}
		ch, err = c.read(ctx, st, from, most)
		there := err == nil && ch.next > from
		if there {
			found, err = c.cancels(ctx, st, ch)
		}
		if misses++; !errors.Is(err, kafka.ErrTopicMissing) {
			misses = 0
		}
		switch {
		case there && err == nil:
			return ch, found, nil
		case misses >= topicGone:
			return ch, found, kafka.ErrTopicMissing
		}
		if pause(ctx, replayRetry); ctx.Err() != nil {
			return ch, found, ctx.Err()
		}
	}
}

// cancels gives the cancellations that may name a command of a chunk: those in it, and in about replayChunk bytes behind
// it. What is remembered anyway is not read. An error: try again.
func (c *chunks) cancels(ctx context.Context, st *stream, ch chunk) (cancels, error) {
	found := cancels{from: ch.from, next: ch.next, upTo: max(ch.next, st.recalls())}
	if ch.cancels != nil {
		found.all = append(found.all, ch.cancels)
	}
	for at, left := ch.next, replayChunk; at < found.upTo; {
		if left <= 0 {
			found.upTo = math.MaxInt64 // it need not be known
			break
		}
		behind, err := c.read(ctx, st, at, replayChunk)
		if err == nil && behind.next <= at {
			err = errNotReadable
		}
		if err != nil {
			return found, err
		}
		if behind.cancels != nil {
			found.all = append(found.all, behind.cancels)
		}
		left -= behind.sizeFrom(at)
		at = behind.next
		found.upTo = max(found.upTo, at) // it was looked through that far
	}
	return found, nil
}

// errNotReadable: there are records that Kafka does not give just now.
var errNotReadable = errors.New("Kafka does not give records that were read before")

// sizeFrom is how many bytes the records from an offset on have.
func (c *chunk) sizeFrom(offset int64) (n int) {
	for i := range c.records {
		if r := &c.records[i]; r.Offset >= offset {
			n += len(r.Key) + len(r.Value)
			for _, h := range r.Headers {
				n += len(h.Key) + len(h.Value)
			}
		}
	}
	return n
}

// topicGone is how many times in a row a topic has to be missing until its commands are gone with it. The Reader has asked
// two Kafka nodes each time.
const topicGone = 4

// record gives the record at an offset; nil: there is none.
func (c *chunk) record(offset int64) *kafka.Fetched {
	i, there := slices.BinarySearchFunc(c.records, offset, func(r kafka.Fetched, offset int64) int { return cmp.Compare(r.Offset, offset) })
	if !there {
		return nil
	}
	return &c.records[i]
}

// find gives the chunk that has an offset.
func (c *chunks) find(st *stream, at int64) (chunk, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	heads := c.heads[st]
	i, there := slices.BinarySearch(heads, at)
	if there {
		i++
	}
	for _, from := range slices.Backward(heads[max(0, i-chunkLooks):i]) {
		if ch, ok := c.kept.Get(chunkKey{st, from}); ok && at < ch.next {
			return ch, true
		}
	}
	return chunk{}, false
}

func (c *chunks) keep(st *stream, ch chunk) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := chunkKey{st, ch.from}
	if old, ok := c.kept.Peek(key); ok {
		c.bytes -= old.bytes
	} else {
		i, _ := slices.BinarySearch(c.heads[st], ch.from)
		c.heads[st] = slices.Insert(c.heads[st], i, ch.from)
	}
	c.bytes += ch.bytes
	c.kept.Add(key, ch)
	for c.bytes > chunkMemory && c.kept.Len() > 1 {
		c.kept.RemoveOldest()
	}
}

// evicted takes a chunk out of the books. It is called with mu held.
func (c *chunks) evicted(key chunkKey, ch chunk) {
	c.bytes -= ch.bytes
	heads := c.heads[key.st]
	if i, there := slices.BinarySearch(heads, key.from); there {
		c.heads[key.st] = slices.Delete(heads, i, i+1)
	}
	if len(c.heads[key.st]) == 0 {
		delete(c.heads, key.st)
	}
}
