package netem

import (
	"errors"
	"io"
	"net"
	"syscall"
)

// setBacklog changes the length of the accept queue of a listener that
// listens already.
func setBacklog(l *net.TCPListener, n int) error {
	raw, err := l.SyscallConn()
	if err != nil {
		return err
	}
	var lerr error
	err = raw.Control(func(fd uintptr) { lerr = syscall.Listen(int(fd), n) })
	return errors.Join(err, lerr)
}

// isReset says whether a read ended otherwise than by the stream's end.
func isReset(err error) bool { return !errors.Is(err, io.EOF) }
