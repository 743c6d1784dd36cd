package kafka

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"
)

// draw makes a record of any shape.
func draw(t *rapid.T) *Record {
	bytes := func(name string, most int) []byte {
		return rapid.OneOf(rapid.Just([]byte(nil)), rapid.SliceOfN(rapid.Byte(), 0, most)).Draw(t, name)
	}
	r := &Record{Topic: "t", Key: bytes("key", 200), Value: bytes("value", 3000), Timestamp: time.UnixMilli(1)}
	for range rapid.IntRange(0, 70).Draw(t, "headers") {
		r.Headers = append(r.Headers, Header{rapid.SliceOfN(rapid.Byte(), 0, 70).Draw(t, "header"), bytes("header value", 70)})
	}
	return r
}

// encoded is the size of the batch with only r, as another client writes it.
func encoded(r *Record) int {
	k := kmsg.Record{Key: r.Key, Value: r.Value}
	for _, h := range r.Headers {
		k.Headers = append(k.Headers, kmsg.Header{Key: string(h.Key), Value: h.Value})
	}
	k.Length = int32(len(k.AppendTo(nil)) - 1) // without the length itself, which is one byte while it is 0
	b := kmsg.RecordBatch{Magic: 2, NumRecords: 1, Records: k.AppendTo(nil)}
	return len(b.AppendTo(nil))
}

func TestSizeOfABatchIsKnownBeforeItIsMade(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := draw(t)
		require.Equal(t, encoded(r), r.aloneSize())
		r.prepare(0)
		require.GreaterOrEqual(t, r.size+batchOverhead, r.aloneSize(), "the estimate is an upper bound")
	})
}

func TestRecordGivesSaramaWhatItWasGiven(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var used Record
		for range 2 { // used again for another message
			r := draw(t)
			r.headers, r.wire = used.headers, used.wire
			r.prepare(0)
			w := r.encode(7, -4)
			require.Equal(t, r.Key, w.Key)
			require.Equal(t, r.Key == nil, w.Key == nil)
			require.Equal(t, r.Value, w.Value)
			require.Equal(t, r.Value == nil, w.Value == nil)
			require.EqualValues(t, 7, w.OffsetDelta)
			require.Equal(t, 5*time.Millisecond, w.TimestampDelta)
			require.Len(t, w.Headers, len(r.Headers))
			for i, h := range r.Headers {
				require.Equal(t, h.Key, w.Headers[i].Key)
				require.Equal(t, h.Value, w.Headers[i].Value)
			}
			used.headers, used.wire = r.headers, r.wire
		}
	})
}

func TestPooledRecordKeepsNobodysMemory(t *testing.T) {
	r := &Record{Topic: "t", Key: []byte("k"), Value: []byte("v"), Headers: benchHeaders}
	r.prepare(0)
	r.encode(0, 0)
	r.forget()
	require.Zero(t, r.wire.Key)
	require.Zero(t, r.wire.Value)
	require.Empty(t, r.wire.Headers)
	for _, h := range r.headers {
		require.Nil(t, h)
	}
}
