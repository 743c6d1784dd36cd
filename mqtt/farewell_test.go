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
						if string(m.Topic) == "last" {
							w.got <- m
							return
						}
						busy <- m.conn
						<-release
					}
					d := w.connect(willed(v, "dev"))
					d.publish(pub{topic: "t"})
					c := <-busy // reading goes on when this message is handled
					d.publish(pub{topic: "last"})
					d.send(packet(0xE0))
					require.NoError(t, d.nc.Close())
					until(t, "the device is gone", func() bool { return isGone(socketOf(t, c.nc)) })
					c.shutdown(reason)
					release <- true
					w.ended()
					if name == "write" { // or the message would be lost without a word
						require.Equal(t, "last", string(w.next().Topic))
						w.ends(1, "normal disconnection")
					}
					w.noMessage()
				})
			})
		})
	}
}

// TestDisconnectBehindWhatIsPausedIsReadAfterAWriteFailed, though what waits is not handled any more.
func TestDisconnectBehindWhatIsPausedIsReadAfterAWriteFailed(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		w.setFull(true)
		w.s.waiting.Store(w.s.cfg.MaxPartialBytes + 1) // no more is read in a pause
		d := w.connect(willed(v, "dev"))
		d.send(pub{topic: "t", qos: 1, id: 1}.packet(v), pub{topic: "t", qos: 1, id: 2}.packet(v))
		until(t, "paused", func() bool { return count(w.s.m.paused) == 1 })
		d.send(packet(0xE0))
		require.NoError(t, d.nc.Close())
		w.s.conns.each(func(c *Conn) {
			until(t, "the device is gone", func() bool { return isGone(socketOf(t, c.nc)) })
			c.shutdown(syscall.EPIPE)
		})
		w.ended()
		w.noMessage()
		require.Zero(t, count(w.s.m.panics))
	})
}
