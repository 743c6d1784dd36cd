package test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/test/cluster"
	"sluice/test/internal/wire"
)

// A hostileRow is a case of the table in docs/hostile.md: what is sent, and the answer demanded of an MQTT 3.1.1
// connection and of an MQTT 5 one; "" where the case does not exist. An answer is the packets that come, the same ones in
// a row said once, and whether the connection is closed or goes on.
type hostileRow struct {
	name     string
	old, new string
	clause   string
	try      func(a *attacker) string
}

// A hostileGroup is a part of the table.
type hostileGroup struct {
	title string
	rows  []hostileRow
}

// A hostileBench is what the rows attack.
type hostileBench struct {
	*instance
	kafka                    *cluster.Cluster
	telemetry, small, orders string // Kafka topics
	hello                    wire.Hello
	guard                    *guard // nil: anybody may do anything
	serial                   atomic.Int64
}

// An attacker tries one row in one version.
type attacker struct {
	*hostileBench
	t       *testing.T
	version byte
	want    string
	id      string // a client ID of its own
	from    net.IP // an address of its own, since failed logins are counted by address
	conn    net.Conn
	in      *bufio.Reader
}

const (
	closed    = "closed"
	connected = "connected"
)

// hostilePassword is in CONNECT packets of the table, and must be in no line of the log.
const hostilePassword = "correct-horse-battery-staple"

const hostileRules = `  - match: healthy/#
    topic: %q
  - match: small/#
    topic: %q
  - match: made
    topic: "{payload.name}"
  - match: devices/{device}/telemetry/{metric...}
    topic: %q
    key: "{device}"
    headers: {metric: "{metric}"}
`

// TestHostileInputGetsItsAnswer goes through the table against one process. What every row leaves as it was: the process,
// its memory, and a device that works all the time.
func TestHostileInputGetsItsAnswer(t *testing.T) {
	kafka := cluster.Shared(t)
	b := &hostileBench{kafka: kafka, telemetry: newTopic(t, kafka, 1), orders: newTopic(t, kafka, 1), small: cluster.TopicName(t)}
	require.NoError(t, kafka.CreateTopic(b.small, 1, 1, map[string]string{"max.message.bytes": "2000"}))
	fine := newTopic(t, kafka, 1)
	b.instance = serve(t, kafka.Brokers(), fmt.Sprintf(hostileRules, fine, b.small, b.telemetry),
		fmt.Sprintf("limits: {connect_timeout: 2s, topic_alias_maximum: 16}\ncommands:\n  - topic: %q\n    publish: \"{key}\"\n    qos: 1\n", b.orders))
	b.survives(t, fine, openGroups())
}

// survives tries every row and looks at what is left of the process.
func (b *hostileBench) survives(t *testing.T, fine string, groups []hostileGroup) {
	h := startHealthy(t, b.address, b.hello)
	before, pid := b.rss(), b.cmd.Process.Pid
	rows := 0
	for _, g := range groups {
		t.Run(g.title, func(t *testing.T) {
			for _, r := range g.rows {
				t.Run(r.name, func(t *testing.T) { b.demand(t, r) })
				rows++
			}
		})
	}
	require.True(t, b.running())
	require.Equal(t, pid, b.cmd.Process.Pid)
	stored := h.finish(t)
	require.Len(t, distinct(records(t, b.kafka.Brokers(), fine, stored)), stored)
	require.Zero(t, b.metric("sluice_mqtt_recovered_panics_total"))
	grown := b.rss() - before
	require.Less(t, grown, int64(64<<20))
	requireTidyOutput(t, b.instance)
	t.Logf("%d rows; memory %+d KB; the healthy device: %d messages, the slowest answer after %v", rows, grown>>10, stored, h.slowest)
}

func (b *hostileBench) demand(t *testing.T, r hostileRow) {
	for version := byte(4); version <= 5; version++ {
		want := r.old
		if version == 5 {
			want = r.new
		}
		if want == "" {
			continue
		}
		n := b.serial.Add(1)
		a := &attacker{hostileBench: b, t: t, version: version, want: want, id: fmt.Sprintf("attacker-%d", n), from: net.IPv4(127, 0, 3, byte(1+n%250))}
		require.Equal(t, want, r.try(a), "protocol level %d, %s", version, r.clause)
	}
}

// dial opens a connection, in place of the one before.
func (a *attacker) dial() { a.at(a.address) }

