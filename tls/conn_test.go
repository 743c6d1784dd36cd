package tls

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// versions runs f for each version a device may speak.
func versions(t *testing.T, f func(t *testing.T, cfg *tls.Config, w *world)) {
	t.Helper()
	for name, version := range map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			cfg := w.client(t, "")
			cfg.MaxVersion = version
			f(t, cfg, w)
		})
	}
}

func TestBothVersionsSpeakBothWays(t *testing.T) {
	versions(t, func(t *testing.T, cfg *tls.Config, w *world) {
		sock, client := joined(t, w.server(t), cfg)
		require.Equal(t, cfg.MaxVersion, client.ConnectionState().Version)
		require.Nil(t, sock.Identity())
		exchange(t, sock, client)
	})
}

func TestEveryCipherOfTLS12(t *testing.T) {
	for _, suite := range []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA,
	} {
		t.Run(tls.CipherSuiteName(suite), func(t *testing.T) {
			w := newWorld(t)
			cfg := w.client(t, "")
			cfg.MaxVersion, cfg.CipherSuites = tls.VersionTLS12, []uint16{suite}
			sock, client := joined(t, w.server(t), cfg)
			exchange(t, sock, client)
		})
	}
}

func TestOldVersionsAreRefused(t *testing.T) {
	w := newWorld(t)
	cfg := w.client(t, "")
	cfg.MinVersion, cfg.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	_, _, err, refused := meet(t, w.server(t), cfg)
	require.ErrorContains(t, err, "unsupported versions")
	require.Error(t, refused)

	w.cfg.MinVersion = "1.3"
	cfg.MaxVersion = tls.VersionTLS12
	_, _, err, refused = meet(t, w.server(t), cfg)
	require.ErrorContains(t, err, "unsupported versions")
	require.Error(t, refused)
}

// TestBytesMayBeCutAnywhere feeds what a device sent byte by byte.
func TestBytesMayBeCutAnywhere(t *testing.T) {
	versions(t, func(t *testing.T, cfg *tls.Config, w *world) {
		sock, client := joined(t, w.server(t), cfg)
		sock.size = 1
		exchange(t, sock, client)
		require.Zero(t, sock.held())
		require.Nil(t, sock.part, "nothing is held between records")
	})
}

// TestLargeTransfersBothWays moves megabytes in both directions at once, with reads that cut records in all places.
func TestLargeTransfersBothWays(t *testing.T) {
	versions(t, func(t *testing.T, cfg *tls.Config, w *world) {
		sock, client := joined(t, w.server(t), cfg)
		sock.size = 7001
		up, down := make([]byte, 3<<20), make([]byte, 3<<20)
		rand.Read(up)
		rand.Read(down)
		var wg sync.WaitGroup
		send := func(to io.Writer, what []byte) {
			wg.Go(func() { // ends when all is written, or with the deadline
				for len(what) > 0 {
					n, err := to.Write(what[:min(len(what), 50_000)])
					if err != nil {
						return
					}
					what = what[n:]
				}
			})
		}
		send(client, up)
		send(sock, down)
		var got [2][]byte
		receive := func(i int, from io.Reader) {
			wg.Go(func() { // ends when all is there, or with the deadline
				got[i] = make([]byte, len(up))
				if _, err := io.ReadFull(from, got[i]); err != nil {
					got[i] = nil
				}
			})
		}
		receive(0, sock)
		receive(1, client)
		wg.Wait()
		require.True(t, bytes.Equal(up, got[0]), "what the device sent came whole")
		require.True(t, bytes.Equal(down, got[1]), "what it was sent came whole")
	})
}

