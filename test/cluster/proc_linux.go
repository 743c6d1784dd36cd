package cluster

import "syscall"

// dieWithParent makes the kernel kill the child when the test binary dies,
// however it dies, and keeps a terminal's Ctrl-C from the child.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
