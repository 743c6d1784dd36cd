package test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"sluice/bench"
	"sluice/test/cluster"
	"sluice/test/performance"
)

// usual is the load of which one thing is varied.
var usual = performance.Load{Connections: 50, Window: 20, QoS: 1, Size: 256, Compression: "lz4"}

// base is the whole proxy beside producers alone, with as many messages unacknowledged.
func (m *measurement) base() {
	var cases []*performance.Case
	for _, window := range or(m, []int{20}, []int{20, 100, 250}) {
		l := usual
		l.Window = window
		cases = append(cases, m.everybody(l)...)
	}
	m.beside(or(m, 1, 7), cases, or(m, time.Second, 5*time.Second))
}

func (m *measurement) latency() {
	var cases []*performance.Case
	for _, rate := range or(m, []int{2000}, []int{2000, 10_000}) {
		l := usual
		l.Rate = rate
		cases = append(cases, m.everybody(l)...)
	}
	m.beside(or(m, 1, 5), cases, or(m, time.Second, 5*time.Second))
}

func (m *measurement) beside(rounds int, cases []*performance.Case, d time.Duration) {
	s := m.serve("lz4", oneTopic(m.topic))
	m.turns(rounds, cases, func(c *performance.Case) (performance.Round, error) {
		if c.Who == performance.Sluice {
			return m.publish(s, c.Load, d, 0)
		}
		return m.others(c, d)
	})
}

// matrix takes as long as SLUICE_PERFORMANCE_MATRIX says, however many cells there are, unless a first round takes longer.
func (m *measurement) matrix() {
	budget := or(m, 20*time.Second, 22*time.Minute)
	if text := os.Getenv("SLUICE_PERFORMANCE_MATRIX"); text != "" {
		var err error
		budget, err = time.ParseDuration(text)
		require.NoError(m, err)
	}
	instances := map[string]*instance{}
	compressions, sizes, connections := []string{"none", "lz4", "zstd"}, []int{64, 256, 1 << 10, 16 << 10}, []int{1, 50, 1000, 10_000}
	var cases []*performance.Case
	for _, c := range compressions {
		instances[c] = m.serve(c, oneTopic(m.topic))
		for qos := range byte(3) {
			for i, n := range connections {
				for k, size := range sizes {
					if m.short && (i != k || int(qos) != (i+len(c))%3) {
						continue // every value once is enough
					}
					l := performance.Load{Connections: n, Window: max(1, 1000/n), QoS: qos, Size: size, Compression: c}
					cases = append(cases, m.add(&performance.Case{Who: performance.Sluice, Load: l, Command: publishCommand(l)}))
				}
			}
		}
	}
	rounds, end, beside := or(m, 1, 3), time.Now().Add(budget), time.Second
	left := rounds * len(cases)
	m.turns(rounds, cases, func(c *performance.Case) (performance.Round, error) {
		if left--; len(c.Rounds) > 0 && time.Now().After(end) {
			return nil, nil
		}
		d := min(max(time.Until(end)/time.Duration(left+1)-beside, or(m, 300*time.Millisecond, time.Second)), 10*time.Second)
		begin := time.Now()
		r, err := m.publish(instances[c.Compression], c.Load, d, 0)
		beside = (3*beside + time.Since(begin) - d) / 4 // connecting and the like, of late
		return r, err
	})
}

// growth varies one thing after the other, each with instances of its own.
func (m *measurement) growth() {
	for _, series := range []struct {
		name    string
		measure func(*measurement)
	}{{"payload", (*measurement).payload}, {"rules", (*measurement).rules}, {"subscriptions", (*measurement).subscriptions}, {"sessions", (*measurement).sessions},
		{"partitions", (*measurement).partitions}, {"topics", (*measurement).topics}} {
		m.run(series.name, series.measure)
	}
}

func (m *measurement) grown(series string, x int, l performance.Load) *performance.Case {
	return m.add(&performance.Case{Series: series, Who: performance.Sluice, X: x, Load: l, Command: publishCommand(l)})
}

