package proxy

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/kafka"
)

// TestWhatManySessionsWantOfAStreamIsReadOnce, and little is read for one command of a large topic.
func TestWhatManySessionsWantOfAStreamIsReadOnce(t *testing.T) {
	t.Parallel()
	s := found(t, 1, toOne)
	const n, size = 64, 4 << 10
	for i := range n { // each in a batch of its own
		s.write(now("commands", "k", fmt.Sprint(i)+strings.Repeat(" ", size)))
	}
	reader, err := kafka.NewReader(kafka.Config{Brokers: s.cluster.Brokers()})
	require.NoError(t, err)
	t.Cleanup(reader.Close)
	c, st := newChunks(reader), newStreams().of("commands", 0)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() { // ends with its read
			ch, err := c.read(t.Context(), st, 10, flightChunk)
			if err != nil || len(ch.records) == 0 || ch.records[0].Offset != 10 {
				t.Errorf("%d records from %d, %v", len(ch.records), ch.from, err)
			}
		})
	}
	all.Wait()
	require.Equal(t, 1, c.kept.Len())
	require.LessOrEqual(t, c.bytes, flightChunk+2*size)
	s.noKafka()
	ch, err := c.read(t.Context(), st, 11, flightChunk)
	require.NoError(t, err, "it came with the one before")
	require.EqualValues(t, 10, ch.from)
}

// TestChunksThatOverlapAreFound, and what was let go of is not.
func TestChunksThatOverlapAreFound(t *testing.T) {
	c, st := newChunks(nil), newStreams().of("t", 0)
	for _, ch := range []chunk{{from: 10, next: 20}, {from: 0, next: 100}, {from: 15, next: 18}} {
		c.keep(st, ch)
	}
	finds := func(at, want int64) {
		t.Helper()
		ch, ok := c.find(st, at)
		require.True(t, ok)
		require.Equal(t, want, ch.from)
	}
	finds(5, 0)
	finds(10, 10)
	finds(16, 15)
	finds(19, 10)
	finds(50, 0)
	_, ok := c.find(st, 100)
	require.False(t, ok)
	c.kept.Remove(chunkKey{st, 0})
	_, ok = c.find(st, 50)
	require.False(t, ok)
	finds(10, 10)
}
