package test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"sluice/bench"
	"sluice/test/cluster"
	"sluice/test/performance"
)

// TestPerformance is `make performance`: it measures, and writes every figure, and the page that is made of them, after
// each round, so that what was measured is there however it ends. It demands nothing of the figures.
func TestPerformance(t *testing.T) {
	length := os.Getenv("SLUICE_PERFORMANCE")
	if length == "" {
		t.Skip("a measurement: make performance runs it")
	}
	m := &measurement{T: t, short: length == "short", out: "../docs"}
	if m.short {
		m.out = "../dist/performance"
	}
	m.build()
	only := strings.FieldsFunc(os.Getenv("SLUICE_PERFORMANCE_PARTS"), func(r rune) bool { return r == ',' || r == ' ' })
	for _, part := range []struct {
		name    string
		measure func(*measurement)
	}{{"base", (*measurement).base}, {"latency", (*measurement).latency}, {"matrix", (*measurement).matrix}, {"growth", (*measurement).growth}, {"slow", (*measurement).slow}} {
		if len(only) > 0 && !slices.Contains(only, part.name) {
			continue
		}
		m.run(part.name, func(m *measurement) {
			m.begin(part.name)
			part.measure(m)
		})
		if m.part = m.report.Part(part.name); m.part != nil { // all that belonged to it has ended
			m.part.Idle = min(m.part.Idle, idleShare(m, 2*time.Second))
			m.save()
		}
	}
}

// A measurement is one run of TestPerformance. The fields from part on are those of the part that is measured.
type measurement struct {
	*testing.T
	short         bool
	out           string // the folder of the page
	report        *performance.Report
	bare, rdkafka string // programs
	revision      string // before the page is written
	rdVersion     string
	rdErr         error // why there is no rdkafka

	part  *performance.Part
	kafka *cluster.Cluster
	topic string // of 12 partitions
}

// build makes the programs that produce, and takes the figures of earlier runs, of which other parts are kept.
func (m *measurement) build() {
	dir := m.TempDir()
	m.bare, m.rdkafka = filepath.Join(dir, "bareproducer"), filepath.Join(dir, "librdkafka")
	out, err := exec.CommandContext(m.Context(), "go", "build", "-o", m.bare, "../kafka/internal/bareproducer").CombinedOutput()
	require.NoError(m, err, string(out))
	if m.rdVersion, m.rdErr = performance.BuildLibrdkafka(m.Context(), m.rdkafka); m.rdErr != nil {
		m.Logf("librdkafka is left out: %v", m.rdErr)
	}
	m.revision = "unknown"
	if out, err := exec.CommandContext(m.Context(), "git", "describe", "--always", "--dirty").Output(); err == nil {
		m.revision = strings.TrimSpace(string(out))
	}
	require.NoError(m, os.MkdirAll(filepath.Join(m.out, "performance"), 0o755))
	m.report, err = performance.Read(m.figures())
	require.NoError(m, err)
}

func (m *measurement) figures() string { return filepath.Join(m.out, "performance", "figures.json") }

// run measures f apart from what else is measured: its failure is its own.
func (m *measurement) run(name string, f func(*measurement)) {
	m.T.Run(name, func(t *testing.T) {
		own := *m
		own.T = t
		f(&own)
	})
}

// begin begins a part, with a Kafka of its own that forgets quickly.
func (m *measurement) begin(name string) {
	m.part = &performance.Part{Name: name, Short: m.short, Began: time.Now().UTC().Truncate(time.Second), Machine: describeMachine(m), Idle: idleShare(m, 2*time.Second),
		Revision: m.revision, Librdkafka: m.rdVersion}
	m.report.Put(m.part)
	m.Logf("%.0f %% of the machine's CPU time are idle", 100*m.part.Idle)
	m.kafka = cluster.Need(m, cluster.Config{Load: true, Properties: map[string]string{"log.retention.check.interval.ms": "2000", "log.segment.delete.delay.ms": "1000"}})
	m.topic = cluster.TopicName(m)
	require.NoError(m, m.kafka.CreateTopic(m.topic, 12, 1, map[string]string{"retention.bytes": "134217728", "segment.bytes": "67108864"}))
}

func (m *measurement) save() {
	m.Helper()
	m.part.Seconds = float64(int(time.Since(m.part.Began).Seconds()))
	require.NoError(m, m.report.Write(m.figures()))
	require.NoError(m, performance.WritePage("../docs/performance.md", m.out, m.report))
}

// or gives the value for a short run, or else the other.
func or[T any](m *measurement, short, long T) T {
	if m.short {
		return short
	}
	return long
}

// add adds a case to the part.
func (m *measurement) add(c *performance.Case) *performance.Case {
	m.part.Cases = append(m.part.Cases, c)
	return c
}