// TestDataSentWithTheHandshakeIsThere: a device may send its CONNECT without waiting.
func TestDataSentWithTheHandshakeIsThere(t *testing.T) {
	w := newWorld(t)
	ours, theirs := sockets(t)
	// What the device writes is held until it is done, so that its last handshake record comes along with data.
	held := &holding{Conn: theirs}
	client := tls.Client(held, w.client(t, ""))
	done := make(chan error, 1)
	go func() { // ends with the handshake
		err := client.Handshake()
		_, err2 := client.Write([]byte("first"))
		_, err3 := client.Write([]byte(" second"))
		done <- errors.Join(err, err2, err3, held.release())
	}()
	c, err := w.server(t).Accept(context.Background(), ours, nil, nil)
	require.NoError(t, err)
	require.NoError(t, <-done)
	plain, err := c.Open(nil, nil)
	require.NoError(t, err)
	sock := &socket{Conn: c, nc: ours, size: 100, plain: plain, began: true}
	got := make([]byte, len("first second"))
	_, err = io.ReadFull(sock, got)
	require.NoError(t, err)
	require.Equal(t, "first second", string(got))
}

// holding sends its first write, the hello, and keeps the others for release.
type holding struct {
	net.Conn
	writes int
	kept   []byte
}

func (h *holding) Write(p []byte) (int, error) {
	if h.writes++; h.writes == 1 {
		return h.Conn.Write(p)
	}
	h.kept = append(h.kept, p...)
	return len(p), nil
}

func (h *holding) release() error {
	_, err := h.Conn.Write(h.kept)
	return err
}

// TestBytesReadBeforeTheHandshakeCount: those behind a PROXY header are the beginning of the hello.
func TestBytesReadBeforeTheHandshakeCount(t *testing.T) {
	for _, n := range []int{1, 4, 5, 6, 100} {
		w := newWorld(t)
		ours, theirs := sockets(t)
		client := tls.Client(theirs, w.client(t, ""))
		done := make(chan error, 1)
		go func() { done <- client.Handshake() }() // ends with the handshake
		early := make([]byte, n)
		_, err := io.ReadFull(ours, early)
		require.NoError(t, err)
		c, err := w.server(t).Accept(context.Background(), ours, early, nil)
		require.NoError(t, err)
		require.NoError(t, <-done)
		exchange(t, &socket{Conn: c, nc: ours, size: 100}, client)
	}
}

func TestCloseNotifyIsEOFAfterTheData(t *testing.T) {
	versions(t, func(t *testing.T, cfg *tls.Config, w *world) {
		sock, client := joined(t, w.server(t), cfg)
		_, err := client.Write([]byte("last words"))
		require.NoError(t, err)
		require.NoError(t, client.CloseWrite())
		got, err := io.ReadAll(sock)
		require.NoError(t, err)
		require.Equal(t, "last words", string(got))
		_, err = sock.Open([]byte{1}, nil)
		require.Equal(t, io.EOF, err, "the end is final")
	})
}

func TestGoodbyeEndsTheOtherSide(t *testing.T) {
	versions(t, func(t *testing.T, cfg *tls.Config, w *world) {
		sock, client := joined(t, w.server(t), cfg)
		out, err := sock.Seal([]byte("DISCONNECT"), nil)
		require.NoError(t, err)
		_, err = sock.nc.Write(sock.Goodbye(out))
		require.NoError(t, err)
		got, err := io.ReadAll(client)
		require.NoError(t, err)
		require.Equal(t, "DISCONNECT", string(got))
		_, err = sock.Seal([]byte("more"), nil)
		require.Error(t, err)
		require.Empty(t, sock.Goodbye(nil), "close_notify is sent once")
	})
}

// TestChangedRecordIsRefusedWithAnAlert changes one bit.
func TestChangedRecordIsRefusedWithAnAlert(t *testing.T) {
	versions(t, func(t *testing.T, cfg *tls.Config, w *world) {
		sock, client := joined(t, w.server(t), cfg)
		_, err := client.Write([]byte("what a device says"))
		require.NoError(t, err)
		buf := make([]byte, 1000)
		n, err := sock.nc.Read(buf)
		require.NoError(t, err)
		buf[n-1] ^= 1
		plain, err := sock.Open(buf[:n], nil)
		require.ErrorContains(t, err, "bad record MAC")
		require.Empty(t, plain)
		_, again := sock.Open(nil, nil)
		require.Equal(t, err, again)
		require.True(t, sock.Owes(), "the alert")
		_, err = sock.Write(nil)
		require.NoError(t, err)
		require.False(t, sock.Owes())
		_, err = client.Read(buf)
		require.ErrorContains(t, err, "bad record MAC")
	})
}

