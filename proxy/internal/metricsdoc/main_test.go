package main

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMetricsPageIsUpToDate: docs/metrics.md is what go generate makes of the code.
func TestMetricsPageIsUpToDate(t *testing.T) {
	want, err := Page()
	require.NoError(t, err)
	got, err := os.ReadFile("../../../docs/metrics.md")
	require.NoError(t, err)
	require.Equal(t, want, string(got), "run go generate ./proxy")
	require.Contains(t, want, "| `sluice_publish_messages_total` | counter | rule,outcome |")
	require.Contains(t, want, "| `sluice_command_outcomes_total` | counter | rule,outcome |", "what only commands have")
	require.Contains(t, want, "| `sluice_command_append_to_publish_seconds` | histogram |")
}
