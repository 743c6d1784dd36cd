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
	readBytes = 1 << 20
	// readPatience is how long Kafka may have nothing for us before the end of a partition.
	readPatience = 30 * time.Second
	// readAgain is the time between questions.
	readAgain = 100 * time.Millisecond
	// settle is how long nothing may come before what is there counts as all: nobody says when QoS 0 is stored, and doubles
	// may come late.
	settle = 2 * time.Second
)

// A tail reads what comes into some topics after a moment.
type tail struct {
	topics  []string
	reader  *kafka.Reader
	handle  func(at place, r *kafka.Fetched)
	next    map[place]int64
	deleted int64 // offsets that Kafka had deleted before they were read

	read, total atomic.Int64 // offsets, for progress
}

func newTail(cfg kafka.Config, handle func(place, *kafka.Fetched), topics ...string) (*tail, error) {
	reader, err := kafka.NewReader(cfg)
	if err != nil {
		return nil, err
	}
	return &tail{topics: topics, reader: reader, handle: handle, next: map[place]int64{}}, nil
}

// begin notes where the topics end now. A topic that is missing may still be made.
func (t *tail) begin(ctx context.Context) error {
	return t.each(ctx, func(at place) error {
		end, err := t.reader.Written(ctx, at.topic, at.partition)
		t.next[at] = end
		return err
	})
}

// each calls f for every partition there is.
func (t *tail) each(ctx context.Context, f func(at place) error) error {
	for _, topic := range t.topics {
		n, err := t.reader.Partitions(ctx, topic)
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

// A Readbacker reads the messages of a run from Kafka.
type Readbacker struct {
	t *tail
	v *verdict
}

// NewReadback checks where to read what p writes. Close ends its connections.
func (p Publish) NewReadback(cfg kafka.Config, topics ...string) (*Readbacker, error) {
	v := newVerdict(p.Run, p.Connections)
	t, err := newTail(cfg, func(at place, r *kafka.Fetched) { v.record(at, r.Offset, r.Value) }, topics...)
	return &Readbacker{t, v}, err
}

// Close ends its connections.
func (b *Readbacker) Close() { b.t.reader.Close() }

// Begin notes where the topics end now, before the run. A topic that is missing may still be made.
func (b *Readbacker) Begin(ctx context.Context) error { return b.t.begin(ctx) }

// Along reads until ctx ends, so that less is left for Finish, and nothing that Kafka deletes soon. What it can't read
// now is left for later.
func (b *Readbacker) Along(ctx context.Context) {
	for ok := true; ok; ok = sleep(ctx, readAgain) {
		_ = b.t.pass(ctx)
	}
}

// Finish reads to the end and compares with what the devices were told.
func (b *Readbacker) Finish(ctx context.Context, told *PublishResult) (*Readback, error) {
	begin := time.Now()
	for grew := begin; ; {
		records := b.v.report.Records
		if err := b.t.patiently(ctx); err != nil {
			return nil, fmt.Errorf("cannot read back: %w", err)
		}
		if b.v.report.Records > records {
			grew = time.Now()
		}
		if time.Since(grew) > settle {
			break
		}
		if !sleep(ctx, readAgain) {
			return nil, fmt.Errorf("cannot read back: %w", ctx.Err())
		}
	}
	r := b.v.judge(told.ledger, told.QoS)
	r.Topics, r.Seconds, r.Deleted = slices.Sorted(slices.Values(b.t.topics)), seconds(time.Since(begin)), b.t.deleted
	return r, nil
}

// Progress gives how many records were read, of how many as far as is known.
func (b *Readbacker) Progress() (read, total int) { return int(b.t.read.Load()), int(b.t.total.Load()) }

// patiently is pass, again if it fails: a broker that is away for a moment is no reason to give up.
func (t *tail) patiently(ctx context.Context) error {
	for begin := time.Now(); ; {
		err := t.pass(ctx)
		if err == nil || kafka.Final(err) || time.Since(begin) > readPatience || !sleep(ctx, readAgain) {
			return err
		}
	}
}

// pass reads every partition to the end it has now.
func (t *tail) pass(ctx context.Context) error {
	ends := map[place]int64{}
	left := int64(0)
	err := t.each(ctx, func(at place) error {
		end, err := t.reader.Written(ctx, at.topic, at.partition)
		ends[at] = end
		left += max(0, end-t.next[at])
		return err
	})
	if err != nil {
		return err
	}
	t.total.Store(t.read.Load() + left)
	for _, at := range slices.SortedFunc(maps.Keys(ends), comparePlaces) {
		if err := t.readTo(ctx, at, ends[at]); err != nil {
			return err
		}
	}
	return nil
}

func comparePlaces(a, b place) int {
	return cmp.Or(cmp.Compare(a.topic, b.topic), cmp.Compare(a.partition, b.partition))
}

// readTo reads a partition up to an offset.
func (t *tail) readTo(ctx context.Context, at place, end int64) error {
	heard := time.Now()
	for t.next[at] < end {
		from := t.next[at]
		next, err := t.reader.Read(ctx, at.topic, at.partition, from, readBytes, func(r *kafka.Fetched) bool {
			t.handle(at, r)
			t.next[at] = r.Offset + 1
			return true
		})
		switch {
		case errors.Is(err, kafka.ErrOffsetGone):
			if next, err = t.reader.Start(ctx, at.topic, at.partition); err != nil {
				return err
			}
			t.deleted += next - from
		case err != nil:
			return err
		case next == from && time.Since(heard) > readPatience:
			return fmt.Errorf("partition %d of %s can't be read beyond offset %d of %d: a transaction is open there", at.partition, at.topic, next, end)
		}
		t.next[at] = max(t.next[at], next)
		t.read.Add(t.next[at] - from)
		if t.next[at] > from {
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
