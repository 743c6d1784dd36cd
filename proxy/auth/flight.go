package auth

import (
	"context"
	"errors"
	"sync"
)

// errAborted is what those get who waited for a question that nobody finished.
var errAborted = errors.New("the question was given up")

// A flight is a question under way. The fields are set before done is closed.
type flight struct {
	done    chan struct{}
	verdict verdict
	err     error
	gone    bool // whoever asked is gone; the others must ask again
}

// flights let equal questions be asked once. It needs no goroutine: the first asks, the others wait for it.
type flights struct {
	mu    sync.Mutex // guards under
	under map[digest]*flight
}

// do gives the answer of ask, or of an equal question under way.
func (f *flights) do(ctx context.Context, key digest, ask func(context.Context) (verdict, error)) (verdict, error) {
	for {
		own, other := f.join(key)
		if own != nil {
			return f.lead(ctx, key, own, ask)
		}
		select {
		case <-other.done:
			if !other.gone {
				return other.verdict, other.err
			}
		case <-ctx.Done():
			return verdict{}, ctx.Err()
		}
	}
}

// join gives a new flight to lead, or the one that is under way.
func (f *flights) join(key digest) (own, other *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if other := f.under[key]; other != nil {
		return nil, other
	}
	own = &flight{done: make(chan struct{}), err: errAborted}
	f.under[key] = own
	return own, nil
}

// lead asks and tells the others, also if ask panics.
func (f *flights) lead(ctx context.Context, key digest, own *flight, ask func(context.Context) (verdict, error)) (verdict, error) {
	defer func() {
		f.mu.Lock()
		delete(f.under, key)
		f.mu.Unlock()
		close(own.done)
	}()
	own.verdict, own.err = ask(ctx)
	own.gone = own.err != nil && ctx.Err() != nil
	return own.verdict, own.err
}
