package test

import (
	"bufio"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/test/internal/wire"
)

// A healthy device publishes with QoS 1, one message after the other, and pings, while others attack. It never
// reconnects, so each of its messages is in Kafka once.
type healthy struct {
	conn    net.Conn
	in      *bufio.Reader
	stop    chan struct{}
	done    chan struct{} // closed at the end; what follows is valid then
	stored  int
	slowest time.Duration
	err     error
}

// healthyPace is how often it publishes.
const healthyPace = 5 * time.Millisecond

// startHealthy connects the device to a plain listener, as hello says; its messages go to healthy/device.
func startHealthy(t testing.TB, address string, hello wire.Hello) *healthy {
	t.Helper()
	conn, err := dialFrom(address, 0)
	require.NoError(t, err)
	h := &healthy{conn: conn, in: bufio.NewReader(conn), stop: make(chan struct{}), done: make(chan struct{})}
	t.Cleanup(func() { _ = conn.Close() })
	hello.Version, hello.ID, hello.KeepAlive = 5, "healthy", 30
	_, err = conn.Write(hello.Packet())
	require.NoError(t, err)
	r, err := wire.Read(h.in)
	require.NoError(t, err)
	require.Equal(t, "CONNACK 0x00", r.String())
	go h.work() // ends with finish, or with the connection
	return h
}

func (h *healthy) work() {
	defer close(h.done)
	pace := time.NewTicker(healthyPace)
	defer pace.Stop()
	for h.err == nil {
		select {
		case <-h.stop:
			return
		case <-pace.C:
		}
		begin := time.Now()
		h.err = h.turn()
		h.slowest = max(h.slowest, time.Since(begin))
	}
}

// turn is a PUBLISH and a PINGREQ with their answers.
func (h *healthy) turn() error {
	p := wire.Publish{Topic: "healthy/device", QoS: 1, ID: uint16(h.stored%1000 + 1), Payload: fmt.Sprint(h.stored)}
	_ = h.conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := h.conn.Write(wire.Bytes(p.Packet(5), wire.Ping())); err != nil {
		return err
	}
	for acked, ponged := false, false; !acked || !ponged; {
		r, err := wire.Read(h.in)
		switch {
		case err != nil:
			return err
		case r.First == wire.PINGRESP:
			ponged = true
		case r.First == wire.PUBACK && r.ID() == p.ID && r.Code() == 0:
			acked = true
		default:
			return fmt.Errorf("the healthy device got %v", r)
		}
	}
	h.stored++
	return nil
}

// finish ends the device and gives how many messages were acknowledged. It must have worked to this moment.
func (h *healthy) finish(t testing.TB) int {
	t.Helper()
	close(h.stop)
	<-h.done
	require.NoError(t, h.err, "the healthy device was served to the end")
	require.Positive(t, h.stored)
	_ = h.conn.Close()
	return h.stored
}

// distinct gives the different payloads.
func distinct(all []*kgo.Record) map[string]bool {
	m := make(map[string]bool, len(all))
	for _, r := range all {
		m[string(r.Value)] = true
	}
	return m
}
