package proxy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/kafka"
)

// toOne sends each command to the device that its key names.
const toOne = `
commands:
  - topic: commands
    publish: devices/{key}/{header.name}
    correlation_data: "{header.id}"
    client: "{key}"
    receipts: receipts
`

// toAll sends each command to everyone.
const toAll = `
commands:
  - topic: commands
    publish: fleet
    correlation_data: "{header.id}"
    receipts: receipts
`

// TestCommandReachesItsDeviceAndItsSenderIsTold is the whole way there and back, for each QoS and answer.
func TestCommandReachesItsDeviceAndItsSenderIsTold(t *testing.T) {
	in := begin(t, 3, toOne)
	d := dial(t, in.addr, "d1", false)
	d.subscribe("devices/d1/#", 2|retainAsPublished)
	other := dial(t, in.addr, "d2", false)
	other.subscribe("devices/#", 2)

	in.write(now("commands", "d1", "{}", "name", "reboot", "id", "1", "mqtt.qos", "0", "mqtt.retain", "true", "mqtt.expiry", "1000", "mqtt.content_type", "t",
		"mqtt.response_topic", "answers/d1", "sluice.x", "y"))
	m := d.next()
	require.Equal(t, delivered{topic: "devices/d1/reboot", payload: "{}", retain: true,
		props: `expiry type=t response=answers/d1 correlation="1" name:reboot id:1`}, m)
	in.became("d1 d1 sent (1)")

	in.write(now("commands", "d1", "one", "name", "x"))
	m = d.next()
	require.Equal(t, delivered{topic: "devices/d1/x", payload: "one", qos: 1, id: m.id, props: "name:x"}, m)
	d.ack(m, 0)
	in.write(now("commands", "d1", "two", "name", "x", "mqtt.qos", "2"))
	m = d.next()
	require.EqualValues(t, 2, m.qos)
	d.complete(m)
	in.write(now("commands", "d1", "three", "name", "x"))
	d.ack(d.next(), 0x87)
	all := in.became("d1 d1 sent (1)", "d1 d1 delivered", "d1 d1 delivered", "d1 d1 rejected 0x87")
	for i, r := range all { // one key, so one partition and one order
		require.EqualValues(t, i, r.Offset)
		require.Equal(t, "commands", r.Topic)
		require.Equal(t, all[0].Partition, r.Partition)
		require.Equal(t, all[0].Instance, r.Instance)
		require.GreaterOrEqual(t, r.Milliseconds, int64(0))
	}
	d.nothing()
	other.nothing()
	in.stop()
}

// TestCommandThatCannotBeSentIsAnsweredFor with the reason, and no device sees any of it.
func TestCommandThatCannotBeSentIsAnsweredFor(t *testing.T) {
	in := begin(t, 3, toOne+`
  - topic: now-or-never
    publish: devices/{key}/x
    client: "{key}"
    offline: drop
    expiry: 60s
    receipts: receipts
`)
	d := dial(t, in.addr, "d1", false)
	d.subscribe("devices/+/x", 1)
	dial(t, in.addr, "d2", false)
	away := dial(t, in.addr, "d3", true)
	away.subscribe("devices/d3/x", 1)
	away.leave()
	old := now("commands", "d1", "x", "name", "x", "id", "old", "mqtt.expiry", "10")
	old.Timestamp = time.Now().Add(-time.Minute)
	older := now("now-or-never", "d1", "x")
	older.Timestamp = time.Now().Add(-2 * time.Minute)
	gone := *old
	gone.Key = []byte("nobody")
	in.write(old, older, &gone,
		now("commands", "d1", "x", "name", "x", "id", "zero", "mqtt.expiry", "0"),
		now("commands", "d1", "x", "name", "x", "id", "bad", "mqtt.qos", "3"),
		now("commands", "d1", "x", "id", "missing"),
		now("commands", "d1", "x", "name", "+", "mqtt.correlation_data", "illegal"),
		now("commands", "null", "x", "name", "x", "mqtt.correlation_data", "keyless"),
		now("commands", "d1", "x", "name", "y", "id", "other topic"),
		now("commands", "d2", "x", "name", "x", "id", "no topic"),
		now("commands", "nobody", "x", "name", "x", "id", "nobody"),
		now("now-or-never", "d3", "x"))
	in.became("d1 d1 expired (old)", "nobody nobody expired (old)", "d1 d1 expired", "d1 d1 expired (zero)", "d1 d1 dropped invalid_header (bad)", "d1 dropped missing_value",
		"d1 dropped illegal_mqtt_topic (illegal)", "dropped missing_value (keyless)", "d1 d1 dropped not_subscribed (other topic)",
		"d2 d2 dropped not_subscribed (no topic)", "nobody nobody offline not_connected (nobody)", "d3 d3 offline not_connected")
	d.nothing()
	require.EqualValues(t, 6, in.value("sluice_command_dropped_total"))
	require.EqualValues(t, 4, in.value("sluice_command_refused_records_total"))
	require.EqualValues(t, 12, in.value("sluice_command_outcomes_total"))
	in.stop()
}

