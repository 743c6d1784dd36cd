// Package test holds the tests of the real binary against a real Kafka, driven by clients that were not written here.
package test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"sluice/test/cluster"
)

// program is the program under test, built once by TestMain.
var program string

func TestMain(m *testing.M) {
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "sluice-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "sluice")
	// What tests build is built as what ships is, so most of it has been compiled before.
	if err := os.Setenv("CGO_ENABLED", "0"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "../cmd/sluice")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "cannot build the binary: %v\n%s", err, out)
		return 1
	}
	return cluster.Main(m)
}

// soak says whether the long versions of the load and failure tests run: SLUICE_SOAK=1.
func soak() bool { return os.Getenv("SLUICE_SOAK") == "1" }

// either gives the long value in a soak run and the short one otherwise.
func either[T any](short, long T) T {
	if soak() {
		return long
	}
	return short
}

// besideOthers lets a short test run beside others of its kind, as many as run.sh says, after those that have the machine to
// themselves. It is for tests that wait for most of their time, measure nothing, and share no Kafka that they harm.
func besideOthers(t *testing.T) {
	if !soak() {
		t.Parallel()
	}
}
