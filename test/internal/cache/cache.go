// Package cache keeps what tests download from one run to the next, and lets
// several test binaries share it.
package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Dir returns a directory of the harness's cache and makes it. The cache
// is shared by all test binaries of a user and outlives them.
func Dir(name string) (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		base = os.TempDir() // no home directory, as for some service users
	}
	dir := filepath.Join(base, "sluice-test", name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("cannot make a cache directory: %w", err)
	}
	return dir, nil
}

// TryLock takes the advisory lock on path or fails at once. The lock ends with
// the file's Close, and with the process however it dies.
func TryLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot lock %q: %w", path, err)
	}
	return f, nil
}

// Lock waits for the advisory lock on path.
func Lock(ctx context.Context, path string) (*os.File, error) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		f, err := TryLock(path)
		if err == nil {
			return f, nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(err, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// Once returns the directory name of the cache, made by fill the first time.
// fill works in an empty directory beside it, which becomes the cache's only
// when fill succeeds; test binaries that ask meanwhile wait.
func Once(ctx context.Context, name string, fill func(work string) error) (string, error) {
	parent, err := Dir(filepath.Dir(name))
	if err != nil {
		return "", err
	}
	dir := filepath.Join(parent, filepath.Base(name))
	if Has(dir) {
		return dir, nil
	}
	lock, err := Lock(ctx, dir+".lock")
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if Has(dir) {
		return dir, nil
	}
	return dir, fillDir(dir, fill)
}

func fillDir(dir string, fill func(work string) error) error {
	work, err := os.MkdirTemp(filepath.Dir(dir), ".making-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if err := fill(work); err != nil {
		return err
	}
	return os.Rename(work, dir)
}

// Has says whether the cached directory is there, and so whole.
func Has(dir string) bool {
	info, err := os.Stat(dir)
	return err == nil && info.IsDir()
}
