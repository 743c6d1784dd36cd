package test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/test/cluster"
	"sluice/test/internal/wire"
)

// TestPropertiesOfAMessagePassThroughKafka, live to a device at another instance, retained, and as headers of the record:
// of a message and of a will, empty ones too [MQTT-3.3.2-4] [MQTT-3.3.2-15].
func TestPropertiesOfAMessagePassThroughKafka(t *testing.T) {
	besideOthers(t)
	b := &fleetBench{t: t, kafka: cluster.Shared(t)}
	b.telemetry = newTopic(t, b.kafka, 3)
	b.serve(2, fmt.Sprintf("publish: [{match: \"#\", topic: %q}]\ncommands: [{topic: %q, publish: \"{header.mqtt.topic}\", qos: 2}]\n", b.telemetry, b.telemetry))
	here, there := b.instances[0].address, b.instances[1].address
	live, sender := sayHello(t, there, wire.Hello{Version: 5, ID: "live"}), sayHello(t, here, wire.Hello{Version: 5, ID: "sender"})
	require.Equal(t, byte(1), live.subscribe("loop/#", 1|8|0x20)) // Retain As Published, and nothing that was retained: it may come as live too
	want := map[string]string{}                                   // payload formats
	n := 0
	f := func(what, format string, properties ...any) {
		t.Helper()
		n++
		topic := fmt.Sprint("loop/", n)
		want[topic] = format
		same := func(topic string) {
			t.Helper()
			m := gottenMessage{topic, "text", string(wire.Bytes(properties...)), true}
			require.Equal(t, m, live.message(), "%s, live", what)
			later := sayHello(t, here, wire.Hello{Version: 5, ID: "later"})
			require.Zero(t, later.subscribe(topic, 0))
			require.Equal(t, m, later.message(), "%s, retained", what)
			require.NoError(t, later.Close())
		}
		require.Zero(t, sender.publish(wire.Publish{Topic: topic, QoS: 1, Retain: true, Properties: wire.Properties(properties...), Payload: "text"}))
		same(topic)
		lost := sayHello(t, here, wire.Hello{Version: 5, ID: "lost", Will: &wire.Will{Topic: topic + "/will", QoS: 1, Retain: true, Properties: wire.Properties(properties...), Payload: "text"}})
		want[topic+"/will"] = format
		require.NoError(t, lost.Close())
		same(topic + "/will")
	}
	f("Payload Format Indicator 0", "0", 0x01, 0)
	f("Payload Format Indicator 1", "1", 0x01, 1)
	f("an empty Response Topic", "", 0x08, "")
	f("an empty Content Type", "", 0x03, "")
	f("empty Correlation Data", "", 0x09, "")
	f("none", "")
	got := map[string]string{}
	for _, r := range records(t, b.kafka.Brokers(), b.telemetry, len(want)) {
		h := headersOf(r)
		got[h["mqtt.topic"]] = h["mqtt.payload_format"]
	}
	require.Equal(t, want, got)
}

// TestWhatIsAcknowledgedWithRetainIsWhatIsRetained, though no rule takes it: with `unmatched: drop` and `dead_letter` the
// device is told of success, and the older message must not live on [MQTT-3.3.1-5]. Where it is told no, it does.
func TestWhatIsAcknowledgedWithRetainIsWhatIsRetained(t *testing.T) {
	besideOthers(t)
	kafka := cluster.Shared(t)
	data, dead := newTopic(t, kafka, 1), newTopic(t, kafka, 1)
	state := stateTopics(t)
	at := func(rules string) *instance {
		s, _ := member(t, kafka.Brokers(), rules+state)
		s.start()
		return s
	}
	takes := at(fmt.Sprintf("publish: [{match: \"#\", topic: %q}]\n", data))
	other := fmt.Sprintf("publish: [{match: other/#, topic: %q}]\n", data)
	drops, letters, rejects := at(other+"unmatched: drop\n"), at(other+fmt.Sprintf("unmatched: {dead_letter: %q}\n", dead)), at(other)
	for _, s := range []*instance{takes, drops, letters, rejects} {
		s.awaitReady()
	}
	require.Zero(t, sayHello(t, takes.address, wire.Hello{Version: 5, ID: "first"}).publish(wire.Publish{Topic: "fence", Retain: true, QoS: 1, Payload: "x"}))
	n := 0
	f := func(s *instance, code byte, qos byte, retained string) {
		t.Helper()
		n++
		message := wire.Publish{Topic: fmt.Sprint("state/", n), Retain: true, QoS: 1, Payload: "old"}
		require.Zero(t, sayHello(t, takes.address, wire.Hello{Version: 5, ID: "first"}).publish(message))
		reads := func() (payload string) {
			d := sayHello(t, s.address, wire.Hello{Version: 5, ID: "reader"})
			require.Zero(t, d.subscribe(message.Topic, 0))
			require.Zero(t, d.subscribe("fence", 0)) // retained too, and handed out after the other
			for m := d.message(); m.topic != "fence"; m = d.message() {
				payload = m.payload
			}
			require.NoError(t, d.Close())
			return payload
		}
		await(t, func() bool { return reads() == "old" }, func() string { return "the first one does not come to the other instances" })
		message.QoS, message.Payload = qos, "new"
		require.Equal(t, code, sayHello(t, s.address, wire.Hello{Version: 5, ID: "second"}).publish(message))
		require.Equal(t, retained, reads())
		message.Payload = "" // which removes it, if it is taken
		require.Equal(t, code, sayHello(t, s.address, wire.Hello{Version: 5, ID: "second"}).publish(message))
		require.Equal(t, map[string]string{"new": "", "old": "old"}[retained], reads())
	}
	for qos := byte(1); qos <= 2; qos++ {
		f(drops, map[byte]byte{1: 0x10, 2: 0}[qos], qos, "new")
		f(letters, 0, qos, "new")
		f(rejects, 0x90, qos, "old")
	}
}
