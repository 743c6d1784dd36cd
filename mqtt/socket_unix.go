//go:build unix

package mqtt

import "syscall"

// neverWaits makes reads and writes of the socket return EAGAIN where they would wait: Go's sockets are so here.
func neverWaits(syscall.RawConn) error { return nil }

// readFD reads at most len(b) bytes of a socket without waiting: 0 and no error at the end of the stream, EAGAIN if there are
// none yet.
func readFD(fd int, b []byte) (n int, err error) {
	return uninterrupted(func() (int, error) { return syscall.Read(fd, b) })
}

// peekFD is readFD of bytes that stay where they are.
func peekFD(fd int, b []byte) (n int, err error) {
	return uninterrupted(func() (int, error) {
		n, _, err := syscall.Recvfrom(fd, b, syscall.MSG_PEEK)
		return n, err
	})
}

// writeFD writes what the socket's buffer takes, without waiting: EAGAIN if it takes nothing.
func writeFD(fd int, b []byte) (n int, err error) {
	return uninterrupted(func() (int, error) { return syscall.Write(fd, b) })
}

func uninterrupted(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}
