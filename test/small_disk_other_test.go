//go:build !linux

package test

import (
	"syscall"
	"testing"
)

const errNoRoom = syscall.ENOSPC

// smallDisk puts a small file system at dir; false: not on this system.
func smallDisk(*testing.T, string) bool { return false }
