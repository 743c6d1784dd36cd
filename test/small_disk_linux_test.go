package test

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

const errNoRoom = syscall.ENOSPC

// smallDisk puts a file system of 64 MiB at dir, if this process may.
func smallDisk(t *testing.T, dir string) bool {
	t.Helper()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64m"); err != nil {
		t.Logf("cannot mount a small disk: %v", err)
		return false
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, 0)) })
	return true
}
