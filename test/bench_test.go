package test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/bench"
	"sluice/kafka/embedded"
	"sluice/test/internal/child"
	"sluice/tls/tlstest"
)

// benchmark runs `sluice bench` with --json, and reads what it printed into result.
func benchmark(t *testing.T, result any, args ...string) (stderr string, code int) {
	t.Helper()
	out, stderr, code := command(t, append(append([]string{"bench"}, args...), "--json")...)
	d := json.NewDecoder(strings.NewReader(out))
	d.DisallowUnknownFields()
	require.NoError(t, d.Decode(result), "%s\n%s", out, stderr)
	return stderr, code
}

// TestBenchOfEveryKind against what a newcomer has: `sluice dev`. Nothing is lost, doubled or out of order.
func TestBenchOfEveryKind(t *testing.T) {
	address, kafka, lines, end := dev(t)
	until(t, lines, "Records as they land")
	go func() { // ends with dev
		for range lines {
		}
	}()
	var all sync.WaitGroup
	publish := func(qos, version string) {
		all.Go(func() {
			var r bench.PublishResult
			stderr, code := benchmark(t, &r, "publish", "--address", address, "--connections", "10", "--duration", "1s", "--rate", "1000", "--qos", qos, "--mqtt", version,
				"--kafka", kafka, "--kafka-topic", "devices", "--read-along")
			if !(code == 0 && stderr == "" && r.Sent > 100 && r.Readback != nil && r.Readback.Records == r.Sent && r.Unacknowledged == 0 && r.Connections.Made == 10) ||
				r.QoS > 0 && (r.Acknowledged != r.Sent || r.Times == nil) {
				t.Errorf("QoS %s, MQTT %s: %d %s %+v %+v", qos, version, code, stderr, r, r.Readback)
			}
		})
	}
	publish("0", "5")
	publish("1", "3.1.1")
	publish("1", "5")
	publish("2", "5")
	all.Go(func() {
		var r bench.CommandsResult
		stderr, code := benchmark(t, &r, "commands", "--address", address, "--connections", "10", "--duration", "1s", "--rate", "200", "--qos", "2",
			"--kafka", kafka, "--kafka-topic", "commands", "--receipts", "command-receipts")
		if !(code == 0 && stderr == "" && r.Written > 50 && r.Received == r.Written && r.Receipts != nil && r.Receipts.Outcomes["delivered"] == r.Written && r.Times != nil) {
			t.Errorf("%d %s %+v %+v", code, stderr, r, r.Receipts)
		}
	})
	all.Go(func() {
		var r bench.HoldResult
		stderr, code := benchmark(t, &r, "hold", "--address", address, "--connections", "100", "--duration", "1s")
		if !(code == 0 && stderr == "" && r.Alive == 100 && r.Connections.Made == 100 && r.Connections.Pings != nil) {
			t.Errorf("%d %s %+v", code, stderr, r)
		}
	})
	all.Wait()
	end()
}

// TestBenchBehindTLSWebSocketAndAPassword: all that may lie before the packets, one in the other.
func TestBenchBehindTLSWebSocketAndAPassword(t *testing.T) {
	k, err := embedded.Start(embedded.Config{Topics: []string{"data"}})
	require.NoError(t, err)
	t.Cleanup(k.Close)
	dir, ca := t.TempDir(), tlstest.NewCA(t, "ca")
	cert, key := ca.Server(t, dir, "127.0.0.1")
	users, password := filepath.Join(dir, "users.yaml"), filepath.Join(dir, "password")
	require.NoError(t, os.WriteFile(users, []byte("users:\n"+userLine(t, "loader", "a secret")), 0o600))
	require.NoError(t, os.WriteFile(password, []byte("a secret\n"), 0o600))
	address := ownPorts(t, 1)[0]
	s := prepareWith(t, k.Brokers(), fmt.Sprintf("listeners: [{address: %q, protocol: websocket, tls: {certificate: %q, key: %q}}]\nauth: {file: %q}\n", address, cert, key, users),
		`  - {match: "#", topic: data}`, "")
	s.start()
	s.awaitReady()
	args := []string{"publish", "--address", address, "--websocket", "--ca", ca.File(t, dir), "--username", "loader", "--connections", "5", "--duration", "1s", "--rate", "500"}
	var r bench.PublishResult
	// The configuration says where Kafka is.
	stderr, code := benchmark(t, &r, append(args, "--password-file", password, "--config", s.args[2], "--kafka-topic", "data")...)
	require.Zero(t, code, stderr)
	require.Equal(t, 5, r.Connections.Made)
	require.Positive(t, r.Acknowledged)
	require.Equal(t, r.Acknowledged, r.Readback.Records)

	require.NoError(t, os.WriteFile(password, []byte("another\n"), 0o600))
	_, stderr, code = command(t, append([]string{"bench"}, append(args, "--password-file", password)...)...)
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "5 of 5 devices could not connect: CONNACK 0x8")
	require.NotContains(t, stderr, "another")
}

// A liar is an MQTT server that acknowledges everything, and stores one message not, one twice, and two the wrong way
// round.
type liar struct {
	t      *testing.T
	client *kgo.Client
	eighth *kgo.Record
}

func (l *liar) serve(nc net.Conn) {
	defer nc.Close()
	r := bufio.NewReader(nc)
	for {
		first, err := r.ReadByte()
		if err != nil {
			return
		}
		n, err := binary.ReadUvarint(r)
		if err != nil {
			return
		}
		body := make([]byte, n)
		if _, err := io.ReadFull(r, body); err != nil {
			return
		}
		switch first >> 4 {
		case 1:
			_, _ = nc.Write([]byte{0x20, 2, 0, 0})
		case 3:
			topic := 2 + int(binary.BigEndian.Uint16(body))
			l.store(body[topic+2:])
			_, _ = nc.Write([]byte{0x40, 2, body[topic], body[topic+1]})
		case 14:
			return
		}
	}
}

