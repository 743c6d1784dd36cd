package kafka

import (
	"fmt"
	"time"

	"github.com/IBM/sarama"

	"sluice/kafka/produce"
)

const (
	// mostBytes of records are in one transaction, so that it is written well within its timeout.
	mostBytes = 16 << 20
	// deltas is what the offset and the time of a record may take beyond the one byte each that recordOverhead counts.
	deltas = 4 + 9
)

// A spot is a partition of a topic.
type spot struct {
	topic string
	id    int32
}

// A share is what a transaction writes to one partition.
type share struct {
	at      spot
	records []*TxRecord
	groups  []*TxGroup // of the records
	limit   int        // bytes of a batch
	leader  string     // address; "" is none

	stored int   // of records
	first  int64 // the offset of a batch that is stored, if placed
	placed bool
	batch  *batch // the next; kept while it is not known to be stored, for it must be sent as it is
}

// measure gives an upper bound of what the group adds to batches.
func (g *TxGroup) measure() int {
	if g.size == 0 {
		for _, r := range g.Records {
			g.size += r.size() + deltas
		}
	}
	return g.size
}

// size is what the record takes in a batch that it has for itself.
func (r *TxRecord) size() int {
	n := lengthOf(r.Key, r.Value, r.Headers)
	return varint(n) + n
}

// judge gives the verdict on a record, as far as it can be known.
func (r *TxRecord) judge(t *txTopic) error {
	switch {
	case t.verdict != nil:
		return fmt.Errorf("topic %q: %w", r.Topic, t.verdict)
	case t.compacted && r.Key == nil:
		return fmt.Errorf("topic %q: %w: it is compacted and the record has no key", r.Topic, ErrInvalidRecord)
	case t.limitKnown && batchOverhead+r.size() > t.limit, batchOverhead+r.size() > int(sarama.MaxRequestSize)/2:
		return fmt.Errorf("topic %q: %w", r.Topic, ErrTooLarge)
	}
	return nil
}

// partition gives the partition that the record's key decides; without one it is not fixed.
func (r *TxRecord) partition(of int32) (id int32, fixed bool) {
	if r.Among > 0 {
		of = min(of, r.Among)
	}
	switch {
	case r.PartitionKey != nil:
		return PartitionOf(r.PartitionKey, of), true
	case r.Key != nil:
		return PartitionOf(r.Key, of), true
	}
	return 0, false
}

// shares sorts the records of groups by partition, in their order. Those without a key stay together for a while, as in
// the Producer, and are in no partition that can't be written to if there is another.
func (ts *txTopics) shares(groups []*TxGroup) []*share {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	now := time.Now()
	var all []*share
	byPlace := map[spot]*share{}
	sticky := map[string]*share{}
	left := map[string]int{}
	for _, g := range groups {
		for _, r := range g.Records {
			t := r.topic
			id, fixed := r.partition(t.partitions)
			if !fixed {
				if left[r.Topic] -= r.size(); left[r.Topic] < 0 || sticky[r.Topic] == nil {
					left[r.Topic] = stickyBatch
					id = max(0, ts.any(t, now))
				} else {
					id = sticky[r.Topic].at.id
				}
			}
			at := spot{r.Topic, id}
			s := byPlace[at]
			if s == nil {
				s = &share{at: at, limit: t.limit, leader: t.leaders[at.id]}
				byPlace[at] = s
				all = append(all, s)
			}
			if !fixed {
				sticky[r.Topic] = s
			}
			s.records, s.groups = append(s.records, r), append(s.groups, g)
		}
	}
	return all
}

// next gives the batch that is to be sent next: the one that may have been sent already, or as many records as fit.
func (s *share) next(p produce.Partition, codec sarama.CompressionCodec, plain bool) *sarama.RecordBatch {
	if s.batch != nil {
		return s.batch.encode()
	}
	b := newBatch()
	for _, r := range s.records[s.stored:] {
		rec := r.record()
		if len(b.records) > 0 && !b.takes(rec, s.limit-batchOverhead) {
			break
		}
		b.add(rec)
	}
	b.Records, b.transactional = len(b.records), true
	_, b.Batch = produce.Begin(p, b.Batch, produce.Nobody)
	b.Plain = plain
	if batchOverhead+b.bytes < s.limit-s.limit/16 { // what can't be compressed grows a little
		b.codec = codec
	}
	s.batch = b
	return b.encode()
}

// record gives what is sent of it, as it is now.
func (r *TxRecord) record() *Record {
	r.rec.Key, r.rec.Value, r.rec.Headers, r.rec.Timestamp = r.Key, r.Value, r.Headers, r.Timestamp
	r.rec.prepare(0)
	return &r.rec
}

// advance notes that the batch is stored.
func (s *share) advance() {
	s.stored += len(s.batch.records)
	s.batch.free()
	s.batch = nil
}

// inBatch gives the groups that have records in the batch, in order.
func (s *share) inBatch() (groups []*TxGroup) {
	for _, g := range s.groups[s.stored : s.stored+len(s.batch.records)] {
		if len(groups) == 0 || groups[len(groups)-1] != g {
			groups = append(groups, g)
		}
	}
	return groups
}
