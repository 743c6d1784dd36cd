package load

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"sluice/test/internal/mosquitto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// mosquittoFleet is a fleet at a server not written here, and a connection that publishes to it.
type mosquittoFleet struct {
	*CommandFleet
	t       *testing.T
	writer  *conn
	written []Command
}

func startAtMosquitto(t *testing.T, f *CommandFleet) *mosquittoFleet {
	t.Helper()
	f.Addr = mosquitto.Start(t, os.Getenv("SLUICE_TEST_CLIENTS") == "required")
	f.Run = fmt.Sprintf("m%x", rand.Uint32())
	writer, _, err := connect(t.Context(), &Fleet{Version: 4, Run: f.Run, Dialer: func(context.Context, int) (net.Conn, error) {
		return net.Dial("tcp", f.Addr)
	}}, 0)
	require.NoError(t, err)
	t.Cleanup(writer.close)
	t.Cleanup(f.Stop)
	require.NoError(t, f.Start(limited(t)))
	return &mosquittoFleet{CommandFleet: f, t: t, writer: writer}
}

func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// write publishes n commands to every device with QoS 2, one after the other.
func (m *mosquittoFleet) write(n int) {
	m.t.Helper()
	for i := range n * m.Devices {
		c := Command{Device: i % m.Devices, Seq: uint64(len(m.written)/m.Devices + 1)}
		payload := fmt.Appendf(nil, "%s %d %d %d xxx", m.Run, c.Device, c.Seq, time.Now().UnixNano())
		require.NoError(m.t, m.writer.publish("devices/"+m.ClientID(c.Device)+"/x", 2, 1, false, payload))
		require.NoError(m.t, m.writer.flush())
		m.expect(0x50)
		require.NoError(m.t, m.writer.pubrel(1))
		m.expect(0x70)
		m.written = append(m.written, c)
	}
}

func (m *mosquittoFleet) expect(first byte) {
	m.t.Helper()
	got, _, err := m.writer.read()
	require.NoError(m.t, err)
	require.Equal(m.t, first, got)
}

func (m *mosquittoFleet) await(received int) {
	m.t.Helper()
	require.Eventually(m.t, func() bool { return m.Received() >= received }, 20*time.Second, 5*time.Millisecond, "%d received", m.Received())
}

// complete requires that every command came once and in order.
func (m *mosquittoFleet) complete() {
	m.t.Helper()
	m.await(len(m.written))
	n := len(m.written)
	require.Equal(m.t, CommandReport{Written: n, Received: n}, m.Report(m.written))
	require.Empty(m.t, m.Failures())
	require.Len(m.t, m.Latencies(), n)
}

func TestDevicesReceiveWhatAServerNotWrittenHereSends(t *testing.T) {
	for _, version := range []byte{4, 5} {
		for qos := range byte(3) {
			t.Run(fmt.Sprintf("v%d qos%d", version, qos), func(t *testing.T) {
				m := startAtMosquitto(t, &CommandFleet{Devices: 5, QoS: qos, Version: version})
				m.write(40)
				m.complete()
			})
		}
	}
}

func TestADeviceThatLeftGetsTheRestAtItsReturn(t *testing.T) {
	for _, leave := range []func(*CommandFleet, int){(*CommandFleet).Leave, (*CommandFleet).Vanish} {
		m := startAtMosquitto(t, &CommandFleet{Devices: 3, QoS: 1})
		m.write(5)
		m.await(15)
		leave(m.CommandFleet, 1)
		m.write(5)
		m.await(25)
		require.NoError(t, m.Return(limited(t), 1))
		m.complete()
		require.Zero(t, m.NewSessions())
	}
}

func TestDevicesThatLoseTheirConnectionsGetEverythingOnceWithQoS2(t *testing.T) {
	m := startAtMosquitto(t, &CommandFleet{Devices: 4, QoS: 2, Reconnect: true})
	for i := range 40 {
		m.write(3)
		m.Cut(i % 4)
		// This server doubles what it sends if a device is lost a second time before the first is made good.
		m.await(len(m.written))
	}
	m.complete()
	require.Positive(t, m.Reconnects())
}

func TestAStalledDeviceReadsNothingAndThenEverything(t *testing.T) {
	m := startAtMosquitto(t, &CommandFleet{Devices: 2, QoS: 1})
	m.Stall(0)
	m.write(10)
	m.await(10)
	require.LessOrEqual(t, m.Received(), 11, "at most one packet was under way to the reader")
	m.Resume(0)
	m.complete()
}

func TestHeldAcknowledgementsKeepTheServerAtTheReceiveMaximum(t *testing.T) {
	m := startAtMosquitto(t, &CommandFleet{Devices: 2, QoS: 1, ReceiveMaximum: 3})
	m.Hold(0)
	m.write(10)
	m.await(13)
	require.Equal(t, 3, m.MaxUnacked(0))
	require.NoError(t, m.Release(0))
	m.complete()
	require.LessOrEqual(t, m.MaxUnacked(0), 3)
}

func TestADeviceAnswersWithItsCorrelationData(t *testing.T) {
	var mu sync.Mutex
	var answers []*Message
	f := &CommandFleet{Devices: 1, QoS: 1, Filter: "devices/%s/#", Keep: true}
	f.Answer = func(_ int, m *Message) *Answer {
		if bytes.HasPrefix(m.Payload, []byte("answer")) {
			mu.Lock()
			defer mu.Unlock()
			answers = append(answers, m)
			return nil
		}
		return &Answer{Topic: m.Topic + "/answer", Payload: []byte("answer"), CorrelationData: []byte("c1")}
	}
	m := startAtMosquitto(t, f)
	m.write(1)
	require.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(answers) == 1
	}, 20*time.Second, 5*time.Millisecond)
	require.Equal(t, "c1", string(answers[0].CorrelationData))
	require.Eventually(t, func() bool { return m.Answered() == 1 }, 20*time.Second, 5*time.Millisecond)
}
