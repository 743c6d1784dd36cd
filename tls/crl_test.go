package tls

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/rs/zerolog"
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
	mine := w.through(t, middle, "pump")
	joined(t, w.server(t), mine)

	w.cfg.CRL = w.devices.CRL(t, w.dir, middle.Certificate.SerialNumber.Int64())
	_, _, err, _ := meet(t, w.server(t), mine)
	require.ErrorIs(t, err, ErrRevoked)

	root, err := os.ReadFile(w.cfg.ClientCA)
	require.NoError(t, err)
	tlstest.Write(t, w.cfg.ClientCA, append(certificatePEM(middle.Certificate.Raw), root...))
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

// TestListOfACAThatIsLeftOutIsLeftOutToo, and named: the others are in force, at start and after a change.
func TestListOfACAThatIsLeftOutIsLeftOutToo(t *testing.T) {
	f := func(odd []byte) {
		t.Helper()
		w, log := newWorld(t).mutual(t), new(lines)
		w.cfg.Logger = zerolog.New(log)
		good, err := os.ReadFile(w.cfg.ClientCA)
		require.NoError(t, err)
		w.cfg.CRL = w.devices.CRL(t, w.dir, 666)
		lists, err := os.ReadFile(w.cfg.CRL)
		require.NoError(t, err)
		tlstest.Write(t, w.cfg.ClientCA, slices.Concat(good, certificatePEM(odd)))
		overdue, err := os.ReadFile(tlstest.NewCA(t, "odd").CRLUntil(t, w.dir, time.Now().Add(-time.Hour)))
		require.NoError(t, err)
		tlstest.Write(t, w.cfg.CRL, slices.Concat(overdue, lists))
		s := w.server(t)
		require.Equal(t, 1, log.count("left out a revocation list"))
		require.Equal(t, 1, log.count(`"client_cas":"CN=odd"`))
		revoked := func(serial int64) {
			t.Helper()
			_, _, err, _ := meet(t, s, w.client(t, "pump", tlstest.Serial(serial)))
			require.ErrorIs(t, err, ErrRevoked)
		}
		revoked(666)
		joined(t, s, w.client(t, "pump", tlstest.Serial(667)))
		newer, err := os.ReadFile(w.devices.CRL(t, w.dir, 666, 667))
		require.NoError(t, err)
		tlstest.Write(t, w.cfg.CRL, slices.Concat(newer, overdue))
		s.reload(time.Now())
		require.Equal(t, 2, log.count("left out a revocation list"))
		revoked(667)

		other, err := os.ReadFile(tlstest.NewCA(t, "stranger").CRL(t, w.dir))
		require.NoError(t, err)
		tlstest.Write(t, w.cfg.CRL, slices.Concat(lists, other))
		_, err = NewServer(w.cfg)
		require.ErrorContains(t, err, "its issuer is none of them")
	}
	self, _ := tlstest.NewCA(t, "odd").Client(t, t.TempDir(), "odd")
	f(readPEM(t, self).Raw)
	f(negative(t, "odd"))
	f(tlstest.NewCA(t, "odd").Version1(t))
}

// TestListOfACAThatIsInUseIsNotLeftOut because another of its name, or a certificate that it signed, is.
func TestListOfACAThatIsInUseIsNotLeftOut(t *testing.T) {
	w := newWorld(t).mutual(t)
	good, err := os.ReadFile(w.cfg.ClientCA)
	require.NoError(t, err)
	stranger := tlstest.NewCA(t, "stranger")
	leaf, _ := stranger.Client(t, w.dir, "leaf")
	tlstest.Write(t, w.cfg.ClientCA, slices.Concat(good, certificatePEM(negative(t, "devices")), certificatePEM(readPEM(t, leaf).Raw)))
	w.cfg.CRL = tlstest.NewCA(t, "devices").CRL(t, w.dir)
	_, err = NewServer(w.cfg)
	require.ErrorContains(t, err, "not signed by one of the client CAs: x509")
	w.cfg.CRL = stranger.CRL(t, w.dir)
	_, err = NewServer(w.cfg)
	require.ErrorContains(t, err, "its issuer is none of them")
}

// TestIssuerWhoseListIsLeftOutIsTrustedForNothing: the devices may show a good certificate of it, which a CA in use has signed.
func TestIssuerWhoseListIsLeftOutIsTrustedForNothing(t *testing.T) {
	w := newWorld(t).mutual(t)
	plant := w.devices.Intermediate(t, "plant")
	cfg := w.through(t, plant, "pump")
	joined(t, w.server(t), cfg)
	good, err := os.ReadFile(w.cfg.ClientCA)
	require.NoError(t, err)
	tlstest.Write(t, w.cfg.ClientCA, slices.Concat(good, certificatePEM(negative(t, "plant"))))
	w.cfg.CRL = plant.CRL(t, w.dir)
	_, _, err, _ = meet(t, w.server(t), cfg)
	require.ErrorIs(t, err, ErrRevoked)
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