// store is called by the one connection there is.
func (l *liar) store(payload []byte) {
	var of struct{ Seq int }
	if err := json.Unmarshal(payload, &of); err != nil {
		l.t.Errorf("%q: %v", payload, err)
	}
	var stored []*kgo.Record
	record := &kgo.Record{Topic: "data", Value: payload}
	switch of.Seq {
	case 3:
	case 5:
		stored = append(stored, record, &kgo.Record{Topic: "data", Value: payload})
	case 8:
		l.eighth = record
	case 9:
		stored = append(stored, record, l.eighth)
	default:
		stored = append(stored, record)
	}
	if err := l.client.ProduceSync(context.Background(), stored...).FirstErr(); err != nil {
		l.t.Error(err)
	}
}

// TestBenchFindsAServerThatLies: what it acknowledged is compared with what Kafka has, and what is wrong is told apart.
func TestBenchFindsAServerThatLies(t *testing.T) {
	k, err := embedded.Start(embedded.Config{Topics: []string{"data"}, Partitions: 1})
	require.NoError(t, err)
	t.Cleanup(k.Close)
	client, err := kgo.NewClient(kgo.SeedBrokers(k.Brokers()...))
	require.NoError(t, err)
	t.Cleanup(client.Close)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan struct{})
	go func() { // ends with the connection, or the listener
		defer close(served)
		if nc, err := listener.Accept(); err == nil {
			(&liar{t: t, client: client}).serve(nc)
		}
	}()
	args := []string{"publish", "--address", listener.Addr().String(), "--mqtt", "3.1.1", "--connections", "1", "--duration", "1s", "--rate", "50",
		"--kafka", k.Brokers()[0], "--kafka-topic", "data"}
	var r bench.PublishResult
	stderr, code := benchmark(t, &r, args...)
	require.NoError(t, listener.Close())
	<-served
	require.Equal(t, 1, code)
	require.Greater(t, r.Acknowledged, 9)
	require.Equal(t, r.Acknowledged, r.Readback.Records) // one less and one more
	require.Equal(t, [3]int{1, 1, 1}, [3]int{r.Readback.Lost, r.Readback.Doubled, r.Readback.Disordered})
	for _, want := range []string{"1 acknowledged messages are not in Kafka", "1 records are doubles", "1 records are out of order"} {
		require.Contains(t, stderr, want)
	}
	require.Contains(t, r.Readback.Examples, "lost: messages 3 to 3 of device 0")

	_, stderr, code = command(t, append([]string{"bench"}, args...)...) // nobody listens any more
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "1 of 1 devices could not connect: connection refused")
}

// TestBenchThatIsInterruptedSaysWhatItSaw so far.
func TestBenchThatIsInterruptedSaysWhatItSaw(t *testing.T) {
	address, kafka, lines, end := dev(t)
	until(t, lines, "Records as they land")
	cmd := exec.Command(program, "bench", "publish", "--address", address, "--connections", "2", "--rate", "20", "--duration", "1h", "--kafka", kafka, "--kafka-topic", "devices", "--json")
	cmd.SysProcAttr = child.DiesWithUs()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	require.NoError(t, cmd.Start())
	until(t, lines, "telemetry/bench") // a record has landed
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	require.NoError(t, cmd.Wait(), errs.String())
	var r bench.PublishResult
	require.NoError(t, json.Unmarshal(out.Bytes(), &r), out.String())
	require.Positive(t, r.Acknowledged)
	require.Equal(t, r.Acknowledged, r.Readback.Records)
	go func() { // ends with dev
		for range lines {
		}
	}()
	end()
}

func TestBenchSaysWhatIsWrongWithItsFlags(t *testing.T) {
	f := func(args string, want ...string) {
		t.Helper()
		out, stderr, code := command(t, append([]string{"bench"}, strings.Fields(args)...)...)
		require.Equal(t, 2, code, stderr)
		require.Empty(t, out)
		for _, w := range want {
			require.Contains(t, stderr, w)
		}
	}
	f("publish --address localhost --size 10 --window 0 --topic a/+ --duration 0s --connections 0",
		`--address "localhost" is not HOST:PORT`, "--size must be 64 to 1000000", "--window must be 1 to 65535", `--topic "a/+" is not a topic`, "--duration must be more than 0s", "--connections must be 1 to 10000000")
	f("publish --mqtt 4", "--mqtt")
	f("publish --kafka 127.0.0.1:1", "--kafka-topic")
	f("publish --kafka-topic data", "--kafka or --config")
	f("publish --read-along", "--read-along needs --kafka or --config")
	f("publish --kafka 127.0.0.1:1 --config x --kafka-topic data", "can't be used together")
	f("publish --config no-such-file --kafka-topic data", "no-such-file")
	f("publish --username u", "needs a password")
	f("publish --password-file no-such-file", "cannot read the password")
	f("publish --certificate x", "--certificate and --key belong together")
	f("publish --ca no-such-file", "no-such-file")
	f("publish --client-id same", "--client-id needs {device}")
	f("hold --connect-rate=-1", "--connect-rate must be at least 0")
	f("commands --kafka-topic c", "--kafka or --config")
	f("commands --kafka 127.0.0.1:1", "--kafka-topic")
	f("commands --kafka 127.0.0.1:1 --kafka-topic c --header x --rate 0", `--header "x" is not NAME=VALUE`, "--rate must be at least 1")
	f("nothing")
}
