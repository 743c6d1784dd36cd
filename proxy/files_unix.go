//go:build unix

package proxy

import "syscall"

// mostFiles returns how many files this process may have open, 0 if there is no limit that anybody could meet.
func mostFiles() int {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil || files.Cur > 1<<30 {
		return 0
	}
	return int(files.Cur)
}
