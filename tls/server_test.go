package tls

import (
	"bytes"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"sluice/tls/tlstest"
)

// TestStartUpErrorsNameFileAndFault, for each file a table of what can be wrong with it.
func TestStartUpErrorsNameFileAndFault(t *testing.T) {
	w := newWorld(t).mutual(t)
	write := func(name, text string) string {
		path := filepath.Join(w.dir, name)
		tlstest.Write(t, path, []byte(text))
		return path
	}
	block := func(kind string) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: []byte("x")}))
	}
	f := func(change func(c *ServerConfig), wants ...string) {
		t.Helper()
		cfg := w.cfg
		change(&cfg)
		_, err := NewServer(cfg)
		for _, want := range wants {
			require.ErrorContains(t, err, want)
		}
	}
	missing := filepath.Join(w.dir, "missing.pem")
	f(func(c *ServerConfig) { c.Certificate, c.Key = missing, missing },
		`cannot read certificate "`+missing+`": no such file`, `cannot read key "`+missing+`": no such file`)
	f(func(c *ServerConfig) { c.Certificate = w.dir }, "cannot read certificate", "is a directory")
	f(func(c *ServerConfig) { c.Certificate = write("a", "nonsense") }, "cannot use certificate", "no CERTIFICATE in PEM")
	f(func(c *ServerConfig) { c.Certificate = c.Key }, "cannot use certificate", "no CERTIFICATE in PEM")
	f(func(c *ServerConfig) { c.Certificate = write("b", block("CERTIFICATE")) }, "cannot use certificate", "x509: malformed")
	f(func(c *ServerConfig) { c.Key = write("c", "") }, "cannot use key", "nothing in PEM")
	f(func(c *ServerConfig) { c.Key = c.Certificate }, "cannot use key", "no PRIVATE KEY in PEM")
	f(func(c *ServerConfig) { c.Key = write("d", block("ENCRYPTED PRIVATE KEY")) }, "cannot use key", "it is encrypted")
	f(func(c *ServerConfig) { _, c.Key = w.ca.Server(t, w.dir, "localhost") },
		"cannot use certificate", w.cfg.Certificate, "private key does not match public key")
	f(func(c *ServerConfig) { c.Certificate, c.Key = w.ca.Issue(t, w.dir, "x", tlstest.Expired()) }, "cannot use certificate", "it expired on")
	f(func(c *ServerConfig) { c.Certificate, c.Key = w.ca.Issue(t, w.dir, "x", tlstest.NotYet()) }, "cannot use certificate", "not valid before")
	f(func(c *ServerConfig) { c.ClientCA = write("e", "nonsense") }, "cannot use client CA", "no CERTIFICATE in PEM")
	f(func(c *ServerConfig) { c.ClientCA = c.Certificate }, "cannot use client CA", "is not that of a CA")
	f(func(c *ServerConfig) { c.ClientCA = tlstest.NewCA(t, "old", tlstest.Expired()).File(t, w.dir) }, "cannot use client CA", "it expired on")
	f(func(c *ServerConfig) { c.CRL = missing }, "cannot read CRL")
	f(func(c *ServerConfig) { // all at once
		c.Key, c.ClientCA = write("f", "nonsense"), write("g", "nonsense")
	}, "cannot use key", "cannot use client CA")
}

func TestOldCABesideAGoodOneDoesNoHarm(t *testing.T) {
	w := newWorld(t).mutual(t)
	good, err := os.ReadFile(w.cfg.ClientCA)
	require.NoError(t, err)
	old, err := os.ReadFile(tlstest.NewCA(t, "old", tlstest.Expired()).File(t, w.dir))
	require.NoError(t, err)
	tlstest.Write(t, w.cfg.ClientCA, append(old, good...))
	joined(t, w.server(t), w.client(t, "pump"))
}

func TestConfigurationFaultsAllAtOnce(t *testing.T) {
	_, err := NewServer(ServerConfig{ClientAuth: "perhaps", CRL: "x", MinVersion: "1.1", Identity: "name"})
	for _, want := range []string{
		"needs a certificate", "needs a key", `client_auth "perhaps" needs client_ca`, "crl needs client_ca",
		`client_auth is "perhaps", not one of none, request, require`, `min_version is "1.1"`, `identity is "name"`,
	} {
		require.ErrorContains(t, err, want)
	}
	_, err = NewServer(ServerConfig{Certificate: "x", Key: "x", ClientCA: "x", ClientAuth: ClientAuthNone})
	require.ErrorContains(t, err, "client_ca has no use")
}

func TestMetricsOfListeners(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	w := newWorld(t).mutual(t)
	w.cfg.Registerer, w.cfg.Listener = reg, ":8883"
	w.cfg.CRL = w.devices.CRL(t, w.dir, 666)
	s := w.server(t)
	w.cfg.Listener = ":8884"
	w.server(t)
	_, err := NewServer(w.cfg)
	require.Error(t, err, "one listener twice")

	cfg := w.client(t, "pump")
	joined(t, s, cfg)
	meet(t, s, w.client(t, "pump", tlstest.Serial(666)))
	require.Equal(t, 1.0, testutil.ToFloat64(s.metrics.handshakes.WithLabelValues("full")))
	require.Equal(t, 1.0, testutil.ToFloat64(s.metrics.handshakes.WithLabelValues("revoked")))
	require.Equal(t, float64(readPEM(t, w.cfg.Certificate).NotAfter.Unix()), testutil.ToFloat64(s.metrics.notAfter))
	require.Greater(t, testutil.ToFloat64(s.metrics.nextUpdate), float64(time.Now().Unix()))
	problems, err := testutil.GatherAndLint(reg)
	require.NoError(t, err)
	require.Empty(t, problems)
}

// TestExpiryIsSaidOnceAnHour, of the certificate and of a revocation list in use, and does not end their use.
func TestExpiryIsSaidOnceAnHour(t *testing.T) {
	w := newWorld(t).mutual(t)
	w.cfg.CRL = w.devices.CRL(t, w.dir, 666)
	var log bytes.Buffer
	w.cfg.Logger = zerolog.New(&log)
	s := w.server(t)
	said := func(what string) int { return bytes.Count(log.Bytes(), []byte(what)) }
	now := time.Now()
	s.nag(now)
	require.Zero(t, log.Len())
	later := now.Add(48 * time.Hour)
	for i := range 10 {
		s.nag(later.Add(time.Duration(i) * time.Minute))
	}
	require.Equal(t, 1, said("the certificate has expired"))
	require.Equal(t, 1, said("a revocation list is overdue"))
	s.nag(later.Add(nagEvery))
	require.Equal(t, 2, said("a revocation list is overdue"))
	_, _, err, _ := meet(t, s, w.client(t, "pump", tlstest.Serial(666)))
	require.ErrorIs(t, err, ErrRevoked)
}

// TestUnlistedCAIsNamed: certificates of a CA without a list are not checked, which somebody may not have meant.
func TestUnlistedCAIsNamed(t *testing.T) {
	w := newWorld(t).mutual(t)
	other := tlstest.NewCA(t, "unlisted")
	first, err := os.ReadFile(w.cfg.ClientCA)
	require.NoError(t, err)
	second, err := os.ReadFile(other.File(t, w.dir))
	require.NoError(t, err)
	tlstest.Write(t, w.cfg.ClientCA, append(first, second...))
	w.cfg.CRL = w.devices.CRL(t, w.dir)
	var log bytes.Buffer
	w.cfg.Logger = zerolog.New(&log)
	w.server(t)
	require.Contains(t, log.String(), `"client_cas":"CN=unlisted"`)
}
