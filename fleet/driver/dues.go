package driver

import "container/heap"

// dues says for which clients something is to be done at a time, in milliseconds of the wall clock. The zero value is
// empty. Who is given looks again: it may be too early for what has changed since.
type dues struct {
	heap  dueHeap
	first map[string]int64 // of each client, so that one that comes and goes all day has one entry
}

type due struct {
	at     int64
	client string
}

func (d *dues) add(at int64, client string) {
	if first, ok := d.first[client]; ok && first <= at {
		return
	}
	if d.first == nil {
		d.first = make(map[string]int64)
	}
	d.first[client] = at
	heap.Push(&d.heap, due{at, client})
}

// take gives a client whose time has come.
func (d *dues) take(now int64) (client string, ok bool) {
	if len(d.heap) == 0 || d.heap[0].at > now {
		return "", false
	}
	next := heap.Pop(&d.heap).(due)
	if d.first[next.client] == next.at {
		delete(d.first, next.client)
	}
	return next.client, true
}

type dueHeap []due

// Len is for package heap.
func (h dueHeap) Len() int { return len(h) }

// Less is for package heap.
func (h dueHeap) Less(i, j int) bool { return h[i].at < h[j].at }

// Swap is for package heap.
func (h dueHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push is for package heap.
func (h *dueHeap) Push(x any) { *h = append(*h, x.(due)) }

// Pop is for package heap.
func (h *dueHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = due{}
	*h = old[:len(old)-1]
	return last
}
