package mqtt

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestGoneDeviceAboveARateIsMissed: although the end of its stream lies behind what would keep us busy for minutes.
func TestGoneDeviceAboveARateIsMissed(t *testing.T) {
	everyFlood(t, func(t *testing.T, w *world, v byte, flood []byte) {
		w.handsOnWills()
		c := w.connect(willed(v, "dev"))
		sent := c.flood(flood)
		until(t, "delayed", func() bool {
			return count(w.s.limits.control)+count(w.s.limits.messages) > 0 || count(w.s.m.bytesIn) > 20_000
		})
		_ = c.nc.Close()
		<-sent
		require.True(t, w.next().Will)
		until(t, "it left", func() bool { return w.open() == 0 && w.s.pacer.idle() })
		require.Zero(t, count(w.s.m.paused))
		require.Zero(t, w.s.partial.Load())
	})
}

func TestPeerThatClosedIsSeenBeforeWhatItSentIsRead(t *testing.T) {
	for name, end := range map[string]func(*net.TCPConn) error{
		"end": (*net.TCPConn).CloseWrite, "close": (*net.TCPConn).Close,
		"reset": func(nc *net.TCPConn) error { _ = nc.SetLinger(0); return nc.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			server, device := socketPair(t)
			_, err := device.Write([]byte("unread"))
			require.NoError(t, err)
			fd := socketOf(t, server)
			require.False(t, isGone(fd))
			require.NoError(t, end(device.(*net.TCPConn)))
			until(t, "gone", func() bool { return isGone(fd) })
		})
	}
}
