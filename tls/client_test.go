package tls

import (
	"context"
	"crypto/tls"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"sluice/tls/tlstest"
)

// shows dials a listener that asks for certificates, and gives the serial number of the one it was shown.
func shows(t *testing.T, w *world, cfg *tls.Config) *big.Int {
	t.Helper()
	ours, theirs := sockets(t)
	var seen *big.Int
	server := w.ca.ServerConfig(t, "localhost")
	server.ClientAuth = tls.RequireAnyClientCert
	server.VerifyConnection = func(state tls.ConnectionState) error {
		seen = state.PeerCertificates[0].SerialNumber
		return nil
	}
	done := make(chan error, 1)
	go func() { done <- tls.Server(ours, server).Handshake() }() // ends with the handshake
	client, err := tlstest.Client(context.Background(), theirs, cfg)
	require.NoError(t, err)
	require.NoError(t, <-done)
	client.Close()
	return seen
}

func TestClientFollowsItsFiles(t *testing.T) {
	w := newWorld(t)
	log := new(lines)
	cfg := ClientConfig{CA: w.ca.File(t, w.dir), ServerName: "localhost", Logger: zerolog.New(log)}
	cfg.Certificate, cfg.Key = w.devices.Client(t, w.dir, "sluice")
	config, err := NewClient(cfg)
	require.NoError(t, err)
	first := readPEM(t, cfg.Certificate).SerialNumber
	require.Equal(t, first, shows(t, w, config))

	cert, key := w.devices.Client(t, w.dir, "sluice")
	tlstest.Copy(t, cert, cfg.Certificate)
	require.Equal(t, first, shows(t, w, config), "half a pair is not taken")
	require.Equal(t, first, shows(t, w, config))
	require.Equal(t, 1, log.count("the old one stays in use"))
	tlstest.Copy(t, key, cfg.Key)
	require.Equal(t, readPEM(t, cert).SerialNumber, shows(t, w, config))
}

func TestClientTrustsItsCAOnly(t *testing.T) {
	w := newWorld(t)
	s := w.server(t)
	config, err := NewClient(ClientConfig{CA: w.ca.File(t, w.dir), ServerName: "localhost"})
	require.NoError(t, err)
	joined(t, s, config)
	config, err = NewClient(ClientConfig{CA: w.devices.File(t, w.dir), ServerName: "localhost"})
	require.NoError(t, err)
	_, _, err, refused := meet(t, s, config)
	require.Error(t, err)
	require.ErrorContains(t, refused, "unknown authority")
	config, err = NewClient(ClientConfig{CA: w.ca.File(t, w.dir), ServerName: "elsewhere"})
	require.NoError(t, err)
	_, _, err, refused = meet(t, s, config)
	require.Error(t, err)
	require.ErrorContains(t, refused, "not elsewhere")
	config, err = NewClient(ClientConfig{})
	require.NoError(t, err)
	require.Nil(t, config.RootCAs, "those of the system")
}

func TestClientErrorsNameFileAndFault(t *testing.T) {
	w := newWorld(t)
	cert, key := w.devices.Client(t, w.dir, "sluice")
	_, other := w.devices.Client(t, w.dir, "sluice")
	missing := filepath.Join(w.dir, "missing.pem")
	f := func(cfg ClientConfig, wants ...string) {
		t.Helper()
		_, err := NewClient(cfg)
		for _, want := range wants {
			require.ErrorContains(t, err, want)
		}
	}
	f(ClientConfig{CA: missing}, "cannot read CA", missing)
	f(ClientConfig{CA: cert}, "cannot use CA", "is not that of a CA")
	f(ClientConfig{Certificate: cert}, "needs both certificate and key")
	f(ClientConfig{Key: key}, "needs both certificate and key")
	f(ClientConfig{Certificate: cert, Key: other}, "cannot use certificate", "does not match")
	f(ClientConfig{CA: key, Certificate: missing, Key: missing}, "cannot use CA", "cannot read certificate", "cannot read key")
	old, oldKey := w.devices.Client(t, w.dir, "sluice", tlstest.Expired())
	f(ClientConfig{Certificate: old, Key: oldKey}, "it expired on")
}

