package tls

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"sluice/tls/tlstest"
)

// lines is a log that a running server may write to.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Count(l.buf.Bytes(), []byte(what))
}

func (s *Server) reloads(result string) float64 {
	return testutil.ToFloat64(s.metrics.reloads.WithLabelValues(result))
}

func serialOf(client *tls.Conn) *big.Int {
	return client.ConnectionState().PeerCertificates[0].SerialNumber
}

// replace puts a new pair where the listener's is.
func (w *world) replace(t testing.TB) *big.Int {
	t.Helper()
	cert, key := w.ca.Server(t, t.TempDir(), "localhost")
	tlstest.Copy(t, key, w.cfg.Key)
	tlstest.Copy(t, cert, w.cfg.Certificate)
	return readPEM(t, cert).SerialNumber
}

// TestReloadTouchesNoConnection replaces the certificate again and again while connections talk.
func TestReloadTouchesNoConnection(t *testing.T) {
	w := newWorld(t).mutual(t)
	s := running(t, w.server(t))
	stop := make(chan struct{})
	var said atomic.Int64
	var talks sync.WaitGroup
	for range 4 {
		sock, client := joined(t, s, w.client(t, "pump"))
		talks.Go(func() { // ends with stop
			for {
				select {
				case <-stop:
					return
				default:
					exchange(t, sock, client)
					said.Add(1)
				}
			}
		})
	}
	cfg := w.client(t, "pump")
	for i := range 4 {
		serial := w.replace(t)
		eventually(t, func() bool { return s.reloads("ok") == float64(i+1) }, "the new certificate is taken")
		_, client := joined(t, s, cfg)
		require.Equal(t, serial, serialOf(client))
		before := said.Load()
		eventually(t, func() bool { return said.Load() > before+4 }, "old connections go on")
	}
	close(stop)
	talks.Wait()
}

// TestHalfWrittenPairChangesNothing: the certificate is there, its key is not yet.
func TestHalfWrittenPairChangesNothing(t *testing.T) {
	w := newWorld(t)
	log := new(lines)
	w.cfg.Logger = zerolog.New(log)
	s := running(t, w.server(t))
	old := readPEM(t, w.cfg.Certificate).SerialNumber
	cert, key := w.ca.Server(t, t.TempDir(), "localhost")
	tlstest.Copy(t, cert, w.cfg.Certificate)
	eventually(t, func() bool { return s.reloads("failed") == 1 }, "the pair is refused")
	tlstest.Write(t, filepath.Join(w.dir, "another"), nil) // looked at again
	data, err := os.ReadFile(cert)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(w.cfg.Certificate, data[:len(data)/2], 0o600))
	eventually(t, func() bool { return s.reloads("failed") == 2 }, "another fault")
	require.Equal(t, 2, log.count("the old ones stay in use"), "each fault is said once")
	cfg := w.client(t, "")
	_, client := joined(t, s, cfg)
	require.Equal(t, old, serialOf(client))

	tlstest.Copy(t, cert, w.cfg.Certificate)
	tlstest.Copy(t, key, w.cfg.Key)
	eventually(t, func() bool { return s.reloads("ok") == 1 }, "the pair is whole")
	_, client = joined(t, s, cfg)
	require.Equal(t, readPEM(t, cert).SerialNumber, serialOf(client))
}

// TestFaultIsSaidOnce, however often the files are looked at.
func TestFaultIsSaidOnce(t *testing.T) {
	w := newWorld(t)
	log := new(lines)
	w.cfg.Logger = zerolog.New(log)
	s := w.server(t)
	good, err := os.ReadFile(w.cfg.Key)
	require.NoError(t, err)
	tlstest.Write(t, w.cfg.Key, nil)
	for range 3 {
		s.refresh(time.Now())
	}
	require.Equal(t, 1, log.count("cannot take"))
	tlstest.Write(t, w.cfg.Key, good)
	s.refresh(time.Now())
	require.Equal(t, 0.0, s.reloads("ok"), "what is in use is back, there is nothing to take")
	tlstest.Write(t, w.cfg.Key, nil)
	s.refresh(time.Now())
	require.Equal(t, 2, log.count("cannot take"))
	require.Equal(t, 0, log.count("PRIVATE KEY-"))
}

// TestLinksAreFollowed: Kubernetes changes one link in the folder, and the files are links through it.
func TestLinksAreFollowed(t *testing.T) {
	w := newWorld(t)
	folder := t.TempDir()
	version := func(name string) *big.Int {
		require.NoError(t, os.Mkdir(filepath.Join(folder, name), 0o700))
		cert, key := w.ca.Server(t, t.TempDir(), "localhost")
		tlstest.Copy(t, cert, filepath.Join(folder, name, "tls.crt"))
		tlstest.Copy(t, key, filepath.Join(folder, name, "tls.key"))
		require.NoError(t, os.Symlink(name, filepath.Join(folder, "..new")))
		require.NoError(t, os.Rename(filepath.Join(folder, "..new"), filepath.Join(folder, "..data")))
		return readPEM(t, cert).SerialNumber
	}
	version("..first")
	for _, name := range []string{"tls.crt", "tls.key"} {
		require.NoError(t, os.Symlink(filepath.Join("..data", name), filepath.Join(folder, name)))
	}
	w.cfg.Certificate, w.cfg.Key = filepath.Join(folder, "tls.crt"), filepath.Join(folder, "tls.key")
	s := running(t, w.server(t))
	second := version("..second")
	eventually(t, func() bool { return s.reloads("ok") == 1 }, "the new link is seen")
	_, client := joined(t, s, w.client(t, ""))
	require.Equal(t, second, serialOf(client))
}

