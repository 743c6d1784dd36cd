package auth

import (
	"context"
	"net"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/mqtt"
	"sluice/tls"
	"sluice/tls/tlstest"
)

// TestUserWhoIsTakenOutOfTheFileIsWithdrawn, or who has another password; who stays as he is is not.
func TestUserWhoIsTakenOutOfTheFileIsWithdrawn(t *testing.T) {
	line := func(name, hash string) string { return "  - {name: " + name + ", password: \"" + hash + "\"}\n" }
	ann, bob, eve := quickHash(t, "a"), quickHash(t, "b"), quickHash(t, "c")
	file := usersFileOf(t, "somebody", "x")
	write(t, file.Path, "users:\n"+line("ann", ann)+line("bob", bob)+line("eve", eve))
	b := newBench(t, 0, file).start()
	stays := b.accepts(password("ann", "a"), "ann").Withdrawn
	changed := b.accepts(password("bob", "b"), "bob").Withdrawn
	gone := b.accepts(password("eve", "c"), "eve").Withdrawn
	require.False(t, stays() || changed() || gone())
	write(t, file.Path, "users:\n  - {name: bob, \n")
	write(t, file.Path, "users:\n"+line("bob", quickHash(t, "b"))+line("ann", ann))
	eventually(t, gone)
	require.True(t, changed())
	require.False(t, stays())
	require.Zero(t, testing.AllocsPerRun(100, func() { stays() }))
	b.accepts(password("bob", "b"), "bob")
}

// TestRevokedCertificateWithdrawsWhateverElseIsGood, and the other way round.
func TestRevokedCertificateWithdrawsWhateverElseIsGood(t *testing.T) {
	ca, dir := tlstest.NewCA(t, "devices"), t.TempDir()
	cfg := tls.ServerConfig{ClientCA: ca.File(t, dir), CRL: ca.CRL(t, dir), Listener: "test"}
	cfg.Certificate, cfg.Key = ca.Server(t, dir, "localhost")
	certificate := shown(t, cfg, ca, 666)
	file := usersFileOf(t, "ann", "a")
	text, err := os.ReadFile(file.Path)
	require.NoError(t, err)
	b := newBench(t, 0, file, Certificate{}).start()
	withdrawn := func(l *mqtt.Login, name string) func() bool {
		l.Certificate = certificate
		return b.accepts(l, name).Withdrawn
	}
	both, alone := withdrawn(password("ann", "a"), "ann"), withdrawn(&mqtt.Login{Remote: home}, certificate.Name)
	require.False(t, both() || alone())
	write(t, file.Path, usersText(t, "bob", "b"))
	eventually(t, both)
	require.False(t, alone())
	write(t, file.Path, string(text))
	eventually(t, func() bool { return !both() })
	tlstest.Copy(t, ca.CRL(t, t.TempDir(), 666), cfg.CRL)
	eventually(t, alone)
	require.True(t, both())
}

// shown gives what a listener makes of a certificate with that serial number. The listener follows its files until the
// test ends.
func shown(t *testing.T, cfg tls.ServerConfig, ca *tlstest.CA, serial int64) *tls.Identity {
	s, err := tls.NewServer(cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- s.Run(ctx) }() // ends with ctx
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	cert, key := ca.Client(t, t.TempDir(), "pump-7", tlstest.Serial(serial))
	mine := ca.ClientConfig(t, "localhost", cert, key)
	go func() { // ends with the handshake, or ctx
		nc, err := tlstest.Dial(ctx, l.Addr().String(), mine)
		if err == nil {
			err = nc.Close()
		}
		ended <- err
	}()
	nc, err := l.Accept()
	require.NoError(t, err)
	defer nc.Close()
	c, err := s.Accept(ctx, nc, nil, nil)
	require.NoError(t, err)
	require.NoError(t, <-ended)
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	return c.Identity()
}
