package kafka

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/IBM/sarama"
)

// A holding is a partition while it is ours.
type holding struct {
	g      *Group
	at     spot
	ctx    context.Context // ends when it is not ours any more
	cancel context.CancelFunc
	room   signal // a record was settled
	empty  signal // the last one was

	mu        sync.Mutex // guards what follows
	topicID   string     // of the topic that is read; "" if Kafka has none, or it is not known yet
	open      []*handed  // in the order of offsets, from the first that is not settled
	next      int64      // offset after the last one that was handed out; -1: not known yet
	committed int64      // -1: nothing
	noted     string     // what that offset says besides, in its metadata
	passed    []stretch  // settled by another member before, though one below was not
	draining  bool       // no more is handed out
	back      int64      // where to read again from, when nothing is open; -1: go on
	refused   bool       // there was no room for the last one that was offered
}

// A handed record was given to Handle.
type handed struct {
	offset int64
	done   bool
}

func newHolding(run context.Context, g *Group, at spot) *holding {
	h := &holding{g: g, at: at, room: newSignal(), empty: newSignal(), next: -1, committed: -1, back: -1}
	h.ctx, h.cancel = context.WithCancel(context.WithoutCancel(run)) // it outlives that, by RevokeWait
	return h
}

// start begins to read, if records are wanted.
func (h *holding) start() {
	if h.g.cfg.Handle != nil {
		h.g.reader.work.Go(h.read) // ends with stop
	}
}

// stop ends it at once.
func (h *holding) stop() { h.cancel() }

// drain hands out no more.
func (h *holding) drain() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.draining = true
}

// settled waits until all records are, or ctx ends.
func (h *holding) settled(ctx context.Context) {
	for {
		h.mu.Lock()
		left := len(h.open)
		h.mu.Unlock()
		if left == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-h.empty:
		}
	}
}

// hand gives a record to Handle, unless there is no room, or the partition may be another one's: after a stall of this
// process the records that were fetched before it are the first that come.
func (h *holding) hand(m *sarama.ConsumerMessage) bool {
	overdue := h.g.overdue() // not under h.mu: the member's lock comes before Group.mu, which comes before h.mu
	h.mu.Lock()
	if overdue || h.draining || h.back >= 0 || len(h.open) >= h.g.cfg.Window {
		h.mu.Unlock()
		return false
	}
	r := &handed{offset: m.Offset}
	h.open = append(h.open, r)
	before := h.next
	h.next = m.Offset + 1
	passed := h.hasPassed(m.Offset)
	h.mu.Unlock()
	if passed {
		h.settle(r, true)
		return true
	}
	took := h.g.cfg.Handle(h.ctx, fetchedOf(m), func(settled bool) { h.settle(r, settled) })
	h.mu.Lock()
	defer h.mu.Unlock()
	if !took { // nothing else was handed out meanwhile
		h.open = slices.DeleteFunc(h.open, func(o *handed) bool { return o == r })
		h.next = before
		if !h.refused {
			h.g.log.Warn().Str("kafka_topic", h.at.topic).Int32("partition", h.at.id).Int64("offset", m.Offset).
				Msg("no room for the records of a partition, they wait in Kafka")
		}
	}
	h.refused = !took
	return took
}

func fetchedOf(m *sarama.ConsumerMessage) *Fetched {
	r := &Fetched{Topic: m.Topic, Partition: m.Partition, Offset: m.Offset, Key: m.Key, Value: m.Value, Timestamp: m.Timestamp}
	for _, h := range m.Headers {
		r.Headers = append(r.Headers, Header{h.Key, h.Value})
	}
	return r
}

// settle is done. Only the first call for a record counts.
func (h *holding) settle(r *handed, settled bool) {
	h.mu.Lock()
	if !settled && !r.done && (h.back < 0 || r.offset < h.back) {
		h.back = r.offset
	}
	r.done = true
	for len(h.open) > 0 && h.open[0].done {
		h.open = h.open[1:]
	}
	left := len(h.open)
	h.mu.Unlock()
	h.room.wake()
	if left == 0 {
		h.empty.wake()
	}
}

// low gives the offset to commit, of the first record that is not settled, and what to note with it. ok is false if that is
// committed already.
func (h *holding) low() (offset int64, note string, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	offset = h.next
	if len(h.open) > 0 {
		offset = h.open[0].offset
	}
	if h.back >= 0 {
		offset = min(offset, h.back)
	}
	note = h.topicID
	if h.g.cfg.Apart {
		note = noteOf(h.topicID, offset, h.settledAbove())
	}
	return offset, note, offset >= 0 && (offset != h.committed || note != h.noted)
}

func (h *holding) noteCommitted(offset int64, note string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.committed, h.noted = offset, note
}

func (h *holding) position() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.next
}

