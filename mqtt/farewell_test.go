package mqtt

import (
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
