package tls

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"pgregory.net/rapid"
	"sluice/tls/tlstest"
)

// TestOpenAndSealSideBySide: while one goroutine seals, another opens changes of keys, whose answers must come between
// whole records, with those before them under the old keys and those after under the new.
func TestOpenAndSealSideBySide(t *testing.T) {
	c, up, down := laboratory(t)
	const changes = 200
	var out []byte
	var sealed int
	var changed atomic.Bool
	defer changed.Store(true)
	var wg sync.WaitGroup
	wg.Go(func() { // ends when all keys have changed
		for !changed.Load() {
			out, _ = c.Seal([]byte("data"), out)
			sealed++
		}
	})
	for range changes {
		for c.wire.owed() > mostOwed/2 {
			runtime.Gosched() // as long as the answers are sent there is no limit to them
		}
		plain, err := c.Open(up.Seal(typeHandshake, tlstest.KeyUpdate(1), 0), nil)
		require.NoError(t, err)
		up = up.Next(t)
		plain, err = c.Open(up.Seal(typeData, []byte("x"), 0), plain)
		require.NoError(t, err)
		require.Equal(t, "x", string(plain))
	}
	changed.Store(true)
	wg.Wait()
	require.NoError(t, c.err)
	out, err := c.Seal(nil, out)
	require.NoError(t, err)
	answers, data := 0, 0
	for len(out) > 0 {
		var kind byte
		if kind, _, out = down.Open(t, out); kind == typeHandshake {
			answers++
			down = down.Next(t)
		} else {
			data++
		}
	}
	require.Equal(t, changes, answers)
	require.Equal(t, sealed, data)
}

// TestCutsChangeNothing: however the bytes of any records are cut, the same comes out.
func TestCutsChangeNothing(t *testing.T) {
	c, up, _ := laboratory(t)
	rapid.Check(t, func(t *rapid.T) {
		var stream []byte
		var want string
		for _, content := range rapid.SliceOfN(rapid.StringN(1, 300, -1), 1, 5).Draw(t, "contents") {
			stream = append(stream, up.Seal(typeData, []byte(content), rapid.IntRange(0, 50).Draw(t, "padding"))...)
			want += content
		}
		var plain []byte
		for len(stream) > 0 {
			n := rapid.IntRange(1, len(stream)).Draw(t, "cut")
			piece := append([]byte(nil), stream[:n]...)
			var err error
			plain, err = c.Open(piece, plain)
			require.NoError(t, err)
			clear(piece) // it is the caller's again
			stream = stream[n:]
		}
		require.Equal(t, want, string(plain))
		require.Zero(t, c.held())
	})
}
