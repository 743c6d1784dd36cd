package test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/test/cluster"
	"sluice/test/load"
)

// leaves makes a device say DISCONNECT, and waits until nothing is sent to it any more: what was is delivered when it is back,
// whatever became of it since.
func (b *commandBench) leaves(f *load.CommandFleet, device int) {
	b.t.Helper()
	connected := func() float64 { return b.metric("sluice_mqtt_connections") }
	before := connected()
	f.Leave(device)
	await(b.t, func() bool { return connected() < before }, func() string { return fmt.Sprint(connected(), " are connected") })
}

// returns makes a device connect again.
func (b *commandBench) returns(f *load.CommandFleet, device int) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	require.NoError(b.t, f.Return(ctx, device))
}

// outcome requires that all commands end with one outcome.
func (b *commandBench) outcome(want string, commands []load.Command) {
	b.t.Helper()
	require.NotEmpty(b.t, commands)
	require.Equal(b.t, map[string]int{want: len(commands)}, b.settled(commands).Outcomes)
}

// TestACommandIsNotDeliveredAfterItsTime: what expires while the device is away, or while it does not acknowledge, has
// a receipt that says so and never arrives; what lasts longer arrives with the seconds that are left.
func TestACommandIsNotDeliveredAfterItsTime(t *testing.T) {
	b := serveCommands(t, cluster.Shared(t), "    qos: 2", "")
	for qos := byte(1); qos <= 2; qos++ {
		f, w := b.start(&load.CommandFleet{QoS: qos, Keep: true, ReceiveMaximum: 2})
		b.leaves(f, 0)
		for range 5 {
			w.Write(0, header("mqtt.expiry", "1"))
		}
		b.flush(w)
		short := w.Written(nil)
		w.Write(0, header("mqtt.expiry", "600"))
		begin := time.Now() // its time has begun
		w.Write(0)          // for ever
		b.flush(w)
		await(t, func() bool { return time.Since(begin) > 1500*time.Millisecond }, func() string { return "their time passes" })
		waited := time.Since(begin)
		b.returns(f, 0)
		lasting := w.Written(nil)[5:]
		delivered(t, f, lasting)
		b.outcome("expired", short)
		require.Equal(t, 2, f.Received())
		ms := f.Messages(0)
		require.True(t, ms[0].HasExpiry && !ms[1].HasExpiry)
		require.LessOrEqual(t, ms[0].Expiry, uint32(600-waited/time.Second))
		require.Greater(t, ms[0].Expiry, uint32(500))
		b.outcome("delivered", lasting)
		b.expiresInTheWindow(f, w)
	}
}

// expiresInTheWindow fills the window of a device that does not acknowledge: what waits behind it expires.
func (b *commandBench) expiresInTheWindow(f *load.CommandFleet, w *load.CommandWriter) {
	b.t.Helper()
	before := len(w.Written(nil))
	f.Hold(0)
	w.Write(0)
	w.Write(0)
	b.flush(w)
	w.Write(0, header("mqtt.expiry", "1"))
	b.flush(w)
	fresh := w.Written(nil)[before:]
	b.outcome("expired", fresh[2:])
	require.NoError(b.t, f.Release(0))
	delivered(b.t, f, fresh[:2])
	b.outcome("delivered", fresh[:2])
	require.LessOrEqual(b.t, f.MaxUnacked(0), 2)
	require.Zero(b.t, f.Report(fresh[:2]).Twice)
	require.Equal(b.t, 1, f.Report(fresh).Lost, "the expired one never comes")
}

// TestACommandsAgeCountsFromItsRecord: one that waited in Kafka is not younger for it.
func TestACommandsAgeCountsFromItsRecord(t *testing.T) {
	besideOthers(t)
	b := serveCommands(t, cluster.Shared(t), "    expiry: 300s\n    client: \"{key}\"", "")
	f, _ := b.start(&load.CommandFleet{QoS: 1, Keep: true})
	b.produce(&kgo.Record{Key: []byte(f.ClientID(0)), Value: []byte("late"), Timestamp: time.Now().Add(-301 * time.Second)},
		&kgo.Record{Key: []byte(f.ClientID(0)), Value: []byte("in time"), Timestamp: time.Now().Add(-100 * time.Second)})
	await(t, func() bool { return len(b.receipts.All()) == 2 }, func() string { return fmt.Sprint(b.receipts.All()) })
	for _, r := range b.receipts.All() {
		if r.Outcome == "expired" {
			require.GreaterOrEqual(t, r.Milliseconds, int64(301_000))
		} else {
			require.Equal(t, "delivered", r.Outcome)
			require.GreaterOrEqual(t, r.Milliseconds, int64(100_000))
		}
	}
	ms := f.Messages(0)
	require.Len(t, ms, 1)
	require.Equal(t, "in time", string(ms[0].Payload))
	require.LessOrEqual(t, ms[0].Expiry, uint32(200))
	require.Greater(t, ms[0].Expiry, uint32(100))
}

// produce writes records to the command topic, and waits for Kafka.
func (b *commandBench) produce(records ...*kgo.Record) {
	b.t.Helper()
	c, err := kgo.NewClient(kgo.SeedBrokers(b.kafka.Brokers()...), kgo.DefaultProduceTopic(b.topic))
	require.NoError(b.t, err)
	defer c.Close()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	require.NoError(b.t, c.ProduceSync(ctx, records...).FirstErr())
}

