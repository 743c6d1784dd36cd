package tls

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// FuzzOpen gives bytes to a connection that talked before. Nothing that the device did not seal comes out, the end is
// final, and no more is held than was given.
func FuzzOpen(f *testing.F) {
	f.Add([]byte{23, 3, 3, 0, 30}, []byte("the rest of what is no record"), uint8(0))
	f.Add([]byte{21, 3, 3, 0, 2, 1, 0}, []byte{}, uint8(1))
	f.Add([]byte{23, 3, 3, 0xff, 0xff}, []byte{0}, uint8(2))
	f.Add([]byte{22, 3, 1, 0, 4, 1, 0, 0, 0}, []byte{20, 3, 3, 0, 1, 1}, uint8(200))
	w := newWorld(f)
	s := w.server(f)
	cfg := w.client(f, "")
	f.Fuzz(func(t *testing.T, a, b []byte, cut uint8) {
		sock, client := joined(t, s, cfg)
		_, err := client.Write([]byte("good"))
		require.NoError(t, err)
		buf := make([]byte, 100)
		n, err := sock.nc.Read(buf)
		require.NoError(t, err)
		stream := append(append(buf[:n:n], a...), b...)
		var plain []byte
		for at := 0; at < len(stream) && err == nil; at += int(cut) + 1 {
			plain, err = sock.Open(stream[at:min(at+int(cut)+1, len(stream))], plain)
			require.LessOrEqual(t, sock.held(), len(stream))
		}
		require.Contains(t, []string{"", "good"}, string(plain))
		if err != nil {
			_, again := sock.Open([]byte{23}, nil)
			require.Equal(t, err, again)
			require.Zero(t, len(sock.part))
		}
		_, _ = sock.Seal([]byte("x"), sock.Goodbye(nil))
	})
}

// FuzzAccept gives a listener anything in place of a handshake.
func FuzzAccept(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), 3)
	f.Add([]byte{22, 3, 1, 0, 4, 1, 0, 0, 0}, 0)
	f.Add([]byte{22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3}, 5)
	f.Add([]byte{0x80, 0x2e, 1, 3, 1}, 2)
	f.Add(hello(f), 50)
	w := newWorld(f).mutual(f)
	s := w.server(f)
	f.Fuzz(func(t *testing.T, said []byte, early int) {
		early = min(max(early, 0), len(said))
		ours, theirs := net.Pipe()
		var device sync.WaitGroup
		device.Go(func() { _, _ = io.Copy(io.Discard, theirs) }) // ends when either end is closed
		device.Go(func() {                                       // ends when all is read, or ours is closed
			_, _ = theirs.Write(said[early:])
			theirs.Close()
		})
		require.NoError(t, ours.SetDeadline(time.Now().Add(10*time.Second)))
		_, err := s.Accept(context.Background(), ours, said[:early], nil)
		require.Error(t, err)
		require.NotEmpty(t, outcome(err))
		ours.Close()
		device.Wait()
	})
}

// hello is what a good client says first.
func hello(t testing.TB) []byte {
	t.Helper()
	ours, theirs := net.Pipe()
	w := newWorld(t)
	cfg := w.client(t, "")
	done := make(chan struct{})
	go func() { // ends when ours is closed
		defer close(done)
		_ = tls.Client(theirs, cfg).Handshake()
		theirs.Close()
	}()
	buf := make([]byte, 4096)
	n, err := ours.Read(buf)
	require.NoError(t, err)
	ours.Close()
	<-done
	return buf[:n]
}
