package driver

import (
	"context"
	"slices"
	"sync"
)

// A Watermark says up to where a partition was read.
type Watermark struct {
	mu    sync.Mutex
	next  int64
	waits []waiting
}

type waiting struct {
	end  int64
	done chan struct{}
}

// Reach notes that everything below next was read.
func (w *Watermark) Reach(next int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if next <= w.next {
		return
	}
	w.next = next
	left := w.waits[:0]
	for _, wait := range w.waits {
		if wait.end <= next {
			close(wait.done)
		} else {
			left = append(left, wait)
		}
	}
	clear(w.waits[len(left):])
	w.waits = left
}

// Wait waits until everything below end was read.
func (w *Watermark) Wait(ctx context.Context, end int64) error {
	w.mu.Lock()
	if end <= w.next {
		w.mu.Unlock()
		return nil
	}
	done := make(chan struct{})
	w.waits = append(w.waits, waiting{end, done})
	w.mu.Unlock()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		w.mu.Lock()
		defer w.mu.Unlock()
		w.waits = slices.DeleteFunc(w.waits, func(wait waiting) bool { return wait.done == done })
		return ctx.Err()
	}
}
