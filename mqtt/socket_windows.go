package mqtt

import (
	"syscall"
	"unsafe"
)

// What winsock2.h and ws2def.h call so; the package syscall has no names for them.
const (
	fionbio        = 0x8004667e
	msgPeek        = 0x2
	wsaEWOULDBLOCK = syscall.Errno(10035)
)

// neverWaits makes reads and writes of the socket return EAGAIN where they would wait. Go's own ones, which are overlapped, are as
// before.
func neverWaits(raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) {
		on, n := uint32(1), uint32(0)
		failed = syscall.WSAIoctl(syscall.Handle(fd), fionbio, (*byte)(unsafe.Pointer(&on)), uint32(unsafe.Sizeof(on)), nil, 0, &n, nil, 0)
	})
	if err == nil {
		err = failed
	}
	return err
}

// readFD reads at most len(b) bytes of a socket without waiting: 0 and no error at the end of the stream, EAGAIN if there are
// none yet.
func readFD(fd int, b []byte) (n int, err error) { return receive(fd, b, 0) }

// peekFD is readFD of bytes that stay where they are.
func peekFD(fd int, b []byte) (n int, err error) { return receive(fd, b, msgPeek) }

func receive(fd int, b []byte, flags uint32) (int, error) {
	buf, n := syscall.WSABuf{Len: uint32(len(b)), Buf: unsafe.SliceData(b)}, uint32(0)
	err := syscall.WSARecv(syscall.Handle(fd), &buf, 1, &n, &flags, nil, nil)
	return int(n), asUnix(err)
}

// writeFD writes what the socket's buffer takes, without waiting: EAGAIN if it takes nothing.
func writeFD(fd int, b []byte) (int, error) {
	buf, n := syscall.WSABuf{Len: uint32(len(b)), Buf: unsafe.SliceData(b)}, uint32(0)
	err := syscall.WSASend(syscall.Handle(fd), &buf, 1, &n, 0, nil, nil)
	return int(n), asUnix(err)
}

// asUnix names an error as the rest of the package does.
func asUnix(err error) error {
	switch err {
	case wsaEWOULDBLOCK:
		return syscall.EAGAIN
	case syscall.WSAECONNRESET:
		return syscall.ECONNRESET
	}
	return err
}
