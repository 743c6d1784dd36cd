package proxy

import (
	"context"
	"errors"
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
	gone       bool // its records were deleted
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
