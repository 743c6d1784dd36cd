package kafka

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/IBM/sarama"

	"sluice/kafka/produce"
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
	waiting []*Record     // of phase asking
	state   topicState    // as last verified
	former  []sarama.Uuid // of topics that had this name before it was made anew
	checked time.Duration // when that was
	used    time.Duration // when the last record came
	parts   []*part
	held    int           // records in its partitions
	room    int           // bytes of records that a batch may have: batches stay below the topic's limit
	plain   bool          // it takes no compression
	told    time.Duration // until then told is not logged again
	toldOf  produce.Code

	leaderless bool          // a leader is asked for
	leaderDue  time.Duration // when
	leaderAsks int           // how often that was done since a record was stored

	sticky      *part // where records without a key go
	stickyBytes int
}

// stickyBatch is how many bytes without a key go to one partition before the next is chosen, as Kafka's Java
// clients do (KIP-794): spreading them singly would make more and smaller batches.
const stickyBatch = 16 << 10

// frameOverhead is more than a request has around its batches.
const frameOverhead = 10 << 10

// differ says whether two IDs are of different topics. An old broker tells none.
func differ(a, b sarama.Uuid) bool { return a != b && a != sarama.Uuid{} && b != sarama.Uuid{} }

// resize makes as many partitions as the topic has now, and gives the records that have to be placed anew: those of
// partitions that are gone, or all that wait if the topic was made anew. In one that has grown they stay with those
// before them, as with Kafka's own clients.
func (t *topic) resize(n int32, madeAnew bool) (homeless []*Record) {
	old := t.parts
	if int(n) == len(old) {
		return nil
	}
	t.parts = append([]*part(nil), old[:min(int(n), len(old))]...)
	for i := int32(len(t.parts)); i < n; i++ {
		t.parts = append(t.parts, &part{topic: t, id: i, epoch: noEpoch, numbers: produce.Partition{Ident: produce.Nobody}})
	}
	t.sticky = nil
	for i, part := range old {
		if part.gone = i >= int(n); part.gone || madeAnew {
			homeless = append(homeless, part.empty()...)
		}
	}
	t.held -= len(homeless)
	return homeless
}

// place chooses the partition of r.
func (t *topic) place(r *Record) *part {
	switch {
	case r.Fixed:
		return t.parts[min(int(r.To), len(t.parts)-1)] // judge has looked; a topic that was made anew may have fewer
	case r.Key != nil || r.PartitionKey != nil:
		return t.parts[partitionOf(r.hash, int32(len(t.parts)))]
	default:
		return t.spread(r.size)
	}
}

// spread gives the partition for a record without a key: the same for a while, but none that is stuck if
// there is another.
func (t *topic) spread(size int) *part {
	t.stickyBytes -= size
	if t.sticky != nil && t.stickyBytes > 0 && !t.sticky.stuck() {
		return t.sticky
	}
	first := rand.IntN(len(t.parts))
	t.sticky, t.stickyBytes = t.parts[first], stickyBatch
	for i := range t.parts {
		if p := t.parts[(first+i)%len(t.parts)]; !p.stuck() {
			t.sticky = p
			break
		}
	}
	return t.sticky
}

// judge gives the error of a record that this topic can never take. Of what Kafka alone can know, or was asked about too
// long ago, Kafka is the judge.
func (t *topic) judge(r *Record, now time.Duration, compressed bool) error {
	fresh := now < t.checked+settingsHold
	if t.state.limitKnown && fresh && !compressed && r.size+batchOverhead > t.room && r.aloneSize() > t.state.limit {
		return ErrTooLarge
	}
	if r.size+batchOverhead >= int(sarama.MaxRequestSize)-frameOverhead {
		return ErrTooLarge
	}
	if t.state.compacted && fresh && r.Key == nil {
		return ErrInvalidRecord // Kafka would refuse it
	}
	if r.Fixed && (r.To < 0 || int(r.To) >= len(t.parts)) {
		return fmt.Errorf("%w: no such partition", ErrInvalidRecord)
	}
	return nil
}

// limitTo sets the size of batches. A codec makes what can't be compressed a little larger.
func (t *topic) limitTo(s topicState, compressed bool) {
	limit := s.limit
	if s.segment > 0 {
		limit = min(limit, s.segment)
	}
	t.room = limit - batchOverhead
	if compressed {
		t.room -= limit>>8 + 64
	}
}
