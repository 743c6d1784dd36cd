package mqtt

import (
	"errors"
	"fmt"
)

// errPause says that the packet at hand must wait: nothing more is read until the connection is resumed.
var errPause = errors.New("reading is paused")

// errHungUp says that the device closed its side without DISCONNECT.
var errHungUp = errors.New("connection closed by the device")

// ErrServerClosed is returned by Serve after Shutdown.
var ErrServerClosed = errors.New("mqtt server closed")

// A ProtocolFault ends a connection because of what the device sent. Code goes to an MQTT 5 device in
// DISCONNECT or CONNACK.
type ProtocolFault struct {
	Code   Code
	Detail string
}

// Error gives the code's name and the detail.
func (f *ProtocolFault) Error() string { return f.Code.String() + ": " + f.Detail }

func malformed(format string, args ...any) error {
	return &ProtocolFault{MalformedPacket, fmt.Sprintf(format, args...)}
}

func violation(format string, args ...any) error {
	return &ProtocolFault{ProtocolError, fmt.Sprintf(format, args...)}
}
