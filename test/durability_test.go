package test

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/test/cluster"
	"sluice/test/internal/wire"
	"sluice/test/load"
	"sluice/test/netem"
)

// runID tells the runs of one test process apart.
func runID() string { return fmt.Sprintf("r%x", rand.Uint32()) }

// within runs the fleet for d.
func within(t testing.TB, f *load.Fleet, d time.Duration) *load.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	return f.Publish(ctx)
}

func verify(t testing.TB, brokers []string, run string, r *load.Result, topics ...string) load.Report {
	t.Helper()
	report, err := load.Verify(t.Context(), brokers, run, r, topics...)
	require.NoError(t, err)
	t.Logf("%s; %d reconnects, ack p50 %v p99 %v", report, r.Reconnects, r.Quantile(.5), r.Quantile(.99))
	return report
}

// exact requires that Kafka has every acknowledged message once, in order, each device in one partition.
func exact(t testing.TB, r load.Report) {
	t.Helper()
	require.Positive(t, r.Expected)
	require.Equal(t, load.Report{InKafka: r.Expected, Expected: r.Expected}, r)
}

// TestEveryAcknowledgedMessageIsStoredOnce: the plain case under load, without any fault.
func TestEveryAcknowledgedMessageIsStoredOnce(t *testing.T) {
	kafka := cluster.Shared(t)
	topic := newTopic(t, kafka, 12)
	s := serve(t, kafka.Brokers(), oneTopic(topic), "")
	for _, qos := range []byte{1, 2} {
		for _, version := range []byte{4, 5} {
			t.Run(fmt.Sprintf("qos%d v%d", qos, version), func(t *testing.T) {
				f := &load.Fleet{Addr: s.address, Run: runID(), Devices: 50, QoS: qos, Version: version, Size: 256}
				r := within(t, f, either(time.Second, 60*time.Second))
				require.Empty(t, r.Errors)
				exact(t, verify(t, kafka.Brokers(), f.Run, r, topic))
			})
		}
	}
}

// TestNothingAcknowledgedIsLostByKill: kill -9 of the process under load, again and again. What was acknowledged is
// in Kafka; repeats are the devices' own, since QoS 1 sends again what was not acknowledged.
func TestNothingAcknowledgedIsLostByKill(t *testing.T) {
	besideOthers(t)
	kafka := cluster.Shared(t)
	topic := newTopic(t, kafka, 12)
	s := serve(t, kafka.Brokers(), oneTopic(topic), "")
	f := &load.Fleet{Addr: s.address, Run: runID(), Devices: 50, QoS: 1, Size: 256, Reconnect: true}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	result := make(chan *load.Result, 1)
	go func() { result <- f.Publish(ctx) }() // ends after cancel
	for range either(3, 20) {
		enough := f.Acked() + 2000 + rand.IntN(either(2000, 100_000))
		require.Eventually(t, func() bool { return f.Acked() > enough }, 30*time.Second, time.Millisecond)
		s.kill()
		s.start()
		s.awaitReady()
	}
	cancel()
	r := <-result
	require.Empty(t, r.Errors)
	report := verify(t, kafka.Brokers(), f.Run, r, topic)
	t.Logf("%d of %d acknowledged messages missing after %d kills", report.Lost, report.Expected, either(3, 20))
	require.Zero(t, report.Lost)
	require.Zero(t, report.Spread)
}

// outage is one way for Kafka to be away.
type outage struct {
	name       string
	short      []byte // the QoS of the short version
	begin, end func(t *testing.T)
}

// TestKafkaAwayLosesNothing: Kafka dies, or the network to it swallows every byte, under load. Nothing is acknowledged
// meanwhile, PINGREQ is answered, readiness says no; afterwards everything is there once and in order.
func TestKafkaAwayLosesNothing(t *testing.T) {
	besideOthers(t)
	var link *netem.Proxy
	kafka := cluster.Need(t, cluster.Config{Own: true, Advertise: func(_ int, addr string) string {
		var err error
		link, err = netem.New(addr)
		require.NoError(t, err)
		return link.Addr()
	}})
	t.Cleanup(func() { require.NoError(t, link.Close()) })
	brokers := []string{link.Addr()}
	outages := []outage{
		{"kill -9", []byte{2}, func(t *testing.T) { require.NoError(t, kafka.Kill(0)) }, func(t *testing.T) { require.NoError(t, kafka.Restart(0)) }},
		{"swallowed packets", []byte{1}, func(*testing.T) { link.Swallow() }, func(t *testing.T) { require.NoError(t, link.Heal()) }},
	}
	for _, o := range outages {
		t.Run(o.name, func(t *testing.T) {
			topic := newTopic(t, kafka, 12)
			s := serve(t, brokers, oneTopic(topic), "  producer: {max_in_flight_bytes: 64MiB}")
			for _, qos := range either(o.short, []byte{1, 2}) {
				away(t, s, kafka, topic, qos, o)
			}
		})
	}
}

