package proxy

import (
	"context"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"sluice/fleet/driver"
	"sluice/kafka"
)

// A retainedTail says up to where the table of retained messages was read, and reads it up to an end that is fetched
// when a device subscribes. Without that a message that was acknowledged just before would be missed: the index has it
// some milliseconds later, and its live copy was handed out before the subscription.
type retainedTail struct {
	topic  string
	layout *layout
	table  *kafka.Consumer

	mu    sync.Mutex
	parts map[int32]*retainedTailPart
	all   driver.Joined[[]int64] // the ends of all partitions
}

type retainedTailPart struct {
	mark driver.Watermark
	end  driver.Joined[int64]
}

func (t *retainedTail) part(id int32) *retainedTailPart {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.parts[id]
	if p == nil {
		if t.parts == nil {
			t.parts = make(map[int32]*retainedTailPart)
		}
		p = new(retainedTailPart)
		t.parts[id] = p
	}
	return p
}

// progress notes that everything of a partition below next is in the index.
func (t *retainedTail) progress(_ string, partition int32, next int64) {
	t.part(partition).mark.Reach(next)
}

// catchUp waits until the index has all that filters match of what was acknowledged before the call, or had come on the
// connection of the line attached. A partition that can't be asked holds back only who needs it: a filter with wildcards
// needs all.
func (t *retainedTail) catchUp(ctx context.Context, filters []string, attached any) error {
	if l, ok := attached.(*line); ok {
		if passed := l.passed(); passed != nil {
			select {
			case <-passed:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	if t.table.Partitions(t.topic) == 0 {
		return nil // the topic was deleted
	}
	n := t.layout.of(t.topic)
	need := map[int32]bool{}
	for _, f := range filters {
		if strings.ContainsAny(f, "+#") {
			return t.catchUpAll(ctx, n)
		}
		need[kafka.PartitionOf([]byte(f), n)] = true
	}
	for id := range need {
		p := t.part(id)
		end, err := p.end.Ask(ctx, start, func() (int64, error) { return t.table.Written(context.WithoutCancel(ctx), t.topic, id) })
		if err != nil {
			return err
		}
		if err := p.mark.Wait(ctx, end); err != nil {
			return err
		}
	}
	return nil
}

func (t *retainedTail) catchUpAll(ctx context.Context, n int32) error {
	ends, err := t.all.Ask(ctx, start, func() ([]int64, error) {
		ends := make([]int64, n)
		g, ctx := errgroup.WithContext(context.WithoutCancel(ctx))
		for id := range n {
			g.Go(func() (err error) {
				ends[id], err = t.table.Written(ctx, t.topic, id)
				return err
			})
		}
		return ends, g.Wait()
	})
	for id := 0; err == nil && id < len(ends); id++ {
		err = t.part(int32(id)).mark.Wait(ctx, ends[id])
	}
	return err
}

// start runs a question. It ends with the table's consumer: others wait for the answer when who asked it has left.
func start(f func()) { go f() }
