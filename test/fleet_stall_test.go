package test

import (
	"bufio"
	"encoding/binary"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TestQoS2IsStoredOnceThoughTheInstanceBeforeStandsStill for longer than a takeover waits, and goes on: what had its
// PUBREC there is no second record when the device sends it again elsewhere, without exactly_once.
func TestQoS2IsStoredOnceThoughTheInstanceBeforeStandsStill(t *testing.T) {
	besideOthers(t)
	b := serveFleet(t, fleetOptions{})
	id := runID() + "stall"
	connect := func(s *instance, present byte) (net.Conn, *bufio.Reader) {
		t.Helper()
		conn, err := net.Dial("tcp", s.address)
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
		_, err = conn.Write(rawConnect{id: id, expiry: 3600}.packet())
		require.NoError(t, err)
		in := bufio.NewReader(conn)
		first, body, err := readRaw(in)
		require.NoError(t, err)
		require.Equal(t, []byte{0x20, present, 0}, []byte{first, body[0], body[1]}, "CONNACK")
		return conn, in
	}
	publish := func(conn net.Conn, first byte, packetID uint16) {
		t.Helper()
		body := binary.BigEndian.AppendUint16(rawText(nil, "devices/"+id+"/telemetry/x"), packetID)
		_, err := conn.Write(rawPacket(first, append(body, 0, 'x')))
		require.NoError(t, err)
	}
	received := func(in *bufio.Reader, packetID byte) {
		t.Helper()
		first, body, err := readRaw(in)
		require.NoError(t, err)
		require.Equal(t, []byte{0x50, 0, packetID}, append([]byte{first}, body...), "PUBREC, Success")
	}
	conn, in := connect(b.instances[0], 0)
	publish(conn, 0x34, 1)
	received(in, 1)

	require.NoError(t, b.instances[0].cmd.Process.Signal(syscall.SIGSTOP))
	again, in := connect(b.instances[1], 1)
	publish(again, 0x3C, 1)
	publish(again, 0x34, 2)
	require.NoError(t, b.instances[0].cmd.Process.Signal(syscall.SIGCONT))
	received(in, 1)
	received(in, 2)

	client, err := kgo.NewClient(kgo.SeedBrokers(b.kafka.Direct()...))
	require.NoError(t, err)
	defer client.Close()
	ends, err := kadm.NewClient(client).ListEndOffsets(t.Context(), b.telemetry)
	require.NoError(t, err)
	var records int64
	ends.Each(func(o kadm.ListedOffset) { records += o.Offset })
	require.EqualValues(t, 2, records)
	b.healthy()
}
