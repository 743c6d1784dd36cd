package kafka

import (
	"cmp"
	"context"
	"fmt"

	"github.com/IBM/sarama"
)

// seekEnds sets followers to the end of their logs: the last stable offset, so that a transaction which is open there
// is read when it is committed. FromBeginning sets them to the start of their logs, and the end is what has to be
// handled for Positioned.
func (f *fetcher) seekEnds(ctx context.Context, b *sarama.Broker, at []place) error {
	ends, err := f.offsets(b, at, sarama.OffsetNewest, sarama.ReadCommitted)
	if err != nil {
		return err
	}
	starts := ends
	if f.c.cfg.From == FromBeginning {
		if starts, err = f.offsets(b, at, sarama.OffsetOldest, sarama.ReadCommitted); err != nil {
			return err
		}
	}
	f.c.mu.Lock()
	defer f.c.unlock()
	for p, end := range ends {
		f.c.beginAt(ctx, p, starts[p], end)
	}
	return nil
}

// beginAt gives a follower its place. The caller holds mu.
func (c *Consumer) beginAt(ctx context.Context, p *follower, start, end *sarama.OffsetResponseBlock) {
	if err := cmp.Or(end.Err, start.Err); err != sarama.ErrNoError {
		c.trouble(p, err)
		return
	}
	if p.next != atEnd || p.dropped.Load() {
		return
	}
	p.end, p.target = end.Offset, end.Offset
	p.handled.Store(start.Offset)
	p.recovered(c)
	c.push(ctx, p, span{next: start.Offset, begins: true}) // tells Progress
}

// seekLost finds where to go on for followers whose offset is not in the log.
func (f *fetcher) seekLost(ctx context.Context, b *sarama.Broker, at []place) error {
	var answers [3]map[*follower]*sarama.OffsetResponseBlock
	for i, ask := range []struct {
		time  int64
		level sarama.IsolationLevel
	}{{sarama.OffsetOldest, sarama.ReadUncommitted}, {sarama.OffsetNewest, sarama.ReadUncommitted}, {sarama.OffsetNewest, sarama.ReadCommitted}} {
		var err error
		if answers[i], err = f.offsets(b, at, ask.time, ask.level); err != nil {
			return err
		}
	}
	f.c.mu.Lock()
	defer f.c.unlock()
	for _, at := range at {
		f.c.goOn(ctx, at, answers[0][at.p], answers[1][at.p], answers[2][at.p])
	}
	return nil
}

// goOn sets a follower to the oldest record if it was before that, and to the end if it was past it, as after a log
// was cut by an election of a leader that did not have all. The caller holds mu.
func (c *Consumer) goOn(ctx context.Context, at place, oldest, newest, stable *sarama.OffsetResponseBlock) {
	p := at.p
	if p.next != at.offset || !p.lost || p.dropped.Load() {
		return
	}
	for _, o := range []*sarama.OffsetResponseBlock{oldest, newest, stable} {
		if o.Err != sarama.ErrNoError {
			c.trouble(p, o.Err)
			return
		}
	}
	p.lost = false
	switch {
	case p.next < oldest.Offset:
		c.jump(ctx, p, oldest.Offset)
	case p.next > newest.Offset:
		p.target = min(p.target, stable.Offset) // the rest of it is no more
		c.jump(ctx, p, stable.Offset)
	default: // it is in the log again
	}
}

// jump goes on at an offset that does not follow from the last one, and says so. The caller holds mu.
func (c *Consumer) jump(ctx context.Context, p *follower, to int64) {
	from := p.next
	c.m.gaps.Inc()
	c.m.gapRecords.Add(float64(max(to-from, 0)))
	c.note(func() {
		c.log.Warn().Str("kafka_topic", p.topic).Int32("partition", p.id).Int64("offset", from).Int64("start", to).Int64("gap", to-from).
			Msg("records of the Kafka partition are missing, going on after them")
	})
	c.push(ctx, p, span{next: to, begins: to < from}) // behind what was fetched and is not handled
}

// offsets asks for one offset of each partition. The answer has an entry for each.
func (f *fetcher) offsets(b *sarama.Broker, at []place, time int64, level sarama.IsolationLevel) (map[*follower]*sarama.OffsetResponseBlock, error) {
	req := sarama.NewOffsetRequest(f.conf.Version)
	req.IsolationLevel = level
	for _, at := range at {
		req.AddBlock(at.p.topic, at.p.id, time, 1)
	}
	resp, err := b.GetAvailableOffsets(req)
	if err != nil {
		return nil, fmt.Errorf("cannot ask %s for offsets: %w", f.addr, err)
	}
	answers := make(map[*follower]*sarama.OffsetResponseBlock, len(at))
	for _, at := range at {
		o := resp.GetBlock(at.p.topic, at.p.id)
		if o == nil {
			o = &sarama.OffsetResponseBlock{Err: sarama.ErrUnknown}
		}
		answers[at.p] = o
	}
	return answers, nil
}
