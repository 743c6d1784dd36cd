package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"sluice/kafka"
)

const (
	// readBytes is how much is asked for at once.
	readBytes = 4 << 20
	// readPatience is how long Kafka may have nothing for us before the end of a partition.
	readPatience = 30 * time.Second
	// readAgain is the time between questions.
	readAgain = 100 * time.Millisecond
	// settle is how long nothing may come before what has QoS 0 counts as not stored: nobody says when it is.
	settle = 2 * time.Second
)

// A Readbacker reads the messages of a run from Kafka.
type Readbacker struct {
	topics []string
	reader *kafka.Reader
	v      *verdict
	next   map[place]int64

	read, total atomic.Int64 // offsets, for progress
}

// NewReadback checks where to read what p writes. Close ends its connections.
func (p Publish) NewReadback(cfg kafka.Config, topics ...string) (*Readbacker, error) {
	reader, err := kafka.NewReader(cfg)
	if err != nil {
		return nil, err
	}
	return &Readbacker{topics: topics, reader: reader, v: newVerdict(p.Run, p.Connections), next: map[place]int64{}}, nil
}

// Close ends its connections.
func (b *Readbacker) Close() { b.reader.Close() }

// Begin notes where the topics end now, before the run. A topic that is missing may still be made.
func (b *Readbacker) Begin(ctx context.Context) error {
	return b.each(ctx, func(at place) error {
		end, err := b.reader.Written(ctx, at.topic, at.partition)
		b.next[at] = end
		return err
	})
}

// each calls f for every partition there is.
func (b *Readbacker) each(ctx context.Context, f func(at place) error) error {
	for _, topic := range b.topics {
		n, err := b.reader.Partitions(ctx, topic)
		if errors.Is(err, kafka.ErrTopicMissing) {
			continue
		}
		if err != nil {
			return err
		}
		for id := range n {
			if err := f(place{topic, id}); err != nil {
				return err
			}
		}
	}
	return nil
}

// Along reads until ctx ends, so that less is left for Finish, and nothing that Kafka deletes soon.
func (b *Readbacker) Along(ctx context.Context) error {
	for {
		if err := b.pass(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if !sleep(ctx, readAgain) {
			return nil
		}
	}
}

// Finish reads to the end and compares with what the devices were told.
func (b *Readbacker) Finish(ctx context.Context, told *PublishResult) (*Readback, error) {
	begin := time.Now()
	for grew := begin; ; {
		records := b.v.report.Records
		if err := b.pass(ctx); err != nil {
			return nil, fmt.Errorf("cannot read back: %w", err)
		}
		if b.v.report.Records > records {
			grew = time.Now()
		}
		if told.QoS > 0 || b.v.report.Records >= told.Sent || time.Since(grew) > settle {
			break
		}
		if !sleep(ctx, readAgain) {
			return nil, fmt.Errorf("cannot read back: %w", ctx.Err())
		}
	}
	r := b.v.judge(told.ledger, told.QoS)
	r.Topics, r.Seconds = slices.Sorted(slices.Values(b.topics)), seconds(time.Since(begin))
	return r, nil
}

// Progress gives how many records were read, of how many as far as is known.
func (b *Readbacker) Progress() (read, total int) { return int(b.read.Load()), int(b.total.Load()) }

// pass reads every partition to the end it has now.
func (b *Readbacker) pass(ctx context.Context) error {
	ends := map[place]int64{}
	left := int64(0)
	err := b.each(ctx, func(at place) error {
		end, err := b.reader.Written(ctx, at.topic, at.partition)
		ends[at] = end
		left += max(0, end-b.next[at])
		return err
	})
	if err != nil {
		return err
	}
	b.total.Store(b.read.Load() + left)
	for _, at := range slices.SortedFunc(maps.Keys(ends), comparePlaces) {
		if err := b.readTo(ctx, at, ends[at]); err != nil {
			return err
		}
	}
	return nil
}

func comparePlaces(a, b place) int {
	return cmp.Or(cmp.Compare(a.topic, b.topic), cmp.Compare(a.partition, b.partition))
}

// readTo reads a partition up to an offset.
func (b *Readbacker) readTo(ctx context.Context, at place, end int64) error {
	heard := time.Now()
	for b.next[at] < end {
		from := b.next[at]
		next, err := b.reader.Read(ctx, at.topic, at.partition, from, readBytes, func(r *kafka.Fetched) bool {
			b.v.record(at, r.Offset, r.Value)
			b.next[at] = r.Offset + 1
			return true
		})
		switch {
		case errors.Is(err, kafka.ErrOffsetGone):
			if next, err = b.reader.Start(ctx, at.topic, at.partition); err != nil {
				return err
			}
			b.v.report.Deleted += next - from
		case err != nil && time.Since(heard) > readPatience:
			return err
		case err == nil && next == from && time.Since(heard) > readPatience:
			return fmt.Errorf("partition %d of %s can't be read beyond offset %d of %d: a transaction is open there", at.partition, at.topic, next, end)
		}
		b.next[at] = max(b.next[at], next)
		b.read.Add(b.next[at] - from)
		if b.next[at] > from {
			heard = time.Now()
		} else if !sleep(ctx, readAgain) {
			return ctx.Err()
		}
	}
	return nil
}

// sleep reports whether ctx goes on after some time.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
