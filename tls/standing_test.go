package tls

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"sluice/tls/tlstest"
)

// TestReloadedListRevokesThoseThatAreIn, and no other.
func TestReloadedListRevokesThoseThatAreIn(t *testing.T) {
	w := newWorld(t).mutual(t)
	w.cfg.CRL = w.devices.CRL(t, w.dir, 1)
	s := running(t, w.server(t))
	stolen, _ := joined(t, s, w.client(t, "pump", tlstest.Serial(666)))
	other, _ := joined(t, s, w.client(t, "valve", tlstest.Serial(667)))
	require.False(t, stolen.Identity().Revoked())
	tlstest.Copy(t, w.devices.CRL(t, t.TempDir(), 1, 666), w.cfg.CRL)
	eventually(t, stolen.Identity().Revoked, "the new list counts")
	require.False(t, other.Identity().Revoked())
	require.True(t, stolen.Identity().Revoked(), "asked again")
	tlstest.Copy(t, w.devices.CRL(t, t.TempDir(), 1, 666, 667), w.cfg.CRL)
	eventually(t, other.Identity().Revoked, "so does the one after it")
}

// TestResumedConnectionIsRevokedToo: its chains come out of a ticket.
func TestResumedConnectionIsRevokedToo(t *testing.T) {
	versions(t, func(t *testing.T, cfg *Config, w *world) {
		w.mutual(t)
		w.cfg.CRL = w.devices.CRL(t, w.dir)
		s := w.server(t)
		mine := caching(w.client(t, "pump", tlstest.Serial(666)))
		mine.MaxVersion = cfg.MaxVersion
		joined(t, s, mine)
		again, client := joined(t, s, mine)
		require.True(t, client.ConnectionState().DidResume)
		tlstest.Copy(t, w.devices.CRL(t, t.TempDir(), 666), w.cfg.CRL)
		s.refresh(time.Now())
		require.True(t, again.Identity().Revoked())
	})
}

// TestWhoLosesItsCAIsRevoked: the CA is taken out of the file, or revoked by the one above it.
func TestWhoLosesItsCAIsRevoked(t *testing.T) {
	w := newWorld(t).mutual(t)
	w.cfg.CRL = w.devices.CRL(t, w.dir)
	root, err := os.ReadFile(w.cfg.ClientCA)
	require.NoError(t, err)
	middle := w.devices.Intermediate(t, "middle")
	above, err := os.ReadFile(middle.File(t, t.TempDir()))
	require.NoError(t, err)
	foreign := tlstest.NewCA(t, "another")
	third, err := os.ReadFile(foreign.File(t, t.TempDir()))
	require.NoError(t, err)
	tlstest.Write(t, w.cfg.ClientCA, append(append(above, root...), third...))
	s := w.server(t)
	of := func(ca *tlstest.CA) *Identity {
		cert, key := ca.Client(t, t.TempDir(), "pump")
		sock, _ := joined(t, s, w.ca.ClientConfig(t, "localhost", cert, key))
		return sock.Identity()
	}
	low, high, away := of(middle), of(w.devices), of(foreign)
	tlstest.Write(t, w.cfg.ClientCA, append(above, root...))
	s.refresh(time.Now())
	require.True(t, away.Revoked())
	require.False(t, low.Revoked() || high.Revoked())
	tlstest.Copy(t, w.devices.CRL(t, t.TempDir(), middle.Certificate.SerialNumber.Int64()), w.cfg.CRL)
	s.refresh(time.Now())
	require.True(t, low.Revoked())
	require.False(t, high.Revoked())
}

// TestNewPairOfTheListenerRevokesNobody, nor does a list that can't be read; and to ask costs nothing.
func TestNewPairOfTheListenerRevokesNobody(t *testing.T) {
	w := newWorld(t).mutual(t)
	w.cfg.CRL = w.devices.CRL(t, w.dir)
	s := w.server(t)
	sock, _ := joined(t, s, w.client(t, "pump"))
	w.replace(t)
	s.refresh(time.Now())
	require.Equal(t, 1.0, s.reloads("ok"))
	require.False(t, sock.Identity().Revoked())
	tlstest.Write(t, w.cfg.CRL, nil)
	s.refresh(time.Now())
	require.False(t, sock.Identity().Revoked())
	require.Zero(t, testing.AllocsPerRun(100, func() { sock.Identity().Revoked() }))
	require.False(t, (&Identity{}).Revoked())
}

// TestWatchLooksWhenItBegins: what changed before nobody would tell of.
func TestWatchLooksWhenItBegins(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	require.NoError(t, Watch(ctx, zerolog.Nop(), []string{t.TempDir() + "/a"}, cancel))
}
