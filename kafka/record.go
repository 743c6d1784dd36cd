package kafka

import (
	"encoding/binary"
	"time"
)

// A Header is one header of a record.
type Header struct{ Key, Value []byte }

// A Record is one record on its way to Kafka. It belongs to the Producer from Produce until its Owner's
// RecordDone is called; nothing it refers to may change in between. A Record that is used again costs no
// allocation; the zero value is ready for use, and it must not be copied while the Producer has it.
type Record struct {
	Topic     string
	Key       []byte // nil: no key, and any partition
	Value     []byte // nil: the null value, a tombstone; an empty value is not nil
	Headers   []Header
	Timestamp time.Time // zero: the time of Produce. Kafka gets the time of sending if it takes no timestamp so old
	// PartitionKey decides the partition in place of Key, which does if this is nil.
	PartitionKey []byte
	// To is the partition, if Fixed; one that the topic does not have is an ErrInvalidRecord.
	To    int32
	Fixed bool
	// Reserved is how many bytes of the Budget were taken for this record, for ReservedFor. The producer gives them
	// back right after RecordDone returned.
	Reserved    int
	ReservedFor Destination
	Owner       Owner

	// Partition and Offset are where the record is, once RecordDone is called without an error. The offset is -1 if
	// Kafka stored the record and has forgotten where.
	Partition int32
	Offset    int64

	since time.Duration // when Produce was called, on the Producer's clock
	stamp int64         // the timestamp in ms
	size  int           // upper bound of what it adds to a batch
	hash  uint32        // of what decides the partition
	err   error         // what RecordDone will say
}

// An Owner is told what became of its records.
type Owner interface {
	// RecordDone is called exactly once for each record given to Produce, from a goroutine of the producer
	// that holds no lock, so it may call the producer; it must not block. Calls for different records may come
	// from different goroutines at once. r is the caller's again from the moment it is called, and may be
	// changed, reused or produced again from inside it.
	RecordDone(r *Record, err error)
}

// prepare fills in what can be known without the producer's lock.
func (r *Record) prepare(now time.Duration) {
	r.since, r.err = now, nil
	decides := r.Key
	if r.PartitionKey != nil {
		decides = r.PartitionKey
	}
	r.hash = murmur2(decides)
	at := r.Timestamp
	if at.IsZero() {
		at = time.Now()
	}
	r.stamp = at.UnixMilli()
	n := r.length() + deltas
	r.size = varint(n) + n
}

const (
	// batchOverhead is the size of an empty batch in bytes (KIP-98).
	batchOverhead = 61
	// recordOverhead is the fixed part of a record that is first in its batch: attributes and two deltas.
	recordOverhead = 3
)

// length is what the record takes when it is first in its batch, without its own length.
func (r *Record) length() int { return lengthOf(r.Key, r.Value, r.Headers) }

func lengthOf(key, value []byte, headers []Header) int {
	n := recordOverhead + nullable(key) + nullable(value) + varint(len(headers))
	for i := range headers {
		h := &headers[i]
		n += varint(len(h.Key)) + len(h.Key) + nullable(h.Value)
	}
	return n
}

// aloneSize is the exact size of a batch with only this record, uncompressed.
func (r *Record) aloneSize() int {
	n := r.length()
	return batchOverhead + varint(n) + n
}

func nullable(b []byte) int {
	if b == nil {
		return 1
	}
	return varint(len(b)) + len(b)
}

// varint is how many bytes the number takes, zigzag encoded.
func varint(v int) int {
	if uint(v) < 64 {
		return 1
	}
	if uint(v) < 8192 {
		return 2
	}
	var b [binary.MaxVarintLen64]byte
	return binary.PutVarint(b[:], int64(v))
}
