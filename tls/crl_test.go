package tls

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/tls/tlstest"
)

func TestRevokedCertificateIsRefused(t *testing.T) {
	versions(t, func(t *testing.T, cfg *tls.Config, w *world) {
		w.mutual(t)
		w.cfg.CRL = w.devices.CRL(t, w.dir, 666, 667)
		s := w.server(t)
		f := func(serial int64, in bool) {
			t.Helper()
			mine := w.client(t, "pump", tlstest.Serial(serial))
			mine.MaxVersion = cfg.MaxVersion
			_, _, err, refused := meet(t, s, mine)
			if in {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, ErrRevoked)
			require.Equal(t, "revoked", outcome(err))
			require.Error(t, refused)
		}
		f(666, false)
		f(667, false)
		f(668, true)
	})
}

// TestRevokedIntermediateIsRefused, with all that it signed, whether the device sends it or we trust it.
func TestRevokedIntermediateIsRefused(t *testing.T) {
	w := newWorld(t).mutual(t)
	middle := w.devices.Intermediate(t, "middle")
	cert, key := middle.Client(t, w.dir, "pump")
	leaf, err := os.ReadFile(cert)
	require.NoError(t, err)
	above, err := os.ReadFile(middle.File(t, w.dir))
	require.NoError(t, err)
	tlstest.Write(t, cert, append(leaf, above...))
	mine := w.ca.ClientConfig(t, "localhost", cert, key)
	joined(t, w.server(t), mine)

	w.cfg.CRL = w.devices.CRL(t, w.dir, middle.Certificate.SerialNumber.Int64())
	_, _, err, _ = meet(t, w.server(t), mine)
	require.ErrorIs(t, err, ErrRevoked)

	root, err := os.ReadFile(w.cfg.ClientCA)
	require.NoError(t, err)
	tlstest.Write(t, w.cfg.ClientCA, append(above, root...))
	_, _, err, _ = meet(t, w.server(t), mine)
	require.ErrorIs(t, err, ErrRevoked)
}

// TestListOfOneCASaysNothingOfAnother, even if both have one name and give one serial number.
func TestListOfOneCASaysNothingOfAnother(t *testing.T) {
	w := newWorld(t).mutual(t)
	other := tlstest.NewCA(t, "devices")
	first, err := os.ReadFile(w.cfg.ClientCA)
	require.NoError(t, err)
	second, err := os.ReadFile(other.File(t, w.dir))
	require.NoError(t, err)
	tlstest.Write(t, w.cfg.ClientCA, append(first, second...))
	w.cfg.CRL = other.CRL(t, w.dir, 7)
	s := w.server(t)
	joined(t, s, w.client(t, "pump", tlstest.Serial(7)))
	cert, key := other.Client(t, w.dir, "pump", tlstest.Serial(7))
	_, _, err, _ = meet(t, s, w.ca.ClientConfig(t, "localhost", cert, key))
	require.ErrorIs(t, err, ErrRevoked)
}

func TestListsInDERAndSeveralInPEM(t *testing.T) {
	w := newWorld(t).mutual(t)
	tomorrow := time.Now().Add(24 * time.Hour)
	w.cfg.CRL = filepath.Join(w.dir, "list.der")
	tlstest.Write(t, w.cfg.CRL, w.devices.RevocationList(t, tomorrow, 1))
	w.server(t)
	var both []byte
	for _, serial := range []int64{11, 12} {
		one, err := os.ReadFile(w.devices.CRL(t, w.dir, serial))
		require.NoError(t, err)
		both = append(both, one...)
	}
	tlstest.Write(t, w.cfg.CRL, both)
	s := w.server(t)
	for _, serial := range []int64{11, 12} {
		_, _, err, _ := meet(t, s, w.client(t, "pump", tlstest.Serial(serial)))
		require.ErrorIs(t, err, ErrRevoked)
	}
}

func TestBadListsAreNamed(t *testing.T) {
	w := newWorld(t).mutual(t)
	w.cfg.CRL = filepath.Join(w.dir, "list.pem")
	tomorrow := time.Now().Add(24 * time.Hour)
	f := func(want string, data []byte) {
		t.Helper()
		tlstest.Write(t, w.cfg.CRL, data)
		_, err := NewServer(w.cfg)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "list.pem")
	}
	f("x509: malformed", nil)
	f("x509: malformed", []byte("nonsense"))
	f("no X509 CRL in PEM", []byte("-----BEGIN NOTHING-----\n-----END NOTHING-----\n"))
	f("not signed by one of the client CAs: its issuer", w.ca.RevocationList(t, tomorrow))
	f("not signed by one of the client CAs: x509", tlstest.NewCA(t, "devices").RevocationList(t, tomorrow))
	f("was due to be replaced on", w.devices.RevocationList(t, time.Now().Add(-time.Hour)))
}

func TestOverdueIsTheFirstOfAllLists(t *testing.T) {
	var r revocations
	now := time.Now()
	r.due(time.Time{})
	require.Zero(t, r.next)
	r.due(now)
	r.due(now.Add(-time.Minute))
	r.due(now.Add(time.Minute))
	require.Equal(t, now.Add(-time.Minute), r.next)
}

func TestNoListRevokesNothing(t *testing.T) {
	var r *revocations
	require.NoError(t, r.check([][]*x509.Certificate{{}}))
	require.Nil(t, r.unlisted([]*x509.Certificate{{}}))
	require.Len(t, r.trusted([]*x509.Certificate{{}}), 1)
}
