package mqtt

import (
	"context"
	"sync/atomic"
	"testing"
	"time"
)

// TestConnectionEndsWhenItsCredentialsAreWithdrawn at the next second, and its will is published; others stay.
func TestConnectionEndsWhenItsCredentialsAreWithdrawn(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		var gone atomic.Bool
		w := newWorld(t, guarded(func(_ context.Context, l *Login) (*Identity, error) {
			if l.Username == "" {
				return &Identity{Withdrawn: func() bool { return false }}, nil
			}
			return &Identity{Withdrawn: gone.Load}, nil
		}))
		other := w.device(v, "other")
		h := willed(v, "dev")
		h.username = "ann"
		c := w.connect(h)
		w.s.sweep(time.Now())
		c.ping()
		gone.Store(true)
		w.s.sweep(time.Now())
		c.goodbye(NotAuthorized)
		w.expectWill("dev")
		other.ping()
	})
}
