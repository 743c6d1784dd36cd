package test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/test/internal/child"
	"sluice/test/internal/ports"
)

// An instance is one running `sluice serve`.
type instance struct {
	t       testing.TB
	cmd     *exec.Cmd
	program string
	attr    *syscall.SysProcAttr // nil: the usual
	env     []string             // beside our own
	args    []string
	address string // of the MQTT listener
	admin   string
	log     *lockedBuffer
	exited  chan struct{}
	err     error // of Wait, valid once exited is closed
}

type lockedBuffer struct {
	mu   sync.Mutex
	b    bytes.Buffer
	line func([]byte) // is told of each line when it is there, one after the other; may be nil
	read int          // what it was told of
	gone bool         // nobody reads any more
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone {
		return 0, io.ErrClosedPipe
	}
	n, err := l.b.Write(p)
	for l.line != nil {
		end := bytes.IndexByte(l.b.Bytes()[l.read:], '\n')
		if end < 0 {
			break
		}
		l.line(l.b.Bytes()[l.read : l.read+end])
		l.read += end + 1
	}
	return n, err
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// serve starts an instance with these rules and waits until it is ready. extra is more YAML.
func serve(t testing.TB, brokers []string, rules, extra string) *instance {
	t.Helper()
	s := prepare(t, brokers, rules, extra)
	s.start()
	s.awaitReady()
	return s
}

// prepare writes the configuration and takes ports that stay the instance's own through restarts. extra beginning with a
// blank belongs to kafka:, else it stands at the top.
func prepare(t testing.TB, brokers []string, rules, extra string) *instance {
	t.Helper()
	address := ownPorts(t, 1)[0]
	s := prepareWith(t, brokers, fmt.Sprintf("listeners: [{address: %q}]\n", address), rules, extra)
	s.address = address
	return s
}

// prepareWith is prepare with listeners of the caller's, and whatever else stands at the top.
func prepareWith(t testing.TB, brokers []string, head, rules, extra string) *instance {
	t.Helper()
	s := &instance{t: t, program: program, admin: ownPorts(t, 1)[0], log: new(lockedBuffer)}
	config := fmt.Sprintf("%sadmin: {address: %q}\nlog: {format: json}\nkafka:\n  brokers: [%s]\n%s\npublish:\n%s\n",
		head, s.admin, strings.Join(brokers, ", "), extra, rules) + stateTopics(t)
	file := filepath.Join(t.TempDir(), "sluice.yaml")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	s.args = []string{"serve", "--config", file}
	t.Cleanup(s.cleanup)
	return s
}

// ownPorts takes loopback addresses with ports that nobody else is given while the test runs.
func ownPorts(t testing.TB, n int) (addresses []string) {
	t.Helper()
	taken, err := ports.Take(n)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ports.Release(taken)) })
	for _, p := range taken {
		addresses = append(addresses, p.Addr())
	}
	return addresses
}

// start runs the process.
func (s *instance) start() {
	s.t.Helper()
	s.cmd = &exec.Cmd{Path: s.program, Args: append([]string{s.program}, s.args...), Env: append(os.Environ(), s.env...), Stderr: s.log, Stdout: s.log}
	s.cmd.SysProcAttr = s.attr
	if s.attr == nil {
		s.cmd.SysProcAttr = child.DiesWithUs()
	}
	require.NoError(s.t, s.cmd.Start())
	exited := make(chan struct{})
	s.exited = exited
	cmd := s.cmd
	go func() { // ends with the process
		s.err = cmd.Wait()
		close(exited)
	}()
}

func (s *instance) cleanup() {
	if s.running() {
		s.kill()
	}
	if s.t.Failed() {
		s.t.Logf("the instance's log (what is not usual, and the end):\n%s\n%s", unusual(s.log.String()), s.tail())
	}
}

// unusual gives the first lines of a log that are not about the daily coming and going.
func unusual(log string) string {
	var b strings.Builder
	for line := range strings.Lines(log) {
		daily := strings.Contains(line, `"level":"info"`) && strings.Contains(line, `"remote":`) &&
			(strings.Contains(line, "normal disconnection") || strings.Contains(line, "session taken over"))
		if !daily && b.Len() < 12_000 {
			b.WriteString(line)
		}
	}
	return b.String()
}

func (s *instance) running() bool {
	if s.exited == nil {
		return false
	}
	select {
	case <-s.exited:
		return false
	default:
		return true
	}
}

// kill is kill -9.
func (s *instance) kill() {
	_ = s.cmd.Process.Kill()
	<-s.exited
}

// terminate sends SIGTERM and gives the exit code.
func (s *instance) terminate() int {
	s.t.Helper()
	require.NoError(s.t, s.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-s.exited:
	case <-time.After(time.Minute):
		s.t.Fatal("the instance does not end after SIGTERM")
	}
	return s.cmd.ProcessState.ExitCode()
}

func (s *instance) awaitReady() {
	s.t.Helper()
	for end := time.Now().Add(time.Minute); s.ready() != http.StatusOK; time.Sleep(20 * time.Millisecond) { // the pace
		if !s.running() {
			s.t.Fatalf("the instance ended: %v\n%s", s.err, s.log)
		}
		if time.Now().After(end) { // the end of its log may be about something else when the test ends
			_, why := s.get("/readyz")
			s.t.Fatalf("the instance must become ready: %s\n%s", why, s.tail())
		}
	}
}

// tail gives the end of the log.
func (s *instance) tail() string {
	log := s.log.String()
	return log[max(0, len(log)-6000):]
}

// ready gives the status of /readyz, 0 if there is no answer.
func (s *instance) ready() int {
	status, _ := s.get("/readyz")
	return status
}

func (s *instance) get(path string) (int, string) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.admin+path, nil)
	require.NoError(s.t, err)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, ""
	}
	return resp.StatusCode, string(body)
}

// metric gives the sum of all series of a metric whose labels hold each of the given texts.
func (s *instance) metric(name string, labels ...string) float64 {
	s.t.Helper()
	status, body := s.get("/metrics")
	require.Equal(s.t, http.StatusOK, status)
	require.Contains(s.t, body, "# TYPE "+name+" ", "no such metric")
	sum := 0.0
series:
	for line := range strings.Lines(body) {
		series, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || series != name && !strings.HasPrefix(series, name+"{") {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(series, l) {
				continue series
			}
		}
		v, err := strconv.ParseFloat(value, 64)
		require.NoError(s.t, err)
		sum += v
	}
	return sum
}

// rss gives the resident memory of the process in bytes.
func (s *instance) rss() int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		var kb int64
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kb); n == 1 {
			return kb << 10
		}
	}
	return 0
}
