package kafka

import (
	"sync"

	"github.com/IBM/sarama"

	"sluice/kafka/produce"
)

const (
	// mostRecords are in a batch.
	mostRecords = 4096
	// enoughBytes of records are sent without waiting for more.
	enoughBytes = 128 << 10
)

// A batch is records that are sent together, to one partition, by a Producer or a Transactor. It is guarded by Producer.mu,
// but for the encoding: that belongs to the sender that has the batch.
type batch struct {
	produce.Batch
	records   []*Record
	bytes     int         // upper bound of what it takes, uncompressed
	sealed    bool        // no record is added
	begun     bool        // it has sequence numbers
	topicID   sarama.Uuid // of the topic as it was then
	codec     sarama.CompressionCodec
	encoded   bool // encoding is what it is to be sent as
	partition int32

	transactional bool
	offset        int64 // of the first record, when it is stored

	encoding sarama.RecordBatch
	wire     []byte // the records in it, encoded
}

var batchPool = sync.Pool{New: func() any { return new(batch) }}

func newBatch() *batch { return batchPool.Get().(*batch) }

// free has the batch used again. Nobody may refer to it any more.
func (b *batch) free() {
	clear(b.records)
	*b = batch{records: b.records[:0], wire: b.wire[:0]}
	batchPool.Put(b)
}

// takes says whether r can be added.
func (b *batch) takes(r *Record, room int) bool {
	return !b.sealed && len(b.records) < mostRecords && b.bytes+r.size <= room
}

func (b *batch) add(r *Record) {
	b.records = append(b.records, r)
	b.bytes += r.size
}

// enough says whether there is nothing to wait for.
func (b *batch) enough() bool {
	return b.sealed || b.bytes >= enoughBytes || len(b.records) == mostRecords
}

// anew gives a batch with some of the records of this one, which is taken back.
func (b *batch) anew(records []*Record) *batch {
	n := newBatch()
	n.Inherited, n.sealed = b.Inherited, true
	for _, r := range records {
		n.add(r)
	}
	return n
}