// TestCommandForEveryoneHasAReceiptForEachDevice, none when there is nobody, and one when it ends before it has any.
func TestCommandForEveryoneHasAReceiptForEachDevice(t *testing.T) {
	in := begin(t, 3, toAll)
	in.write(now("commands", "k", "x"))
	in.until("read", func() bool { return in.value("sluice_command_unmatched_records_total") == 1 })
	for i := range 3 {
		dial(t, in.addr, fmt.Sprint("d", i), false).subscribe("fleet", 0)
	}
	in.write(now("commands", "k", "x", "id", "7"), now("commands", "k", "x", "id", "8", "mqtt.expiry", "0"), now("commands", "k", "x", "id", "9", "mqtt.qos", "9"))
	in.became("k d0 sent (7)", "k d1 sent (7)", "k d2 sent (7)", "k expired (8)", "k dropped invalid_header (9)")
	require.EqualValues(t, 3, in.value("sluice_command_matched_devices_total"))
	in.stop()
}

// TestCommandWaitsForADeviceThatComesBack, in Kafka, or is withdrawn in the meantime by its key and correlation data.
func TestCommandWaitsForADeviceThatComesBack(t *testing.T) {
	in := begin(t, 3, toOne)
	d := dial(t, in.addr, "d1", true)
	d.subscribe("devices/d1/#", 1)
	d.leave()
	send := func(id string) { in.write(now("commands", "d1", id, "name", "x", "id", id)) }
	cancel := func(key, id string) { in.write(now("commands", key, "null", headerCancel, id)) }
	for _, id := range []string{"a", "b", "b", "c"} {
		send(id)
	}
	cancel("d2", "a")
	cancel("d1", "none")
	cancel("d1", "b")
	in.until("read", func() bool { return in.value("sluice_command_cancel_records_total", "false") == 3 })
	require.EqualValues(t, 4, in.value("sluice_command_records_total", "routed"))
	require.Zero(t, in.value("sluice_command_matched_devices_total"), "nothing of it is in memory")
	require.Zero(t, in.value("sluice_mqtt_command_bytes"))

	d = dial(t, in.addr, "d1", true)
	first, second := d.next(), d.next()
	require.Equal(t, []string{"a", "c"}, []string{first.payload, second.payload})
	d.nothing()
	in.became("d1 d1 cancelled (b)", "d1 d1 cancelled (b)")
	cancel("d1", "a") // it is sent, so that is too late
	in.until("read", func() bool { return in.value("sluice_command_cancel_records_total") == 4 })
	d.ack(first, 0)
	d.ack(second, 0)
	in.became("d1 d1 cancelled (b)", "d1 d1 cancelled (b)", "d1 d1 delivered (a)", "d1 d1 delivered (c)")
	cancel("d1", "c")
	in.until("read", func() bool { return in.value("sluice_command_cancel_records_total", "false") == 4 })
	in.stop()
}

