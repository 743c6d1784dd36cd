package proxy

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"sluice/kafka"
	"sluice/kafka/embedded"
	"sluice/mqtt"
	"sluice/proxy/config"
)

// A sharing is the part of an instance that shared subscriptions need, with a Kafka that several can have.
type sharing struct {
	t        testing.TB
	addr     string
	writer   *kafka.Producer
	producer *kafka.Producer
	c        *commander
	shares   *sharer
	stop     func()
}

// A silent takes messages of devices and does nothing with them.
type silent struct{}

func (silent) Admit(*mqtt.Message, func()) bool { return true }
func (silent) Release(*mqtt.Message)            {}
func (silent) Publish(m *mqtt.Message)          { m.Ack(mqtt.Success) }

// cluster starts a Kafka.
func cluster(t testing.TB) *embedded.Cluster {
	t.Helper()
	c, err := embedded.Start(embedded.Config{})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// share starts an instance for the commands of the topic "cmds", which has two partitions.
func share(t testing.TB, c *embedded.Cluster) *sharing {
	t.Helper()
	return shareWith(t, c, zerolog.Nop())
}

func shareWith(t testing.TB, c *embedded.Cluster, log zerolog.Logger) *sharing {
	t.Helper()
	text := fmt.Sprintf(`
listeners: [{address: 127.0.0.1:0}]
kafka: {brokers: [%q], create_topics: {partitions: 2, replication: 1}}
commands:
  - {topic: cmds, publish: "t/{key}", qos: 1, receipts: receipts, when: {header.kind: shared}}
  - {topic: cmds, publish: "t/{key}", qos: 1, client: "{key}"}
`, c.Brokers()[0])
	cfg, err := config.Parse("test", []byte(text), noEnv)
	require.NoError(t, err)
	_, _, err = EnsureTopics(t.Context(), cfg)
	require.NoError(t, err)
	s := &sharing{t: t}
	s.start(cfg, log)
	s.writer = writer(t, c.Brokers())
	return s
}

func (s *sharing) start(cfg *config.Config, log zerolog.Logger) {
	t, reg := s.t, prometheus.NewRegistry()
	rules, err := cfg.CommandRules()
	require.NoError(t, err)
	producer, err := kafka.NewProducer(kafkaConfig(cfg, log, reg))
	require.NoError(t, err)
	s.producer = producer
	s.shares, err = newSharer(kafkaConfig(cfg, log, reg), cfg, reg)
	require.NoError(t, err)
	settings := mqttConfig(cfg, log, reg)
	settings.Shares = s.shares.shares
	server, err := mqtt.New(settings, silent{})
	require.NoError(t, err)
	s.c, err = newCommander(rules, cfg.Commands, server, producer, newStreams(), log, reg)
	require.NoError(t, err)
	s.shares.c = s.c
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s.addr = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	sharing, stopSharing := context.WithCancel(context.Background())
	var parts, shares sync.WaitGroup
	shares.Go(func() { _ = s.shares.run(sharing) })
	parts.Go(func() { _ = producer.Run(ctx) })
	parts.Go(func() { _ = server.Run(ctx) })
	parts.Go(func() { _ = server.Serve(l) })
	s.stop = sync.OnceFunc(func() {
		stopSharing()
		s.shares.awaitDrained()
		now, end := context.WithCancel(context.Background())
		end()
		server.Shutdown(now)
		close(s.shares.left)
		shares.Wait()
		cancel()
		parts.Wait()
	})
	t.Cleanup(s.stop)
}

// taken gives the payloads of the PUBLISH packets that have come until now, acknowledged if ack says so.
func (d *device) taken(ack bool) (payloads []string) {
	d.t.Helper()
	d.send(0xC0, nil)
	for {
		first, body := d.read()
		if first == 0xD0 {
			return payloads
		}
		m := decode(first, body)
		payloads = append(payloads, m.payload)
		if ack && m.qos > 0 {
			d.ack(m, 0)
		}
	}
}

// joined writes records until one of each partition came to one of the devices: then there are members of the group,
// which are not told apart from those that are on their way.
func (s *sharing) joined(devices ...*device) {
	s.t.Helper()
	came := map[string]bool{}
	until(s.t, "a probe of each partition", func() bool {
		s.write("even", "probe even")
		s.write("odd2", "probe odd2")
		for _, d := range devices {
			for _, p := range d.taken(true) {
				came[p] = true
			}
		}
		return came["probe even"] && came["probe odd2"]
	})
}

// write writes a command.
func (s *sharing) write(key, payload string) {
	s.t.Helper()
	done := make(owner, 1)
	s.writer.Produce(toRecord(now("cmds", key, payload, "kind", "shared"), done))
	require.NoError(s.t, <-done)
}

func toRecord(r *kafka.Fetched, o kafka.Owner) *kafka.Record {
	return &kafka.Record{Topic: r.Topic, Key: r.Key, Value: r.Value, Headers: r.Headers, Timestamp: r.Timestamp, Owner: o}
}

func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, patience, patience/1000, what)
}

