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
