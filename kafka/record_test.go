package kafka

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
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

// TestBatchIsReadAsItWasGiven by another client, with every codec, also by a batch that is used again.
func TestBatchIsReadAsItWasGiven(t *testing.T) {
	codecs := map[sarama.CompressionCodec]kgo.CompressionCodecType{
		sarama.CompressionNone: kgo.CodecNone, sarama.CompressionGZIP: kgo.CodecGzip, sarama.CompressionSnappy: kgo.CodecSnappy,
		sarama.CompressionLZ4: kgo.CodecLz4, sarama.CompressionZSTD: kgo.CodecZstd,
	}
	reader := kgo.DefaultDecompressor()
	for codec, theirs := range codecs {
		t.Run(codec.String(), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				b := new(batch)
				for range 2 {
					*b = batch{wire: b.wire, codec: codec}
					for range rapid.IntRange(1, 40).Draw(t, "records") {
						r := draw(t)
						r.Timestamp = time.UnixMilli(rapid.Int64Range(0, 1<<45).Draw(t, "timestamp"))
						r.prepare(0)
						b.add(r)
					}
					head := b.encode()
					plain, err := reader.Decompress(b.wire, theirs)
					require.NoError(t, err)
					requireRecords(t, b.records, head, plain)
				}
			})
		})
	}
}

// requireRecords reads what stands in a batch.
func requireRecords(t *rapid.T, want []*Record, head *sarama.RecordBatch, wire []byte) {
	require.EqualValues(t, len(want)-1, head.LastOffsetDelta)
	latest := want[0].Timestamp
	for i, r := range want {
		length, n := binary.Varint(wire)
		require.Positive(t, n)
		k := kmsg.NewRecord()
		require.NoError(t, k.ReadFrom(wire[:n+int(length)]))
		wire = wire[n+int(length):]
		require.Equal(t, r.Key, k.Key)
		require.Equal(t, r.Key == nil, k.Key == nil)
		require.Equal(t, r.Value, k.Value)
		require.Equal(t, r.Value == nil, k.Value == nil)
		require.EqualValues(t, i, k.OffsetDelta)
		require.Equal(t, r.Timestamp.UnixMilli(), head.FirstTimestamp.UnixMilli()+k.TimestampDelta64)
		require.Len(t, k.Headers, len(r.Headers))
		for j, h := range r.Headers {
			require.Equal(t, string(h.Key), k.Headers[j].Key)
			require.Equal(t, h.Value, k.Headers[j].Value)
		}
		if r.Timestamp.After(latest) {
			latest = r.Timestamp
		}
	}
	require.Empty(t, wire)
	require.Equal(t, latest.UnixMilli(), head.MaxTimestamp.UnixMilli())
}
