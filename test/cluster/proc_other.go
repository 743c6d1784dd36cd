//go:build unix && !linux

package cluster

import "syscall"

// dieWithParent cannot be had here: a node outlives a test binary that is
// killed. Without a process group of its own it gets at least Ctrl-C.
func dieWithParent() *syscall.SysProcAttr { return nil }
