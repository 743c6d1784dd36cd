package test

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/test/cluster"
)

// device is a connection that said CONNECT, for tests that look at single packets.
type device struct {
	net.Conn
	t       *testing.T
	version byte
}

func connectDevice(t *testing.T, address, clientID string, version byte) *device {
	t.Helper()
	c, err := dialFrom(address, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(30*time.Second)))
	b := []byte{0, 4, 'M', 'Q', 'T', 'T', version, 2, 0, 60}
	if version == 5 {
		b = append(b, 0)
	}
	b = append(binary.BigEndian.AppendUint16(b, uint16(len(clientID))), clientID...)
	d := &device{c, t, version}
	d.send(append([]byte{0x10, byte(len(b))}, b...))
	first, body := d.packet()
	require.Equal(t, byte(0x20), first)
	require.Zero(t, body[1])
	return d
}

func (d *device) send(b []byte) {
	d.t.Helper()
	_, err := d.Write(b)
	require.NoError(d.t, err)
}

// publish sends a PUBLISH with QoS 1.
func (d *device) publish(topic string, id uint16, payload string) {
	d.t.Helper()
	b := append(binary.BigEndian.AppendUint16(nil, uint16(len(topic))), topic...)
	b = binary.BigEndian.AppendUint16(b, id)
	if d.version == 5 {
		b = append(b, 0)
	}
	b = append(b, payload...)
	d.send(append(binary.AppendUvarint([]byte{0x32}, uint64(len(b))), b...))
}

// packet reads the next packet; first is 0 when the server has closed the connection.
func (d *device) packet() (first byte, body []byte) {
	d.t.Helper()
	var head [2]byte
	if _, err := io.ReadFull(d, head[:]); err != nil {
		ne, ok := err.(net.Error)
		require.False(d.t, ok && ne.Timeout(), "the server neither answers nor closes")
		return 0, nil
	}
	require.Less(d.t, head[1], byte(128))
	body = make([]byte, head[1])
	_, err := io.ReadFull(d, body)
	require.NoError(d.t, err)
	return head[0], body
}

const refusingRules = `  - match: ok/#
    topic: %q
  - match: plants/{plant}
    topic: "plant-{plant}"
    key: "{payload.id}"
  - match: few/{name}
    topic: "%s-{name}"
    max_topics: 1
`

// TestRefusalsCarryTheirCode: what can never be stored gets the reason code of the contract with MQTT 5; with 3.1.1
// the connection closes after what was due before has been acknowledged.
func TestRefusalsCarryTheirCode(t *testing.T) {
	kafka := cluster.Shared(t)
	topic := newTopic(t, kafka, 1)
	require.NoError(t, kafka.CreateTopic(topic+"-small", 1, 1, map[string]string{"max.message.bytes": "2000"}))
	s := serve(t, kafka.Brokers(), fmt.Sprintf(refusingRules, topic, topic), "")
	f := func(mqttTopic, payload string, code byte, reason string) {
		t.Helper()
		d := connectDevice(t, s.address, "refused-5", 5)
		d.publish(mqttTopic, 7, payload)
		first, body := d.packet()
		require.Equal(t, byte(0x40), first)
		require.Equal(t, []byte{0, 7, code}, body[:3], "% x", body)
		require.Contains(t, string(body[3:]), reason)
		d.publish("ok/x", 8, "still welcome")
		first, body = d.packet()
		require.Equal(t, byte(0x40), first)
		require.Equal(t, []byte{0, 8}, body)

		old := connectDevice(t, s.address, "refused-4", 4)
		old.publish("ok/x", 1, "first")
		old.publish(mqttTopic, 2, payload)
		first, body = old.packet()
		require.Equal(t, []byte{0x40, 0, 1}, append([]byte{first}, body...))
		first, _ = old.packet()
		require.Zero(t, first, "an MQTT 3.1.1 connection closes")
	}
	f("elsewhere", "x", 0x90, "no rule")
	f("plants/a", "no JSON", 0x99, "not JSON")
	f("plants/a", `{"other": 1}`, 0x99, "missing")
	f("plants/ä", `{"id": 1}`, 0x90, "no legal Kafka topic")
	f("plants/..", `{"id": 1}`, 0x90, "no place in Kafka") // plant-.. is a legal name that does not exist
	f("few/small", incompressible(3000), 0x97, "larger")
	f("few/second", "x", 0x97, "too many")
	require.EqualValues(t, 14, s.metric("sluice_publish_refused_messages_total"))
	budgetIsFree(t, s)
}

