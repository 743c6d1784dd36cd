package kafka

import (
	"time"

	"github.com/IBM/sarama"

	"sluice/kafka/produce"
)

// A part is one partition of a topic. At most one of its batches is out.
type part struct {
	topic   *topic
	id      int32
	numbers produce.Partition
	waiting []*batch // the last may still grow
	out     *batch   // has sequence numbers, and is not settled
	flying  bool     // out is sent and not answered
	gone    bool     // the topic has no such partition any more

	leader    *broker // nil: not known
	epoch     int32   // of the leader
	in        *sender // that has it in its list
	alone     bool    // the next request has nothing else
	slow      bool    // its followers were too slow for others to wait for them
	tries     int     // to send out
	notBefore time.Duration
}

// add takes r, and says whether it may have to be sent sooner for it.
func (part *part) add(r *Record) bool {
	t := part.topic
	t.held++
	if n := len(part.waiting); n > 0 && part.waiting[n-1].takes(r, min(t.room, mostRequest)) {
		b := part.waiting[n-1]
		b.add(r)
		return b.enough()
	}
	b := newBatch()
	b.add(r)
	part.waiting = append(part.waiting, b)
	return true
}

// idle says whether it has nothing that could be sent.
func (part *part) idle() bool { return part.flying || part.out == nil && len(part.waiting) == 0 }

// stuck says whether records should go to another partition if they can.
func (part *part) stuck() bool { return part.tries > 0 || part.leader == nil || len(part.waiting) > 1 }

// due gives when it has to be sent. It is not idle.
func (part *part) due(linger time.Duration) time.Duration {
	if part.out != nil || len(part.waiting) > 1 || part.waiting[0].enough() {
		return part.notBefore
	}
	return max(part.notBefore, part.waiting[0].records[0].since+linger)
}

// first gives the batch that is to be sent: the one that may have been already, or that which waits longest.
func (part *part) first() *batch {
	if part.out != nil {
		return part.out
	}
	return part.waiting[0]
}

// begin gives the next batch its numbers.
func (part *part) begin(fresh produce.Ident) *batch {
	if part.out == nil {
		part.out = part.waiting[0]
		part.waiting[0] = nil
		if part.waiting = part.waiting[1:]; len(part.waiting) == 0 {
			part.waiting = nil
		}
	}
	b := part.out
	if !b.begun {
		b.Records = len(b.records)
		part.numbers, b.Batch = produce.Begin(part.numbers, b.Batch, fresh)
		b.begun, b.topicID, b.Plain, b.partition = true, part.topic.state.id, part.topic.plain, part.id
	}
	return b
}

// putBack has batches sent before all that wait.
func (part *part) putBack(front ...*batch) {
	part.waiting = append(front, part.waiting...)
}

// certain notes that what was in doubt is not.
func (part *part) certain() {
	for _, b := range part.waiting {
		if !b.Inherited {
			return
		}
		b.Inherited = false
	}
}

// renew begins anew in a topic that was made anew.
func (part *part) renew() {
	if part.flying {
		return // it is when there is an answer
	}
	b := part.out
	if b == nil {
		part.numbers, _ = produce.Anew(part.numbers, nil)
	} else {
		var back bool
		if part.numbers, back = produce.Anew(part.numbers, &b.Batch); !back {
			return
		}
		b.Inherited = false
		part.out = nil
		part.putBack(b.anew(b.records))
		b.free()
	}
	part.certain()
}

// drop takes away the batch that has numbers and is not on its way. If it may be stored the next must not have the same
// ones: it would be taken for it.
func (part *part) drop() {
	if part.out.begun && part.out.InDoubt {
		part.numbers, _ = produce.Anew(part.numbers, nil)
	}
	part.out = nil
}

// empty gives all records that may be sent elsewhere: those that are not on their way, and can't arrive any more.
func (part *part) empty() (all []*Record) {
	if b := part.out; b != nil && !part.flying && !b.Unanswered {
		part.drop()
		all = append(all, b.records...)
		b.free()
	}
	for _, b := range part.waiting {
		all = append(all, b.records...)
		b.free()
	}
	part.waiting = nil
	return all
}

// codec gives how a batch is compressed. A record that fits as it is and might not when it can't be compressed is sent
// as it is.
func (t *topic) codec(b *batch, codec sarama.CompressionCodec) sarama.CompressionCodec {
	if len(b.records) == 1 && b.bytes > t.room && b.records[0].aloneSize() <= t.state.limit {
		return sarama.CompressionNone
	}
	return codec
}