// TestCommandExpiresWhileItWaits for a device that does not come back in time: it is told once, when the device is
// there.
func TestCommandExpiresWhileItWaits(t *testing.T) {
	t.Parallel()
	in := begin(t, 3, toOne)
	d := dial(t, in.addr, "d1", true)
	d.subscribe("devices/d1/#", 1)
	d.leave()
	written := now("commands", "d1", "x", "name", "x", "id", "1", "mqtt.expiry", "1")
	old := now("commands", "d1", "x", "name", "x", "id", "old", "mqtt.expiry", "1")
	old.Timestamp = time.Now().Add(-time.Minute)
	in.write(written, old, now("commands", "d1", "x", "name", "x", "id", "2"))
	in.until("its time is over", func() bool { return time.Since(written.Timestamp) > time.Second })
	require.Empty(t, in.taken(), "the one that was over from the beginning too")
	d = dial(t, in.addr, "d1", true)
	d.ack(d.next(), 0)
	in.became("d1 d1 expired (1)", "d1 d1 expired (old)", "d1 d1 delivered (2)")
	in.stop()
}

// TestDeviceDoesNotGetItsOwnMessageBack through Kafka, when it asked for that with No Local.
func TestDeviceDoesNotGetItsOwnMessageBack(t *testing.T) {
	in := begin(t, 3, `
publish: [{match: "chat/#", topic: chat, key: "{mqtt.topic}"}]
commands: [{topic: chat, publish: "{header.mqtt.topic}", receipts: receipts}]
`)
	a, b, c := dial(t, in.addr, "a", false), dial(t, in.addr, "b", false), dial(t, in.addr, "c", false)
	a.subscribe("chat/#", 1|noLocal)
	b.subscribe("chat/#", 1|noLocal)
	c.subscribe("chat/#", 0)
	a.publish("chat/room", "hello")
	require.Equal(t, "hello", b.next().payload)
	require.Equal(t, "hello", c.next().payload)
	c.publish("chat/room", "hi")
	for _, d := range []*device{a, b, c} {
		require.Equal(t, delivered{topic: "chat/room", payload: "hi"}, with(d.next(), 0))
	}
	a.nothing()
	b.nothing()
	in.until("receipts", func() bool { return len(in.taken()) >= 2 }) // of c
	for _, d := range []*device{a, b} {
		_ = d.nc.Close() // they never acknowledged
	}
	in.receipts(5)
	in.stop()
}

// with gives m without its packet identifier, with another QoS.
func with(m delivered, qos byte) delivered {
	m.id, m.qos = 0, qos
	return m
}

// TestLargeCommandsArePassedOnWhole: values near what Kafka takes, and headers near what MQTT takes.
func TestLargeCommandsArePassedOnWhole(t *testing.T) {
	t.Parallel()
	in := begin(t, 1, toOne)
	d := dial(t, in.addr, "d1", false)
	d.subscribe("devices/d1/#", 1)
	payload, header := strings.Repeat("p", 700_000), strings.Repeat("h", 65_535)
	in.write(now("commands", "d1", payload, "name", "x", "a", header, "b", header+"!", "mqtt.correlation_data", header))
	m := d.next()
	require.Equal(t, payload, m.payload)
	require.Equal(t, fmt.Sprintf("correlation=%q name:x a:%s", header, header), m.props)
	d.ack(m, 0)
	require.Nil(t, in.receipts(1)[0].CorrelationData, "longer than what a receipt repeats")
	in.stop()
}

// TestOutcomesAreToldFromTheStartOn: also of what is read before it is known which instance looks after the clients' partitions.
func TestOutcomesAreToldFromTheStartOn(t *testing.T) {
	in := prepare(t, 4, toOne)
	in.serve()
	var records []*kafka.Fetched
	var want []string
	for i := range 8 {
		id := fmt.Sprint("d", i)
		records = append(records, now("commands", id, "x", "name", "x"), now("commands", id, "x", "name", "x", "mqtt.qos", "9"))
		want = append(want, fmt.Sprintf("%[1]s %[1]s offline not_connected", id), fmt.Sprintf("%[1]s %[1]s dropped invalid_header", id))
	}
	in.write(records...)
	in.became(want...)
	in.stop()
}