// TestGoodMessagesBehindARefusedOneAreStoredOnce: MQTT 3.1.1 has no answer for the refused one, which Kafka refuses when
// the others are on their way; what is stored is acknowledged before the connection closes.
func TestGoodMessagesBehindARefusedOneAreStoredOnce(t *testing.T) {
	kafka := cluster.Shared(t)
	topic := newTopic(t, kafka, 1)
	require.NoError(t, kafka.CreateTopic(topic+"-small", 1, 1, map[string]string{"max.message.bytes": "2000"}))
	s := serve(t, kafka.Brokers(), fmt.Sprintf(refusingRules, topic, topic), "")
	left := map[uint16]bool{}
	for id := uint16(2); id <= 51; id++ {
		left[id] = true
	}
	for range 3 {
		d := connectDevice(t, s.address, "behind", 4)
		d.publish("few/small", 1, incompressible(3000))
		for id := uint16(2); id <= 51; id++ {
			if left[id] {
				d.publish("ok/x", id, fmt.Sprint(id))
			}
		}
		for first, body := d.packet(); first != 0; first, body = d.packet() {
			require.Equal(t, byte(0x40), first)
			delete(left, uint16(body[0])<<8|uint16(body[1]))
		}
	}
	seen := map[string]int{}
	for _, r := range records(t, kafka.Brokers(), topic, 50-len(left)) {
		seen[string(r.Value)]++
		require.Equal(t, 1, seen[string(r.Value)], "%s is stored again", r.Value)
	}
	require.EqualValues(t, 50-len(left), s.metric("sluice_publish_messages_total", `outcome="stored"`))
	budgetIsFree(t, s)
}

// budgetIsFree waits until every message has given its memory back.
func budgetIsFree(t *testing.T, s *instance) {
	t.Helper()
	require.Eventually(t, func() bool { return s.metric("sluice_kafka_budget_used_bytes") == 0 }, patience, 10*time.Millisecond)
}

// TestUnmatchedDropSaysSo: a dropped message is acknowledged as what it is.
func TestUnmatchedDropSaysSo(t *testing.T) {
	kafka := cluster.Shared(t)
	s := serve(t, kafka.Brokers(), oneTopic(newTopic(t, kafka, 1)), "unmatched: drop")
	d := connectDevice(t, s.address, "dropped-5", 5)
	d.publish("elsewhere", 7, "x")
	_, body := d.packet()
	require.Equal(t, []byte{0, 7, 0x10}, body[:3])
	d = connectDevice(t, s.address, "dropped-4", 4)
	d.publish("elsewhere", 7, "x")
	_, body = d.packet()
	require.Equal(t, []byte{0, 7}, body)
	require.EqualValues(t, 2, s.metric("sluice_publish_messages_total", `rule="none"`, `outcome="dropped"`))
}

// TestDeadLetterTakesWhatIsRefused: and only then the device is told that it is stored.
func TestDeadLetterTakesWhatIsRefused(t *testing.T) {
	kafka := cluster.Shared(t)
	topic, dead := newTopic(t, kafka, 1), newTopic(t, kafka, 1)
	require.NoError(t, kafka.CreateTopic(topic+"-small", 1, 1, map[string]string{"max.message.bytes": "2000"}))
	s := serve(t, kafka.Brokers(), fmt.Sprintf(refusingRules, topic, topic), fmt.Sprintf("unmatched: {dead_letter: %q}", dead))
	for version := byte(4); version <= 5; version++ {
		d := connectDevice(t, s.address, "dead", version)
		for id, m := range [][2]string{{"elsewhere", "x"}, {"plants/a", "no JSON"}, {"few/small", incompressible(3000)}} {
			d.publish(m[0], uint16(id+1), m[1])
			_, body := d.packet()
			require.Equal(t, []byte{0, byte(id + 1)}, body)
		}
	}
	var reasons []string
	for _, r := range records(t, kafka.Brokers(), dead, 6) {
		require.Equal(t, "dead", string(r.Key))
		reasons = append(reasons, headersOf(r)["mqtt.topic"]+" "+headersOf(r)["sluice.refused"])
	}
	once := []string{"elsewhere no_rule", "plants/a not_json", "few/small too_large"}
	require.Equal(t, append(once, once...), reasons)
	budgetIsFree(t, s)
}

// incompressible gives a payload of n bytes: Kafka's limits are those of what is compressed.
func incompressible(n int) string {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b) // never fails
	return string(b)
}
