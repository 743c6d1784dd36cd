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
	// tightShare of the budget in use makes it tight.
	tightShare = 8
)

// runMemory keeps the process near its budget until ctx ends. Who set GOGC knows better.
func runMemory(ctx context.Context, budget *kafka.Budget) error {
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
		if budget.InUse() > budget.Max()/tightShare {
			want = tightGCPercent
		}
		if want != percent {
			percent = want
			debug.SetGCPercent(percent)
		}
	}
}
