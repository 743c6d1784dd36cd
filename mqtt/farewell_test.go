package mqtt

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestDisconnectIsReadThoughTheDeviceIsBackAtOnce: it says DISCONNECT, closes and connects again, faster than the server
// reads. It has left, and is not lost.
func TestDisconnectIsReadThoughTheDeviceIsBackAtOnce(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		for range 300 {
			c := w.connect(willed(v, "dev"))
			c.send(packet(0xE0))
			require.NoError(t, c.nc.Close())
		}
		w.device(v, "dev")
		w.noMessage()
	})
}

// TestDisconnectIsReadWhoeverEndsTheConnection: it lies in the socket when the server gives the connection up, for a write to
// a device that has closed, or for another reason.
func TestDisconnectIsReadWhoeverEndsTheConnection(t *testing.T) {
	for name, reason := range map[string]error{
		"write": syscall.EPIPE, "slow reader": errSlowReader, "keep-alive": &ProtocolFault{KeepAliveTimeout, ""},
		"shutdown": &ProtocolFault{ServerShuttingDown, ""}, "credentials": errExpired,
	} {
		t.Run(name, func(t *testing.T) {
			over(t, append([]layers{{}}, everyLayer...), func(t *testing.T) {
				bothVersions(t, func(t *testing.T, v byte) {
					w := newWorld(t, nil)
					busy, release := make(chan *Conn), make(chan bool)
					w.answer = func(m *Message) {
						if m.Will {
							w.got <- m
							return
						}
						busy <- m.conn
						<-release
					}
					d := w.connect(willed(v, "dev"))
					d.publish(pub{topic: "t"})
					c := <-busy // reading goes on when this message is handled
					d.send(packet(0xE0))
					require.NoError(t, d.nc.Close())
					until(t, "the device is gone", func() bool { return isGone(socketOf(t, c.nc)) })
					c.shutdown(reason)
					release <- true
					w.ended()
					w.noMessage()
				})
			})
		})
	}
}
