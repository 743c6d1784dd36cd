package test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/test/cluster"
	"sluice/test/load"
)

// connectBytes is a CONNECT of MQTT 5 with clean start and a keep-alive of a minute.
func connectBytes(clientID string) []byte {
	b := []byte{0, 4, 'M', 'Q', 'T', 'T', 5, 2, 0, 60, 0}
	b = binary.BigEndian.AppendUint16(b, uint16(len(clientID)))
	b = append(b, clientID...)
	return append([]byte{0x10, byte(len(b))}, b...)
}

// dialFrom connects from one of many loopback addresses.
func dialFrom(address string, i int) (net.Conn, error) {
	d := net.Dialer{Timeout: 10 * time.Second, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 2, byte(1+i%32))}}
	return d.Dial("tcp", address)
}

// idle opens n connections that said CONNECT, and closes them at the end of the test.
func idle(t *testing.T, address string, n int) []net.Conn {
	t.Helper()
	conns := make([]net.Conn, n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for w := range 32 {
		wg.Go(func() {
			for i := w; i < n; i += 32 {
				conns[i], errs[i] = greet(address, i)
			}
		})
	}
	wg.Wait()
	t.Cleanup(func() {
		for _, c := range conns {
			if c != nil {
				_ = c.Close()
			}
		}
	})
	for _, err := range errs {
		require.NoError(t, err)
	}
	return conns
}

func greet(address string, i int) (net.Conn, error) {
	c, err := dialFrom(address, i)
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c, sayConnect(c, fmt.Sprintf("idle-%d", i))
}

// sayConnect says CONNECT and waits for a CONNACK that lets the device in.
func sayConnect(c net.Conn, clientID string) error {
	if _, err := c.Write(connectBytes(clientID)); err != nil {
		return err
	}
	var head [2]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return err
	}
	body := make([]byte, head[1])
	if _, err := io.ReadFull(c, body); err != nil {
		return err
	}
	if head[0] != 0x20 || body[1] != 0 {
		return fmt.Errorf("CONNACK % x", body)
	}
	return nil
}

// answer requires a PINGRESP on every connection.
func answer(t *testing.T, conns []net.Conn) {
	t.Helper()
	for i, c := range conns {
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		_, err := c.Write([]byte{0xC0, 0})
		require.NoError(t, err)
		var got [2]byte
		_, err = io.ReadFull(c, got[:])
		require.NoError(t, err, "connection %d", i)
		require.Equal(t, [2]byte{0xD0, 0}, got)
	}
}

// settledRSS gives the memory of the process once it has grown no smaller for a while: what connecting needed is given back
// when it is over.
func settledRSS(s *instance) int64 {
	least := s.rss()
	for calm := time.Now(); time.Since(calm) < 5*time.Second; time.Sleep(100 * time.Millisecond) {
		if now := s.rss(); now < least-(256<<10) {
			least, calm = now, time.Now()
		}
	}
	return s.rss()
}

// TestIdleConnectionsCostLittleAndSurviveTheHostile: thousands of idle devices answer, before and after others send
// what should hurt.
func TestIdleConnectionsCostLittleAndSurviveTheHostile(t *testing.T) {
	for _, claim := range []string{"always", "stored"} {
		t.Run(claim, func(t *testing.T) {
			kafka := cluster.Shared(t)
			s := prepare(t, kafka.Brokers(), oneTopic(newTopic(t, kafka, 1)), "")
			s.reconfigure("sessions: {", fmt.Sprintf("sessions: {claim: %s, ", claim))
			s.start()
			s.awaitReady()
			n := either(3000, 19000)
			before := s.rss()
			conns := idle(t, s.address, n)
			answer(t, conns)
			require.EqualValues(t, n, s.metric("sluice_mqtt_connections"))
			if runtime.GOOS == "linux" {
				require.Eventually(t, func() bool { return s.metric("go_goroutines") < float64(n)/4 }, patience, 100*time.Millisecond, "idle connections are parked")
			}
			perConnection := float64(settledRSS(s)-before) / float64(n)
			t.Logf("%d idle connections, %.2f KB of process memory each", n, perConnection/1024)
			require.Less(t, perConnection, 16*1024.0, "far above any measurement: something is kept per connection")

			calm := s.rss()
			hostile(t, s.address)
			answer(t, conns)
			require.EqualValues(t, n, s.metric("sluice_mqtt_connections"))
			require.Zero(t, s.metric("sluice_mqtt_recovered_panics_total"))
			require.Less(t, s.rss()-calm, int64(64<<20))
			t.Logf("memory after the hostile: %+d KB", (s.rss()-calm)>>10)
			require.True(t, s.running())
		})
	}
}

// reconfigure replaces a text in the configuration of an instance that does not run.
func (s *instance) reconfigure(text, with string) {
	s.t.Helper()
	file := s.args[len(s.args)-1]
	b, err := os.ReadFile(file)
	require.NoError(s.t, err)
	require.Contains(s.t, string(b), text)
	require.NoError(s.t, os.WriteFile(file, []byte(strings.Replace(string(b), text, with, 1)), 0o600))
}

