package test

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/test/cluster"
	"sluice/test/load"
)

// TestStopLeavesInKafkaWhatWasNotDelivered: commands that a stop interrupts, of connected devices and of stored sessions,
// have no receipt, and are delivered after the next start.
func TestStopLeavesInKafkaWhatWasNotDelivered(t *testing.T) {
	besideOthers(t)
	b := serveCommands(t, cluster.Shared(t), "", "")
	f, w := b.start(&load.CommandFleet{Devices: 3, QoS: 1, Reconnect: true, ReceiveMaximum: 2})
	f.Hold(0)
	f.Leave(1)
	for i := range 15 {
		w.Write(i % 3)
	}
	b.flush(w)
	good := w.Written(onlyDevice(2))
	delivered(t, f, good)
	b.outcome("delivered", good)
	await(t, func() bool { return b.metric("sluice_kafka_consumer_lag_records") == 0 }, func() string { return "all is read" })
	require.Zero(t, b.terminate(), b.log)
	require.Len(t, b.receipts.All(), 5)
	b.instance.start()
	b.awaitReady()
	require.NoError(t, f.Release(0))
	b.returns(f, 1)
	delivered(t, f, w.Written(nil))
	require.Equal(t, map[string]int{"delivered": 15}, b.settled(w.Written(nil)).Outcomes)
}

// subscribe asks for one filter with QoS 2.
func (d *device) subscribe(filter string) {
	d.t.Helper()
	b := []byte{0, 1}
	if d.version == 5 {
		b = append(b, 0)
	}
	b = append(binary.BigEndian.AppendUint16(b, uint16(len(filter))), filter...)
	d.send(append([]byte{0x82, byte(len(b) + 1)}, append(b, 2)...))
	first, body := d.packet()
	require.Equal(d.t, byte(0x90), first)
	require.Equal(d.t, byte(2), body[len(body)-1])
}

// receipt waits for the n-th receipt and gives it.
func (b *commandBench) receipt(n int) load.Receipt {
	b.t.Helper()
	await(b.t, func() bool { return len(b.receipts.All()) >= n }, func() string { return fmt.Sprint(len(b.receipts.All())) })
	require.Empty(b.t, b.receipts.Errors())
	require.Len(b.t, b.receipts.All(), n)
	return b.receipts.All()[n-1]
}

// TestEveryOutcomeHasItsReceipt: those that need a device with a will of its own, or a record that makes no command.
func TestEveryOutcomeHasItsReceipt(t *testing.T) {
	besideOthers(t)
	b := serveCommands(t, cluster.Shared(t), "    publish: d/{header.name}\n    client: \"{header.device}\"", "")
	// Who looks after a partition of the clients tells of what reaches no device: a record that is read before anybody does
	// has no receipt yet.
	await(t, func() bool { return strings.Contains(b.log.String(), `-owners","gained"`) }, b.log.String)
	n := 0
	f := func(want string, key, value []byte, headers ...kgo.RecordHeader) {
		t.Helper()
		n++
		b.produce(&kgo.Record{Key: key, Value: value, Headers: headers})
		r := b.receipt(n)
		require.Equal(t, want, fmt.Sprintf("%s %d %s", r.Outcome, r.Code, r.Reason))
		require.Equal(t, string(key), string(r.RecordKey))
	}
	name, device := header("name", "x"), header("device", "d1")
	f("dropped 0 missing_value", []byte("k"), nil, device)
	f("dropped 0 missing_value", nil, nil, name)
	f("dropped 0 illegal_mqtt_topic", []byte("k"), nil, device, header("name", "+"))
	f("dropped 0 invalid_header", []byte("k"), nil, name, device, header("mqtt.qos", "3"))
	f("dropped 0 invalid_header", []byte("k"), nil, name, device, header("mqtt.expiry", "soon"))
	f("offline 0 not_connected", nil, nil, name, device)
	f("offline 0 not_connected", []byte("k\xff"), nil, name, device, header("mqtt.correlation_data", "\xff"))
	require.Equal(t, []byte("k\xff"), b.receipts.All()[n-1].KeyBase64)
	require.Equal(t, []byte("\xff"), b.receipts.All()[n-1].CorrelationDataBase64)

	d := connectDevice(t, b.address, "d1", 5)
	f("dropped 0 not_subscribed", []byte("k"), nil, name, device)
	d.subscribe("d/#")
	n++
	b.produce(&kgo.Record{Headers: []kgo.RecordHeader{name, device}})
	_, body := d.packet()
	require.Equal(t, "d/x", string(body[2:5]))
	d.send([]byte{0x40, 3, body[5], body[6], 0x97})
	r := b.receipt(n)
	require.Equal(t, "rejected 151", fmt.Sprintf("%s %d", r.Outcome, r.Code))
	n++
	b.produce(&kgo.Record{Headers: []kgo.RecordHeader{name, device, header("mqtt.qos", "2")}})
	_, body = d.packet()
	d.send([]byte{0x50, 3, body[5], body[6], 0x83})
	r = b.receipt(n)
	require.Equal(t, "rejected 131", fmt.Sprintf("%s %d", r.Outcome, r.Code))
	n++
	b.produce(&kgo.Record{Headers: []kgo.RecordHeader{name, device}})
	first, _ := d.packet()
	require.Equal(t, byte(0x32), first, "a window that is free again")
	require.NoError(t, d.Close())
	require.Equal(t, "offline not_acknowledged", b.receipt(n).Outcome+" "+b.receipt(n).Reason)
}