// at opens a connection to one of the listeners.
func (a *attacker) at(address string) net.Conn {
	a.t.Helper()
	d := net.Dialer{Timeout: 10 * time.Second, LocalAddr: &net.TCPAddr{IP: a.from}}
	c, err := d.DialContext(a.t.Context(), "tcp", address)
	require.NoError(a.t, err)
	a.take(c)
	return c
}

func (a *attacker) take(c net.Conn) {
	a.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	a.conn, a.in = c, bufio.NewReader(c)
}

// greeting is a CONNECT that nobody minds.
func (a *attacker) greeting() wire.Hello {
	h := a.hello
	h.Version, h.ID, h.KeepAlive = a.version, a.id, 60
	return h
}

// connect opens a connection that is let in.
func (a *attacker) connect() { a.connectAs(a.greeting()) }

func (a *attacker) connectAs(h wire.Hello) {
	a.t.Helper()
	a.dial()
	a.send(h.Packet())
	r, err := wire.Read(a.in)
	require.NoError(a.t, err)
	require.Equal(a.t, "CONNACK 0x00", r.String())
}

// send writes; the server may have closed the connection before it has all.
func (a *attacker) send(b ...[]byte) {
	for _, p := range b {
		if _, err := a.conn.Write(p); err != nil {
			return
		}
	}
}

// answer reads what comes until the connection is closed, or what came is what is wanted and a ping is answered.
func (a *attacker) answer(said ...string) string {
	for strings.Join(append(said[:len(said):len(said)], connected), ", ") != a.want {
		r, err := wire.Read(a.in)
		if err != nil {
			return strings.Join(append(said, ending(err)), ", ")
		}
		if name := r.String(); len(said) == 0 || said[len(said)-1] != name {
			said = append(said, name)
		}
	}
	return a.ping(said)
}

// ping tells whether the connection goes on.
func (a *attacker) ping(said []string) string {
	a.send(wire.Ping())
	for {
		r, err := wire.Read(a.in)
		switch {
		case err != nil:
			return strings.Join(append(said, ending(err)), ", ")
		case r.First == wire.PINGRESP:
			return strings.Join(append(said, connected), ", ")
		case len(said) == 0 || said[len(said)-1] != r.String():
			said = append(said, r.String())
		}
	}
}

func ending(err error) string {
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		return "neither an answer nor the close"
	}
	return closed
}

// opening is a row's bytes on a connection that has said nothing.
func opening(b func(a *attacker) []byte) func(*attacker) string {
	return func(a *attacker) string {
		a.dial()
		a.send(b(a))
		return a.answer()
	}
}

// bytesFirst is opening with the same bytes always.
func bytesFirst(b ...byte) func(*attacker) string {
	return opening(func(*attacker) []byte { return b })
}

// greeted is a row's bytes on a connection that was let in.
func greeted(b func(a *attacker) []byte) func(*attacker) string {
	return func(a *attacker) string {
		a.connect()
		a.send(b(a))
		return a.answer()
	}
}

// bytesLater is greeted with the same bytes always.
func bytesLater(b ...byte) func(*attacker) string {
	return greeted(func(*attacker) []byte { return b })
}

// each tries several inputs of one row and gives the first answer that is not the one wanted.
func each(tries ...func(*attacker) string) func(*attacker) string {
	return func(a *attacker) string {
		for i, try := range tries {
			if got := try(a); got != a.want {
				return fmt.Sprintf("input %d: %s", i, got)
			}
		}
		return a.want
	}
}

var metricLine = regexp.MustCompile(`^[a-z_]+(\{[\x20-\x7e]*\})? [0-9eE+.-]+$|^# (HELP|TYPE) [\x20-\x7e]+$`)

// requireTidyOutput: what devices call themselves tears no line of the log or of the metrics, and no password is there.
func requireTidyOutput(t *testing.T, s *instance) {
	t.Helper()
	log := s.log.String()
	require.NotContains(t, log, hostilePassword)
	for line := range strings.Lines(log) {
		require.True(t, json.Valid([]byte(line)), "%q", line)
	}
	_, metrics := s.get("/metrics")
	require.NotContains(t, metrics, hostilePassword)
	for line := range strings.Lines(metrics) {
		require.Regexp(t, metricLine, strings.TrimSuffix(line, "\n"))
	}
}
