package proxy

import (
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/kafka"
)

// TestReplayBecomesLiveWithoutAGap: devices return again and again while commands come on and on, at several instances
// that are not equally far. Each gets each command once, in the order of its partition.
func TestReplayBecomesLiveWithoutAGap(t *testing.T) {
	t.Parallel()
	all := fleetOf(t, 3, toOne+"limits: {commands_in_flight: 7, commands_queued: 20}\n")
	const devices, n = 4, 300
	for i := range devices {
		d := lasting(fmt.Sprint("d", i)).to(t, all[i%3].addr, false)
		d.subscribe("devices/+/x", 2)
		d.leave()
	}
	done := make(chan error, devices)
	for i := range devices {
		go func() { // ends with what it has got
			err := errors.New("not connected")
			defer func() { done <- err }()
			err = returning(t, all, fmt.Sprint("d", i), n)
		}()
	}
	for i := range n / 10 {
		for d := range devices {
			var burst []*kafka.Fetched
			for j := range 10 {
				burst = append(burst, now("commands", fmt.Sprint("d", d), fmt.Sprint(10*i+j), "name", "x", "mqtt.qos", fmt.Sprint(1+j%2)))
			}
			all[0].write(burst...)
		}
	}
	all[0].until("all are answered for", func() bool { return len(all[0].taken()) >= devices*n })
	for _, in := range all {
		in.stop()
	}
	for range devices {
		require.NoError(t, <-done)
	}
	all[0].receipts(devices * n)
}

// TestCommandsWrittenWhileNobodyServesWaitToo, and those that were withdrawn or have expired in the meantime are told of
// when the device returns, though no process has read it when it happened.
func TestCommandsWrittenWhileNobodyServesWaitToo(t *testing.T) {
	t.Parallel()
	in := begin(t, 3, toOne)
	d := lasting("d1").to(t, in.addr, false)
	d.subscribe("devices/+/x", 1)
	d.leave()
	in.stop()
	over := now("commands", "d1", "x", "name", "x", "id", "over", "mqtt.expiry", "1")
	over.Timestamp = time.Now().Add(-time.Minute)
	in.write(over, now("commands", "d1", "x", "name", "x", "id", "sorry"), now("commands", "d1", "null", headerCancel, "sorry"),
		now("commands", "d1", "x", "name", "x", "id", "sorry"), now("commands", "d1", "x", "name", "other", "id", "unwanted"))
	next := in.instance()
	next.serve()
	require.Empty(t, in.taken())
	d = lasting("d1").to(t, next.addr, true)
	d.ack(d.next(), 0)
	d.nothing()
	next.became("d1 d1 cancelled (sorry)", "d1 d1 expired (over)", "d1 d1 delivered (sorry)")
	next.stop()
}

// TestOthersTellWhenAnInstanceStops of the devices that are absent: the partitions it looked after have new owners.
func TestOthersTellWhenAnInstanceStops(t *testing.T) {
	t.Parallel()
	all := fleetOf(t, 3, toOne)
	d := lasting("d1").to(t, all[0].addr, false)
	d.subscribe("devices/+/x", 1)
	d.leave()
	var want []string
	for i, left := range [][]*instance{all[1:], all[2:]} {
		all[i].stop()
		all[0].owned(left...)
		for j := range 20 {
			id := fmt.Sprint("nobody", i, "-", j)
			all[0].write(now("commands", id, "x", "name", "x"))
			want = append(want, fmt.Sprintf("%s %s offline not_connected", id, id))
		}
		all[0].became(want...)
	}
	all[0].write(now("commands", "d1", "x", "name", "x"))
	d = lasting("d1").to(t, all[2].addr, true)
	d.ack(d.next(), 0)
	all[0].became(append(want, "d1 d1 delivered")...)
}

// returning has a device connect at one instance after the other, for some commands each time, and gives an error if
// a command is missing, comes twice or is out of order.
func returning(t *testing.T, all []*instance, id string, n int) error {
	for next, visit := 0, 0; next < n; visit++ {
		d, _, code := lasting(id).try(t, all[visit%len(all)].addr)
		if code != 0 {
			return fmt.Errorf("%s: CONNACK %#x", id, code)
		}
		var err error
		if next, err = d.visit(next, min(next+37, n)); err != nil {
			return fmt.Errorf("%s, visit %d: %w", id, visit, err)
		}
		if next == n {
			d.obey() // the last answers, until the instance stops
			return nil
		}
		if err := d.depart(); err != nil {
			return fmt.Errorf("%s, visit %d: %w", id, visit, err)
		}
	}
	return nil
}

// visit answers what comes until the command before end did, and gives the number of the one that is to come then.
func (d *device) visit(next, end int) (int, error) {
	for next < end {
		first, body, err := d.tryRead()
		if err != nil {
			return next, err
		}
		if first&0xF0 == 0x30 {
			if got := decode(first, body).payload; got != fmt.Sprint(next) {
				return next, fmt.Errorf("got %s and not %d", got, next)
			}
			next++
		}
		if err := d.answer(first, body); err != nil {
			return next, err
		}
	}
	return next, nil
}

// depart says DISCONNECT and reads to the end.
func (d *device) depart() error {
	d.send(0xE0, nil)
	for {
		if _, _, err := d.tryRead(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// TestReplayDoesNotPassCommandsForConnectedDevicesThatAreStillToBeHandedOut: a session that leaves then would be taken for one that
// was offered them, and nobody would tell of them.
func TestReplayDoesNotPassCommandsForConnectedDevicesThatAreStillToBeHandedOut(t *testing.T) {
	in := begin(t, 1, toOne+"    offline: drop\n")
	in.write(now("commands", "d1", "x", "name", "x"))
	in.until("it is handed out", func() bool { return in.value("sluice_command_records_total") == 1 && len(in.taken()) == 1 })
	st := in.sessions.streams.of("commands", 0)
	in.until("it is handed out", func() bool { return st.next.Load() == 1 })
	c := chunk{next: 2}
	for offset := range c.next {
		r := now("commands", "d1", "x", "name", "x")
		r.Offset = offset
		c.records = append(c.records, *r)
	}
	next, all := in.sessions.replayer.hand(t.Context(), st, c, 0, new(cancels))
	require.True(t, all)
	require.EqualValues(t, 1, next)
	in.stop()
}
