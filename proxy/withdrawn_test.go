package proxy

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"

	"sluice/mqtt"
	"sluice/proxy/config"
	"sluice/tls"
	"sluice/tls/tlstest"
)

// connected says CONNECT over nc, with a password if there is a user.
func connected(t *testing.T, nc net.Conn, user, password string) *device {
	t.Helper()
	t.Cleanup(func() { _ = nc.Close() })
	d := &device{t: t, nc: nc, in: bufio.NewReader(nc)}
	flags := byte(2)
	if user != "" {
		flags |= 0xC0
	}
	body := append(append(text16("MQTT"), 5, flags, 0, 0, 0), text16("")...)
	if user != "" {
		body = append(append(body, text16(user)...), text16(password)...)
	}
	d.send(0x10, body)
	first, answer := d.read()
	require.Equal(t, []byte{0x20, 0}, []byte{first, answer[1]}, "CONNACK")
	return d
}

// TestUserTakenOutOfTheFileIsDisconnected, and nobody else.
func TestUserTakenOutOfTheFileIsDisconnected(t *testing.T) {
	t.Parallel() // most of it is waiting
	users := filepath.Join(t.TempDir(), "users.yaml")
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	require.NoError(t, err)
	have := func(names ...string) {
		text := "users:\n"
		for _, name := range names {
			text += fmt.Sprintf("  - {name: %s, password: %q}\n", name, hash)
		}
		require.NoError(t, os.WriteFile(users+".new", []byte(text), 0o600))
		require.NoError(t, os.Rename(users+".new", users))
	}
	have("stays", "goes")
	in := begin(t, 2, fmt.Sprintf("auth: {file: %q}\npublish: [{match: \"#\", topic: t}]\n", users))
	dial := func(user string) *device {
		nc, err := net.Dial("tcp", in.addr)
		require.NoError(t, err)
		return connected(t, nc, user, "secret")
	}
	stays, goes := dial("stays"), dial("goes")
	have("new", "stays")
	goes.ended(byte(mqtt.NotAuthorized))
	stays.nothing()
}

// TestDeviceWithARevokedCertificateIsDisconnected, and nobody else.
func TestDeviceWithARevokedCertificateIsDisconnected(t *testing.T) {
	t.Parallel() // most of it is waiting
	dir, ca := t.TempDir(), tlstest.NewCA(t, "devices")
	cert, key := ca.Server(t, dir, "127.0.0.1")
	s := found(t, 2, "publish: [{match: \"#\", topic: t}]\n")
	crl := ca.CRL(t, dir)
	s.settings.Listeners[0].TLS = &config.ListenerTLS{Certificate: cert, Key: key, ClientCA: ca.File(t, dir), CRL: crl,
		ClientAuth: config.ClientAuthRequire, Identity: "cn", MinVersion: "1.2"}
	in := s.instance()
	in.serve()
	dial := func(serial int64) *device {
		mine, mineKey := ca.Client(t, t.TempDir(), "pump", tlstest.Serial(serial))
		nc, err := tlstest.Dial(t.Context(), in.addr, ca.ClientConfig(t, "127.0.0.1", mine, mineKey))
		require.NoError(t, err)
		return connected(t, nc, "", "")
	}
	stays, goes := dial(666), dial(667)
	tlstest.Copy(t, ca.CRL(t, t.TempDir(), 667), crl)
	goes.ended(byte(mqtt.NotAuthorized))
	stays.nothing()
}

// TestWithoutAuthACertificateMustStayGood, where an ACL has the identity made here.
func TestWithoutAuthACertificateMustStayGood(t *testing.T) {
	g, err := newGate(parse(t, rulesForTests, aclForTests), zerolog.Nop(), prometheus.NewRegistry())
	require.NoError(t, err)
	end := time.Now().Add(time.Hour)
	id, err := g.Authenticate(t.Context(), &mqtt.Login{Username: "d1", Certificate: &tls.Identity{Name: "n", NotAfter: end}})
	require.NoError(t, err)
	require.Equal(t, end, id.Until)
	require.False(t, id.Withdrawn())
}
