package clients

import (
	"context"
	"errors"
	"sync"
)

// errEnded says that a client ended before it was asked to.
var errEnded = errors.New("the client has ended")

// A watch guards what is known of a client that runs, and lets others wait for changes.
type watch struct {
	mu      sync.Mutex
	changed chan struct{} // closed and replaced at every change
	ended   bool
	err     error // why it ended
}

func newWatch() watch { return watch{changed: make(chan struct{})} }

// change runs f under the lock and wakes who waits.
func (w *watch) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
	close(w.changed)
	w.changed = make(chan struct{})
}

// await waits until cond, which is called under the lock, is true or the client has ended.
func (w *watch) await(ctx context.Context, cond func() bool) error {
	for {
		w.mu.Lock()
		ok, ended, err, changed := cond(), w.ended, w.err, w.changed
		w.mu.Unlock()
		switch {
		case ok:
			return nil
		case ended:
			return errors.Join(errEnded, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}
