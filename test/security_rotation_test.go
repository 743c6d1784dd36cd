package test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"

	"sluice/test/cluster"
	"sluice/test/load"
	"sluice/tls/tlstest"
)

// TestCertificatesAndUsersChangeUnderLoad: the listener's certificate and the users file are replaced again and again
// while devices publish. Nobody who is not concerned is disconnected, nothing is lost, and new devices meet what is new.
func TestCertificatesAndUsersChangeUnderLoad(t *testing.T) {
	kafka := cluster.Shared(t)
	topic := newTopic(t, kafka, 6)
	dir := t.TempDir()
	ca := tlstest.NewCA(t, "rotation")
	certificate, key := filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key")
	rotate := func() {
		from, fromKey := ca.Server(t, t.TempDir(), "127.0.0.1")
		replace(t, from, certificate)
		replace(t, fromKey, key)
	}
	users := filepath.Join(dir, "users.yaml")
	device := userLine(t, "device", "before") // is the same in every file: another hash would be another password
	writeUsers(t, users, device)
	rotate()
	address := ownPorts(t, 1)[0]
	head := fmt.Sprintf("listeners: [{address: %q, tls: {certificate: %q, key: %q}}]\nauth: {file: %q}\n", address, certificate, key, users)
	s := prepareWith(t, kafka.Brokers(), head, oneTopic(topic), "")
	s.start()
	s.awaitReady()
	trust := ca.ClientConfig(t, "127.0.0.1")
	f := &load.Fleet{Addr: address, Run: runID(), Devices: either(20, 200), QoS: 1, Rate: 1000, Ping: true, Username: "device", Password: "before",
		Dialer: func(ctx context.Context, _ int) (net.Conn, error) { return tlstest.Dial(ctx, address, trust) }}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	result := make(chan *load.Result, 1)
	go func() { result <- f.Publish(ctx) }() // ends after cancel
	require.Eventually(t, func() bool { return f.Acked() > 500 }, patience, 10*time.Millisecond)
	for n := range either(3, 20) {
		rotations := s.metric("sluice_tls_reloads_total", `result="ok"`)
		rotate()
		await(t, func() bool { return s.metric("sluice_tls_reloads_total", `result="ok"`) > rotations }, func() string { return "a certificate is read again" })
		writeUsers(t, users, device, userLine(t, fmt.Sprint("new-", n), "secret"))
		guest := &load.Fleet{Addr: address, Run: runID(), QoS: 1, Username: fmt.Sprint("new-", n), Password: "secret", Dialer: f.Dialer}
		await(t, func() bool { return len(within(t, guest, 10*time.Millisecond).Errors) == 0 }, func() string { return "the new user is let in" })
		some := f.Acked() + 200
		require.Eventually(t, func() bool { return f.Acked() > some }, patience, 10*time.Millisecond)
	}
	cancel()
	r := <-result
	require.Empty(t, r.Errors, "nobody is disconnected")
	require.Zero(t, r.Reconnects)
	exact(t, verify(t, kafka.Brokers(), f.Run, r, topic))
	t.Logf("%d rotations and %d new users files: %d acknowledged, 0 disconnects, worst PINGRESP %v", either(3, 20), either(3, 20), r.Acked, r.WorstPing)
}

// replace puts a copy of a file in another's place at once, as certificate managers do.
func replace(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(to+".new", b, 0o600))
	require.NoError(t, os.Rename(to+".new", to))
}

// writeUsers puts a users file of those lines in the place of another at once.
func writeUsers(t *testing.T, path string, lines ...string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path+".new", []byte("users:\n"+strings.Join(lines, "")), 0o600))
	require.NoError(t, os.Rename(path+".new", path))
}

// userLine is what stands in a users file for a user.
func userLine(t *testing.T, name, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	require.NoError(t, err)
	return fmt.Sprintf("  - {name: %q, password: %q}\n", name, hash)
}
