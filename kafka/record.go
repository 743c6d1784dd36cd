package kafka

import "time"

// A Header is one header of a record.
type Header struct{ Key, Value []byte }

// A Record is one record on its way to Kafka. It belongs to the Producer from Produce until its Owner's
// RecordDone is called; nothing it refers to may change in between.
type Record struct {
	Topic     string
	Key       []byte // nil: no key
	Value     []byte
	Headers   []Header
	Timestamp time.Time
	// Reserved is how many bytes of the Budget were taken for this record. The producer gives them back right
	// after RecordDone returned.
	Reserved int
	Owner    Owner

	// Partition and Offset are where the record is, once RecordDone is called without an error.
	Partition int32
	Offset    int64
}

// An Owner is told what became of its records.
type Owner interface {
	// RecordDone is called exactly once for each record given to Produce, from a goroutine of the producer
	// that holds no lock, so it may call the producer; it must not block. r is the caller's again from the
	// moment it is called, and may be reused or produced again from inside it.
	RecordDone(r *Record, err error)
}

// PartitionOf gives the partition of a key in a topic of so many partitions, as Kafka's Java clients hash.
func PartitionOf(key []byte, partitions int32) int32 { return 0 }
