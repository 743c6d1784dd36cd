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
)

// runMemory keeps the process near its budget until ctx ends. Who set GOGC knows better.
func runMemory(ctx context.Context, budget *kafka.Budget, connections func() int) error {
	if os.Getenv("GOGC") != "" {
		return nil
	}
	percent := usualGCPercent
	defer debug.SetGCPercent(usualGCPercent)
	tick := time.NewTicker(500 * time.Millisecond)
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
	}
}
