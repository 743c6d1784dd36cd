package test

import (
	"encoding/binary"
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/test/cluster"
	"sluice/test/internal/mosquitto"
)

// TestBridgeOfMosquitto: a broker on site bridges to Sluice, with its defaults and in the other versions that it speaks. What
// it is told goes into Kafka, commands come back through it, and it stays connected although it tells its state in a topic
// that no rule takes.
func TestBridgeOfMosquitto(t *testing.T) {
	besideOthers(t)
	kafka := cluster.Shared(t)
	for _, version := range []string{"", "bridge_protocol_version mqttv31\n", "bridge_protocol_version mqttv50\n"} {
		up, down := newTopic(t, kafka, 1), newTopic(t, kafka, 1)
		s := serve(t, kafka.Brokers(), fmt.Sprintf("  - match: open/up/#\n    topic: %q\n", up),
			fmt.Sprintf("acl: [{allow: [publish, subscribe], filter: \"open/#\"}]\ncommands:\n  - topic: %q\n    publish: \"{key}\"\n    qos: 1\n", down))
		site := mosquitto.Start(t, os.Getenv("SLUICE_TEST_CLIENTS") == "required",
			fmt.Sprintf("connection cloud\naddress %s\n%stopic open/up/# out 1\ntopic open/down/# in 1\n", s.address, version))
		local := connectDevice(t, site, "local", 4)
		local.send(subscribe311("open/down/#"))
		first, _ := local.packet()
		require.Equal(t, byte(0x90), first, "SUBACK")

		await(t, func() bool { return s.metric("sluice_mqtt_subscriptions") == 1 }, s.log.String)
		for id := range uint16(20) {
			local.publish("open/up/x", id+1, fmt.Sprint(id))
			_, body := local.packet()
			require.Equal(t, []byte{0, byte(id + 1)}, body)
		}
		for i, r := range records(t, kafka.Brokers(), up, 20) {
			require.Equal(t, fmt.Sprint(i), string(r.Value))
		}
		writer, err := kgo.NewClient(kgo.SeedBrokers(kafka.Brokers()...))
		require.NoError(t, err)
		require.NoError(t, writer.ProduceSync(t.Context(), &kgo.Record{Topic: down, Key: []byte("open/down/x"), Value: []byte("open")}).FirstErr())
		writer.Close()
		first, body := local.packet()
		require.Equal(t, byte(0x30), first, "PUBLISH")
		require.Equal(t, "open/down/xopen", string(body[2:]))
		require.Positive(t, s.metric("sluice_mqtt_bridge_states_total"))
		_, metrics := s.get("/metrics")
		require.NotContains(t, metrics, "sluice_mqtt_disconnects_total{", "it connected once")
		require.NotContains(t, metrics, "sluice_publish_refused_messages_total{")
	}
}

// subscribe311 is a SUBSCRIBE of MQTT 3.1.1 with QoS 0.
func subscribe311(filter string) []byte {
	b := append(binary.BigEndian.AppendUint16([]byte{0, 1}, uint16(len(filter))), filter...)
	return append([]byte{0x82, byte(len(b) + 1)}, append(b, 0)...)
}
