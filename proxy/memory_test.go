package proxy

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMemoryIsGivenBackOnceAfterAStorm: when a crowd has come, or gone, and not while it does, nor for a few who do.
func TestMemoryIsGivenBackOnceAfterAStorm(t *testing.T) {
	var s storm
	for _, now := range []struct {
		connections int
		ends        bool
	}{
		{100, false}, {crowd - 1, false}, {crowd - 1, false}, {crowd - 1, false}, {crowd - 1, false}, {crowd - 1, false}, // no crowd
		{2 * crowd, false}, {2 * crowd, false}, {2 * crowd, false}, {3 * crowd, false}, // goes on after a pause
		{3 * crowd, false}, {3*crowd + 1, false}, {3 * crowd, false}, {3*crowd + 9, true}, {3 * crowd, false}, {3 * crowd, false},
		{3 * crowd, false}, {3 * crowd, false}, {3 * crowd, false},
		{0, false}, {0, false}, {0, false}, {0, false}, {0, true}, {0, false}, {0, false}, {0, false}, {0, false},
	} {
		require.Equal(t, now.ends, s.ends(now.connections), "%+v", now)
	}
}

// TestAllowanceFollowsTheCollector: it grows while collections are dear, up to its most, stays while there are some, and goes
// when there are none.
func TestAllowanceFollowsTheCollector(t *testing.T) {
	var a allowance
	for _, now := range []struct {
		share float64
		bytes uint64
	}{
		{0, 0}, {dearCollection, 0}, // nothing to save
		{.1, leastAllowance}, {.1, 2 * leastAllowance}, {.1, 4 * leastAllowance}, {.1, mostAllowance}, {.1, mostAllowance},
		{.001, mostAllowance}, {0, mostAllowance}, {dearCollection, mostAllowance}, // it works
		{0, mostAllowance}, {0, mostAllowance}, {0, mostAllowance}, {.001, mostAllowance},
		{0, mostAllowance}, {0, mostAllowance}, {0, mostAllowance}, {0, mostAllowance / 2},
		{0, mostAllowance / 2}, {0, mostAllowance / 2}, {0, mostAllowance / 2}, {0, mostAllowance / 4},
	} {
		a.ticks(now.share)
		require.Equal(t, now.bytes, a.bytes, "%+v", now)
	}
}

// TestAllowanceIsGarbageBesideWhatLives: as far as the budget has room, and no less than the usual share of what lives.
func TestAllowanceIsGarbageBesideWhatLives(t *testing.T) {
	for _, c := range []struct {
		allowed uint64
		usual   int
		live    uint64
		room    uint64
		percent int
	}{
		{0, 100, 16 << 20, 64 << 20, 100},
		{64 << 20, 100, 16 << 20, 64 << 20, 400},
		{64 << 20, 100, 16 << 20, 32 << 20, 200},
		{64 << 20, 100, 640 << 20, 64 << 20, 100},
		{64 << 20, tightGCPercent, 64 << 20, 32 << 20, 50},
		{64 << 20, tightGCPercent, 64 << 20, 0, tightGCPercent},
		{64 << 20, 100, 0, 64 << 20, 6400}, // before the first collection
	} {
		a := allowance{bytes: c.allowed}
		require.Equal(t, c.percent, a.percent(c.usual, c.live, c.room), "%+v", c)
	}
}

// TestFewConnectionsThatComeOrGoAreNoStorm, and are seen all the same: who allocates what stays is not to leave garbage in between.
func TestFewConnectionsThatComeOrGoAreNoStorm(t *testing.T) {
	var s storm
	for _, now := range []struct {
		connections int
		moves       bool
	}{{10, true}, {10, false}, {0, true}, {0, false}, {1000, true}, {1010, false}, {1021, true}} {
		require.False(t, s.ends(now.connections))
		require.Equal(t, now.moves, s.moves, "%+v", now)
		require.False(t, s.blows)
	}
}
