package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"
)

// TestTheManifestsConfigurationIsLegal: the file in the ConfigMap is one that Sluice takes, and the grace period leaves
// time for its shutdown.
func TestTheManifestsConfigurationIsLegal(t *testing.T) {
	manifest, err := os.ReadFile("../deploy/kubernetes.yaml")
	require.NoError(t, err)
	kinds := map[string]bool{}
	var configuration string
	for _, document := range strings.Split(string(manifest), "\n---\n") {
		var d struct {
			Kind string
			Data map[string]string
		}
		require.NoError(t, yaml.Unmarshal([]byte(document), &d))
		kinds[d.Kind] = true
		configuration += d.Data["sluice.yaml"]
	}
	require.Equal(t, map[string]bool{"ConfigMap": true, "Deployment": true, "Service": true, "PodDisruptionBudget": true}, kinds)
	file := filepath.Join(t.TempDir(), "sluice.yaml")
	require.NoError(t, os.WriteFile(file, []byte(configuration), 0o600))
	out, err := exec.CommandContext(t.Context(), program, "check", "--config", file).CombinedOutput()
	require.NoError(t, err, string(out))
}
