package cluster

import (
	"context"
	"fmt"
	"time"
)

// until calls f every so often until it returns nil or ctx ends; the last
// error then says why.
func until(ctx context.Context, every time.Duration, f func() error) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}
