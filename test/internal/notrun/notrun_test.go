package notrun

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestASkippedTestIsNotedByName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "list")
	t.Setenv(list, path)
	require.True(t, t.Run("skipped", func(t *testing.T) {
		Because(t, false, "X", "no such thing. Remedy: get one")
		t.Error("went on")
	}))
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, t.Name()+"/skipped: no such thing. Remedy: get one\n", string(b))
}
