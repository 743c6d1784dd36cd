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
		r := draw(t)
		r.prepare(0)
		require.Equal(t, r.Key == nil, r.msg.Key == nil)
		require.Equal(t, r.Value == nil, r.msg.Value == nil)
		require.Len(t, r.msg.Headers, len(r.Headers))
		again := draw(t) // used again for another message
		again.msg, r.msg = r.msg, nil
		again.prepare(0)
		require.Equal(t, again.Key == nil, again.msg.Key == nil)
		require.Len(t, again.msg.Headers, len(again.Headers))
		for i, h := range again.Headers {
			require.Equal(t, h.Key, again.msg.Headers[i].Key)
			require.Equal(t, h.Value, again.msg.Headers[i].Value)
		}
	})
}

func TestPooledRecordKeepsNobodysMemory(t *testing.T) {
	r := &Record{Topic: "t", Key: []byte("k"), Value: []byte("v"), Headers: benchHeaders}
	r.prepare(0)
	r.forget()
	require.Nil(t, r.key)
	require.Nil(t, r.value)
	for _, h := range r.msg.Headers {
		require.Nil(t, h.Key)
	}
}

func TestListIsAQueue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l list
		var model []*Record
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				r := new(Record)
				l.push(r)
				model = append(model, r)
			case 1:
				if r := l.pop(); len(model) == 0 {
					require.Nil(t, r)
				} else {
					require.Same(t, model[0], r)
					model = model[1:]
				}
			case 2:
				if len(model) > 0 {
					i := rapid.IntRange(0, len(model)-1).Draw(t, "i")
					l.remove(model[i])
					model = append(model[:i:i], model[i+1:]...)
				}
			case 3:
				var front list
				var first []*Record
				for range rapid.IntRange(0, 3).Draw(t, "front") {
					r := new(Record)
					front.push(r)
					first = append(first, r)
				}
				l.prepend(&front)
				require.Zero(t, front)
				model = append(first, model...)
			}
			require.Equal(t, len(model), l.n)
			i := 0
			for r := l.head; r != nil; r = r.next {
				require.Same(t, model[i], r)
				i++
			}
			require.Equal(t, len(model), i)
		}
	})
}
