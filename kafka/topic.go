package kafka

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
)

// phase is what is known of a topic.
type phase int

const (
	asking  phase = iota // the verifier asks; records wait in topic.waiting
	open                 // it exists
	lost                 // it existed and is gone; records wait in their partitions
	refused              // a final answer, for a while
	phases
)

var phaseNames = [phases]string{"asking", "open", "lost", "refused"}

// A topic is what the producer knows of a Kafka topic. All fields are guarded by Producer.mu.
type topic struct {
	name    string
	phase   phase
	verdict error         // of phase refused
	misses  int           // answers in a row that said it does not exist
	due     time.Duration // when to ask again; of phase refused, when the verdict ends
	waiting list          // of phase asking
	state   topicState    // as last verified
	checked time.Duration // when that was
	used    time.Duration // when the last record came
	parts   []*part
	held    int           // records in its partitions, in sarama or not
	feeding int           // how many of them are
	avoid   *lane         // that must not have them: it knows the topic as it was before
	room    int           // bytes that one batch may hold: batches stay below the topic's limit
	careful time.Duration // until then each record goes alone
	told    time.Duration // until then it is not logged again that the principal may not write to it
	view    *view

	sticky      *part // where records without a key go
	stickyBytes int
}

// stickyBatch is how many bytes without a key go to one partition before the next is chosen, as Kafka's Java
// clients do (KIP-794): spreading them singly would make more and smaller batches.
const stickyBatch = 16 << 10

// A part is one partition of a topic.
type part struct {
	topic    *topic
	id       int32
	lane     *lane // where its records in sarama are, or last were; nil: never had one
	fifo     list  // waits for room in sarama
	inFlight list  // in sarama, in the order it was fed
	bytes    int   // of inFlight
	returned int   // of inFlight, given back by sarama to be sent again
	alone    bool  // its one record must stay alone
}

// A view is what sarama's goroutines see of a topic without a lock.
type view struct {
	partitions atomic.Pointer[[]int32]
	recall     atomic.Bool // let go of all records: the topic is gone
}

// resize makes as many partitions as the topic has now. If none of its records is in sarama, those that wait move
// to their key's new partition: a topic that was made anew may have fewer than before. Otherwise it has grown, and
// they stay with those before them, as with Kafka's own clients.
func (t *topic) resize(n int32) {
	old := t.parts
	if int(n) == len(old) {
		return
	}
	t.parts = append([]*part(nil), old[:min(int(n), len(old))]...)
	ids := make([]int32, n)
	for i := range ids {
		if ids[i] = int32(i); i >= len(old) {
			t.parts = append(t.parts, &part{topic: t, id: int32(i)})
		}
	}
	t.sticky = nil
	t.view.partitions.Store(&ids)
	if t.feeding == 0 {
		t.replace(old)
	}
}

// replace gives the records that wait in old partitions their new ones, in their order.
func (t *topic) replace(old []*part) {
	waiting := make([]list, len(old))
	for i, p := range old {
		waiting[i], p.fifo = p.fifo, list{}
	}
	for i := range waiting {
		for r := waiting[i].pop(); r != nil; r = waiting[i].pop() {
			t.place(r).fifo.push(r)
		}
	}
}

// place chooses the partition of r.
func (t *topic) place(r *Record) *part {
	switch {
	case r.Fixed:
		r.part = t.parts[min(int(r.To), len(t.parts)-1)] // judge has looked; a topic that was made anew may have fewer
	case r.Key != nil || r.PartitionKey != nil:
		r.part = t.parts[partitionOf(r.hash, int32(len(t.parts)))]
	default:
		r.part = t.spread(r.size)
	}
	r.msg.Partition = r.part.id
	return r.part
}

// spread gives the partition for a record without a key: the same for a while, but none that is stuck if
// there is another.
func (t *topic) spread(size int) *part {
	t.stickyBytes -= size
	if t.sticky != nil && t.stickyBytes > 0 && t.sticky.fifo.n == 0 {
		return t.sticky
	}
	first := rand.IntN(len(t.parts))
	t.sticky, t.stickyBytes = t.parts[first], stickyBatch
	for i := range t.parts {
		if p := t.parts[(first+i)%len(t.parts)]; p.fifo.n == 0 {
			t.sticky = p
			break
		}
	}
	return t.sticky
}

// judge gives the error of a record that this topic can never take.
func (t *topic) judge(r *Record) error {
	if t.state.limitKnown && r.size+batchOverhead > t.room && r.aloneSize() > t.state.limit {
		return ErrTooLarge
	}
	if r.size+batchOverhead >= int(sarama.MaxRequestSize)-frameOverhead {
		return ErrTooLarge
	}
	if t.state.compacted && r.Key == nil {
		return ErrInvalidRecord // Kafka would refuse its whole batch
	}
	if r.Fixed && (r.To < 0 || int(r.To) >= len(t.parts)) {
		return fmt.Errorf("%w: no such partition", ErrInvalidRecord)
	}
	return nil
}

// frameOverhead is more than a request has around its batches; sarama keeps the same distance.
const frameOverhead = 10 << 10

// takes says whether sarama can have r now.
//
// The batches of a partition are made from its records in sarama, so while these stay below the topic's
// limit no batch can exceed it. A record that does not fit below it, by an estimate, goes alone.
func (p *part) takes(r *Record, now time.Duration) bool {
	t := p.topic
	if t.phase != open || p.alone || p.inFlight.n >= maxInFlight || p.returned > 0 {
		return false
	}
	return p.inFlight.n == 0 || p.bytes+r.size <= t.room && now >= t.careful
}

// put notes that r is in sarama.
func (p *part) put(r *Record, now time.Duration) {
	t := p.topic
	if r.size > t.room || now < t.careful {
		p.alone, r.alone = true, true
	}
	p.inFlight.push(r)
	p.bytes += r.size
	t.feeding++
	p.lane.records++
}

// take notes that r is not in sarama any more.
func (p *part) take(r *Record) {
	t := p.topic
	p.inFlight.remove(r)
	p.bytes -= r.size
	t.feeding--
	p.lane.records--
	if r.alone {
		p.alone, r.alone = false, false
	}
	if r.returned {
		p.returned--
		r.returned = false
	}
}

// rewind puts the records that sarama gave back before those that wait, once it has none of them left.
func (p *part) rewind() {
	if p.returned == 0 || p.returned < p.inFlight.n {
		return
	}
	var back list
	for r := p.inFlight.head; r != nil; r = p.inFlight.head {
		p.take(r)
		back.push(r)
	}
	p.fifo.prepend(&back)
}

// limitTo sets the size of batches. A codec makes what can't be compressed a little larger.
func (t *topic) limitTo(limit int, codec sarama.CompressionCodec) {
	t.room = limit - batchOverhead
	if codec != sarama.CompressionNone {
		t.room -= limit>>8 + 64
	}
}
