package test

import (
	"bytes"
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

// collected has the Go runtime collect garbage as usual: what is held is asked for, not what lies about under load.
var collected = []string{"GOGC=100"}

// TestTopicAliasesAreCountedAndBounded: connections that set the longest topic aliases they may. Beside the same
// connections without any, the process has hardly more memory than is counted, what is too much is refused with a reason,
// and all of it is given back with the connections.
func TestTopicAliasesAreCountedAndBounded(t *testing.T) {
	besideOthers(t)
	kafka := cluster.Shared(t)
	s := prepare(t, kafka.Brokers(), oneTopic(newTopic(t, kafka, 1)), "limits: {topic_alias_maximum: 16}\n")
	s.env = collected
	s.start()
	s.awaitReady()
	const n, bound = 1000, 32 << 20 // and 60 KB each
	devices := make([]*wireDevice, n)
	for i := range devices {
		devices[i] = sayHello(t, s.address, wire.Hello{Version: 5, ID: fmt.Sprint("aliases-", i)})
	}
	before := s.rss()
	var all []byte // no rule takes the topic: nothing is stored, and the alias is set all the same
	for alias := range uint16(15) {
		all = append(all, wire.Publish{Topic: strings.Repeat("x", 4000), Properties: wire.Properties(0x23, alias+1)}.Packet(5)...)
	}
	refused := 0
	for _, d := range devices {
		d.send(append(all, wire.Ping()...))
		r, err := wire.Read(d.in)
		require.NoError(t, err)
		if r.String() != "PINGRESP" {
			require.Equal(t, "DISCONNECT 0x97", r.String())
			refused++
		}
	}
	counted, more := int64(s.metric("sluice_mqtt_extra_bytes")), s.rss()-before
	t.Logf("%d of %d connections refused, %d MiB counted, %d MiB of process memory more", refused, n, counted>>20, more>>20)
	require.InDelta(t, n-bound/60_000, refused, 50)
	require.LessOrEqual(t, counted, int64(bound))
	require.Greater(t, counted, int64(bound-64<<10))
	require.Less(t, more, 2*counted, "what is counted, and what the collector leaves room for")
	for _, d := range devices {
		require.NoError(t, d.Close())
	}
	await(t, func() bool { return s.metric("sluice_mqtt_extra_bytes") == 0 }, func() string { return "it is not given back" })
}

// TestAnswersToKeyUpdatesAreBounded: devices ask for new keys again and again, with a message in between, and read
// nothing. They are cut off when the answers have filled their sockets, and the process holds none of them.
func TestAnswersToKeyUpdatesAreBounded(t *testing.T) {
	besideOthers(t)
	kafka := cluster.Shared(t)
	ca := tlstest.NewCA(t, "updates")
	certificate, key := ca.Server(t, t.TempDir(), "127.0.0.1")
	address := ownPorts(t, 1)[0]
	s := prepareWith(t, kafka.Brokers(), fmt.Sprintf("listeners: [{address: %q, tls: {certificate: %q, key: %q}}]\n", address, certificate, key), oneTopic(newTopic(t, kafka, 1)), "")
	s.env = collected
	s.start()
	s.awaitReady()
	const n, most = 4, 100_000 // connections, and key updates of one, whose answers would be 3 MB
	message := wire.Publish{Topic: "devices/x/telemetry/x"}.Packet(5)
	type side struct {
		net.Conn
		up *tlstest.Half
	}
	sides := make([]side, n)
	for i := range sides {
		var log bytes.Buffer
		cfg := ca.ClientConfig(t, "127.0.0.1")
		cfg.KeyLogWriter = &log
		nc, err := dialFrom(address, i)
		require.NoError(t, err)
		t.Cleanup(func() { _ = nc.Close() })
		require.NoError(t, nc.(*net.TCPConn).SetReadBuffer(4<<10))
		c, err := tlstest.Client(t.Context(), nc, cfg)
		require.NoError(t, err)
		if !tlstest.UsesAES128GCM(c) {
			t.Skip("the machine prefers another cipher than AES-128-GCM")
		}
		sayHelloOn(t, c, wire.Hello{Version: 5, ID: fmt.Sprint("updates-", i)})
		up := tlstest.NewHalf(t, tlstest.Secret(t, log.String(), "CLIENT_TRAFFIC_SECRET_0"))
		up.Seq = 1 // CONNECT was the first
		sides[i] = side{nc, up}
	}
	before := s.rss()
	asked := make([]int, n)
	var wg sync.WaitGroup
	for i, d := range sides {
		wg.Go(func() {
			var err error
			for err == nil && asked[i] < most {
				var b []byte
				for range 100 {
					b = append(b, d.up.Seal(tlstest.Handshake, tlstest.KeyUpdate(1), 0)...)
					d.up = d.up.Next(t)
					b = append(b, d.up.Seal(tlstest.Data, message, 0)...)
				}
				asked[i] += 100
				_ = d.SetWriteDeadline(time.Now().Add(patience))
				_, err = d.Write(b)
			}
		})
	}
	wg.Wait()
	more := s.rss() - before
	t.Logf("cut off after %d key updates, %d KiB of process memory more", asked, more>>10)
	for _, k := range asked {
		require.Less(t, k, most, "it is not cut off")
	}
	require.Less(t, more, int64(16<<20))
	await(t, func() bool { return s.metric("sluice_mqtt_connections") == 0 }, func() string { return "a connection is left" })
	require.Contains(t, s.log.String(), "too much was sent that is no data")
}