// collect acknowledges what comes to the devices until all these payloads did, and holds that each came once.
func collect(t testing.TB, want []string, devices ...*device) (each []int) {
	t.Helper()
	times := map[string]int{}
	each = make([]int, len(devices))
	until(t, "all commands", func() bool {
		for i, d := range devices {
			for _, p := range d.taken(true) {
				if !strings.HasPrefix(p, "probe") {
					times[p]++
					each[i]++
				}
			}
		}
		return len(times) >= len(want)
	})
	for _, p := range want {
		require.Equal(t, 1, times[p], "how often %s came", p)
	}
	return each
}

// numbers writes n commands and gives their payloads.
func (s *sharing) numbers(from, n int) (payloads []string) {
	s.t.Helper()
	for i := range n {
		payloads = append(payloads, fmt.Sprint(from+i))
		s.write(fmt.Sprint("k", from+i), payloads[i])
	}
	return payloads
}

func TestSharedCommandsAreDividedAmongInstances(t *testing.T) {
	t.Parallel()
	kafka := cluster(t)
	a, b := share(t, kafka), share(t, kafka)
	one := dial(t, a.addr, "one", false)
	one.subscribe("$share/g/t/#", 1)
	a.joined(one)
	two, three := dial(t, b.addr, "two", false), dial(t, b.addr, "three", false)
	two.subscribe("$share/g/t/#", 1)
	three.subscribe("$share/g/t/#", 1)
	until(t, "both instances have a partition", func() bool {
		a.write("even", "probe")
		a.write("odd2", "probe")
		return len(one.taken(true)) >= 0 && len(two.taken(true))+len(three.taken(true)) > 0
	})
	each := collect(t, a.numbers(0, 60), one, two, three)
	for i, n := range each {
		require.Positive(t, n, "commands of device %d", i)
	}
}

func TestSharedCommandOfAnInstanceThatStopsComesToAnother(t *testing.T) {
	t.Parallel()
	kafka := cluster(t)
	a := share(t, kafka)
	one := dial(t, a.addr, "one", false)
	one.subscribe("$share/g/t/#", 1)
	a.joined(one)
	want := a.numbers(0, 10)
	got := map[string]bool{}
	until(t, "all are sent", func() bool { // and not acknowledged
		for _, p := range one.taken(false) {
			got[p] = true
		}
		return len(got) >= len(want)
	})
	b := share(t, kafka)
	two := dial(t, b.addr, "two", false)
	two.subscribe("$share/g/t/#", 1)
	a.stop()
	collect(t, want, two)
}

