package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// recorder is a test that is skipped or failed without ending the real one.
type recorder struct {
	testing.TB
	failed, skipped string
}

func (r *recorder) Helper() {}
func (r *recorder) Fatalf(format string, v ...any) {
	r.failed = fmt.Sprintf(format, v...)
	panic(r) // ends the function under test, as runtime.Goexit would the test
}
func (r *recorder) Skipf(format string, v ...any) {
	r.skipped = fmt.Sprintf(format, v...)
	panic(r)
}

// demanded runs demand and says how it ended.
func demanded(t *testing.T, cfg Config) *recorder {
	t.Setenv("SLUICE_TEST_NOT_RUN", "") // it is not this test that is not run
	r := &recorder{TB: t}
	func() {
		defer func() {
			if p := recover(); p != nil && p != any(r) {
				panic(p)
			}
		}()
		demand(r, cfg)
	}()
	return r
}

// on replaces what was found out about this machine.
func on(t *testing.T, f facts) {
	before := machine
	machine = func() facts { return f }
	t.Cleanup(func() { machine = before })
}

func TestATestWithoutKafkaIsSkippedOrFailsByName(t *testing.T) {
	on(t, facts{why: "no Java. Remedy: install it"})
	t.Setenv("SLUICE_TEST_KAFKA", "")
	require.Equal(t, "NOT RUN: no Java. Remedy: install it", demanded(t, Config{}).skipped)
	t.Setenv("SLUICE_TEST_KAFKA", "required")
	require.Equal(t, "SLUICE_TEST_KAFKA=required: no Java. Remedy: install it", demanded(t, Config{}).failed)
	_, err := Start(t.Context(), Config{})
	require.EqualError(t, err, "no Java. Remedy: install it")
}

func TestSomebodyElsesClusterIsNotStopped(t *testing.T) {
	on(t, facts{way: wayExternal})
	t.Setenv("KAFKA_BROKERS", "a:1, b:2")
	t.Setenv("SLUICE_TEST_KAFKA", "")
	for _, cfg := range []Config{
		{Own: true}, {AutoCreate: true}, {Dir: "x"}, {Properties: map[string]string{"a": "b"}},
		{Advertise: func(int, string) string { return "" }},
	} {
		require.Contains(t, demanded(t, cfg).skipped, "Remedy: unset KAFKA_BROKERS")
		_, err := Start(t.Context(), cfg)
		require.ErrorIs(t, err, ErrNotOwned)
	}
	require.Empty(t, demanded(t, Config{}).skipped)
	require.Equal(t, []string{"a:1", "b:2"}, external())
	c := &Cluster{brokers: external()}
	require.ErrorIs(t, c.Kill(0), ErrNotOwned)
}

func TestTheReasonNamesEveryWayAndTheRemedy(t *testing.T) {
	t.Setenv("KAFKA_BROKERS", "")
	t.Setenv("JAVA_HOME", "")
	t.Setenv("PATH", t.TempDir())
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CACHE_HOME", "")
	f := findOut()
	require.Equal(t, wayNone, f.way)
	for _, part := range []string{"KAFKA_BROKERS is not set", "neither docker nor podman found", "Remedy: " + remedy} {
		require.Contains(t, f.why, part)
	}
}

func TestPropertiesWinOverTheHarnessAndSurviveJavasSyntax(t *testing.T) {
	cfg := Config{Nodes: 3, Properties: map[string]string{"min.insync.replicas": "1", "jaas": "a\\b\nc"}}
	all := []endpoints{{id: 1, bind: "127.0.0.1", peer: "n1", client: 1, direct: 2, internal: 3, controller: 4, advertised: "p:9"},
		{id: 2, peer: "n2", controller: 5}}
	for i := range all {
		all[i].meet(cfg)
	}
	p := cfg.properties(all[0], all, "/data")
	require.Equal(t, "1", p["min.insync.replicas"])
	require.Equal(t, "3", p["default.replication.factor"])
	require.Equal(t, "false", p["auto.create.topics.enable"])
	require.Equal(t, "1@n1:4,2@n2:5", p["controller.quorum.voters"])
	require.Equal(t, "CLIENT://p:9,DIRECT://127.0.0.1:2,INTERNAL://n1:3", p["advertised.listeners"])
	file := string(propertiesFile(p))
	require.Contains(t, file, `jaas=a\\b\nc`+"\n")
	require.Len(t, strings.Split(strings.TrimSpace(file), "\n"), len(p))
}

// engineScript stands for docker: it writes down how it was called. No engine
// can be counted on where the tests run, and what the harness asks of one is
// all that is the harness's own.
const engineScript = `#!/bin/sh
echo "$@" >>"$CALLS"
case $1 in
inspect) cat "$STATE" ;;
kill) echo exited >"$STATE" ;;
run|start) echo running >"$STATE" ;;
ps) echo "stale 999999999"; echo "mine $PPID" ;;
esac
`

func fakeEngine(t *testing.T) (engine string, calls func() []string) {
	dir := t.TempDir()
	engine = filepath.Join(dir, "docker")
	require.NoError(t, os.WriteFile(engine, []byte(engineScript), 0o755))
	t.Setenv("CALLS", filepath.Join(dir, "calls"))
	t.Setenv("STATE", filepath.Join(dir, "state"))
	return engine, func() []string {
		b, err := os.ReadFile(filepath.Join(dir, "calls"))
		require.NoError(t, err)
		require.NoError(t, os.Truncate(filepath.Join(dir, "calls"), 0))
		return strings.Split(strings.TrimSpace(string(b)), "\n")
	}
}

func TestAContainerKeepsItsDataThroughKillAndRestart(t *testing.T) {
	engine, calls := fakeEngine(t)
	c := &container{engine: engine, name: "n0", network: "net", cluster: "id", ports: []int{7, 8}, properties: "a=b\n"}
	require.NoError(t, c.start(t.Context()))
	first := strings.Join(calls(), "\n") // the properties and the entry have line breaks
	for _, part := range []string{"run --detach --name n0 --network net", "--publish 127.0.0.1:7:7 --publish 127.0.0.1:8:8",
		"--env CLUSTER=id", "PROPERTIES=a=b", image(), "kafka-storage.sh format --ignore-formatted"} {
		require.Contains(t, first, part)
	}
	require.NoError(t, c.exited())
	require.NoError(t, c.kill())
	require.Error(t, c.exited())
	require.NoError(t, c.kill(), "a second time")
	calls()
	require.NoError(t, c.start(t.Context()))
	require.Equal(t, []string{"start n0"}, calls())
	require.NoError(t, c.pause())
	require.NoError(t, c.resume())
	require.NoError(t, c.remove())
	require.Equal(t, []string{"pause n0", "unpause n0", "rm --force --volumes n0"}, calls())
}

func TestSweepRemovesOnlyWhatDeadTestsLeft(t *testing.T) {
	engine, calls := fakeEngine(t)
	sweep(context.Background(), engine)
	got := calls()
	require.Contains(t, got, "rm --force --volumes stale")
	for _, call := range got {
		require.NotContains(t, call, "mine")
	}
}