// TestToolsOfTests: what other rooms use of tlstest works.
func TestToolsOfTests(t *testing.T) {
	w := newWorld(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", w.ca.ServerConfig(t, "127.0.0.1"))
	require.NoError(t, err)
	defer l.Close()
	done := make(chan error, 1)
	go func() { // ends with its one connection
		nc, err := l.Accept()
		if err == nil {
			_, err = io.WriteString(nc, "hi")
			nc.Close()
		}
		done <- err
	}()
	nc, err := tlstest.Dial(context.Background(), l.Addr().String(), w.ca.ClientConfig(t, "127.0.0.1"))
	require.NoError(t, err)
	got, err := io.ReadAll(nc)
	require.NoError(t, err)
	require.Equal(t, "hi", string(got))
	require.NoError(t, <-done)
	nc.Close()
}

// TestClientTrustsWhatItsFileHasNow: a CA is renewed without a restart, as a certificate is.
func TestClientTrustsWhatItsFileHasNow(t *testing.T) {
	w := newWorld(t)
	s, log := w.server(t), new(lines)
	trust := w.devices.File(t, w.dir)
	config, err := NewClient(ClientConfig{CA: trust, ServerName: "localhost", Logger: zerolog.New(log)})
	require.NoError(t, err)
	refused := func() {
		t.Helper()
		_, _, _, err := meet(t, s, Fresh(config))
		require.ErrorContains(t, err, "unknown authority")
	}
	refused()
	tlstest.Copy(t, w.ca.File(t, w.dir), trust)
	joined(t, s, Fresh(config))
	require.NoError(t, os.WriteFile(trust, []byte("half a"), 0o600))
	joined(t, s, Fresh(config))
	joined(t, s, Fresh(config))
	require.Equal(t, 1, log.count("the old ones stay in use"))
	tlstest.Copy(t, w.devices.File(t, w.dir), trust)
	refused()
	other := new(tls.Config)
	require.Same(t, other, Fresh(other))
	require.Nil(t, Fresh(nil))
}

// TestOneOddCertificateTakesNoOtherWithIt: what can't be used among CAs is left out and named, whoever reads them.
func TestOneOddCertificateTakesNoOtherWithIt(t *testing.T) {
	w := newWorld(t)
	good, err := os.ReadFile(w.ca.File(t, w.dir))
	require.NoError(t, err)
	leaf, _ := w.ca.Client(t, w.dir, "no-ca")
	leafPEM, err := os.ReadFile(leaf)
	require.NoError(t, err)
	f := func(odd []byte, warning string) {
		t.Helper()
		for _, bundle := range [][]byte{slices.Concat(odd, good), slices.Concat(good, odd)} {
			name := filepath.Join(t.TempDir(), "bundle.pem")
			require.NoError(t, os.WriteFile(name, bundle, 0o600))
			client, server := new(lines), new(lines)
			config, err := NewClient(ClientConfig{CA: name, ServerName: "localhost", Logger: zerolog.New(client)})
			require.NoError(t, err)
			w.cfg.ClientCA, w.cfg.CRL, w.cfg.Logger = name, "", zerolog.New(server)
			cert, key := w.ca.Client(t, w.dir, "dev")
			config.Certificates = w.ca.ClientConfig(t, "localhost", cert, key).Certificates
			joined(t, w.server(t), config)
			want := 1
			if warning == "" {
				want = 0
			}
			require.Equal(t, want, client.count("left out a certificate"))
			require.Equal(t, want, server.count("left out a certificate"))
			require.Equal(t, want, client.count(warning)*want)
		}
		if warning == "" {
			return
		}
		name := filepath.Join(t.TempDir(), "odd.pem")
		require.NoError(t, os.WriteFile(name, odd, 0o600))
		_, err = NewClient(ClientConfig{CA: name})
		require.ErrorContains(t, err, warning)
	}
	f([]byte("\xEF\xBB\xBF"), "")
	another, err := os.ReadFile(tlstest.NewCA(t, "another").File(t, t.TempDir()))
	require.NoError(t, err)
	f(append(another, "\xEF\xBB\xBF"...), "") // two files that were joined, the second of which begins with it
	f(leafPEM, "no-ca")
	f(certificatePEM(negative(t, "negative")), "negative serial number")
	f(certificatePEM(tlstest.NewCA(t, "version 1").Version1(t)), "CN=version 1")
	f([]byte("-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n"), "1 of its certificates")
}
