package test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"

	"sluice/test/cluster"
	"sluice/test/internal/ports"
	"sluice/test/internal/wire"
	"sluice/tls"
	"sluice/tls/tlstest"
)

// A guard is what the guarded instance asks of devices, and how to get past it.
type guard struct {
	ca, foreign              *tlstest.CA
	dir, authority           string // where files are; the file of ca
	tls, web, proxied, other string // addresses: TLS, WebSocket, PROXY from the loopback network, PROXY from elsewhere
}

const (
	goodUser     = "alice"
	goodPassword = "open-sesame-for-alice"
	revokedCert  = 4711
)

// guardedConfig has every kind of listener, users, rights and limits.
const guardedConfig = `listeners:
  - address: %q
  - address: %q
    tls: {certificate: %q, key: %q, client_ca: %q, client_auth: request, crl: %q}
  - address: %q
    protocol: websocket
    origins: ["https://console.example"]
  - address: %q
    proxy_protocol: {trusted: [127.0.0.0/8]}
  - address: %q
    proxy_protocol: {trusted: [10.0.0.0/8]}
admin: {address: %q}
log: {format: json}
kafka: {brokers: [%s]}
auth:
  - mtls: {}
  - file: %q
acl:
  - {allow: [publish], filter: "healthy/#", client_id: healthy}
  - {deny: [publish], filter: "devices/+/telemetry/forbidden"}
  - {allow: [publish, subscribe, will], filter: "devices/{mqtt.client_id}/#"}
limits: {connect_timeout: 3s, connections_per_address: 1100, topic_levels: 20, topic_alias_maximum: 16, user_properties: 10, publishes_per_second: 400, over_rate: disconnect, failed_logins: 10}
publish:
  - match: healthy/#
    topic: %q
  - match: devices/{device}/telemetry/{metric...}
    topic: %q
    key: "{device}"
commands:
  - topic: %q
    publish: devices/{key}/commands
`

// TestHostileInputMeetsTheGuards goes through the rows that need certificates, users, rights, origins or limits.
func TestHostileInputMeetsTheGuards(t *testing.T) {
	besideOthers(t)
	kafka := cluster.Shared(t)
	fine := newTopic(t, kafka, 1)
	b := &hostileBench{kafka: kafka, telemetry: newTopic(t, kafka, 1), hello: wire.Hello{Username: goodUser, Password: goodPassword}}
	b.guard = newGuard(t)
	b.instance = b.guard.serve(t, kafka.Brokers(), fine, b.telemetry, newTopic(t, kafka, 1))
	b.survives(t, fine, guardedGroups())
	require.NotContains(t, b.log.String(), goodPassword)
}

func newGuard(t testing.TB) *guard {
	g := &guard{ca: tlstest.NewCA(t, "devices"), foreign: tlstest.NewCA(t, "somebody else"), dir: t.TempDir()}
	g.authority = g.ca.File(t, g.dir)
	return g
}

// serve starts the guarded instance.
func (g *guard) serve(t testing.TB, brokers []string, fine, telemetry, orders string) *instance {
	t.Helper()
	taken, err := ports.Take(6)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ports.Release(taken)) })
	s := &instance{t: t, program: program, address: taken[0].Addr(), admin: taken[5].Addr(), log: new(lockedBuffer)}
	g.tls, g.web, g.proxied, g.other = taken[1].Addr(), taken[2].Addr(), taken[3].Addr(), taken[4].Addr()
	cert, key := g.ca.Server(t, g.dir, "127.0.0.1")
	users := filepath.Join(g.dir, "users.yaml")
	hash, err := bcrypt.GenerateFromPassword([]byte(goodPassword), bcrypt.MinCost)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(users, fmt.Appendf(nil, "users:\n  - {name: %s, password: %q}\n", goodUser, hash), 0o600))
	config := fmt.Sprintf(guardedConfig, s.address, g.tls, cert, key, g.authority, g.ca.CRL(t, g.dir, revokedCert),
		g.web, g.proxied, g.other, s.admin, strings.Join(brokers, ", "), users, fine, telemetry, orders) + stateTopics(t)
	file := filepath.Join(t.TempDir(), "sluice.yaml")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	s.args = []string{"serve", "--config", file}
	t.Cleanup(s.cleanup)
	s.start()
	s.awaitReady()
	return s
}

// secured does the handshake of TLS. A certificate is shown if the server asks for one of its CA.
func (a *attacker) secured(cert, key string) error {
	a.t.Helper()
	return a.shake(a.guard.ca.ClientConfig(a.t, "127.0.0.1", cert, key))
}

// obtrusive shows a certificate whatever CA the server asks for.
func (a *attacker) obtrusive(cert, key string) error {
	a.t.Helper()
	cfg, err := tls.NewClient(tls.ClientConfig{CA: a.guard.authority, Certificate: cert, Key: key, ServerName: "127.0.0.1"})
	require.NoError(a.t, err)
	return a.shake(cfg)
}

func (a *attacker) shake(cfg *tls.Config) error {
	nc := a.at(a.guard.tls)
	ctx, cancel := context.WithTimeout(a.t.Context(), 20*time.Second)
	defer cancel()
	c, err := tlstest.Client(ctx, nc, cfg)
	if err == nil {
		a.conn, a.in = c, bufio.NewReader(c)
	}
	return err
}

// shut reads to the end of a connection on which no MQTT is expected, and tells whether any came.
func (a *attacker) shut() string {
	first, err := a.in.ReadByte()
	for got := first; err == nil; got, err = a.in.ReadByte() {
		if first == wire.CONNACK {
			return fmt.Sprintf("a packet that begins with %#x", got)
		}
	}
	return ending(err)
}
