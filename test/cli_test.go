package test

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/test/clients"
	"sluice/test/internal/ports"
)

// command runs the binary to its end and gives what it printed and its exit code.
func command(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out, errs strings.Builder
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run()
	require.NoError(t, ctx.Err())
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "sluice.yaml")
	require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
	return name
}

const goodConfig = `
listeners: [{address: 127.0.0.1:1883}]
kafka: {brokers: [127.0.0.1:1], create_topics: {partitions: 12, replication: 3}}
publish:
  - match: devices/{device}/telemetry/{metric...}
    topic: telemetry
    key: "{device}"
    headers: {metric: "{metric}"}
  - match: plants/{plant}/#
    topic: "plant-{plant}"
    key: "{payload.machine.id}"
`

func TestCheckReportsEveryFaultWithItsPlace(t *testing.T) {
	_, _, code := command(t, "check", "--config", file(t, goodConfig))
	require.Zero(t, code)
	bad := strings.Replace(goodConfig, "topic: telemetry", "topci: telemetry", 1)
	bad = strings.Replace(bad, "partitions: 12", "partitions: many", 1)
	name := file(t, bad)
	_, stderr, code := command(t, "check", "--config", name)
	require.Equal(t, 2, code)
	require.Contains(t, stderr, name+":3:")
	require.Contains(t, stderr, name+":6:5")
	require.Contains(t, stderr, "topci")
	require.Contains(t, stderr, "^")
}

func TestServeRefusesAWrongConfigurationWithExitCode2(t *testing.T) {
	_, stderr, code := command(t, "serve", "--config", file(t, "listeners: 7"))
	require.Equal(t, 2, code)
	require.Contains(t, stderr, ":1:")
	_, _, code = command(t, "serve", "--config", filepath.Join(t.TempDir(), "missing.yaml"))
	require.Equal(t, 2, code)
	_, _, code = command(t, "serve")
	require.Equal(t, 2, code)
	_, _, code = command(t, "no-such-command")
	require.Equal(t, 2, code)
}

func TestExplainShowsRuleTopicKeyPartitionAndHeaders(t *testing.T) {
	name := file(t, goodConfig)
	out, _, code := command(t, "explain", "--config", name, "--topic", "devices/d1/telemetry/temp/inside", "--client-id", "c1",
		"--user-property", "site=north")
	require.Zero(t, code)
	for _, want := range []string{"1  devices/{device}/telemetry/{metric...}", "telemetry\n", `"d1"`, "of 12", `mqtt.client_id = "c1"`, `site = "north"`, `metric = "temp/inside"`} {
		require.Contains(t, out, want)
	}
	out, _, code = command(t, "explain", "--config", name, "--topic", "plants/p7/x", "--payload", `{"machine": {"id": 42}}`)
	require.Zero(t, code)
	require.Contains(t, out, "plant-p7")
	require.Contains(t, out, `"42"`)
	out, _, code = command(t, "explain", "--config", name, "--topic", "elsewhere")
	require.Zero(t, code)
	require.Contains(t, out, "none matches")
	require.Contains(t, out, "0x90")
}

func TestSchemaAndVersionPrint(t *testing.T) {
	out, _, code := command(t, "schema")
	require.Zero(t, code)
	require.Contains(t, out, `"$schema"`)
	out, _, code = command(t, "version")
	require.Zero(t, code)
	require.Contains(t, out, "sluice")
	out, _, code = command(t, "--help")
	require.Zero(t, code)
	require.Contains(t, out, "explain")
}

// TestDevShowsARecordAsItLands: the newcomer's first minute.
func TestDevShowsARecordAsItLands(t *testing.T) {
	taken, err := ports.Take(2)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ports.Release(taken)) })
	cmd := exec.Command(program, "dev", "--address", taken[0].Addr(), "--admin", taken[1].Addr())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := make(chan string, 100)
	go func() { // ends with the process
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
		_, _ = io.Copy(io.Discard, out)
	}()
	welcome := until(t, lines, "Records as they land")
	require.Contains(t, welcome, taken[0].Addr())
	require.Contains(t, welcome, "mosquitto_pub -h 127.0.0.1")
	require.Contains(t, welcome, "mqtt pub")

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err = clients.Go(t).Run(ctx, taken[0].Addr(), clients.V5, 1, []clients.Message{{Topic: "devices/d1/telemetry", Payload: []byte(`{"temp": 21.5}`)}})
	require.NoError(t, err)
	record := until(t, lines, `{"temp": 21.5}`)
	for _, want := range []string{"devices  partition ", "offset 0", "key d1", "mqtt.topic: devices/d1/telemetry", "kind: telemetry"} {
		require.Contains(t, record, want)
	}
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	for range lines { // until it has ended
	}
	require.NoError(t, cmd.Wait())
}

// until collects lines up to one that contains want.
func until(t *testing.T, lines <-chan string, want string) string {
	t.Helper()
	limit := time.After(time.Minute)
	var all strings.Builder
	for {
		select {
		case line, ok := <-lines:
			require.True(t, ok, "the output ended before %q:\n%s", want, all.String())
			all.WriteString(line + "\n")
			if strings.Contains(line, want) {
				return all.String()
			}
		case <-limit:
			t.Fatalf("no %q in time:\n%s", want, all.String())
		}
	}
}