// hostile sends 30 half packets of 250 MB, a CONNECT of one byte, a SUBSCRIBE that ends before its options, and more
// of that kind, and waits until the server has closed each.
func hostile(t *testing.T, address string) {
	t.Helper()
	subscribeCut := []byte{0x82, 6, 0, 1, 0, 0, 1, 'a'}
	cases := map[string][]byte{
		"one byte CONNECT":          {0x10, 1, 0},
		"empty CONNECT":             {0x10, 0},
		"HTTP":                      []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"TLS":                       {0x16, 3, 1, 2, 0, 1, 0},
		"length of five bytes":      {0x10, 0xFF, 0xFF, 0xFF, 0xFF, 1},
		"not CONNECT first":         {0xC0, 0},
		"SUBSCRIBE cut short":       append(connectBytes("hostile-1"), subscribeCut...),
		"second CONNECT":            append(connectBytes("hostile-2"), connectBytes("hostile-2")...),
		"PUBLISH with QoS 3":        append(connectBytes("hostile-3"), 0x36, 6, 0, 1, 'a', 0, 1, 0),
		"PUBLISH on a wildcard":     append(connectBytes("hostile-4"), 0x30, 4, 0, 1, '#', 0),
		"PUBLISH with alias 0":      append(connectBytes("hostile-5"), 0x30, 7, 0, 1, 'a', 3, 0x23, 0, 0),
		"PUBLISH with packet id 0":  append(connectBytes("hostile-6"), 0x32, 6, 0, 1, 'a', 0, 0, 0),
		"announced 250 MB of QoS 1": append(connectBytes("hostile-7"), 0x32, 0x80, 0xE5, 0x9A, 0x77),
	}
	for i := range 30 {
		big := append(connectBytes(fmt.Sprintf("half-%d", i)), 0x30, 0x80, 0xE5, 0x9A, 0x77)
		cases[fmt.Sprintf("half of 250 MB, %d", i)] = append(big, bytes.Repeat([]byte{'x'}, 32<<10)...)
	}
	for name, b := range cases {
		c, err := dialFrom(address, 0)
		require.NoError(t, err)
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		_, _ = c.Write(b) // may fail half-way: the server closes early
		_, err = io.Copy(io.Discard, c)
		if ne, ok := err.(net.Error); ok {
			require.False(t, ne.Timeout(), "%s: the server must close the connection", name)
		}
		_ = c.Close()
	}
}

// TestWillIsStoredWhenTheDeviceVanishes: a connection that ends without DISCONNECT publishes its will.
func TestWillIsStoredWhenTheDeviceVanishes(t *testing.T) {
	kafka := cluster.Shared(t)
	topic := newTopic(t, kafka, 1)
	s := serve(t, kafka.Brokers(), oneTopic(topic), "")
	c, err := dialFrom(s.address, 0)
	require.NoError(t, err)
	connect := []byte{0, 4, 'M', 'Q', 'T', 'T', 4, 0x0E, 0, 60, 0, 2, 'd', '9'}
	connect = append(binary.BigEndian.AppendUint16(connect, 22), "devices/d9/telemetry/x"...)
	connect = append(connect, 0, 4, 'g', 'o', 'n', 'e')
	_, err = c.Write(append([]byte{0x10, byte(len(connect))}, connect...))
	require.NoError(t, err)
	var connack [4]byte
	_, err = io.ReadFull(c, connack[:])
	require.NoError(t, err)
	require.Equal(t, [4]byte{0x20, 2, 0, 0}, connack)
	require.NoError(t, c.Close())
	r := records(t, kafka.Brokers(), topic, 1)[0]
	require.Equal(t, "gone", string(r.Value))
	require.Equal(t, "true", headersOf(r)["mqtt.will"])
	require.Equal(t, "d9", headersOf(r)["mqtt.client_id"])
}

// TestQoS0IsStoredUnderLoad: messages without an acknowledgement arrive all the same while Kafka is there, also if devices
// send faster than it stores.
func TestQoS0IsStoredUnderLoad(t *testing.T) {
	kafka := cluster.Shared(t)
	for name, rate := range map[string]int{"paced": 2000, "flat out": 0} {
		t.Run(name, func(t *testing.T) {
			topic := newTopic(t, kafka, 6)
			s := serve(t, kafka.Brokers(), oneTopic(topic), "")
			f := &load.Fleet{Addr: s.address, Run: runID(), Devices: 20, QoS: 0, Rate: rate}
			r := within(t, f, either(2*time.Second, time.Minute))
			require.Empty(t, r.Errors)
			t.Logf("%d messages in %v", r.Sent, r.Elapsed)
			stored := func() float64 { return s.metric("sluice_publish_messages_total", `outcome="stored"`) }
			await(t, func() bool { return stored() == float64(r.Sent) }, func() string { return fmt.Sprintf("%.0f of %d are stored", stored(), r.Sent) })
			report := verify(t, kafka.Brokers(), f.Run, r, topic)
			require.Equal(t, load.Report{InKafka: r.Sent}, report)
		})
	}
}
