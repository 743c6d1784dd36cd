package test

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/test/cluster"
	"sluice/test/internal/wire"
	"sluice/tls/tlstest"
)

// TestHalvesOfTLSRecordsCostNoMoreThanHalvesOfPackets: devices that each begin 16 KiB and never go on, more of them than are
// let. Over TLS, where the 16 KiB are a record, as many are let as without, and they cost the process as much.
func TestHalvesOfTLSRecordsCostNoMoreThanHalvesOfPackets(t *testing.T) {
	kafka := cluster.Shared(t)
	ca := tlstest.NewCA(t, "halves")
	certificate, key := ca.Server(t, t.TempDir(), "127.0.0.1")
	at := ownPorts(t, 2)
	head := fmt.Sprintf("listeners: [{address: %q, tls: {certificate: %q, key: %q}}, {address: %q}]\n", at[0], certificate, key, at[1])
	trust := ca.ClientConfig(t, "127.0.0.1")
	rules := oneTopic(newTopic(t, kafka, 1))
	const n, bound = 5000, 64 << 20
	whole := wire.Publish{Topic: "a", Payload: strings.Repeat("x", 16<<10)}.Packet(4)
	record := append([]byte{0x17, 3, 3, 0x40, 0}, make([]byte, 16<<10)...)

	grown := func(address string, half []byte, secure func(net.Conn) (net.Conn, error)) int64 {
		s := prepareWith(t, kafka.Brokers(), head, rules, "")
		s.start()
		s.awaitReady()
		sockets := make([]net.Conn, n)
		t.Cleanup(func() {
			for _, c := range sockets {
				_ = c.Close()
			}
		})
		errs := make([]error, n)
		all := func(do func(i int)) {
			var wg sync.WaitGroup
			for w := range 32 {
				wg.Go(func() {
					for i := w; i < n; i += 32 {
						do(i)
					}
				})
			}
			wg.Wait()
		}
		all(func(i int) {
			_, errs[i] = tlsFrom(t.Context(), address, i, func(nc net.Conn) (net.Conn, error) {
				sockets[i] = nc
				return secure(nc)
			})
		})
		for _, err := range errs {
			require.NoError(t, err)
		}
		before := s.rss()
		all(func(i int) { _, _ = sockets[i].Write(half) })
		const each = 16 << 10
		require.Eventually(t, func() bool {
			held := s.metric("sluice_mqtt_partial_bytes")
			return held > bound-2*each && s.metric("sluice_mqtt_connections") < n
		}, time.Minute, 50*time.Millisecond, "as many as are let")
		counted := s.metric("sluice_mqtt_partial_bytes")
		require.LessOrEqual(t, counted, float64(bound))
		more := s.rss() - before
		t.Logf("%s: %d MiB counted, %d MiB of process memory more", address, int(counted)>>20, more>>20)
		s.kill()
		return more
	}
	plain := grown(at[1], whole[:16<<10], func(nc net.Conn) (net.Conn, error) { return nc, nil })
	sealed := grown(at[0], record[:16<<10], func(nc net.Conn) (net.Conn, error) { return tlstest.Client(t.Context(), nc, trust) })
	require.Less(t, sealed, max(2*plain, 2*bound), "what is counted, and what the collector leaves room for")
}