// TestWhatTheLastMemberAcknowledgedComesToNobodyElse, also right after it was: the member that leaves in good order is
// the last one of the fleet, or of its instance.
func TestWhatTheLastMemberAcknowledgedComesToNobodyElse(t *testing.T) {
	t.Parallel()
	for _, alone := range []bool{true, false} {
		t.Run(fmt.Sprint("alone ", alone), func(t *testing.T) {
			kafka := cluster(t)
			a, b := share(t, kafka), share(t, kafka)
			one := dial(t, a.addr, "one", false)
			one.subscribe("$share/g/t/#", 1)
			a.joined(one)
			var two *device
			if !alone {
				two = dial(t, b.addr, "two", false)
				two.subscribe("$share/g/t/#", 1)
			}
			want := a.numbers(0, 100)
			got := map[string]bool{}
			until(t, "all have come", func() bool {
				for _, d := range []*device{one, two} {
					if d != nil {
						for _, p := range d.taken(true) {
							got[p] = true
						}
					}
				}
				return len(got) >= len(want)
			})
			one.leave()
			if alone {
				two = dial(t, b.addr, "two", false)
				two.subscribe("$share/g/t/#", 1)
			}
			until(t, "the other has taken over", func() bool {
				a.write("even", "over even")
				a.write("odd2", "over odd2")
				for _, p := range two.taken(true) {
					require.False(t, got[p] && strings.Trim(p, "0123456789") == "", "%s came again", p)
					got[p] = true
				}
				return got["over even"] && got["over odd2"]
			})
		})
	}
}

// TestQoS2ThatASessionHasComesOnce, though a command before it, which is nobody's yet, comes again: the session completes it.
func TestQoS2ThatASessionHasComesOnce(t *testing.T) {
	t.Parallel()
	kafka := cluster(t)
	a, b := share(t, kafka), share(t, kafka)
	one := dial(t, a.addr, "one", false)
	one.subscribe("$share/g/t/#", 2)
	a.joined(one)
	write := func(qos, payload string) {
		done := make(owner, 1)
		a.writer.Produce(toRecord(now("cmds", "even", payload, "kind", "shared", "mqtt.qos", qos), done))
		require.NoError(t, <-done)
	}
	write("1", "first")
	write("2", "second")
	var got []string
	until(t, "both have come", func() bool { got = append(got, one.taken(false)...); return len(got) >= 2 })
	one.leave()
	two := dial(t, b.addr, "two", false)
	two.subscribe("$share/g/t/#", 2)
	times := map[string]int{}
	until(t, "what comes later has come", func() bool {
		a.write("even", "later")
		for _, p := range two.taken(true) {
			times[p]++
		}
		return times["later"] > 0
	})
	require.Equal(t, 1, times["first"])
	require.Zero(t, times["second"], "it is the first one's")
}

// TestShareWhoseLastMemberLeavesBeforeItsGroupHasComeTogetherIsFedAgain when there is a member again.
func TestShareWhoseLastMemberLeavesBeforeItsGroupHasComeTogetherIsFedAgain(t *testing.T) {
	t.Parallel() // most of it is waiting
	s := share(t, cluster(t))
	for i := range 20 {
		leaves := dial(t, s.addr, fmt.Sprint("leaves ", i), false)
		leaves.subscribe("$share/g/t/#", 1)
		leaves.send(0xE0, nil)
	}
	d := dial(t, s.addr, "stays", false)
	d.subscribe("$share/g/t/#", 1)
	s.joined(d)
}

func TestSharesHaveGroupsOfTheirOwn(t *testing.T) {
	s := &sharer{prefix: "sluice-sessions-share-"}
	names := map[string]bool{}
	for _, pair := range [][2]string{{"g", "a"}, {"g", "b"}, {"h", "a"}, {"g/a", "b"}, {"gä", "a"}, {strings.Repeat("g", 65), "a"}} {
		name := s.groupName(pair[0], pair[1])
		require.False(t, names[name])
		names[name] = true
		require.Regexp(t, `^[a-zA-Z0-9._-]{20,120}$`, name)
	}
	require.Regexp(t, `^sluice-sessions-share-g-[0-9a-f]{16}$`, s.groupName("g", "a"))
}

