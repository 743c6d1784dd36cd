package kafka

import (
	"bytes"
	"encoding/binary"
	"io"
	"reflect"
	"sync"
	"time"
	"unsafe"

	"github.com/IBM/sarama"
	"github.com/klauspost/compress/gzip"
	snappy "github.com/klauspost/compress/snappy/xerial"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// encodedRecords is where a sarama.RecordBatch keeps its records once it has encoded and compressed them. It takes what it
// finds there; there is no other way in for records that are encoded already, and its own costs twice as much and
// allocates for each batch several times what it has.
var encodedRecords = func() uintptr {
	f, known := reflect.TypeFor[sarama.RecordBatch]().FieldByName("compressedRecords")
	if !known || f.Type != reflect.TypeFor[[]byte]() {
		panic("kafka: sarama.RecordBatch keeps its encoded records in another way")
	}
	return f.Offset
}()

// placeholders stand in a sarama.RecordBatch for its records, of which it needs nothing but their number any more.
var placeholders [mostRecords]*sarama.Record

// encode makes ready what is sent. The encoded records are kept, so a batch that is sent again costs a copy.
func (b *batch) encode() *sarama.RecordBatch {
	if b.encoded {
		return &b.encoding
	}
	codec := b.codec
	if b.Plain {
		codec = sarama.CompressionNone
	}
	if b.Restamped {
		now := time.Now().UnixMilli()
		for _, r := range b.records {
			r.stamp = now
		}
	}
	first, latest := b.records[0].stamp, b.records[0].stamp
	for _, r := range b.records {
		latest = max(latest, r.stamp)
	}
	b.wire = b.compress(codec, first)
	b.encoding = sarama.RecordBatch{Version: 2, Codec: codec, IsTransactional: b.transactional,
		ProducerID: b.Ident.ID, ProducerEpoch: b.Ident.Epoch, FirstSequence: b.First,
		LastOffsetDelta: int32(len(b.records) - 1), FirstTimestamp: time.UnixMilli(first), MaxTimestamp: time.UnixMilli(latest),
		Records: placeholders[:len(b.records)]}
	*(*[]byte)(unsafe.Add(unsafe.Pointer(&b.encoding), encodedRecords)) = b.wire
	b.encoded = true
	return &b.encoding
}

// compress returns the records as they stand in a batch that begins at first, in the memory of wire if they fit.
func (b *batch) compress(codec sarama.CompressionCodec, first int64) []byte {
	if codec == sarama.CompressionNone {
		return b.appendRecords(b.wire[:0], first)
	}
	plain := plainBuffers.Get().(*[]byte)
	defer plainBuffers.Put(plain)
	*plain = b.appendRecords((*plain)[:0], first)
	return compressors[codec](b.wire[:0], *plain)
}

var plainBuffers = sync.Pool{New: func() any { return new([]byte) }}

func (b *batch) appendRecords(to []byte, first int64) []byte {
	for i, r := range b.records {
		to = r.appendTo(to, i, first)
	}
	return to
}

// compressors append what is compressed to their first argument.
var compressors = map[sarama.CompressionCodec]func(to, plain []byte) []byte{
	sarama.CompressionGZIP:   gzips.append,
	sarama.CompressionSnappy: snappy.Encode,
	sarama.CompressionLZ4:    lz4s.append,
	sarama.CompressionZSTD:   func(to, plain []byte) []byte { return zstds().EncodeAll(plain, to) },
}

var (
	gzips = streams{sync.Pool{New: func() any { return gzip.NewWriter(nil) }}}
	lz4s  = streams{sync.Pool{New: func() any {
		w := lz4.NewWriter(nil)
		must(w.Apply(lz4.BlockSizeOption(lz4.Block64Kb), lz4.ChecksumOption(false))) // the batch has a checksum
		return w
	}}}
	// zstds is one for all: it keeps what each processor needs, some MiB, which a pool would forget.
	zstds = sync.OnceValue(func() *zstd.Encoder {
		z, err := zstd.NewWriter(nil, zstd.WithZeroFrames(true))
		must(err)
		return z
	})
)

// A stream compresses what is written to it.
type stream interface {
	Reset(to io.Writer)
	Write(plain []byte) (int, error)
	Close() error
}

// streams are compressors that are used again.
type streams struct{ pool sync.Pool }

func (s *streams) append(to, plain []byte) []byte {
	w := s.pool.Get().(stream)
	defer s.pool.Put(w)
	out := bytes.NewBuffer(to)
	w.Reset(out)
	_, err := w.Write(plain)
	must(err) // a buffer takes everything
	must(w.Close())
	return out.Bytes()
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// appendTo appends the record as it stands in a batch (KIP-98): place is its number in the batch and first the batch's first
// timestamp, in ms.
func (r *Record) appendTo(to []byte, place int, first int64) []byte {
	since := r.stamp - first
	to = binary.AppendVarint(to, int64(r.length()-2+varint(int(since))+varint(place)))
	to = append(to, 0) // attributes
	to = binary.AppendVarint(to, since)
	to = binary.AppendVarint(to, int64(place))
	to = appendNullable(to, r.Key)
	to = appendNullable(to, r.Value)
	to = binary.AppendVarint(to, int64(len(r.Headers)))
	for i := range r.Headers {
		h := &r.Headers[i]
		to = append(binary.AppendVarint(to, int64(len(h.Key))), h.Key...)
		to = appendNullable(to, h.Value)
	}
	return to
}

func appendNullable(to, b []byte) []byte {
	if b == nil {
		return append(to, 1) // -1
	}
	return append(binary.AppendVarint(to, int64(len(b))), b...)
}
