package bench

import (
	"math/bits"
	"sync/atomic"
	"time"
)

const (
	// perDoubling is how many counters there are for each doubling of the time: a quantile is at most 1/64 too large.
	perDoubling = 64
	doublings   = 42 // of a microsecond: more than a month
)

// A Histogram counts times, in constant memory for any number of them. Its methods may be called from any goroutine.
type Histogram struct {
	counts [doublings * perDoubling]atomic.Uint64
	max    atomic.Int64
}

// bucket gives the counter of a time in microseconds: below 64 each has its own, above it each doubling has 64.
func bucket(us uint64) int {
	if us < perDoubling {
		return int(us)
	}
	shift := bits.Len64(us) - 7 // us>>shift is 64 to 127
	return min(shift*perDoubling+int(us>>shift), doublings*perDoubling-1)
}

// upper gives the largest time in microseconds that bucket counts at p.
func upper(p int) uint64 {
	if p < perDoubling {
		return uint64(p)
	}
	shift := p/perDoubling - 1
	return uint64(perDoubling+p%perDoubling+1)<<shift - 1
}

// Add counts n times of d.
func (h *Histogram) Add(d time.Duration, n int) {
	d = max(d, 0)
	h.counts[bucket(uint64(d/time.Microsecond))].Add(uint64(n))
	for old := h.max.Load(); int64(d) > old && !h.max.CompareAndSwap(old, int64(d)); old = h.max.Load() {
	}
}

// Count gives how many times were counted.
func (h *Histogram) Count() (n uint64) {
	for i := range h.counts {
		n += h.counts[i].Load()
	}
	return n
}

// Quantile gives the time that the share q of all did not exceed, 0 if there is none. It is never too small, and at most
// 1/64 too large; the largest is exact.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank := uint64(q * float64(h.Count()))
	for i := range h.counts {
		if n := h.counts[i].Load(); n > 0 {
			if n > rank {
				return min(time.Duration(upper(i)+1)*time.Microsecond, time.Duration(h.max.Load()))
			}
			rank -= n
		}
	}
	return time.Duration(h.max.Load())
}

// Times are the usual quantiles, in milliseconds.
type Times struct {
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p99_9"`
	Max  float64 `json:"max"`
}

// Times gives the usual quantiles, nil if nothing was counted.
func (h *Histogram) Times() *Times {
	if h.Count() == 0 {
		return nil
	}
	ms := func(q float64) float64 { return milliseconds(h.Quantile(q)) }
	return &Times{ms(.5), ms(.9), ms(.99), ms(.999), ms(1)}
}

func milliseconds(d time.Duration) float64 {
	return float64(d.Round(10*time.Microsecond)/(10*time.Microsecond)) / 100
}