func TestCommandsForOneClientAreNotShared(t *testing.T) {
	kafka := cluster(t)
	a := share(t, kafka)
	one := dial(t, a.addr, "k1", false)
	one.subscribe("$share/g/t/#", 1)
	a.joined(one)
	done := make(owner, 1)
	r := now("cmds", "k1", "for k1 alone")
	a.writer.Produce(toRecord(r, done))
	require.NoError(t, <-done)
	collect(t, a.numbers(1, 5), one)
}

// TestReceiptsOfSharedCommandsNameWhoEndedThem: the member, or nobody.
func TestReceiptsOfSharedCommandsNameWhoEndedThem(t *testing.T) {
	t.Parallel()
	k := cluster(t)
	a := share(t, k)
	var receipts seen
	background(t, func(ctx context.Context) {
		_ = k.Tail(ctx, func(r embedded.Record) {
			var receipt Receipt
			if r.Topic == "receipts" && json.Unmarshal(r.Value, &receipt) == nil {
				receipts.add([]byte(string(r.Key) + " " + receipt.ClientID + " " + receipt.Outcome))
			}
		})
	})
	one := dial(t, a.addr, "one", false)
	one.subscribe("$share/g/t/#", 1)
	a.joined(one)
	send := func(key string, headers ...string) {
		done := make(owner, 1)
		a.writer.Produce(toRecord(now("cmds", key, key, append(headers, "kind", "shared")...), done))
		require.NoError(t, <-done)
	}
	withdraw := now("cmds", "withdrawn", "", headerCancel, "1")
	withdraw.Offset = 1 << 40
	a.c.cancel(withdraw, []byte("1"))
	send("withdrawn", "mqtt.correlation_data", "1")
	send("late", "mqtt.expiry", "0")
	send("taken")
	collect(t, []string{"taken"}, one)
	for _, want := range []string{"withdrawn  cancelled", "late  expired", "taken one delivered"} {
		until(t, want, func() bool { return len(receipts.of(want)) == 1 })
	}
	a.stop()
	require.Empty(t, a.c.pending.all, "what has ended can't be cancelled")
}

// TestSharedCommandsWaitInKafkaWhileMemoryIsSpent: none is dropped for that, and none comes twice.
func TestSharedCommandsWaitInKafkaWhileMemoryIsSpent(t *testing.T) {
	var lines seen
	a := shareWith(t, cluster(t), zerolog.New(&lines).Level(zerolog.WarnLevel))
	one := dial(t, a.addr, "one", false)
	one.subscribe("$share/g/t/#", 1)
	a.joined(one)
	budget := a.producer.Budget()
	until(t, "receipts are written", func() bool { return budget.InUse() == 0 })
	all := int(budget.Max())
	budget.Take(kafka.Destination{}, all)
	want := a.numbers(0, 6)
	until(t, "a partition waits", func() bool { one.taken(true); return len(lines.of("")) > 0 })
	budget.Give(kafka.Destination{}, all)
	collect(t, want, one)
}

// TestSharedCommandInFlightWithQoS2AtAStopStaysWithItsSession: it is completed when its device is back, and nobody else gets it.
func TestSharedCommandInFlightWithQoS2AtAStopStaysWithItsSession(t *testing.T) {
	t.Parallel() // most of it is waiting
	all := fleetOf(t, 2, toAll)
	a := lasting("a").to(t, all[0].addr, false)
	a.subscribe("$share/g/fleet", 2)
	all[0].write(now("commands", "k", "x", "mqtt.qos", "1"))
	a.ack(a.next(), 0)
	all[0].became("k a delivered")
	all[0].write(now("commands", "k", "in flight", "mqtt.qos", "2"))
	first := a.next()
	require.EqualValues(t, 2, first.qos)
	b := lasting("b").to(t, all[1].addr, false)
	require.NoError(t, all[0].end())
	b.subscribe("$share/g/fleet", 2)
	all[1].write(now("commands", "k", "next", "mqtt.qos", "1"))
	m := b.next()
	require.Equal(t, "next", m.payload)
	b.ack(m, 0)
	a = lasting("a").to(t, all[1].addr, true)
	m = a.next()
	require.Equal(t, first.payload, m.payload)
	b.nothing()
}
