package cache_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/test/internal/cache"
)

// own gives the test a cache of its own.
func own(t *testing.T) string {
	dir := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", dir)
	t.Setenv("HOME", dir)
	return dir
}

func TestOnceFillsOnceForAllWhoAsk(t *testing.T) {
	own(t)
	var fills atomic.Int32
	fill := func(work string) error {
		fills.Add(1)
		return os.WriteFile(filepath.Join(work, "file"), []byte("x"), 0o644)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			dir, err := cache.Once(t.Context(), "a/b", fill)
			if err != nil {
				t.Errorf("Once: %v", err)
				return
			}
			if _, err := os.Stat(filepath.Join(dir, "file")); err != nil {
				t.Errorf("not whole: %v", err)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 1, fills.Load())
}

func TestAFailedFillLeavesNothing(t *testing.T) {
	own(t)
	broken := errors.New("no network")
	dir, err := cache.Once(t.Context(), "a/b", func(string) error { return broken })
	require.ErrorIs(t, err, broken)
	require.False(t, cache.Has(dir))
	_, err = cache.Once(t.Context(), "a/b", func(string) error { return nil })
	require.NoError(t, err, "the next one tries again")
	require.True(t, cache.Has(dir))
}

func TestLockIsOnesAtATimeAndWaitsNoLongerThanTold(t *testing.T) {
	path := filepath.Join(own(t), "lock")
	held, err := cache.Lock(t.Context(), path)
	require.NoError(t, err)
	_, err = cache.TryLock(path)
	require.Error(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = cache.Lock(ctx, path)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, held.Close())
	next, err := cache.Lock(t.Context(), path)
	require.NoError(t, err)
	require.NoError(t, next.Close())
}
