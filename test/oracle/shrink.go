package oracle

import (
	"context"
	"slices"
	"sync"
)

// tries is how often a script is played to see whether it still fails; not every fault shows every time.
const tries = 6

// Shrink leaves steps out of a script as long as it still fails by the same clause, until ctx ends. A nil history says
// that it did not fail again.
func Shrink(ctx context.Context, w *World, s Script, clause string) (Script, *History, []Violation) {
	defer w.settle.Store(w.settle.Swap(int64(patience / 8)))
	history, found := w.fails(ctx, s, clause)
	if history == nil {
		return s, nil, nil
	}
	for size := max(1, len(s)/2); size >= 1 && ctx.Err() == nil; {
		shorter := false
		for at := 0; at < len(s) && ctx.Err() == nil; {
			less := slices.Concat(s[:at], s[min(at+size, len(s)):])
			if h, v := w.fails(ctx, less, clause); h != nil {
				s, history, found, shorter = less, h, v, true
			} else {
				at += size
			}
		}
		if !shorter || size > len(s) {
			size /= 2
		}
	}
	return s, history, found
}

// fails plays a script some times at once and gives a history that fails by a clause.
func (w *World) fails(ctx context.Context, s Script, clause string) (history *History, found []Violation) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range tries {
		wg.Go(func() {
			h, v := w.Play(ctx, s)
			if slices.ContainsFunc(v, func(v Violation) bool { return v.Clause == clause }) && ctx.Err() == nil {
				mu.Lock()
				defer mu.Unlock()
				history, found = h, v
			}
		})
	}
	wg.Wait()
	return history, found
}
