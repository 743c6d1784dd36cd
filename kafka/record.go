package kafka

import (
	"encoding/binary"
	"time"

	"github.com/IBM/sarama"
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
	Timestamp time.Time // zero: the time of Produce
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

	// Partition and Offset are where the record is, once RecordDone is called without an error.
	Partition int32
	Offset    int64

	msg        *sarama.ProducerMessage // made by the first Produce and kept
	key, value octets
	since      time.Duration // when Produce was called, on the Producer's clock
	size       int           // upper bound of what it adds to a batch
	hash       uint32        // of what decides the partition
	part       *part         // nil until its topic is known
	prev, next *Record       // in the one list it is in
	err        error         // what RecordDone will say
	alone      bool          // sent as the only record of its partition, so a verdict is its own
	returned   bool          // sarama gave it back, and still has others of its partition
	tried      bool          // sarama gave it back, and may have sent it
}

// An Owner is told what became of its records.
type Owner interface {
	// RecordDone is called exactly once for each record given to Produce, from a goroutine of the producer
	// that holds no lock, so it may call the producer; it must not block. Calls for different records may come
	// from different goroutines at once. r is the caller's again from the moment it is called, and may be
	// changed, reused or produced again from inside it.
	RecordDone(r *Record, err error)
}

// octets is a sarama.Encoder that needs no allocation.
type octets []byte

// Encode gives the bytes.
func (o *octets) Encode() ([]byte, error) { return *o, nil }

// Length gives their number.
func (o *octets) Length() int { return len(*o) }

// prepare fills in what can be known without the producer's lock.
func (r *Record) prepare(now time.Duration) {
	r.since, r.err, r.part = now, nil, nil
	r.alone, r.returned, r.tried = false, false, false
	decides := r.Key
	if r.PartitionKey != nil {
		decides = r.PartitionKey
	}
	r.hash = murmur2(decides)
	if r.msg == nil {
		r.msg = new(sarama.ProducerMessage)
	}
	m := r.msg
	m.Metadata, m.Topic, m.Timestamp = r, r.Topic, r.Timestamp
	m.Key, m.Value = nil, nil // a nil pointer in the interface would be an empty key, not none
	if r.key = r.Key; r.Key != nil {
		m.Key = &r.key
	}
	if r.value = r.Value; r.Value != nil {
		m.Value = &r.value
	}
	m.Headers = m.Headers[:0]
	for _, h := range r.Headers {
		m.Headers = append(m.Headers, sarama.RecordHeader(h))
	}
	r.size = m.ByteSize(2)
}

// forget drops what the record referred to, so that a pooled record keeps nobody's memory.
func (r *Record) forget() {
	r.part, r.key, r.value = nil, nil, nil
	if r.msg != nil {
		r.msg.Metadata = nil
		clear(r.msg.Headers)
	}
}

// renew replaces what sarama gave back with an error. It still looks at that for a moment (at how often it was
// tried, in updateLeaderIfBrokerProducerIsNil), so it must not be used again.
func (r *Record) renew() {
	old := r.msg
	r.msg = &sarama.ProducerMessage{Metadata: r, Topic: old.Topic, Key: old.Key, Value: old.Value,
		Headers: old.Headers, Partition: old.Partition, Timestamp: old.Timestamp}
}

const (
	// batchOverhead is the size of an empty batch in bytes (KIP-98).
	batchOverhead = 61
	// recordOverhead is the fixed part of a record that is first in its batch: attributes and two deltas.
	recordOverhead = 3
)

// aloneSize is the exact size of a batch with only this record, uncompressed.
func (r *Record) aloneSize() int {
	n := recordOverhead + nullable(r.Key) + nullable(r.Value) + varint(len(r.Headers))
	for _, h := range r.Headers {
		n += varint(len(h.Key)) + len(h.Key) + nullable(h.Value)
	}
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
	var b [binary.MaxVarintLen64]byte
	return binary.PutVarint(b[:], int64(v))
}

// A list holds records in order, linked through themselves. A record is in one list at most.
type list struct {
	head, tail *Record
	n          int
}

func (l *list) push(r *Record) {
	r.prev, r.next = l.tail, nil
	if l.tail == nil {
		l.head = r
	} else {
		l.tail.next = r
	}
	l.tail = r
	l.n++
}

func (l *list) remove(r *Record) {
	if r.prev == nil {
		l.head = r.next
	} else {
		r.prev.next = r.next
	}
	if r.next == nil {
		l.tail = r.prev
	} else {
		r.next.prev = r.prev
	}
	r.prev, r.next = nil, nil
	l.n--
}

// pop takes the first record, or nil.
func (l *list) pop() *Record {
	r := l.head
	if r != nil {
		l.remove(r)
	}
	return r
}

// prepend moves all of front before what is there.
func (l *list) prepend(front *list) {
	if front.n == 0 {
		return
	}
	if front.tail.next = l.head; l.head == nil {
		l.tail = front.tail
	} else {
		l.head.prev = front.tail
	}
	l.head = front.head
	l.n += front.n
	*front = list{}
}
