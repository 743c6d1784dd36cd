package tls

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"sluice/tls/tlstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a CA for servers, one for devices, and the files of a listener.
type world struct {
	dir     string
	ca      *tlstest.CA
	devices *tlstest.CA
	cfg     ServerConfig
}

// newWorld has a listener named localhost without client certificates.
func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{dir: t.TempDir(), ca: tlstest.NewCA(t, "servers"), devices: tlstest.NewCA(t, "devices")}
	w.cfg.Certificate, w.cfg.Key = w.ca.Server(t, w.dir, "localhost")
	w.cfg.Listener = "test"
	return w
}

// mutual asks devices for certificates.
func (w *world) mutual(t testing.TB) *world {
	t.Helper()
	w.cfg.ClientCA, w.cfg.ClientAuth = w.devices.File(t, w.dir), ClientAuthRequire
	return w
}

func (w *world) server(t testing.TB) *Server {
	t.Helper()
	s, err := NewServer(w.cfg)
	require.NoError(t, err)
	return s
}

// client is the configuration of a device, with its certificate if a common name is given.
func (w *world) client(t testing.TB, cn string, opts ...tlstest.Option) *tls.Config {
	t.Helper()
	if cn == "" {
		return w.ca.ClientConfig(t, "localhost")
	}
	cert, key := w.devices.Client(t, t.TempDir(), cn, opts...)
	return w.ca.ClientConfig(t, "localhost", cert, key)
}

// through is client for a device whose certificate is of a CA that only the device shows.
func (w *world) through(t testing.TB, ca *tlstest.CA, cn string) *tls.Config {
	t.Helper()
	cert, key := ca.Client(t, t.TempDir(), cn)
	leaf, err := os.ReadFile(cert)
	require.NoError(t, err)
	tlstest.Write(t, cert, append(leaf, certificatePEM(ca.Certificate.Raw)...))
	return w.ca.ClientConfig(t, "localhost", cert, key)
}

// running is s with Run, until the test ends.
func running(t testing.TB, s *Server) *Server {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }() // ends with the test
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	return s
}

// socket serves a Conn on a socket as a caller of Open and Seal would, with reads of at most size bytes.
type socket struct {
	*Conn
	nc    net.Conn
	size  int
	plain []byte
	began bool
}

// Read gives what the device sent.
func (s *socket) Read(p []byte) (int, error) {
	buf := make([]byte, s.size)
	for len(s.plain) == 0 {
		n := 0
		if s.began {
			var err error
			if n, err = s.nc.Read(buf); err != nil {
				return 0, err
			}
		}
		s.began = true
		var err error
		s.plain, err = s.Open(buf[:n], s.plain)
		if s.Owes() {
			if _, err := s.Write(nil); err != nil {
				return 0, err
			}
		}
		if err != nil && len(s.plain) == 0 {
			return 0, err
		}
		s.began = err == nil // else the next Open says it again
	}
	n := copy(p, s.plain)
	s.plain = s.plain[n:]
	return n, nil
}

// Write sends p, and what is owed.
func (s *socket) Write(p []byte) (int, error) {
	out, err := s.Seal(p, nil)
	if len(out) > 0 {
		if _, err := s.nc.Write(out); err != nil {
			return 0, err
		}
	}
	return len(p), err
}

// held is how many bytes of an incomplete record, or of what else awaits its end, a connection has in memory.
func (c *Conn) held() int { return len(c.part) + c.idle }

// sockets gives the two ends of a TCP connection.
func sockets(t testing.TB) (ours, theirs net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	theirs, err = net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	ours, err = l.Accept()
	require.NoError(t, err)
	limit := time.Now().Add(time.Minute) // for a test that hangs
	require.NoError(t, errors.Join(ours.SetDeadline(limit), theirs.SetDeadline(limit)))
	t.Cleanup(func() {
		ours.Close()
		theirs.Close()
	})
	return ours, theirs
}

// meet does a handshake and gives both ends, or both errors. A client of TLS 1.3 learns only from its first
// read whether it was let in, so it reads one byte that the server sends.
func meet(t testing.TB, s *Server, cfg *tls.Config) (*socket, *tls.Conn, error, error) {
	t.Helper()
	ours, theirs := sockets(t)
	client := tls.Client(theirs, cfg)
	refused := make(chan error, 1)
	go func() { // ends with the handshake, or the deadline
		err := client.Handshake()
		if err == nil {
			_, err = io.ReadFull(client, make([]byte, 1))
		}
		refused <- err
	}()
	c, err := s.Accept(context.Background(), ours, nil, nil)
	if err != nil {
		ours.Close()
		return nil, nil, err, <-refused
	}
	sock := &socket{Conn: c, nc: ours, size: 4096}
	_, err = sock.Write([]byte{'!'})
	require.NoError(t, err)
	return sock, client, nil, <-refused
}

// joined is meet of two that get on with each other.
func joined(t testing.TB, s *Server, cfg *tls.Config) (*socket, *tls.Conn) {
	t.Helper()
	sock, client, err, refused := meet(t, s, cfg)
	require.NoError(t, err)
	require.NoError(t, refused)
	return sock, client
}

// exchange says something each way.
func exchange(t testing.TB, sock *socket, client net.Conn) {
	t.Helper()
	const said = "what a device says"
	_, err := client.Write([]byte(said))
	require.NoError(t, err)
	got := make([]byte, len(said))
	_, err = io.ReadFull(sock, got)
	require.NoError(t, err)
	require.Equal(t, said, string(got))
	_, err = sock.Write(got)
	require.NoError(t, err)
	_, err = io.ReadFull(client, got)
	require.NoError(t, err)
	require.Equal(t, said, string(got))
}

// eventually waits for a condition that another goroutine brings about.
func eventually(t testing.TB, cond func() bool, what string) {
	t.Helper()
	require.Eventually(t, cond, 30*time.Second, 5*time.Millisecond, what)
}

func readPEM(t testing.TB, path string) *x509.Certificate {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(file{data: data}.blocks(pemCertificate)[0])
	require.NoError(t, err)
	return cert
}

// negative gives the certificate of a CA with a serial number that Go, unlike others, doesn't take.
func negative(t testing.TB, name string) []byte {
	t.Helper()
	der := bytes.Clone(tlstest.NewCA(t, name, tlstest.Serial(5)).Certificate.Raw)
	at := bytes.Index(der, []byte{2, 1, 5})
	require.Positive(t, at)
	der[at+2] = 0x85
	return der
}

func certificatePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: der})
}
