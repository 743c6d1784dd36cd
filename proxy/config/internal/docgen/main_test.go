package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const configDir = "../.."

// TestGeneratedFilesAreFresh fails when a doc comment, a default or a range changed and nobody ran
// go generate ./proxy/config.
func TestGeneratedFilesAreFresh(t *testing.T) {
	for _, step := range []string{"comments", "docs"} {
		files, err := generate(step, configDir)
		require.NoError(t, err)
		require.NotEmpty(t, files)
		for path, want := range files {
			got, err := os.ReadFile(filepath.Join(configDir, path))
			require.NoError(t, err)
			require.True(t, string(want) == string(got), "%s is stale: run go generate ./proxy/config", path)
		}
	}
}

func TestCommentsAreReflowed(t *testing.T) {
	require.Equal(t, "A b c.\n\nD:\n\n- e f\n- g", reflow("A b\nc.\n\nD:\n\n  - e\n    f\n  - g\n"))
	require.Equal(t, "", reflow("\n"))
}

func TestOnlyConfigurationStructsAreCollected(t *testing.T) {
	dir := t.TempDir()
	src := `package config

// A sets things.
type A struct {
	// B is b,
	// or not.
	B int ` + "`yaml:\"b\"`" + `
	hidden int
}

// Plain is none.
type Plain struct{ C int }
`
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a.go"), []byte(src), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a_test.go"), []byte("package config\n// T is none.\ntype T struct { D int `yaml:\"d\"` }\n"), 0o600))
	table, err := commentTable(dir)
	require.NoError(t, err)
	require.Contains(t, string(table), `"A":   "A sets things."`)
	require.Contains(t, string(table), `"A.B": "B is b, or not."`)
	require.Equal(t, 2, strings.Count(string(table), "\t\""))
}

func TestUnknownStepsAreRefused(t *testing.T) {
	_, err := generate("nonsense", configDir)
	require.Error(t, err)
	require.Error(t, run(nil))
	require.Error(t, run([]string{"nonsense"}))
}