// turns measures the cases in turns, so that whatever else happens on the machine happens to all of them. A measure may leave
// a round out.
func (m *measurement) turns(rounds int, cases []*performance.Case, measure func(*performance.Case) (performance.Round, error)) {
	for range rounds {
		for _, c := range cases {
			r, err := measure(c)
			if err != nil {
				c.Error = err.Error()
				m.Errorf("%s, %s %d: %v", c.Who, c.Series, c.X, err)
			} else if r != nil {
				c.Rounds = append(c.Rounds, r)
				m.Logf("%-10s %s %d %+v: %v", c.Who, c.Series, c.X, c.Load, r)
			}
			m.save()
		}
	}
}

// serve starts an instance and warms it up.
func (m *measurement) serve(compression, rules string) *instance {
	s := serve(m, m.kafka.Brokers(), rules, fmt.Sprintf("  producer: {compression: %s}\nlimits: {receive_maximum: 1000}\n", compression))
	_, err := m.publish(s, performance.Load{Connections: 10, Window: 20, QoS: 1, Size: 256}, 300*time.Millisecond, 0)
	if !errors.Is(err, errNothing) { // which a stall of the machine explains
		require.NoError(m, err)
	}
	return s
}

// publishCommand is what a user would do to load Sluice in this way.
func publishCommand(l performance.Load) string {
	command := fmt.Sprintf("sluice bench publish --connections %d --window %d --qos %d --size %d", l.Connections, l.Window, l.QoS, l.Size)
	if l.Rate > 0 {
		command += fmt.Sprintf(" --rate %d", l.Rate)
	}
	return command
}

// publish has devices publish for d. In groups, if there are any, the topics of group n begin with devices/n/ instead of the
// device's own number.
func (m *measurement) publish(s *instance, l performance.Load, d time.Duration, groups int) (performance.Round, error) {
	runs, err := m.connect(s, l, groups)
	if err != nil {
		return nil, err
	}
	s.settle()
	return m.measure(s, l, d, runs)
}

// connect connects devices.
func (m *measurement) connect(s *instance, l performance.Load, groups int) ([]*bench.PublishRun, error) {
	runs := make([]*bench.PublishRun, max(groups, 1))
	var connects errgroup.Group
	connects.SetLimit(64)
	for i := range runs {
		topic := "devices/{device}/telemetry/load"
		if groups > 0 {
			topic = fmt.Sprintf("devices/%d/telemetry/load", i)
		}
		runs[i] = bench.Publish{Target: bench.Target{Addresses: []string{s.address}, Version: 5, ClientID: "bench-{run}-{device}", KeepAlive: time.Minute}, Run: runID(),
			Connections: l.Connections / len(runs), Window: l.Window, QoS: l.QoS, Size: l.Size, Rate: l.Rate / len(runs), Topic: topic, Duration: time.Hour, Wait: 30 * time.Second}.New()
		connects.Go(func() error { return runs[i].Connect(m.Context()) })
	}
	return runs, connects.Wait()
}

// measure has connected devices publish, and counts what is done in d, from when as many messages as there are devices are
// acknowledged, until before they disconnect. After QoS 0 the instance is started anew.
func (m *measurement) measure(s *instance, l performance.Load, d time.Duration, runs []*bench.PublishRun) (performance.Round, error) {
	acked := func() (n float64) {
		if l.QoS == 0 {
			return m.stored()
		}
		for _, r := range runs {
			_, of := r.Counts()
			n += float64(of)
		}
		return n
	}
	ctx, stop := context.WithCancel(m.Context())
	defer stop()
	before, limit := acked(), time.Now().Add(startLimit)
	var all errgroup.Group
	results := make([]*bench.PublishResult, len(runs))
	for i, r := range runs {
		all.Go(func() error {
			results[i] = r.Publish(ctx)
			if results[i].Refused > 0 {
				return fmt.Errorf("%d messages were refused: %v", results[i].Refused, results[i].Refusals)
			}
			return results[i].Err()
		})
	}
	for acked() < before+float64(l.Connections) && time.Now().Before(limit) {
		time.Sleep(20 * time.Millisecond) // the pace
	}
	before = acked()
	cpu, begin := s.cpu(), time.Now()
	<-time.After(d)
	n, used, elapsed, memory := acked()-before, s.cpu()-cpu, time.Since(begin), s.rss()
	if l.QoS == 0 { // what waits in sockets, megabytes for each connection, would be stored for a minute
		require.Zero(m, s.terminate())
	}
	stop()
	err := all.Wait()
	if l.QoS == 0 {
		s.start()
		s.awaitReady()
	} else if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, errNothing
	}
	r := performance.Round{performance.Acked: n, performance.PerSecond: n / elapsed.Seconds(), performance.CPU: used.Seconds() * 1e6 / n, performance.Memory: float64(memory) / (1 << 20)}
	if times := results[0].Times; times != nil && len(runs) == 1 {
		r[performance.P50], r[performance.P99] = times.P50, times.P99
	}
	return r, nil
}

