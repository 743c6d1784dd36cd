package clients

import (
	"context"
	_ "embed" // for the driver and its requirements
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"sluice/test/internal/cache"
)

//go:embed python/publish.py
var pythonDriver string

//go:embed python/subscribe.py
var pythonSubscriber string

//go:embed python/requirements.txt
var pythonRequirements string

// Python returns Eclipse Paho for Python, in a virtual environment of its own.
func Python(t testing.TB) Runner {
	t.Helper()
	return obtain(t, "Eclipse Paho for Python",
		"install Python 3 with venv (Debian: apt-get install python3-venv) and let pip reach a package index",
		installPython)
}

func installPython(ctx context.Context) (Runner, error) {
	version, _, err := execute(ctx, nil, "python3", "-VV")
	if err != nil {
		return Runner{}, err
	}
	name := "clients/python-" + fingerprint(version, pythonRequirements, pythonDriver, pythonSubscriber)
	dir, err := cache.Once(ctx, name, func(work string) error { return makeVenv(ctx, work) })
	if err != nil {
		return Runner{}, err
	}
	// -W error makes each of Python's own warnings, such as deprecations, fatal.
	python := filepath.Join(dir, "venv", "bin", "python")
	return Runner{Name: "paho-python", Versions: []byte{V311, V5},
		run:       driver(python, "-W", "error", filepath.Join(dir, "publish.py")),
		subscribe: subscribeDriver("paho-python", python, "-W", "error", filepath.Join(dir, "subscribe.py"))}, nil
}

func makeVenv(ctx context.Context, work string) error {
	requirements := filepath.Join(work, "requirements.txt")
	for name, content := range map[string]string{
		"requirements.txt": pythonRequirements, "publish.py": pythonDriver, "subscribe.py": pythonSubscriber,
	} {
		if err := os.WriteFile(filepath.Join(work, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	venv := filepath.Join(work, "venv")
	if err := install(ctx, work, "python3", "-m", "venv", venv); err != nil {
		return err
	}
	return install(ctx, work, filepath.Join(venv, "bin", "python"), "-m", "pip", "install", "--quiet",
		"--disable-pip-version-check", "--requirement", requirements)
}

// install runs a step of an installation in dir.
func install(ctx context.Context, dir, name string, args ...string) error {
	stdout, stderr, err := executeIn(ctx, dir, nil, name, args...)
	if err != nil {
		return fmt.Errorf("%s failed: %w: %s%s", filepath.Base(name), err, stdout, stderr)
	}
	return nil
}
