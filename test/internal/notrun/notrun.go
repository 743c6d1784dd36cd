// Package notrun ends a test that lacks something on this machine, so that it
// is seen: go test keeps silent about skipped tests.
package notrun

import (
	"fmt"
	"os"
	"testing"
)

// list names the file that `make test` prints at its end.
const list = "SLUICE_TEST_NOT_RUN"

// Because skips t and notes its name and why, which gives the reason and the
// remedy, in the file named by SLUICE_TEST_NOT_RUN. With required set it fails
// t instead; variable is the setting that requires.
func Because(t testing.TB, required bool, variable, why string) {
	t.Helper()
	if required {
		t.Fatalf("%s=required: %s", variable, why)
	}
	if err := note(os.Getenv(list), t.Name()+": "+why); err != nil {
		t.Errorf("cannot note that the test was not run: %v", err)
	}
	t.Skipf("NOT RUN: %s", why)
}

// note appends a line to the file, if one is named. A single write of a short
// line keeps those of several test binaries apart.
func note(path, line string) error {
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = fmt.Fprintln(f, line)
	return err
}
