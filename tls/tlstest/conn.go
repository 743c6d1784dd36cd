package tlstest

import (
	"context"
	"crypto/tls"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// ClientConfig makes the configuration of a client that trusts ca, for a server named name. With a certificate and a key,
// their files, it shows them when it is asked.
func (ca *CA) ClientConfig(t testing.TB, name string, pair ...string) *tls.Config {
	t.Helper()
	cfg := &tls.Config{RootCAs: ca.pool(), ServerName: name}
	if len(pair) == 2 {
		cfg.Certificates = []tls.Certificate{load(t, pair[0], pair[1])}
	}
	return cfg
}

// ServerConfig makes the configuration of a server with a certificate for hosts, such as for httptest.Server's TLS.
func (ca *CA) ServerConfig(t testing.TB, hosts ...string) *tls.Config {
	t.Helper()
	cert, key := ca.Server(t, t.TempDir(), hosts...)
	return &tls.Config{Certificates: []tls.Certificate{load(t, cert, key)}}
}

// Client does the handshake of a client on nc. The connection is closed when it fails.
func Client(ctx context.Context, nc net.Conn, cfg *tls.Config) (net.Conn, error) {
	c := tls.Client(nc, cfg)
	if err := c.HandshakeContext(ctx); err != nil {
		nc.Close()
		return nil, err
	}
	return c, nil
}

// Dial connects to a server on addr.
func Dial(ctx context.Context, addr string, cfg *tls.Config) (net.Conn, error) {
	d := tls.Dialer{Config: cfg}
	return d.DialContext(ctx, "tcp", addr)
}

// UsesAES128GCM says whether a connection of Client has the cipher suite TLS_AES_128_GCM_SHA256, which is that of Half.
func UsesAES128GCM(c net.Conn) bool {
	return c.(*tls.Conn).ConnectionState().CipherSuite == tls.TLS_AES_128_GCM_SHA256
}

func load(t testing.TB, cert, key string) tls.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(cert, key)
	require.NoError(t, err)
	return pair
}
