package test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/test/cluster"
	"sluice/tls/tlstest"
)

// TestAStormOfTLSConnectionsGetsIn: very many devices connect over TLS at once. All get in, and those that were there go
// on being served meanwhile.
func TestAStormOfTLSConnectionsGetsIn(t *testing.T) {
	kafka := cluster.Shared(t)
	ca := tlstest.NewCA(t, "storm")
	certificate, key := ca.Server(t, t.TempDir(), "127.0.0.1")
	at := ownPorts(t, 2)
	head := fmt.Sprintf("listeners: [{address: %q, tls: {certificate: %q, key: %q}}, {address: %q}]\n", at[0], certificate, key, at[1])
	s := prepareWith(t, kafka.Brokers(), head, oneTopic(newTopic(t, kafka, 1)), "")
	s.start()
	s.awaitReady()

	settled := idle(t, at[1], 200)
	alone := pingAll(t, settled, either(2*time.Second, 10*time.Second), nil)
	before, n := s.rss(), either(1000, 19000)
	trust := ca.ClientConfig(t, "127.0.0.1")
	conns := make([]net.Conn, n)
	t.Cleanup(func() {
		for _, c := range conns {
			if c != nil {
				_ = c.Close()
			}
		}
	})
	var storm sync.WaitGroup
	errs := make(chan error, n)
	began := time.Now()
	hands := make(chan struct{}, 500) // handshakes the client side has under way: it shares the machine
	for i := range n {
		storm.Go(func() {
			hands <- struct{}{}
			defer func() { <-hands }()
			c, err := tlsFrom(t.Context(), at[0], i, func(nc net.Conn) (net.Conn, error) { return tlstest.Client(t.Context(), nc, trust) })
			conns[i] = c
			if err != nil {
				errs <- fmt.Errorf("connection %d: %w", i, err)
			}
		})
	}
	over := make(chan struct{})
	var took time.Duration
	go func() { // ends with the storm
		storm.Wait()
		took = time.Since(began)
		close(over)
	}()
	during := pingAll(t, settled, 3*time.Minute, over)
	<-over
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	require.EqualValues(t, n+len(settled), s.metric("sluice_mqtt_connections"))
	per := float64(settledRSS(s)-before) / float64(n)
	t.Logf("%d TLS connections in %v, %.1f KB of process memory each; PINGRESP of those connected: p50 %v p99 %v alone, p50 %v p99 %v in the storm",
		n, took, per/1024, quantile(alone, 0.5), quantile(alone, 0.99), quantile(during, 0.5), quantile(during, 0.99))
	require.Less(t, per, 60*1024.0, "far above any measurement: something is kept per connection")
	require.Zero(t, s.metric("sluice_mqtt_recovered_panics_total"))
	answer(t, conns)
}

// tlsFrom opens a connection from one of several loopback addresses and has it say CONNECT.
func tlsFrom(ctx context.Context, address string, i int, secure func(net.Conn) (net.Conn, error)) (net.Conn, error) {
	nc, err := dialFrom(address, i)
	if err != nil {
		return nil, err
	}
	_ = nc.SetDeadline(time.Now().Add(2 * time.Minute))
	c, err := secure(nc)
	if err != nil {
		return nc, err
	}
	if err := sayConnect(c, fmt.Sprintf("tls-%d", i)); err != nil {
		return c, err
	}
	return c, c.SetDeadline(time.Time{})
}

// pingAll has the connections, one after the other, ping and wait for the answer, for a time or until over is closed. It
// gives the times of the answers.
func pingAll(t *testing.T, conns []net.Conn, limit time.Duration, over chan struct{}) (took []time.Duration) {
	t.Helper()
	for end := time.Now().Add(limit); time.Now().Before(end); {
		select {
		case <-over:
			return took
		default:
		}
		for _, c := range conns {
			began := time.Now()
			answer(t, []net.Conn{c})
			took = append(took, time.Since(began))
		}
	}
	return took
}

func quantile(d []time.Duration, q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	d = slices.Clone(d)
	slices.Sort(d)
	return d[int(q*float64(len(d)-1))]
}
