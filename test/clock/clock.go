// Package clock steps the wall clock of processes that a test starts, one by one and at any time, while the machine's clock
// goes on. Monotonic clocks, and with them timers, are left alone, as an operating system leaves them alone when its
// clock is set.
//
// A program of C's library, such as a Java, gets a library that is loaded before it. A Go program asks the kernel itself:
// it is built with a package time that adds the step. A time namespace has no wall clock of its own, and libfaketime is of
// no use to Go.
package clock

import (
	_ "embed"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// variable names the file of a process's clock.
const variable = "SLUICE_TEST_CLOCK"

// A Clock is that of one process and of those that follow it.
type Clock struct{ path string }

// New makes a clock that goes right, in a file.
func New(path string) (*Clock, error) {
	c := &Clock{path}
	return c, c.Set(0)
}

// Set sets it so much ahead of the machine's.
func (c *Clock) Set(ahead time.Duration) error {
	f, err := os.OpenFile(c.path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(ahead)), 0) // eight bytes are written as one
	return err
}

// Env is what the process needs in its environment.
func (c *Clock) Env() string { return variable + "=" + c.path }

//go:embed preload.c.txt
var preload []byte

// Preload compiles the library for programs of C's library, in a directory, and gives what they need in their environment.
func Preload(dir string) (env string, err error) {
	source, library := filepath.Join(dir, "clock.c"), filepath.Join(dir, "clock.so")
	if err := os.WriteFile(source, preload, 0o600); err != nil {
		return "", err
	}
	if out, err := exec.Command("cc", "-O2", "-shared", "-fPIC", "-DVARIABLE=\""+variable+"\"", "-o", library, source).CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot compile the clock: %w\n%s", err, out)
	}
	return "LD_PRELOAD=" + library, nil
}

//go:embed step.go.txt
var step string

// Build builds a Go program whose clock can be stepped.
func Build(dir, out, pkg string) error {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return err
	}
	src := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	code, err := os.ReadFile(filepath.Join(src, "time.go"))
	if err != nil {
		return err
	}
	const ask = "\tsec, nsec, mono := runtimeNow()\n\tif mono == 0 {"
	changed := strings.Replace(string(code), ask, strings.Replace(ask, "\n", "\n\tsec, nsec = stepped(sec, nsec)\n", 1), 1)
	if changed == string(code) {
		return fmt.Errorf("time.Now of %s is not the one that is known here", runtime.Version())
	}
	overlay := map[string]map[string]string{"Replace": {}}
	for name, text := range map[string]string{"time.go": changed, "step.go": strings.ReplaceAll(step, "VARIABLE", variable)} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return err
		}
		overlay["Replace"][filepath.Join(src, name)] = file
	}
	b, err := json.Marshal(overlay)
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		return err
	}
	if out, err := exec.Command("go", "build", "-overlay", file, "-o", out, pkg).CombinedOutput(); err != nil {
		return fmt.Errorf("cannot build %s with a clock of its own: %w\n%s", pkg, err, out)
	}
	return nil
}
