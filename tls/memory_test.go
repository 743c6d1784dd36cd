package tls

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/tls/tlstest"
)

// accepted makes n connections of which only the Conn is left. Each has opened what the client said, if it said anything.
func accepted(t testing.TB, s *Server, cfg *tls.Config, n int, said ...[]byte) []*Conn {
	t.Helper()
	conns := make([]*Conn, n)
	for i := range conns {
		ours, theirs := net.Pipe()
		done := make(chan struct{})
		go func() { // ends when ours is closed
			defer close(done)
			client := tls.Client(theirs, cfg)
			for _, b := range said {
				_, _ = client.Write(b)
			}
			_, _ = io.Copy(io.Discard, client)
		}()
		var err error
		conns[i], err = s.Accept(context.Background(), ours, nil, nil)
		require.NoError(t, err)
		for _, b := range said {
			sock := &socket{Conn: conns[i], nc: ours, size: 4096}
			_, err = io.ReadFull(sock, make([]byte, len(b)))
			require.NoError(t, err)
		}
		ours.Close()
		<-done
	}
	return conns
}

// heap is what is in use after everything that can go is gone.
func heap() uint64 {
	for range 3 { // pools keep what they have for two
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// perConnection measures n idle connections.
func perConnection(t testing.TB, w *world, cfg *tls.Config, n int) float64 {
	t.Helper()
	s := w.server(t)
	accepted(t, s, cfg, 10)
	before := heap()
	conns := accepted(t, s, cfg, n)
	after := heap()
	runtime.KeepAlive(conns)
	return float64(int64(after)-int64(before)) / float64(n)
}

// padded makes the client's hello longer by n bytes, in names of size bytes.
func padded(cfg *tls.Config, n, size int) *tls.Config {
	cfg = cfg.Clone()
	for ; n > 0; n -= size + 1 {
		cfg.NextProtos = append(cfg.NextProtos, strings.Repeat("x", min(n, size)))
	}
	return cfg
}

// chained has the client show n more certificates.
func (w *world) chained(cfg *tls.Config, n int) *tls.Config {
	cfg = cfg.Clone()
	own := cfg.Certificates[0]
	own.Certificate = slices.Concat(own.Certificate, slices.Repeat([][]byte{w.ca.Certificate.Raw}, n))
	cfg.Certificates = []tls.Certificate{own}
	return cfg
}

// TestLongHandshakesAreRefused, before crypto/tls has kept much, and what devices need is not.
func TestLongHandshakesAreRefused(t *testing.T) {
	versions(t, func(t *testing.T, plain *tls.Config, w *world) {
		s := w.mutual(t).server(t)
		cfg := w.client(t, "pump")
		cfg.MaxVersion = plain.MaxVersion
		f := func(cfg *tls.Config, want error) {
			t.Helper()
			c, _, err, _ := meet(t, s, cfg)
			require.ErrorIs(t, err, want)
			if want != nil {
				require.Equal(t, "too_long", outcome(err))
			} else {
				require.LessOrEqual(t, c.Kept(), 96<<10)
			}
		}
		f(padded(cfg, 14_000, 250), nil)
		f(padded(cfg, 16<<10, 250), ErrLongFlight)
		f(padded(cfg, 60_000, 250), ErrLongFlight)
		f(w.chained(cfg, longestChain-1), nil)
		f(w.chained(cfg, longestChain), ErrLongChain)
		f(w.chained(cfg, 600), ErrLongFlight)
	})
}

// TestKeptIsWhatCryptoTLSKeeps of a handshake and of records, by what a connection weighs more than one that sent little.
func TestKeptIsWhatCryptoTLSKeeps(t *testing.T) {
	versions(t, func(t *testing.T, cfg *tls.Config, w *world) {
		s := w.server(t)
		cfg.DynamicRecordSizingDisabled = true
		weigh := func(cfg *tls.Config, records ...int) (bytes, kept int) {
			const n = 40
			var said [][]byte
			for _, size := range records {
				said = append(said, make([]byte, size))
			}
			before := heap()
			conns := accepted(t, s, cfg, n, said...)
			after := heap()
			kept = conns[0].Kept()
			runtime.KeepAlive(conns)
			return (int(after) - int(before)) / n, kept
		}
		weigh(cfg)
		bare, little := weigh(cfg)
		f := func(hello int, records ...int) {
			t.Helper()
			bytes, kept := weigh(padded(cfg, hello, 250), records...)
			require.InDelta(t, bytes-bare, kept-little, 1_000+float64(kept)/20)
		}
		f(3_000)
		f(14_000)
		f(0, 6_000)
		f(0, 9_000, 10_000) // the buffer gets twice as large
		f(14_000, 16_000)
	})
}

// TestRoomIsAskedForWhatAHandshakeHolds that goes no further, also if its hello takes many times its size: it has names of one byte.
func TestRoomIsAskedForWhatAHandshakeHolds(t *testing.T) {
	w := newWorld(t)
	s := w.server(t)
	weigh := func(cfg *tls.Config) (bytes, asked int) {
		const n = 20
		var last atomic.Int64
		var ends []net.Conn
		done := make(chan error, n)
		before := heap()
		for range n {
			ours, theirs := net.Pipe()
			go func() { // ends when theirs is closed
				_, err := s.Accept(t.Context(), ours, nil, func(kept int) bool { last.Store(int64(kept)); return true })
				done <- err
			}()
			require.NoError(t, tls.Client(&holding{Conn: theirs}, cfg).Handshake()) // as far as it knows
			ends = append(ends, theirs)
		}
		after := heap()
		for _, theirs := range ends {
			require.NoError(t, theirs.Close())
			require.Error(t, <-done)
		}
		return (int(after) - int(before)) / n, int(last.Load())
	}
	cfg := w.client(t, "")
	weigh(cfg)
	bare, little := weigh(cfg)
	f := func(hello, size int) {
		t.Helper()
		bytes, asked := weigh(padded(cfg, hello, size))
		require.Less(t, asked, 220_000)
		require.Greater(t, asked-little, (bytes-bare)*2/3)
	}
	f(14_000, 1)
	f(14_000, 2)
	f(14_000, 250)
}

// TestHandshakeEndsWithoutRoom, before all came, and names why.
func TestHandshakeEndsWithoutRoom(t *testing.T) {
	w := newWorld(t)
	ours, theirs := sockets(t)
	client := tls.Client(theirs, padded(w.client(t, ""), 14_000, 250))
	done := make(chan error, 1)
	go func() { done <- client.Handshake() }() // ends with the connection
	_, err := w.server(t).Accept(t.Context(), ours, nil, func(kept int) bool { return kept < 20_000 })
	require.ErrorIs(t, err, ErrNoRoom)
	require.Equal(t, "no_room", outcome(err))
	ours.Close()
	require.Error(t, <-done)
}

// TestLongChainsResumeOrBeginAnew: a ticket has all certificates, and must not make the next hello too long.
func TestLongChainsResumeOrBeginAnew(t *testing.T) {
	versions(t, func(t *testing.T, plain *tls.Config, w *world) {
		f := func(names int, resumes bool) {
			t.Helper()
			w.mutual(t)
			s := w.server(t)
			long := make([]string, names)
			for i := range long {
				long[i] = strings.Repeat("n", 60)
			}
			cfg := w.client(t, "pump", tlstest.DNS(long...))
			cfg.MaxVersion, cfg.ClientSessionCache = plain.MaxVersion, tls.NewLRUClientSessionCache(1)
			for i := range 3 {
				sock, client := joined(t, s, cfg)
				exchange(t, sock, client) // 1.3 sends the ticket after the handshake
				require.Equal(t, i > 0 && resumes, sock.resumed)
			}
			other := w.server(t) // doesn't know the ticket
			sock, _ := joined(t, other, cfg)
			require.False(t, sock.resumed)
		}
		f(1, true)
		f(150, true)
		f(230, false)
	})
}

// TestKeptOfWhatDevicesNeedIsLittle, so that it is counted nowhere: no certificate, one, a chain of two with keys of RSA-4096.
func TestKeptOfWhatDevicesNeedIsLittle(t *testing.T) {
	versions(t, func(t *testing.T, plain *tls.Config, w *world) {
		s := w.mutual(t).server(t)
		f := func(cfg *tls.Config) {
			t.Helper()
			cfg.MaxVersion = plain.MaxVersion
			sock, _ := joined(t, s, cfg)
			require.Less(t, sock.Kept(), 12<<10)
		}
		f(w.client(t, "pump"))
		f(w.chained(w.client(t, "pump", tlstest.DNS(slices.Repeat([]string{strings.Repeat("n", 60)}, 60)...)), 1))
	})
}

// TestIdleConnectionHoldsLittleMemory bounds the cost of a connection by about twice what was measured, so that
// nothing large stays with it unseen, such as a configuration of its own.
func TestIdleConnectionHoldsLittleMemory(t *testing.T) {
	w := newWorld(t).mutual(t)
	require.Less(t, perConnection(t, w, w.client(t, "device-17"), 200), 20_000.0)
}

func BenchmarkMemoryOfAConnection(b *testing.B) {
	measure := func(name string, mutual bool, version uint16, curves ...tls.CurveID) {
		b.Run(name, func(b *testing.B) {
			w := newWorld(b)
			cn := ""
			if mutual {
				w.mutual(b)
				cn = "device-17"
			}
			cfg := w.client(b, cn)
			cfg.MaxVersion, cfg.CurvePreferences = version, curves
			for b.Loop() {
				b.ReportMetric(perConnection(b, w, cfg, 1000), "bytes/connection")
			}
		})
	}
	measure("1.3", false, tls.VersionTLS13)
	measure("1.3-P256", false, tls.VersionTLS13, tls.CurveP256)
	measure("1.2", false, tls.VersionTLS12)
	measure("1.3-certificate", true, tls.VersionTLS13)
	measure("1.2-certificate", true, tls.VersionTLS12)
}

// TestHeaderAloneIsCountedForItsRecordOnly: whoever sends five bytes and no more must not spend what others need.
func TestHeaderAloneIsCountedForItsRecordOnly(t *testing.T) {
	s := newWorld(t).server(t)
	ours, theirs := net.Pipe()
	asked := make(chan int, 10)
	done := make(chan error, 1)
	go func() { // ends when theirs is closed
		_, err := s.Accept(t.Context(), ours, nil, func(kept int) bool { asked <- kept; return true })
		done <- err
	}()
	_, err := theirs.Write([]byte{22, 3, 1, 0x40, 0})
	require.NoError(t, err)
	require.Less(t, <-asked, 1<<10, "before the header")
	require.Less(t, <-asked, 20<<10, "before the body")
	require.NoError(t, theirs.Close())
	require.Error(t, <-done)
}