// TestWhatIsNoRecordIsRefusedAtOnce: nothing is awaited of what a header announces that can't be one.
func TestWhatIsNoRecordIsRefusedAtOnce(t *testing.T) {
	for name, header := range map[string][]byte{
		"too long":       {23, 3, 3, 0xff, 0xff},
		"not a type":     {99, 3, 3, 0, 1, 'x'},
		"not TLS":        []byte("GET /"),
		"MQTT":           {0x10, 20, 0, 4, 'M'},
		"wrong version":  {23, 3, 9, 0, 1, 0},
		"in plain":       {23, 3, 3, 0, 1, 'x'},
		"plain alert":    {21, 3, 3, 0, 2, 1, 0},
		"plain hello":    {22, 3, 3, 0, 4, 1, 0, 0, 0},
		"empty in plain": {23, 3, 3, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			sock, _ := joined(t, w.server(t), w.client(t, ""))
			_, err := sock.Open(header, nil)
			require.Error(t, err)
			require.NotEqual(t, io.EOF, err)
			require.Zero(t, len(sock.part))
		})
	}
}

// TestPartOfARecordCostsWhatItIs: a header that announces 16 KiB reserves nothing.
func TestPartOfARecordCostsWhatItIs(t *testing.T) {
	w := newWorld(t)
	sock, _ := joined(t, w.server(t), w.client(t, ""))
	_, err := sock.Open([]byte{23, 3, 3, 0x40, 0, 'x'}, nil)
	require.NoError(t, err)
	require.Equal(t, 6, sock.held())
	require.Less(t, cap(sock.part), 100)
}

func TestOpenAppends(t *testing.T) {
	w := newWorld(t)
	sock, client := joined(t, w.server(t), w.client(t, ""))
	_, err := client.Write([]byte("world"))
	require.NoError(t, err)
	buf := make([]byte, 1000)
	n, err := sock.nc.Read(buf)
	require.NoError(t, err)
	plain, err := sock.Open(buf[:n], []byte("hello "))
	require.NoError(t, err)
	require.Equal(t, "hello world", string(plain))
	out, err := sock.Seal([]byte("x"), []byte("before"))
	require.NoError(t, err)
	require.Equal(t, "before", string(out[:6]))
}

// TestAcceptEndsWithItsContext: a device that says nothing is not awaited for ever.
func TestAcceptEndsWithItsContext(t *testing.T) {
	w := newWorld(t)
	ours, _ := sockets(t)
	ctx, cancel := context.WithCancel(context.Background())
	go cancel() // ends at once
	_, err := w.server(t).Accept(ctx, ours, nil, nil)
	require.ErrorIs(t, err, context.Canceled)
}

func TestWhatIsNoTLSIsNamed(t *testing.T) {
	for _, said := range []string{"GET / HTTP/1.1\r\n\r\n", "\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02d1"} {
		w := newWorld(t)
		ours, theirs := sockets(t)
		_, err := theirs.Write([]byte(said))
		require.NoError(t, err)
		_, err = w.server(t).Accept(context.Background(), ours, nil, nil)
		require.ErrorContains(t, err, "does not look like a TLS handshake")
		require.Equal(t, "not_tls", outcome(err))
	}
}

func BenchmarkOpenSeal(b *testing.B) {
	w := newWorld(b)
	sock, client := joined(b, w.server(b), w.client(b, ""))
	said := make([]byte, 256)
	cipher, plain, out := make([]byte, 4096), make([]byte, 0, 4096), make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		_, err := client.Write(said)
		require.NoError(b, err)
		n, err := sock.nc.Read(cipher)
		require.NoError(b, err)
		if plain, err = sock.Open(cipher[:n], plain[:0]); err != nil || len(plain) != len(said) {
			b.Fatal(err, len(plain))
		}
		if out, err = sock.Seal(said[:4], out[:0]); err != nil {
			b.Fatal(err)
		}
	}
}
