package mqtt

import (
	"encoding/binary"
	"syscall"
)

// tcpEstablished is the state of a TCP connection that neither side has ended (include/net/tcp_states.h).
const tcpEstablished = 1

// isGone says whether the peer of a socket has closed its side or is lost. Unlike the end of the stream, it can be seen
// before what the peer had sent is read.
func isGone(fd int) bool {
	info, err := syscall.GetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_INFO) // the beginning of it: the state is first
	if err != nil {
		return false
	}
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], uint32(info))
	return b[0] != tcpEstablished
}