// stored gives how many records the topic has had; with QoS 0 nobody else knows.
func (m *measurement) stored() (n float64) {
	m.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(m.kafka.Brokers()...))
	require.NoError(m, err)
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListEndOffsets(m.Context(), m.topic)
	require.NoError(m, err)
	require.NoError(m, ends.Error())
	ends.Each(func(o kadm.ListedOffset) { n += float64(o.Offset) })
	return n
}

var errNothing = errors.New("nothing was acknowledged")

// startLimit bounds the time until the load is under way.
const startLimit = 20 * time.Second

// settle waits until the instance has nothing to do, such as the ends of connections, for 10 s at most.
func (s *instance) settle() {
	s.t.Helper()
	for end, used := time.Now().Add(10*time.Second), time.Duration(-1); time.Now().Before(end); time.Sleep(100 * time.Millisecond) { // the pace
		now := s.cpu()
		if now-used <= 10*time.Millisecond && used >= 0 {
			return
		}
		used = now
	}
}

// others measures a producer alone.
func (m *measurement) others(c *performance.Case, d time.Duration) (performance.Round, error) {
	ctx, cancel := context.WithTimeout(m.Context(), d+time.Minute)
	defer cancel()
	window := strconv.Itoa(c.Connections * c.Window)
	brokers := strings.Join(m.kafka.Brokers(), ",")
	cmd := exec.CommandContext(ctx, m.bare, append([]string{"-brokers", brokers, "-topic", m.topic, "-duration", d.String()}, bareArgs(c)...)...)
	if c.Who == "librdkafka" {
		if m.rdErr != nil {
			return nil, m.rdErr
		}
		cmd = exec.CommandContext(ctx, m.rdkafka, brokers, m.topic, c.Compression, strconv.Itoa(c.Connections), window, strconv.Itoa(c.Size), strconv.Itoa(c.Rate),
			strconv.FormatInt(d.Milliseconds(), 10), "5")
	}
	out, err := cmd.Output()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return nil, fmt.Errorf("%w: %s", err, exit.Stderr)
	} else if err != nil {
		return nil, err
	}
	var r performance.Round
	return r, json.Unmarshal(out, &r)
}

func bareArgs(c *performance.Case) []string {
	return []string{"-client", c.Who, "-window", strconv.Itoa(c.Connections * c.Window), "-keys", strconv.Itoa(c.Connections), "-size", strconv.Itoa(c.Size),
		"-rate", strconv.Itoa(c.Rate), "-compression", c.Compression}
}

// everybody adds a case of Sluice and one of each other for a load, and gives them.
func (m *measurement) everybody(l performance.Load) (cases []*performance.Case) {
	cases = append(cases, m.add(&performance.Case{Who: performance.Sluice, Load: l, Command: publishCommand(l)}))
	for _, who := range performance.Others {
		c := &performance.Case{Who: who, Load: l}
		c.Command = "bareproducer " + strings.Join(bareArgs(c), " ")
		if who == "librdkafka" {
			c.Command = strings.Replace(c.Command, "bareproducer -client librdkafka", "librdkafka.c", 1)
		}
		cases = append(cases, m.add(c))
	}
	return cases
}

// idleShare gives the share of the machine's CPU time that nobody uses.
func idleShare(t testing.TB, d time.Duration) float64 {
	times := func() (idle, all float64) {
		b, err := os.ReadFile("/proc/stat")
		require.NoError(t, err)
		line, _, _ := strings.Cut(string(b), "\n")
		for i, field := range strings.Fields(line)[1:9] { // user nice system idle iowait irq softirq steal
			v, err := strconv.ParseFloat(field, 64)
			require.NoError(t, err)
			if all += v; i == 3 { // waiting for a disk is not being idle: Kafka would wait too
				idle += v
			}
		}
		return idle, all
	}
	idle1, all1 := times()
	<-time.After(d)
	idle2, all2 := times()
	return (idle2 - idle1) / (all2 - all1)
}

func describeMachine(t testing.TB) string {
	read := func(path, prefix string) string {
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		for line := range strings.Lines(string(b)) {
			if rest, ok := strings.CutPrefix(line, prefix); ok {
				return strings.Trim(rest, ": \t\n")
			}
		}
		return "unknown"
	}
	memory, _ := strconv.Atoi(strings.TrimSuffix(read("/proc/meminfo", "MemTotal"), " kB"))
	return fmt.Sprintf("%d cores (%s) and %d GiB for Sluice, Kafka (one node) and the load, Linux %s, %s", runtime.NumCPU(), read("/proc/cpuinfo", "model name"),
		(memory+1<<19)>>20, read("/proc/sys/kernel/osrelease", ""), runtime.Version())
}