func away(t *testing.T, s *instance, kafka *cluster.Cluster, topic string, qos byte, o outage) {
	t.Helper()
	// In the long version the budget is spent before Kafka is back, and connections are paused.
	f := &load.Fleet{Addr: s.address, Run: runID(), Devices: either(50, 500), QoS: qos, Version: 4 + qos%2, Window: 256, Size: 256, Rate: 2000, Ping: true, Drain: 2 * time.Minute}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	result := make(chan *load.Result, 1)
	go func() { result <- f.Publish(ctx) }() // ends after cancel
	require.Eventually(t, func() bool { return f.Acked() > 2000 }, patience, 10*time.Millisecond)
	idle := s.rss()
	o.begin(t)
	require.Eventually(t, func() bool { return s.ready() == http.StatusServiceUnavailable }, patience, 50*time.Millisecond, "readiness must say no")
	acked, peak, paused := f.Acked(), int64(0), 0.0
	length := either(6*time.Second, 40*time.Second)
	for end := time.Now().Add(length); time.Now().Before(end); {
		peak, paused = max(peak, s.rss()), max(paused, s.metric("sluice_mqtt_paused_connections"))
		<-time.After(100 * time.Millisecond) // samples over the length of the outage
	}
	require.Equal(t, acked, f.Acked(), "nothing is acknowledged while Kafka is away")
	require.EqualValues(t, 0, s.metric("sluice_mqtt_recovered_panics_total"))
	o.end(t)
	require.Eventually(t, func() bool { return s.ready() == http.StatusOK }, time.Minute, 50*time.Millisecond, "readiness must come back")
	require.Eventually(t, func() bool { return f.Acked() > acked+2000 }, time.Minute, 10*time.Millisecond)
	cancel()
	r := <-result
	require.Empty(t, r.Errors)
	t.Logf("QoS %d: worst PINGRESP %v, memory %d MB before, %d MB at most during the outage, %.0f of %d connections paused", qos, r.WorstPing, idle>>20, peak>>20, paused, f.Devices)
	require.Less(t, peak, int64(64+64)<<20+idle, "memory stays inside the budget plus 64 MB")
	require.Less(t, r.WorstPing, length/2, "PINGRESP does not wait for Kafka")
	exact(t, verify(t, kafka.Direct(), f.Run, r, topic))
}

// TestMissingTopicDelaysNobodyElse: messages for a Kafka topic that was deleted, or never existed, don't hold up
// messages for others.
func TestMissingTopicDelaysNobodyElse(t *testing.T) {
	kafka := cluster.Need(t, cluster.Config{Own: true})
	healthy, doomed := newTopic(t, kafka, 3), newTopic(t, kafka, 3)
	rules := oneTopic(healthy) + fmt.Sprintf("  - match: doomed/{d}\n    topic: %q\n  - match: made/{name}\n    topic: \"never-{name}\"\n", doomed)
	s := serve(t, kafka.Brokers(), rules, "")
	publishOne := func(topic string) *load.Result {
		f := &load.Fleet{Addr: s.address, Run: runID(), Devices: 1, QoS: 1, Window: 1, Topic: topic, Drain: patience}
		return within(t, f, 300*time.Millisecond)
	}
	r := publishOne("made/nothing")
	require.Zero(t, r.Acked)
	require.Positive(t, r.Refused, "a topic that never existed is refused for good")

	stuck := &load.Fleet{Addr: s.address, Run: runID(), Devices: 5, QoS: 1, Topic: "doomed/%d", Drain: time.Second}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan *load.Result, 1)
	go func() { done <- stuck.Publish(ctx) }() // ends after cancel
	require.Eventually(t, func() bool { return stuck.Acked() > 100 }, patience, 10*time.Millisecond)
	require.NoError(t, kafka.DeleteTopic(doomed))
	before := -1
	require.Eventually(t, func() bool { // until the deletion has taken effect
		was := before
		before = stuck.Acked()
		return was == before
	}, time.Minute, 500*time.Millisecond)

	f := &load.Fleet{Addr: s.address, Run: runID(), Devices: 10, QoS: 1}
	r = within(t, f, either(2*time.Second, 20*time.Second))
	require.Empty(t, r.Errors)
	exact(t, verify(t, kafka.Brokers(), f.Run, r, healthy))
	cancel()
	<-done
}

