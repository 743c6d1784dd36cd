package tls

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// accepted makes n connections of which only the Conn is left.
func accepted(t testing.TB, s *Server, cfg *tls.Config, n int) []*Conn {
	t.Helper()
	conns := make([]*Conn, n)
	for i := range conns {
		ours, theirs := net.Pipe()
		done := make(chan struct{})
		go func() { // ends when ours is closed
			defer close(done)
			client := tls.Client(theirs, cfg)
			_, _ = io.Copy(io.Discard, client)
		}()
		var err error
		conns[i], err = s.Accept(context.Background(), ours, nil)
		require.NoError(t, err)
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
