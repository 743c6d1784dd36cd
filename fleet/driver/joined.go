package driver

import (
	"context"
	"slices"
	"sync"
)

// A Joined is something that is asked of Kafka by many at once: one question is under way at a time, and answers
// everybody who had asked before it began. Who asks while one is under way gets the answer of the next: what Kafka said
// may be from before he asked.
type Joined[T any] struct {
	mu      sync.Mutex
	running bool
	waiting []chan reply[T]
}

type reply[T any] struct {
	value T
	err   error
}

// Ask gives the answer to a question that began after the call. work starts a goroutine.
func (j *Joined[T]) Ask(ctx context.Context, work func(func()), question func() (T, error)) (T, error) {
	answer := make(chan reply[T], 1)
	j.mu.Lock()
	j.waiting = append(j.waiting, answer)
	begin := !j.running
	j.running = true
	j.mu.Unlock()
	if begin {
		work(func() { j.run(question) }) // ends when nobody waits; the question ends with the process at the latest
	}
	select {
	case r := <-answer:
		return r.value, r.err
	case <-ctx.Done():
		j.mu.Lock()
		defer j.mu.Unlock()
		j.waiting = slices.DeleteFunc(j.waiting, func(c chan reply[T]) bool { return c == answer })
		var none T
		return none, ctx.Err()
	}
}

func (j *Joined[T]) run(question func() (T, error)) {
	for {
		j.mu.Lock()
		waiting := j.waiting
		j.waiting = nil
		if j.running = len(waiting) > 0; !j.running {
			j.mu.Unlock()
			return
		}
		j.mu.Unlock()
		value, err := question()
		for _, answer := range waiting {
			answer <- reply[T]{value, err}
		}
	}
}

// fences are the questions for transactional ids that are to be taken away, by id. A device that is taken over asks for
// one, and thousands may come at once when an instance dies.
type fences struct {
	mu   sync.Mutex
	byID map[string]*Joined[struct{}]
}

func (f *fences) of(id string) *Joined[struct{}] {
	f.mu.Lock()
	defer f.mu.Unlock()
	j := f.byID[id]
	if j == nil {
		if f.byID == nil {
			f.byID = make(map[string]*Joined[struct{}])
		}
		j = new(Joined[struct{}])
		f.byID[id] = j
	}
	return j
}
