package proxy

import (
	"context"
	"os"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"time"

	"sluice/kafka"
)

const (
	// usualGCPercent is the Go runtime's default: garbage may take as much memory as what is alive.
	usualGCPercent = 100
	// tightGCPercent holds while much of the budget is in use. What is in flight is alive, so with the default
	// the budget would cost twice its size. While Kafka is away, nothing else is done than to collect.
	tightGCPercent = 20
	// crowdedGCPercent holds with crowd connections or more. What they keep is alive and hardly changes, so that the
	// default would have each cost twice its size for nothing.
	crowdedGCPercent = 40
	crowd            = 2000
	// tightShare of the budget in use makes it tight.
	tightShare = 8
	// memoryTick is how often all this is looked at.
	memoryTick = 500 * time.Millisecond
	// calmTicks without many who come or go are the end of a storm.
	calmTicks = 4
)

// A storm is a time when many connect or leave. What they need for a moment only is several times what they keep, and
// the runtime would give it back over minutes.
type storm struct {
	last  int  // connections
	calm  int  // ticks since many came or went
	moves bool // many came or went since the last tick, of however few
	blows bool
}

// ends takes how many connections there are now and says that a storm of a crowd has just ended.
func (s *storm) ends(connections int) bool {
	most := max(connections, s.last)
	moved := max(connections-s.last, s.last-connections)
	s.last = connections
	s.moves = moved > most/100
	if s.moves && most >= crowd {
		s.blows, s.calm = true, 0
		return false
	}
	s.calm++
	over := s.blows && s.calm >= calmTicks
	s.blows = s.blows && !over
	return over
}

// An allowance is the garbage that may lie about, whatever is alive: under load little is, and a collector that goes by shares
// would run all the time. It grows while collecting takes much of the time that is worked, and goes when nothing is collected.
type allowance struct {
	bytes uint64
	calm  int // ticks without a collection
}

const (
	// mostAllowance is what an allowance may grow to.
	mostAllowance = 128 << 20
	// leastAllowance is what it begins with.
	leastAllowance = 16 << 20
	// dearCollection is the share of the time worked that collecting may take.
	dearCollection = 0.02
)

// ticks takes what share of the time worked since the last tick, 0 to 1, went into collections: 0 if there were none.
func (a *allowance) ticks(share float64) {
	if share > 0 {
		a.calm = 0
		if share > dearCollection {
			a.bytes = min(max(2*a.bytes, leastAllowance), mostAllowance)
		}
		return
	}
	if a.calm++; a.calm < calmTicks {
		return
	}
	a.calm = 0
	if a.bytes /= 2; a.bytes < leastAllowance {
		a.bytes = 0
	}
}

// percent is the GC percent by which garbage may take as much as the allowance, as far as the budget has room for it, and no
// less than usual.
func (a *allowance) percent(usual int, live, room uint64) int {
	return max(usual, int(min(a.bytes, room)*100/max(live, 1<<20)))
}

// A collector tells what the Go runtime's has done. The runtime counts at the end of a collection.
type collector struct {
	samples []runtimemetrics.Sample
	before  [3]float64 // seconds of all collections, those of them that nobody else wanted, and of everything else
}

func newCollector() *collector {
	c := &collector{samples: []runtimemetrics.Sample{
		{Name: "/cpu/classes/gc/total:cpu-seconds"}, {Name: "/cpu/classes/gc/mark/idle:cpu-seconds"}, {Name: "/cpu/classes/user:cpu-seconds"},
		{Name: "/gc/heap/live:bytes"},
	}}
	c.read()
	return c
}

// read returns the share of the time worked, 0 to 1, that collections took since the last read, and the bytes found alive.
func (c *collector) read() (share float64, live uint64) {
	runtimemetrics.Read(c.samples)
	var since [3]float64
	for i := range since {
		now := c.samples[i].Value.Float64()
		since[i], c.before[i] = now-c.before[i], now
	}
	if gc := since[0] - since[1]; gc > 0 {
		share = gc / (gc + since[2])
	}
	return share, c.samples[3].Value.Uint64()
}

// usualPercent is what the budget and the number of connections ask for.
func usualPercent(budget *kafka.Budget, connections int) int {
	switch {
	case budget.InUse() > budget.Max()/tightShare:
		return tightGCPercent
	case connections >= crowd:
		return crowdedGCPercent
	}
	return usualGCPercent
}

// runMemory keeps the process near its budget until ctx ends. Who set GOGC knows better.
func runMemory(ctx context.Context, budget *kafka.Budget, connections func() int) error {
	if os.Getenv("GOGC") != "" {
		return nil
	}
	percent := usualGCPercent
	defer debug.SetGCPercent(usualGCPercent)
	var connecting storm
	var garbage allowance
	gc := newCollector()
	tick := time.NewTicker(memoryTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		share, live := gc.read()
		n := connections()
		over := connecting.ends(n)
		if connecting.moves || connecting.blows { // what stays would lie scattered among what is given back
			garbage = allowance{}
		} else {
			garbage.ticks(share)
		}
		room := uint64(max(budget.Max()-budget.InUse(), 0))
		if want := garbage.percent(usualPercent(budget, n), live, room); want != percent {
			percent = want
			debug.SetGCPercent(percent)
		}
		if over {
			debug.FreeOSMemory()
		}
	}
}
