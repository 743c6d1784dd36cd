package kafka

import (
	"cmp"
	"encoding/binary"
	"iter"
	"reflect"
	"slices"

	"github.com/IBM/sarama"
)

// committed gives the records of a block from an offset on, without those of aborted transactions and without control
// records. The broker says which transactions were aborted; where each ends is told by its abort marker.
func committed(block *sarama.FetchResponseBlock, from int64) iter.Seq2[*sarama.RecordBatch, *sarama.Record] {
	return func(yield func(*sarama.RecordBatch, *sarama.Record) bool) {
		aborted := slices.Clone(block.AbortedTransactions)
		slices.SortFunc(aborted, func(a, b *sarama.AbortedTransaction) int { return cmp.Compare(a.FirstOffset, b.FirstOffset) })
		open := make(map[int64]bool, len(aborted)) // producer IDs that are in an aborted transaction at the batch
		for batch := range batches(block) {
			for len(aborted) > 0 && aborted[0].FirstOffset <= batch.LastOffset() {
				open[aborted[0].ProducerID] = true
				aborted = aborted[1:]
			}
			switch {
			case batch.Control:
				if isAbort(batch) {
					delete(open, batch.ProducerID)
				}
				continue
			case batch.IsTransactional && open[batch.ProducerID]:
				continue
			}
			for _, rec := range batch.Records {
				if batch.FirstOffset+rec.OffsetDelta >= from && !yield(batch, rec) {
					return
				}
			}
		}
	}
}

// batches gives the complete batches of a block.
func batches(block *sarama.FetchResponseBlock) iter.Seq[*sarama.RecordBatch] {
	return func(yield func(*sarama.RecordBatch) bool) {
		for _, set := range block.RecordsSet {
			if b := set.RecordBatch; b != nil && !b.PartialTrailingRecord && !yield(b) {
				return
			}
		}
	}
}

// isAbort says whether a batch of control records ends an aborted transaction. The key of a control record is its
// version and its type, which is 0 for an abort.
func isAbort(batch *sarama.RecordBatch) bool {
	return len(batch.Records) > 0 && len(batch.Records[0].Key) >= 4 && binary.BigEndian.Uint16(batch.Records[0].Key[2:]) == 0
}

// after gives the offset after the last complete batch of a block, or from when it has none.
func after(block *sarama.FetchResponseBlock, from int64) int64 {
	next := from
	for batch := range batches(block) {
		next = max(next, batch.LastOffset()+1)
	}
	if next == from {
		return max(from, afterHollow(block))
	}
	return next
}

// hollowEnd is where sarama keeps the offset after the last batch of a block, also of one without records.
var hollowEnd, hollowEndKnown = reflect.TypeFor[sarama.FetchResponseBlock]().FieldByName("recordsNextOffset")

// afterHollow gives the offset after the batches without records that a block consists of or begins with, or 0.
//
// Compaction leaves such batches, for the sequence numbers of their producers. Kafka answers from one segment of the
// log at a time, and a segment may end with nothing else, so who does not pass them is stuck there for good. sarama
// leaves them out of what it shows, and tells nobody else where they end; it is rare enough to be read by reflection.
func afterHollow(block *sarama.FetchResponseBlock) int64 {
	if len(block.RecordsSet) > 0 {
		if b := block.RecordsSet[0].RecordBatch; b != nil && b.PartialTrailingRecord {
			return b.FirstOffset // it was cut off; what is before it was not
		}
		return 0
	}
	if !hollowEndKnown || hollowEnd.Type != reflect.TypeFor[*int64]() {
		return 0
	}
	if end := reflect.ValueOf(block).Elem().FieldByIndex(hollowEnd.Index); !end.IsNil() {
		return end.Elem().Int()
	}
	return 0
}

// afterLegacy gives the offset after records of a block that are in the format from before Kafka 0.11, which is not
// read; ok is false if there are none.
func afterLegacy(block *sarama.FetchResponseBlock) (next int64, ok bool) {
	for _, set := range block.RecordsSet {
		if set.MsgSet != nil && len(set.MsgSet.Messages) > 0 {
			next, ok = set.MsgSet.Messages[len(set.MsgSet.Messages)-1].Offset+1, true
		}
	}
	return next, ok
}