// TestACancelledCommandIsNeverDelivered: cancelled while the device is away. A cancellation that comes after the
// delivery, has another key or other correlation data changes nothing.
func TestACancelledCommandIsNeverDelivered(t *testing.T) {
	besideOthers(t)
	b := serveCommands(t, cluster.Shared(t), "", "")
	f, w := b.start(&load.CommandFleet{Devices: 2, QoS: 1})
	correlation := func(id string) kgo.RecordHeader { return header("mqtt.correlation_data", id) }
	cancel := func(device int, id string) *kgo.Record {
		return &kgo.Record{Key: []byte(f.ClientID(device)), Headers: []kgo.RecordHeader{header("mqtt.cancel", id)}}
	}
	w.Write(0, correlation("done"))
	b.flush(w)
	done := w.Written(nil)
	b.outcome("delivered", done)
	b.leaves(f, 0)
	for _, id := range []string{"stays", "goes", "goes too"} {
		w.Write(0, correlation(id))
	}
	b.flush(w)
	b.produce(cancel(0, "done"), cancel(0, "goes"), cancel(0, "goes too"), cancel(1, "stays"), cancel(0, "never was"))
	waiting := w.Written(nil)[1:]
	cancels := func() float64 { return b.metric("sluice_command_cancel_records_total", `found="false"`) }
	await(t, func() bool { return cancels() == 5 }, func() string { return fmt.Sprint(cancels(), " read: those that wait do so in Kafka") })
	b.returns(f, 0)
	b.outcome("cancelled", waiting[1:])
	delivered(t, f, waiting[:1])
	b.outcome("delivered", waiting[:1])
	require.Equal(t, 2, f.Received())
	require.Len(t, b.receipts.All(), 4, "a cancellation has no receipt of its own")
}

// TestACommandForAnAbsentDevice: a rule that names its client tells that it is not there. With keep a stored session
// gets what it missed, in order; with drop it does not.
func TestACommandForAnAbsentDevice(t *testing.T) {
	besideOthers(t)
	kafka := cluster.Shared(t)
	for _, offline := range []string{"keep", "drop"} {
		t.Run(offline, func(t *testing.T) {
			b := serveCommands(t, kafka, "    client: \"{key}\"\n    offline: "+offline, "")
			f, w := b.start(&load.CommandFleet{Devices: 3, QoS: 1})
			stranger := &load.CommandFleet{Run: runID() + "absent", Devices: 1}
			toStranger, err := load.NewCommandWriter(stranger, kafka.Brokers(), b.topic)
			require.NoError(t, err)
			t.Cleanup(toStranger.Close)
			toStranger.Write(0)
			b.flush(toStranger)
			b.outcome("offline", toStranger.Written(nil))

			b.leaves(f, 0)
			f.Vanish(1)
			b.stream(w, 200, time.Second, nil)
			commands := w.Written(onlyDevice(2))
			delivered(t, f, commands)
			b.outcome("delivered", commands)
			missed := append(w.Written(onlyDevice(0)), w.Written(onlyDevice(1))...)
			if offline == "drop" {
				b.outcome("offline", missed)
			}
			b.returns(f, 0)
			b.returns(f, 1)
			require.Zero(t, f.NewSessions())
			b.stream(w, 200, 200*time.Millisecond, nil)
			later := w.Written(nil)
			if offline == "drop" {
				later = later[len(missed)+len(commands):]
				delivered(t, f, later)
				require.Equal(t, len(commands)+len(later), f.Received(), "what was missed never comes")
				return
			}
			require.Equal(t, load.CommandReport{Written: len(later), Received: len(later)}, delivered(t, f, later))
			b.outcome("delivered", later)
		})
	}
}

// TestSessionsThatReturnReadLittleMoreThanTheyGet: what was in flight and what waits is read from Kafka once for all of them,
// though they come back one after the other.
func TestSessionsThatReturnReadLittleMoreThanTheyGet(t *testing.T) {
	besideOthers(t)
	b := serveCommands(t, cluster.Shared(t), "", "")
	const devices, inFlight, waiting = 100, 5, 30
	f, w := b.start(&load.CommandFleet{Devices: devices, QoS: 1})
	w.Size = 1024
	write := func(each int) {
		for range each {
			for device := range devices {
				w.Write(device)
			}
		}
		b.flush(w)
	}
	for device := range devices {
		f.Hold(device)
	}
	write(inFlight)
	await(t, func() bool { return f.Received() == devices*inFlight }, func() string { return fmt.Sprint(f.Received(), " received") })
	for device := range devices {
		f.Leave(device)
		require.NoError(t, f.Release(device))
	}
	await(t, func() bool { return b.metric("sluice_mqtt_connections") == 0 }, func() string { return "nobody is connected" })
	write(waiting)
	commands := w.Written(nil)
	before, since := b.readBytes(), time.Now()
	await(t, func() bool { // it has read them as they came, as an instance and for the fleet's retained messages
		if now := b.readBytes(); now-before > 100*w.Size {
			before, since = now, time.Now()
		}
		return time.Since(since) > time.Second
	}, func() string { return "commands are still read" })
	before = b.readBytes()
	for device := range devices {
		b.returns(f, device)
	}
	delivered(t, f, commands)
	read, got := b.readBytes()-before, devices*(inFlight+waiting)*w.Size
	t.Logf("%d sessions got %d bytes of payload; the instance read %d, %.2f times as many", devices, got, read, float64(read)/float64(got))
	require.LessOrEqual(t, read, 4*got)
	b.outcome("delivered", commands)
}

// readBytes is how much the process has read, from files and connections.
func (s *instance) readBytes() (n int) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", s.cmd.Process.Pid))
	require.NoError(s.t, err)
	_, err = fmt.Sscanf(string(text), "rchar: %d", &n)
	require.NoError(s.t, err)
	return n
}
