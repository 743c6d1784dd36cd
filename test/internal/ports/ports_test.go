package ports_test

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/test/internal/ports"
)

func TestPortsAreFreeAndNoOthersUntilReleased(t *testing.T) {
	ps, err := ports.Take(20)
	require.NoError(t, err)
	seen := map[int]bool{}
	for _, p := range ps {
		require.False(t, seen[p.Number], "port %d twice", p.Number)
		seen[p.Number] = true
		l, err := net.Listen("tcp", p.Addr())
		require.NoError(t, err)
		require.NoError(t, l.Close())
	}
	require.NoError(t, ports.Release(ps))
}
