// Package child is about the processes that tests start.
package child

import "syscall"

// DiesWithUs makes the kernel kill a child when the test binary dies, however it dies.
func DiesWithUs() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