// TestStopWaitsForAcknowledgements: SIGTERM under load ends with exit code 0, and everything that was acknowledged is
// stored, once.
func TestStopWaitsForAcknowledgements(t *testing.T) {
	besideOthers(t)
	kafka := cluster.Shared(t)
	topic := newTopic(t, kafka, 6)
	s := serve(t, kafka.Brokers(), oneTopic(topic), "")
	f := &load.Fleet{Addr: s.address, Run: runID(), Devices: 20, QoS: 1, Drain: time.Second}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	result := make(chan *load.Result, 1)
	go func() { result <- f.Publish(ctx) }() // ends with its connections
	require.Eventually(t, func() bool { return f.Acked() > 1000 }, patience, 5*time.Millisecond)
	require.Zero(t, s.terminate(), s.log)
	cancel()
	r := <-result
	for _, err := range r.Errors {
		require.ErrorContains(t, err, "DISCONNECT 8b", "MQTT 5 devices are told that the server shuts down")
	}
	require.Len(t, r.Errors, 20)
	report := verify(t, kafka.Brokers(), f.Run, r, topic)
	require.Zero(t, report.Lost)
	require.Zero(t, report.Twice)
	require.Zero(t, report.Disordered)
}

// TestRepeatsWhileKafkaStandsStillAreOneMessage: clients that send again each second do so while Kafka answers nothing.
// Each message is one record and has one PUBACK.
func TestRepeatsWhileKafkaStandsStillAreOneMessage(t *testing.T) {
	besideOthers(t)
	kafka := cluster.Need(t, cluster.Config{Own: true})
	topic := newTopic(t, kafka, 1)
	s := serve(t, kafka.Brokers(), oneTopic(topic), "")
	for _, version := range []byte{4, 5} {
		conn, err := dialDevice(t.Context(), s.address, int(version))
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
		in := bufio.NewReader(conn)
		next := func() (byte, []byte) {
			first, body, err := readRaw(in)
			require.NoError(t, err)
			return first, body
		}
		send := func(packet []byte) {
			_, err := conn.Write(packet)
			require.NoError(t, err)
		}
		publish := func(id uint16, dup bool) {
			send(wire.Publish{Topic: "devices/d/telemetry/m", QoS: 1, ID: id, Dup: dup, Payload: fmt.Sprint(version, id)}.Packet(version))
		}
		send(rawConnect{version: version, id: "repeats", clean: true}.packet())
		first, _ := next()
		require.EqualValues(t, wire.CONNACK, first)

		require.NoError(t, kafka.Pause(0))
		const messages = 10
		for try := range 20 {
			for id := uint16(1); id <= messages; id++ {
				publish(id, try > 0)
			}
		}
		send(wire.Packet(wire.PINGREQ))
		first, _ = next()
		require.EqualValues(t, wire.PINGRESP, first, "nothing is acknowledged, and everything is read")
		require.NoError(t, kafka.Resume(0))
		publish(messages+1, false)
		for id := uint16(1); id <= messages+1; id++ {
			first, body := next()
			require.EqualValues(t, wire.PUBACK, first)
			require.Equal(t, id, binary.BigEndian.Uint16(body))
		}
	}
	var want, got []string
	for _, version := range []byte{4, 5} {
		for id := 1; id <= 11; id++ {
			want = append(want, fmt.Sprint(version, id))
		}
	}
	for _, r := range records(t, kafka.Brokers(), topic, len(want)) {
		got = append(got, string(r.Value))
	}
	require.Equal(t, want, got)
}