// length of a round.
func (m *measurement) length() time.Duration { return or(m, time.Second, 4*time.Second) }

func (m *measurement) payload() {
	s := m.serve("lz4", oneTopic(m.topic))
	var cases []*performance.Case
	for _, size := range or(m, []int{64, 64 << 10}, []int{64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10}) {
		l := usual
		l.Size = size
		cases = append(cases, m.grown("bytes of payload", size, l))
	}
	m.turns(or(m, 1, 3), cases, func(c *performance.Case) (performance.Round, error) { return m.publish(s, c.Load, m.length(), 0) })
}

// rules has the one that matches behind all others.
func (m *measurement) rules() {
	require.NoError(m, m.kafka.CreateTopic("others", 1, 1, nil))
	instances := map[int]*instance{}
	var cases []*performance.Case
	for _, n := range or(m, []int{1, 1000}, []int{1, 100, 10_000}) {
		var rules strings.Builder
		for i := range n - 1 {
			fmt.Fprintf(&rules, "  - {match: 'others/%d/{device}/#', topic: others}\n", i) // a file may have 1 MiB
		}
		instances[n] = m.serve("lz4", rules.String()+oneTopic(m.topic))
		cases = append(cases, m.grown("rules", n, usual))
	}
	m.turns(or(m, 1, 3), cases, func(c *performance.Case) (performance.Round, error) {
		return m.publish(instances[c.X], c.Load, m.length(), 0)
	})
}

// subscriptions takes a benchmark of package mqtt: how long it takes to find the one subscription of a command.
func (m *measurement) subscriptions() {
	args := []string{"test", "-run", "^$", "-bench", or(m, "IndexMatch/own/devices=100?$", "IndexMatch/own"), "-benchtime", or(m, "100ms", "1s"), "-count", or(m, "1", "3"), "./mqtt"}
	cmd := exec.CommandContext(m.Context(), "go", args...)
	cmd.Dir = ".."
	out, err := cmd.CombinedOutput()
	require.NoError(m, err, string(out))
	cases := map[int]*performance.Case{}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "BenchmarkIndexMatch/own/devices=") {
			continue
		}
		number, _, _ := strings.Cut(strings.TrimPrefix(fields[0], "BenchmarkIndexMatch/own/devices="), "/")
		n, err := strconv.Atoi(number)
		require.NoError(m, err)
		ns, err := strconv.ParseFloat(fields[2], 64)
		require.NoError(m, err)
		if cases[n] == nil {
			cases[n] = m.grown("subscriptions", n, performance.Load{})
			cases[n].Command = "go " + strings.Join(args, " ")
		}
		cases[n].Rounds = append(cases[n].Rounds, performance.Round{performance.PerMatch: ns})
	}
	require.NotEmpty(m, cases, string(out))
	m.save()
}

// sessions fills the topic of an instance that is away, starts it and has others publish.
func (m *measurement) sessions() {
	b := newStateBench(m.T, m.kafka)
	there := 0
	for _, n := range or(m, []int{0, 10_000}, []int{0, 1000, 10_000, 100_000, 1_000_000}) {
		if n > there {
			b.fill(b.sessions, n-there, func(i int) *kgo.Record { return storedSession(there + i) })
		}
		there = n
		took, memory := b.restart()
		c := m.grown("stored sessions", n, usual)
		m.turns(or(m, 1, 3), []*performance.Case{c}, func(c *performance.Case) (performance.Round, error) {
			r, err := m.publish(b.instance, c.Load, m.length(), 0)
			if err == nil {
				r[performance.Ready], r[performance.Memory] = took.Seconds(), float64(memory)/(1<<20)
			}
			return r, err
		})
		require.Zero(m, b.terminate())
	}
}

