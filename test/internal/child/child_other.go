//go:build !linux

// Package child is about the processes that tests start.
package child

import "syscall"

// DiesWithUs cannot be had here: a child outlives a test binary that is killed.
func DiesWithUs() *syscall.SysProcAttr { return nil }