// TestFilesArePolledToo, for file systems that don't tell, and for what could not be watched.
func TestFilesArePolledToo(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	looks := 0
	log := new(lines)
	err := watch(ctx, zerolog.New(log), []string{filepath.Join(t.TempDir(), "no", "such", "file")}, time.Millisecond, func() {
		if looks++; looks == 10 {
			cancel()
		}
	})
	require.NoError(t, err)
	require.Equal(t, 10, looks)
	require.Equal(t, 1, log.count("they are only read now and then"))
}

// caching makes a client resume.
func caching(cfg *tls.Config) *tls.Config {
	cfg.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	return cfg
}

// TestSessionsAreResumedAfterReloads, and after the ticket keys changed, until the key that made them is forgotten.
func TestSessionsAreResumedAfterReloads(t *testing.T) {
	versions(t, func(t *testing.T, cfg *tls.Config, w *world) {
		w.mutual(t)
		s := w.server(t)
		mine := caching(w.client(t, "pump"))
		mine.MaxVersion = cfg.MaxVersion
		resumed := func() bool {
			sock, client := joined(t, s, mine)
			exchange(t, sock, client) // tickets of TLS 1.3 come with data
			require.Equal(t, "pump", sock.Identity().Name)
			return client.ConnectionState().DidResume
		}
		require.False(t, resumed())
		require.True(t, resumed())
		w.replace(t)
		s.refresh(time.Now())
		require.Equal(t, 1.0, s.reloads("ok"))
		require.True(t, resumed())
		now := time.Now()
		for i := range ticketKeys - 1 {
			s.refresh(now.Add(time.Duration(i+1) * rotateAfter))
		}
		require.Len(t, s.keys, ticketKeys)
		require.True(t, resumed())
		for i := range ticketKeys {
			s.refresh(now.Add(time.Duration(ticketKeys+i) * rotateAfter))
		}
		require.False(t, resumed())
		require.Equal(t, 3.0, testutil.ToFloat64(s.metrics.handshakes.WithLabelValues("resumed")))
	})
}

// TestRevocationReachesResumedSessions: a ticket is no way around a list.
func TestRevocationReachesResumedSessions(t *testing.T) {
	versions(t, func(t *testing.T, cfg *tls.Config, w *world) {
		w.mutual(t)
		w.cfg.CRL = w.devices.CRL(t, w.dir, 1)
		s := running(t, w.server(t))
		mine := caching(w.client(t, "pump", tlstest.Serial(4711)))
		mine.MaxVersion = cfg.MaxVersion
		sock, client := joined(t, s, mine)
		exchange(t, sock, client)
		old, client2 := joined(t, s, mine)
		exchange(t, old, client2)
		require.True(t, client2.ConnectionState().DidResume)
		tlstest.Copy(t, w.devices.CRL(t, t.TempDir(), 1, 4711), w.cfg.CRL)
		eventually(t, func() bool { return s.reloads("ok") == 1 }, "the list is taken")
		_, _, err, refused := meet(t, s, mine)
		require.ErrorIs(t, err, ErrRevoked)
		require.Error(t, refused)
		mine.ClientSessionCache = nil
		_, _, err, _ = meet(t, s, mine)
		require.ErrorIs(t, err, ErrRevoked)
		exchange(t, old, client2)
	})
}

// TestRemovedCAReachesResumedSessions.
func TestRemovedCAReachesResumedSessions(t *testing.T) {
	versions(t, func(t *testing.T, cfg *tls.Config, w *world) {
		w.mutual(t)
		s := w.server(t)
		mine := caching(w.client(t, "pump"))
		mine.MaxVersion = cfg.MaxVersion
		sock, client := joined(t, s, mine)
		exchange(t, sock, client)
		tlstest.Copy(t, tlstest.NewCA(t, "others").File(t, w.dir), w.cfg.ClientCA)
		s.refresh(time.Now())
		_, _, err, refused := meet(t, s, mine)
		require.Error(t, err)
		require.Error(t, refused)
	})
}

// TestListOfNowCounts: a handshake that began before the list changed is refused by the new one.
func TestListOfNowCounts(t *testing.T) {
	w := newWorld(t).mutual(t)
	w.cfg.CRL = w.devices.CRL(t, w.dir, 1)
	s := w.server(t)
	ours, theirs := sockets(t)
	client := tls.Client(&late{Conn: theirs, before: func() {
		tlstest.Copy(t, w.devices.CRL(t, t.TempDir(), 4711), w.cfg.CRL)
		s.refresh(time.Now())
	}}, w.client(t, "pump", tlstest.Serial(4711)))
	go func() { // ends with the handshake
		_, _ = io.Copy(io.Discard, client)
	}()
	_, err := s.Accept(context.Background(), ours, nil, nil)
	require.ErrorIs(t, err, ErrRevoked)
	ours.Close()
}
