// Package haproxy runs HAProxy in front of instances, with the configuration that users get, moved to loopback.
package haproxy

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/test/internal/child"
	"sluice/test/internal/notrun"
	"sluice/test/internal/ports"
)

// A Server is an instance as HAProxy sees it: where it takes devices with the PROXY protocol, and its admin side.
type Server struct{ Address, Admin string }

// A Proxy is a running HAProxy.
type Proxy struct {
	Addr   string // for devices
	t      testing.TB
	socket string
}

// Start runs HAProxy with the configuration file, its addresses replaced, until the test ends. Without the program the
// test is skipped, or fails with required.
func Start(t testing.TB, required bool, file string, servers ...Server) *Proxy {
	t.Helper()
	path := Look(t, required)
	taken, err := ports.Take(1)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ports.Release(taken)) })
	dir, err := os.MkdirTemp("", "haproxy") // t.TempDir's name is too long for a socket
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p := &Proxy{Addr: taken[0].Addr(), t: t, socket: filepath.Join(dir, "sock")}
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	moved := filepath.Join(dir, "haproxy.cfg")
	require.NoError(t, os.WriteFile(moved, []byte(p.move(string(text), servers)), 0o600))
	p.run(exec.Command(path, "-db", "-f", moved))
	return p
}

// Look finds the program, or ends the test.
func Look(t testing.TB, required bool) string {
	t.Helper()
	for _, name := range []string{"haproxy", "/usr/sbin/haproxy"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	notrun.Because(t, required, "SLUICE_TEST_CLIENTS", "no HAProxy. Remedy: install it (Debian: apt-get install haproxy)")
	return ""
}

var (
	bindLine    = regexp.MustCompile(`(?m)^( *bind ).*$`)
	socketLine  = regexp.MustCompile(`(?m)^( *stats socket )\S+`)
	maxconnLine = regexp.MustCompile(`(?m)^ *maxconn .*\n`)
	serverLines = regexp.MustCompile(`(?m)^ *server .*\n`)
)

// move gives the configuration with these servers on loopback, and everything else as it is.
func (p *Proxy) move(text string, servers []Server) string {
	for _, line := range []*regexp.Regexp{bindLine, socketLine, maxconnLine, serverLines} {
		require.Regexp(p.t, line, text)
	}
	text = bindLine.ReplaceAllString(text, "${1}"+p.Addr)
	text = socketLine.ReplaceAllString(text, "${1}"+p.socket)
	text = maxconnLine.ReplaceAllString(text, "") // as many as the limits of this machine allow
	var b strings.Builder
	for i, s := range servers {
		_, admin, err := net.SplitHostPort(s.Admin)
		require.NoError(p.t, err)
		fmt.Fprintf(&b, "    server sluice-%d %s port %s\n", i+1, s.Address, admin)
	}
	at := serverLines.FindStringIndex(text)[0]
	return text[:at] + b.String() + serverLines.ReplaceAllString(text[at:], "")
}

func (p *Proxy) run(cmd *exec.Cmd) {
	p.t.Helper()
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = child.DiesWithUs()
	require.NoError(p.t, cmd.Start())
	ended := make(chan struct{})
	go func() { // ends with the process
		_ = cmd.Wait()
		close(ended)
	}()
	p.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if p.t.Failed() {
			text := log.String()
			p.t.Logf("HAProxy (end):\n%s", text[max(0, len(text)-3000):])
		}
	})
	running := true
	require.Eventually(p.t, func() bool {
		select {
		case <-ended:
			running = false
			return true
		default:
		}
		_, err := p.ask("show info")
		return err == nil
	}, 20*time.Second, 20*time.Millisecond, "HAProxy must start")
	require.True(p.t, running, "HAProxy ended")
}

// Await waits until the servers have these states, in their order: UP, NOLB (no new connections), DOWN.
func (p *Proxy) Await(states ...string) {
	p.t.Helper()
	require.Eventually(p.t, func() bool {
		got, err := p.column("status")
		return err == nil && slices.EqualFunc(got, states, strings.HasPrefix)
	}, time.Minute, 20*time.Millisecond, "the servers must be %v", states)
}

// States gives what HAProxy thinks of each server.
func (p *Proxy) States() []string { return p.must(p.column("status")) }

// Sessions gives how many connections each server has.
func (p *Proxy) Sessions() []string { return p.must(p.column("scur")) }

func (p *Proxy) must(values []string, err error) []string {
	p.t.Helper()
	require.NoError(p.t, err)
	return values
}

// column reads a column of the statistics, of the servers.
func (p *Proxy) column(name string) (values []string, err error) {
	text, err := p.ask("show stat sluice 4 -1")
	if err != nil {
		return nil, err
	}
	rows, err := csv.NewReader(strings.NewReader(strings.TrimPrefix(strings.TrimSpace(text), "# "))).ReadAll()
	if err != nil || len(rows) == 0 {
		return nil, fmt.Errorf("statistics %q: %w", text, err)
	}
	at := slices.Index(rows[0], name)
	for _, row := range rows[1:] {
		values = append(values, row[at])
	}
	return values, nil
}

// ask gives the answer to a command at the stats socket.
func (p *Proxy) ask(command string) (string, error) {
	c, err := net.DialTimeout("unix", p.socket, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(c, command+"\n"); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(c)
	return string(answer), err
}