// manyDevices are enough for many partitions, few of their messages unacknowledged.
func (m *measurement) manyDevices() performance.Load {
	return performance.Load{Connections: or(m, 50, 5000), Window: 2, QoS: 1, Size: 256, Compression: "lz4"}
}

func (m *measurement) partitions() {
	instances := map[int]*instance{}
	var cases []*performance.Case
	for _, n := range or(m, []int{1, 50}, []int{1, 10, 100, 1000, 5000}) {
		topic := cluster.TopicName(m)
		require.NoError(m, m.kafka.CreateTopic(topic, n, 1, nil))
		instances[n] = m.serve("lz4", oneTopic(topic))
		cases = append(cases, m.grown("partitions of one topic", n, m.manyDevices()))
	}
	m.turns(or(m, 1, 3), cases, func(c *performance.Case) (performance.Round, error) {
		return m.publish(instances[c.X], c.Load, m.length(), 0)
	})
}

// topics has topics of one partition, and as many groups of devices.
func (m *measurement) topics() {
	instances := map[int]*instance{}
	var cases []*performance.Case
	for _, n := range or(m, []int{1, 50}, []int{1, 10, 100, 1000, 5000}) {
		prefix := cluster.TopicName(m)
		m.createTopics(prefix, n)
		instances[n] = serve(m, m.kafka.Brokers(), fmt.Sprintf("  - match: devices/{device}/telemetry/{metric...}\n    topic: %q\n    max_topics: 10000\n", prefix+"-{device}"), "")
		cases = append(cases, m.grown("topics of one partition", n, m.manyDevices()))
	}
	m.turns(or(m, 1, 3), cases, func(c *performance.Case) (performance.Round, error) {
		if len(c.Rounds) == 0 { // it learns of the topics
			if _, err := m.publish(instances[c.X], c.Load, m.length(), c.X); err != nil {
				return nil, err
			}
		}
		return m.publish(instances[c.X], c.Load, m.length(), c.X)
	})
}

// createTopics makes topics of one partition in groups that Kafka takes at once.
func (m *measurement) createTopics(prefix string, n int) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(m.kafka.Brokers()...))
	require.NoError(m, err)
	defer cl.Close()
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("%s-%d", prefix, i))
		if len(names) == 500 || i == n-1 {
			made, err := kadm.NewClient(cl).CreateTopics(m.Context(), 1, 1, nil, names...)
			require.NoError(m, err)
			require.NoError(m, made.Error())
			names = nil
		}
	}
}

// slow has one client send as fast as it can beside a thousand that do not.
func (m *measurement) slow() {
	s := m.serve("lz4", oneTopic(m.topic))
	many := performance.Load{Connections: 1000, Window: 20, QoS: 1, Size: 256, Rate: 1000, Compression: "lz4"}
	one := map[string]byte{"a client flat out, QoS 1": 1, "a client flat out, QoS 0": 0}
	var cases []*performance.Case
	for _, beside := range []string{"nobody", "a client flat out, QoS 1", "a client flat out, QoS 0"} {
		cases = append(cases, m.grown(beside, 0, many))
	}
	m.turns(or(m, 1, 5), cases, func(c *performance.Case) (performance.Round, error) {
		var loud []*bench.PublishRun
		if qos, ok := one[c.Series]; ok {
			var err error
			if loud, err = m.connect(s, performance.Load{Connections: 1, Window: 1000, QoS: qos, Size: 256}, 0); err != nil {
				return nil, err
			}
		}
		runs, err := m.connect(s, many, 0)
		if err != nil {
			return nil, err
		}
		s.settle()
		ctx, stop := context.WithCancel(m.Context())
		defer stop()
		var beside errgroup.Group
		for _, r := range loud {
			beside.Go(func() error { return r.Publish(ctx).Err() })
		}
		r, err := m.measure(s, many, or(m, 2*time.Second, 8*time.Second), runs)
		stop()
		delete(r, performance.CPU) // that of all
		return r, errors.Join(err, beside.Wait())
	})
}
