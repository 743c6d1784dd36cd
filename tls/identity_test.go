package tls

import (
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/tls/tlstest"
)

func TestIdentityIsWhatWasChosen(t *testing.T) {
	opts := []tlstest.Option{
		tlstest.DNS("pump-1.example", "other.example"), tlstest.Email("pump@example.com"),
		tlstest.URI("urn:dev:mac:0024befffe804ff1"), tlstest.Serial(0xbeef),
	}
	f := func(kind, want string) {
		t.Helper()
		w := newWorld(t).mutual(t)
		w.cfg.Identity = kind
		sock, client := joined(t, w.server(t), w.client(t, "pump 1", opts...))
		id := sock.Identity()
		require.Equal(t, want, id.Name)
		require.Equal(t, "pump 1", id.CommonName)
		require.Equal(t, "beef", id.Serial)
		require.WithinDuration(t, time.Now().Add(24*time.Hour), id.NotAfter, time.Hour)
		exchange(t, sock, client)
	}
	f("", "pump 1")
	f(IdentityCN, "pump 1")
	f(IdentityDNS, "pump-1.example")
	f(IdentityEmail, "pump@example.com")
	f(IdentityURI, "urn:dev:mac:0024befffe804ff1")
}

// TestIdentityNeverWidensAFilter refuses names that mean something in a topic filter, or are no text.
func TestIdentityNeverWidensAFilter(t *testing.T) {
	f := func(name string) {
		t.Helper()
		w := newWorld(t).mutual(t)
		_, _, err, refused := meet(t, w.server(t), w.client(t, name))
		var identity *IdentityError
		require.ErrorAs(t, err, &identity)
		require.ErrorContains(t, refused, "bad certificate")
		require.Equal(t, "identity", outcome(err))
	}
	f("a+b")
	f("#")
	f("plant/1")
	f("a\x00b")
	f("a\nb")
	f("a\x1b[2Jb")
	f("a\u0085b")
	f(strings.Repeat("x", longestIdentity+1))
}

func TestIdentityMustBeThere(t *testing.T) {
	for _, kind := range []string{IdentityDNS, IdentityEmail, IdentityURI} {
		w := newWorld(t).mutual(t)
		w.cfg.Identity = kind
		_, _, err, refused := meet(t, w.server(t), w.client(t, "pump"))
		require.ErrorContains(t, err, "its "+kind+" is missing")
		require.Error(t, refused)
	}
}

func TestFaultsOfNames(t *testing.T) {
	for _, good := range []string{"a", "Grüße", "a b", "日本", strings.Repeat("x", longestIdentity), "$SYS"} {
		require.Empty(t, NameFault(good), good)
	}
	for _, bad := range []string{"", "\xff", "a\xc0\x80", "\xed\xa0\x80", "\x7f", "+", "#", "/"} {
		require.NotEmpty(t, NameFault(bad), "%q", bad)
	}
}

// TestCommonNameBesideAnIdentityIsCheckedToo: it goes into templates.
func TestCommonNameBesideAnIdentityIsCheckedToo(t *testing.T) {
	id, err := identify(&x509.Certificate{DNSNames: []string{"pump"}, SerialNumber: big.NewInt(1)}, IdentityDNS)
	require.NoError(t, err)
	require.Equal(t, "pump", id.Name)
	require.Empty(t, id.CommonName)
	w := newWorld(t).mutual(t)
	w.cfg.Identity = IdentityDNS
	sock, _ := joined(t, w.server(t), w.client(t, "Acme/#", tlstest.DNS("pump")))
	require.Equal(t, "pump", sock.Identity().Name)
	require.Empty(t, sock.Identity().CommonName)
}

func TestClientAuth(t *testing.T) {
	f := func(auth, cn string, in bool) {
		t.Helper()
		w := newWorld(t)
		if auth != ClientAuthNone {
			w.mutual(t)
		}
		w.cfg.ClientAuth = auth
		sock, _, err, refused := meet(t, w.server(t), w.client(t, cn))
		require.Equal(t, in, err == nil, err)
		require.Equal(t, in, refused == nil, refused)
		if in && auth != ClientAuthNone && cn != "" {
			require.Equal(t, cn, sock.Identity().Name)
		} else if in {
			require.Nil(t, sock.Identity())
		}
	}
	f(ClientAuthNone, "", true)
	f(ClientAuthNone, "pump", true)
	f(ClientAuthRequest, "", true)
	f(ClientAuthRequest, "pump", true)
	f(ClientAuthRequire, "", false)
	f(ClientAuthRequire, "pump", true)
	f("", "", false)
}

// TestBadClientCertificatesAreRefused, also where a certificate is not required.
func TestBadClientCertificatesAreRefused(t *testing.T) {
	f := func(want string, client func(w *world) *tls.Config) {
		t.Helper()
		for _, auth := range []string{ClientAuthRequest, ClientAuthRequire} {
			versions(t, func(t *testing.T, cfg *tls.Config, w *world) {
				w.mutual(t)
				w.cfg.ClientAuth = auth
				mine := client(w)
				mine.MaxVersion = cfg.MaxVersion
				_, _, err, refused := meet(t, w.server(t), mine)
				require.Error(t, err)
				require.Error(t, refused)
				require.Equal(t, want, outcome(err))
			})
		}
	}
	f("expired", func(w *world) *tls.Config { return w.client(t, "pump", tlstest.Expired()) })
	f("expired", func(w *world) *tls.Config { return w.client(t, "pump", tlstest.NotYet()) })
	f("unknown_ca", func(w *world) *tls.Config {
		cert, key := tlstest.NewCA(t, "somebody").Client(t, w.dir, "pump")
		return force(w.ca.ClientConfig(t, "localhost", cert, key))
	})
	f("unknown_ca", func(w *world) *tls.Config { // the name of our CA does not do
		cert, key := tlstest.NewCA(t, "devices").Client(t, w.dir, "pump")
		return w.ca.ClientConfig(t, "localhost", cert, key)
	})
	f("bad_certificate", func(w *world) *tls.Config { // made for servers
		cert, key := w.devices.Issue(t, w.dir, "pump")
		return w.ca.ClientConfig(t, "localhost", cert, key)
	})
}

// force makes a client show its certificate also to a server that asks for those of other CAs.
func force(cfg *tls.Config) *tls.Config {
	cert := cfg.Certificates[0]
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	return cfg
}