// read finds where to begin and reads until the partition is not ours any more, through every trouble.
func (h *holding) read() {
	for h.position() < 0 && h.ctx.Err() == nil {
		if err := h.begin(); err != nil && h.ctx.Err() == nil {
			h.g.told.Warn().Err(err).Str("kafka_topic", h.at.topic).Int32("partition", h.at.id).Msg("cannot find where to begin")
			_ = sleep(h.ctx, memberAgain)
		}
	}
	from := h.position()
	for h.ctx.Err() == nil {
		err := h.readFrom(from)
		if h.ctx.Err() != nil {
			return
		}
		h.g.told.Warn().Err(err).Str("kafka_topic", h.at.topic).Int32("partition", h.at.id).Msg("a partition of the consumer group is not read")
		_ = sleep(h.ctx, memberAgain)
		if id, err := h.g.topicID(h.ctx, h.at.topic); err == nil && h.g.renewOf(h.at, id) {
			return
		}
		if from = h.position(); errors.Is(err, sarama.ErrOffsetOutOfRange) {
			from = h.g.reader.inside(h.at, from)
		}
	}
}

// begin sets the position to the group's offset, or to the end if it has none. That end becomes the group's offset
// before the first record is handed out: who owns the partition next must not begin later.
func (h *holding) begin() error {
	topicID, err := h.g.topicID(h.ctx, h.at.topic)
	if err != nil {
		return err
	}
	had, err := h.g.committed(h.ctx, map[string][]int32{h.at.topic: {h.at.id}})
	if err != nil {
		return err
	}
	offset, noted := had[h.at].Offset, had[h.at].Metadata
	of, passed := readNote(noted, offset)
	committed := offset
	if of == "" {
		committed = -1 // an offset that says of no topic is taken for one of this, and says so from now on
	}
	switch {
	case offset < 0:
		var told bool
		if offset, told = h.g.cfg.Begin(h.at.topic, topicID, h.at.id); !told {
			if offset, err = h.g.reader.end(h.at); err != nil {
				return err
			}
		}
	case isAnother(topicID, of):
		offset, committed, passed = 0, -1, nil
	}
	h.mu.Lock()
	h.next, h.committed, h.topicID, h.noted = offset, committed, topicID, noted
	if h.g.cfg.Apart {
		h.passed = passed
	}
	h.mu.Unlock()
	if committed < 0 {
		h.g.commit(h.ctx, []*holding{h})
	}
	return nil
}

// isAnother says that a topic is not the one that an ID was noted of.
func isAnother(topicID, noted string) bool { return topicID != noted && topicID != "" && noted != "" }

// renewOf has a partition of ours read from its beginning if its topic is another one than is read. What was handed out of
// the old one is not ours any more.
func (g *Group) renewOf(at spot, topicID string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	h := g.owned[at]
	if h == nil || !h.isOfAnother(topicID) {
		return false
	}
	g.log.Warn().Str("kafka_topic", at.topic).Int32("partition", at.id).
		Msg("the Kafka topic was deleted and made anew, and the consumer group reads it from its beginning")
	h.stop()
	g.owned[at] = newHolding(h.ctx, g, at)
	g.owned[at].start()
	return true
}

func (h *holding) isOfAnother(topicID string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return isAnother(topicID, h.topicID)
}

// readFrom hands out records until there is trouble. What Kafka gave and there is no room for waits here: sarama would
// hold back all partitions of that broker for it. The partition is paused meanwhile, so that is one or two fetches.
func (h *holding) readFrom(from int64) error {
	pc, err := h.g.reader.consume(h.at, from)
	if err != nil {
		return err
	}
	defer func() { _ = pc.Close() }() // it gives errors that are too late to matter
	var waiting []*sarama.ConsumerMessage
	for {
		if h.rewind() {
			return errRewound
		}
		for len(waiting) > 0 && h.hand(waiting[0]) {
			waiting = waiting[1:]
		}
		if full := len(waiting) > 0; full && !pc.IsPaused() {
			pc.Pause()
		} else if !full && pc.IsPaused() {
			pc.Resume()
		}
		var again <-chan time.Time
		if len(waiting) > 0 {
			again = time.After(offerAgain)
		}
		select {
		case <-h.ctx.Done():
			return nil
		case <-h.room:
		case <-again:
		case err := <-pc.Errors():
			return err
		case m, ok := <-pc.Messages():
			if !ok {
				return errEnded
			}
			waiting = append(waiting, m)
		}
	}
}

// offerAgain is how often a record that there was no room for is offered.
const offerAgain = 100 * time.Millisecond

// rewind goes back to the record that was not settled, if there is one and nothing is open any more.
func (h *holding) rewind() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.back < 0 || len(h.open) > 0 {
		return false
	}
	h.next, h.back = h.back, -1
	return true
}

var (
	errEnded   = errors.New("the reader has ended")
	errRewound = errors.New("a record was not settled, its partition is read again from there")
)
