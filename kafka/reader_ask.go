package kafka

import (
	"context"
	"fmt"
	"sync"
)

// An asker asks brokers for callers who may leave before there is an answer. Their connections are shared, and a
// question can only be taken back by cutting the connection, which would take it from all the others. So what a caller
// has left is waited for here.
type asker struct {
	net *links

	mu     sync.Mutex
	closed bool
	work   sync.WaitGroup // of the questions
}

// enter counts one more question, unless it is closed.
func (a *asker) enter() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.closed {
		a.work.Add(1)
	}
	return !a.closed
}

// close cuts the connections, and waits until the questions have ended by that.
func (a *asker) close() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.net.close()
	a.work.Wait()
}

// askAt has f ask, and gives its answer or the error of ctx. f gets a context that does not end with ctx, and must
// write to nothing that the caller of askAt reads.
func askAt[T any](ctx context.Context, a *asker, f func(context.Context) (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	if !a.enter() {
		return answer{}.value, fmt.Errorf("nothing is asked any more: %w", ErrClosed)
	}
	got := make(chan answer, 1)
	go func() { // ends with the answer, when the connection's time is up, or with close
		defer a.work.Done()
		value, err := f(context.WithoutCancel(ctx))
		got <- answer{value, err}
	}()
	select {
	case <-ctx.Done():
		return answer{}.value, ctx.Err()
	case r := <-got:
		return r.value, r.err
	}
}
