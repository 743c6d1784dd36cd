package proxy

import (
	"context"
	"os"
	"runtime/debug"
	"time"

	"sluice/kafka"
)

const (
	// usualGCPercent is the Go runtime's default: garbage may take as much memory as what is alive.
	usualGCPercent = 100
	// tightGCPercent holds while much of the budget is in use. What is in flight is alive, so with the default
	// the budget would cost twice its size. The collector works more then, which is cheap exactly when the
	// budget is full for long: while Kafka is away, nothing else is done.
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
	last  int // connections
	calm  int // ticks since many came or went
	blows bool
}

// ends takes how many connections there are now and says that a storm of a crowd has just ended.
func (s *storm) ends(connections int) bool {
	most := max(connections, s.last)
	moved := max(connections-s.last, s.last-connections)
	s.last = connections
	if moved > most/100 && most >= crowd {
		s.blows, s.calm = true, 0
		return false
	}
	s.calm++
	over := s.blows && s.calm >= calmTicks
	s.blows = s.blows && !over
	return over
}

// runMemory keeps the process near its budget until ctx ends. Who set GOGC knows better.
func runMemory(ctx context.Context, budget *kafka.Budget, connections func() int) error {
	if os.Getenv("GOGC") != "" {
		return nil
	}
	percent := usualGCPercent
	defer debug.SetGCPercent(usualGCPercent)
	var connecting storm
	tick := time.NewTicker(memoryTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		want := usualGCPercent
		switch {
		case budget.InUse() > budget.Max()/tightShare:
			want = tightGCPercent
		case connections() >= crowd:
			want = crowdedGCPercent
		}
		if want != percent {
			percent = want
			debug.SetGCPercent(percent)
		}
		if connecting.ends(connections()) {
			debug.FreeOSMemory()
		}
	}
}
