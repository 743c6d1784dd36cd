package test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/test/internal/ports"
	"sluice/test/internal/wire"
	"sluice/tls/tlstest"
)

// A door is a way into the instance.
type door struct {
	name string
	dial func() (net.Conn, error)
}

// serve starts an instance with a plain listener, one with TLS and one for WebSocket, and these rules.
func (f *sessionFuzz) serve(t *testing.T, brokers []string, rules string) {
	t.Helper()
	taken, err := ports.Take(4)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ports.Release(taken)) })
	plain, secure, web := taken[0].Addr(), taken[1].Addr(), taken[2].Addr()
	dir, ca := t.TempDir(), tlstest.NewCA(t, "fuzz")
	cert, key := ca.Server(t, dir, "127.0.0.1")
	config := fmt.Sprintf("listeners:\n  - address: %q\n  - address: %q\n    tls: {certificate: %q, key: %q}\n  - address: %q\n    protocol: websocket\n",
		plain, secure, cert, key, web)
	config += fmt.Sprintf("admin: {address: %q}\nlog: {format: json}\nkafka: {brokers: [%s]}\n", taken[3].Addr(), strings.Join(brokers, ", "))
	file := filepath.Join(dir, "sluice.yaml")
	require.NoError(t, os.WriteFile(file, []byte(config+rules+stateTopics(t)), 0o600))
	f.instance = &instance{t: t, program: program, address: plain, admin: taken[3].Addr(), log: new(lockedBuffer), args: []string{"serve", "--config", file}}
	t.Cleanup(f.cleanup)
	f.start()
	f.awaitReady()
	trust := ca.ClientConfig(t, "127.0.0.1")
	f.doors = []door{
		{"plain", func() (net.Conn, error) { return dialFrom(plain, rand.Int()) }},
		{"TLS", func() (net.Conn, error) {
			nc, err := dialFrom(secure, rand.Int())
			if err != nil {
				return nil, err
			}
			ctx, cancel := context.WithTimeout(context.Background(), fuzzPatience)
			defer cancel()
			return tlstest.Client(ctx, nc, trust)
		}},
		{"WebSocket", func() (net.Conn, error) {
			nc, err := dialFrom(web, rand.Int())
			if err != nil {
				return nil, err
			}
			return wire.OpenSocket(nc, wire.Upgrade(web, "/mqtt", wire.SubprotocolMQTT))
		}},
	}
}
