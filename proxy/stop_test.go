package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"sluice/fleet"
	"sluice/kafka"
)

// TestStopAnswersForAllThatIsOpen of sessions that end with it, once. What stored sessions have open is in Kafka, and
// the next process gives it to them.
func TestStopAnswersForAllThatIsOpen(t *testing.T) {
	t.Parallel()
	in := begin(t, 3, toOne+"limits: {commands_in_flight: 2}\n")
	away, busy, quick := dial(t, in.addr, "away", true), dial(t, in.addr, "busy", true), dial(t, in.addr, "quick", false)
	for _, d := range []*device{away, busy, quick} {
		d.subscribe("devices/#", 1)
	}
	away.leave()
	for i := range 4 {
		for _, d := range []*device{away, busy, quick} {
			in.write(now("commands", d.id, fmt.Sprint(i), "name", "x", "id", fmt.Sprint(i)))
		}
	}
	quick.ack(quick.next(), 0)
	in.until("all are there", func() bool { return in.value("sluice_command_matched_devices_total") == 8 })
	in.became("quick quick delivered (0)")
	in.stop()
	atStop := []string{"quick quick delivered (0)", "quick quick offline not_acknowledged (1)", "quick quick offline not_acknowledged (2)", "quick quick offline session_ended (3)"}
	in.became(atStop...)
	require.EqualValues(t, 4, in.value("sluice_command_outcomes_total", "kept"))

	next := in.instance()
	next.serve()
	for _, id := range []string{"away", "busy"} {
		d := dial(t, next.addr, id, true)
		for i := range 4 {
			m := d.next()
			require.Equal(t, fmt.Sprint(i), m.payload, id)
			d.ack(m, 0)
			atStop = append(atStop, fmt.Sprintf("%s %s delivered (%d)", id, id, i))
		}
		d.nothing()
	}
	next.became(atStop...)
	next.stop()
}

// TestCommandThatWaitsForRoomAtTheStopWaitsInKafka: the session is where it was before it.
func TestCommandThatWaitsForRoomAtTheStopWaitsInKafka(t *testing.T) {
	t.Parallel()
	in := begin(t, 3, toOne)
	d := dial(t, in.addr, "d1", true)
	d.subscribe("devices/#", 1)
	fill(in.producer.Budget())
	in.write(now("commands", "d1", "x", "name", "x", "id", "1"), now("commands", "d1", "x", "name", "x", "id", "2"))
	in.until("the first is read", func() bool { return in.value("sluice_command_records_total", "routed") == 1 })
	d.nothing()
	require.NoError(t, in.end())
	require.Equal(t, in.producer.Budget().Max(), in.producer.Budget().InUse(), "ours alone")
	require.Empty(t, in.taken())

	next := in.instance()
	next.serve()
	d = dial(t, next.addr, "d1", true)
	d.ack(d.next(), 0)
	d.ack(d.next(), 0)
	next.became("d1 d1 delivered (1)", "d1 d1 delivered (2)")
	next.stop()
}

// TestReplayWithoutRoomLeavesTheRestInKafka: a device returns while the memory for receipts is spent, and the instance is
// stopped, the device disconnects or comes back elsewhere. All that waited comes then, once and in its order.
func TestReplayWithoutRoomLeavesTheRestInKafka(t *testing.T) {
	t.Parallel()
	const n = 20
	for _, end := range []string{"stopped", "disconnected", "taken over"} {
		for qos := range 3 {
			t.Run(fmt.Sprintf("%s with QoS %d", end, qos), func(t *testing.T) {
				all := fleetOf(t, 2, toOne)
				in, next := all[0], all[1]
				d := dial(t, in.addr, "d1", true)
				d.subscribe("devices/#", byte(qos))
				d.leave()
				var want, receipts []string
				for i := range n {
					in.write(now("commands", "d1", fmt.Sprint(i), "name", "x", "id", fmt.Sprint(i), "mqtt.qos", fmt.Sprint(qos)))
					want, receipts = append(want, fmt.Sprint(i)), append(receipts, fmt.Sprintf("d1 d1 %s (%d)", []string{"sent", "delivered", "delivered"}[qos], i))
				}
				in.until("all are read", func() bool { return in.value("sluice_command_records_total", "routed") == n })
				fill(in.producer.Budget())
				d = dial(t, in.addr, "d1", true)
				in.until("what waits is read", func() bool { return in.sessions.replayer.chunks.kept.Len() > 0 })
				d.nothing()
				switch end {
				case "stopped":
					require.NoError(t, in.end())
				case "disconnected":
					d.leave()
				}
				d = dial(t, next.addr, "d1", true)
				var got []string
				for len(got) < n {
					first, body := d.read()
					if first&0xF0 == 0x30 {
						got = append(got, decode(first, body).payload)
					}
					require.NoError(t, d.answer(first, body))
				}
				require.Equal(t, want, got)
				var obeying sync.WaitGroup
				obeying.Go(d.obey) // ends with its connection
				in.became(receipts...)
				require.NoError(t, next.end())
				obeying.Wait()
			})
		}
	}
}

// TestCommandsGoOnWhenThereIsRoomAgain, none lost and in their order.
func TestCommandsGoOnWhenThereIsRoomAgain(t *testing.T) {
	in := begin(t, 3, toOne)
	d := dial(t, in.addr, "d1", false)
	d.subscribe("devices/#", 0)
	fill(in.producer.Budget())
	for i := range 5 {
		in.write(now("commands", "d1", fmt.Sprint(i), "name", "x"))
	}
	in.until("the first is read", func() bool { return in.value("sluice_command_records_total", "routed") == 1 })
	d.nothing()
	in.producer.Budget().Give(kafka.Destination{}, int(in.producer.Budget().Max()))
	for i := range 5 {
		require.Equal(t, fmt.Sprint(i), d.next().payload)
	}
	in.receipts(5)
	in.stop()
}

// TestStopWithoutKafkaEndsAndSaysSo: the receipts that are lost are counted and an error.
func TestStopWithoutKafkaEndsAndSaysSo(t *testing.T) {
	t.Parallel() // most of it is waiting
	in := begin(t, 3, toOne+"limits: {shutdown_timeout: 1s}\n")
	d := dial(t, in.addr, "d1", false)
	d.subscribe("devices/#", 1)
	in.write(now("commands", "d1", "x", "name", "x"), now("commands", "d1", "x", "name", "x"))
	in.until("they are in flight", func() bool { return in.value("sluice_command_matched_devices_total") == 2 })
	in.noKafka()
	err := in.end()
	require.ErrorContains(t, err, "stopped with records that Kafka has not acknowledged")
	require.EqualValues(t, 2, in.value("sluice_command_receipts_total", "lost"))
	require.EqualValues(t, 2, in.value("sluice_command_outcomes_total", "offline"))
	require.Zero(t, in.producer.Budget().InUse())
}

// TestReceiptThatComesTooLateForTheStopIsSaid: all that the producer took is stored, and it takes no more.
func TestReceiptThatComesTooLateForTheStopIsSaid(t *testing.T) {
	in := begin(t, 3, toOne)
	d := dial(t, in.addr, "d1", false)
	d.subscribe("devices/#", 1)
	in.write(now("commands", "d1", "x", "name", "x"))
	m := d.next()
	require.NoError(t, in.producer.Close(t.Context()))
	d.ack(m, 0)
	in.until("the receipt is lost", func() bool { return in.value("sluice_command_receipts_total", "lost") == 1 })
	require.ErrorContains(t, in.end(), "stopped without the receipts of 1 outcomes")
}

// TestCommandsWrittenWhenServingAreRead, to the last partition, and those written before are not.
func TestCommandsWrittenWhenServingAreRead(t *testing.T) {
	const partitions, n = 12, 40
	in := prepare(t, partitions, toOne)
	var all []*kafka.Fetched
	var want []string
	for i := range n {
		all = append(all, now("commands", fmt.Sprint("d", i), "x", "name", "x", "id", "early"))
	}
	in.write(all...)
	in.serve()
	in.owned(in)
	for i, r := range all {
		r.Headers[1].Value = []byte("late")
		want = append(want, fmt.Sprintf("d%d d%d offline not_connected (late)", i, i))
	}
	in.write(all...)
	in.became(want...)
	in.stop()
	in.became(want...)
}

// TestNothingIsLostInSilenceWhileItStops: commands come on and on meanwhile. Of each partition a beginning was read.
// All of that has its receipt, once, if it was for a device without a stored session. What stored sessions did not get
// the next process gives to them, so that in the end all of theirs have a receipt, once.
func TestNothingIsLostInSilenceWhileItStops(t *testing.T) {
	t.Parallel()
	for round := range 2 {
		in := begin(t, 6, toOne)
		serving := func(in *instance, step int) (devices *sync.WaitGroup) {
			devices = &sync.WaitGroup{}
			for i := 0; i < 8; i += step {
				d := dial(t, in.addr, fmt.Sprint("d", i), i%2 == 0)
				if step == 1 {
					d.subscribe("devices/#", byte(i%3))
				}
				devices.Go(d.obey) // ends with its connection
			}
			return devices
		}
		devices := serving(in, 1)
		stopped := make(chan struct{})
		var writing sync.WaitGroup
		writing.Go(func() { // ends when the instance has
			for i := 0; ; i++ {
				select {
				case <-stopped:
					return
				default:
				}
				var burst []*kafka.Fetched
				for j := range 10 { // two of these devices are not there
					burst = append(burst, now("commands", fmt.Sprint("d", j), "x", "name", "x", "id", fmt.Sprint(i), "mqtt.qos", fmt.Sprint(i%3)))
				}
				in.write(burst...)
			}
		})
		in.until("they run", func() bool { return in.value("sluice_command_receipts_total", "stored") > float64(100*round) })
		in.stop()
		close(stopped)
		writing.Wait()
		devices.Wait()
		require.Equal(t, in.value("sluice_command_outcomes_total")-in.value("sluice_command_outcomes_total", "kept"), in.value("sluice_command_receipts_total", "stored"))

		next := in.instance()
		next.serve()
		devices = serving(next, 2)
		next.until("all that waited is answered for", func() bool {
			ends := next.ends()
			for _, r := range next.of("commands") {
				if hasSession(r.Key) && ends[place{r.Partition, r.Offset}] == 0 {
					return false
				}
			}
			return true
		})
		next.stop()
		devices.Wait()
		next.complete()
	}
}

// hasSession says whether a device of this test has a stored session.
func hasSession(key []byte) bool { return len(key) == 2 && key[1] < '8' && key[1]%2 == 0 }

// A place is where a command is.
type place struct {
	partition int32
	offset    int64
}

// ends counts the receipts of each command.
func (s *site) ends() map[place]int {
	s.t.Helper()
	ends := map[place]int{}
	for _, record := range s.taken() {
		var r Receipt
		require.NoError(s.t, json.Unmarshal(record.Value, &r))
		ends[place{r.Partition, r.Offset}]++
	}
	return ends
}

// complete holds that no command has two receipts, and that none of those without has one behind it in its partition
// that is not for a stored session.
func (s *site) complete() {
	s.t.Helper()
	ends, open := s.ends(), map[int32]bool{}
	for _, r := range s.of("commands") {
		n := ends[place{r.Partition, r.Offset}]
		require.LessOrEqual(s.t, n, 1, "receipts of one command")
		if !hasSession(r.Key) {
			require.False(s.t, open[r.Partition] && n > 0, "%d/%d has a receipt and one before it has none", r.Partition, r.Offset)
			open[r.Partition] = open[r.Partition] || n == 0
		}
	}
}

// obey acknowledges all that comes until the connection ends.
func (d *device) obey() {
	for {
		first, body, err := d.tryRead()
		if err == nil {
			err = d.answer(first, body)
		}
		if err != nil {
			return
		}
	}
}

// answer does a receiver's part for one packet.
func (d *device) answer(first byte, body []byte) error {
	var answer byte
	switch {
	case first&0xF0 == 0x30 && first>>1&3 > 0:
		m := decode(first, body)
		answer, body = 0x40, []byte{byte(m.id >> 8), byte(m.id)}
		if m.qos == 2 {
			answer = 0x50
		}
	case first == 0x62:
		answer, body = 0x70, body[:2]
	default:
		return nil
	}
	_, err := d.nc.Write(append([]byte{answer, byte(len(body))}, body...))
	return err
}

// TestStopWithAMessageThatIsStuckSaysThatItHasEnded: the message takes all the time there is for the sessions, and the
// other instances are told all the same, and need not miss heartbeats first. An instance that says itself that Kafka did not
// take that in time is given more.
func TestStopWithAMessageThatIsStuckSaysThatItHasEnded(t *testing.T) {
	t.Parallel() // most of it is waiting
	for enough := 3 * time.Second; !stopsWithAMessageThatIsStuck(t, enough); enough *= 2 {
		require.Less(t, enough, time.Minute)
	}
}

// stopsWithAMessageThatIsStuck is the test with a shutdown_timeout; false: that was too short to tell anybody.
func stopsWithAMessageThatIsStuck(t *testing.T, enough time.Duration) bool {
	s := found(t, 4, "publish: [{match: \"plain/#\", topic: up, key: k}]\n"+toOne)
	s.settings.Kafka.CreateTopics = nil // nobody makes anew what is deleted here
	s.settings.Limits.ShutdownTimeout = enough
	var log bytes.Buffer
	in, other := s.telling(zerolog.New(zerolog.SyncWriter(&log))), s.instance()
	in.serve()
	other.serve()
	d := lasting("d1").to(t, in.addr, false)
	d.publish2("plain/a", 9, "to know the topic")
	d.pubrel(9)
	_, err := s.topicAdmin().DeleteTopic(t.Context(), "up")
	require.NoError(t, err)
	d.publishOnly("plain/a", 8, "stuck")
	d.nothing()
	name := in.sessions.driver.Name()
	require.Error(t, in.end(), "a record is lost")
	if strings.Contains(log.String(), "stopped before it was told that this instance has ended") {
		return false
	}
	by := map[int32]string{}
	s.until("verdicts", func() bool {
		for _, r := range s.of("sluice-sessions") {
			if _, seen := by[r.Partition]; !seen && string(r.Key) == string(fleet.VerdictKey(name)) {
				var v fleet.Instance
				require.NoError(t, json.Unmarshal(r.Value, &v))
				by[r.Partition] = v.By
			}
		}
		return len(by) == int(in.sessions.driver.Partitions())
	})
	for _, who := range by {
		require.Equal(t, name, who, "its own, and not of who missed its heartbeats")
	}
	lasting("d1").to(t, other.addr, true).leave()
	return true
}

// TestStopHasNoMoreThanItsTime: who leaves a consumer group whose coordinator says nothing would otherwise go on for as long as
// a session lasts, once before the devices leave and once after.
func TestStopHasNoMoreThanItsTime(t *testing.T) {
	t.Parallel()
	in := begin(t, 3, toOne+"limits: {shutdown_timeout: 300ms}\n")
	d := dial(t, in.addr, "d1", false)
	d.subscribe("$share/s/devices/#", 1)
	in.noKafka()
	began := time.Now()
	_ = in.end() // it can't leave in order
	t.Log(time.Since(began))
	require.ErrorIs(t, in.clients.patience.Err(), context.Canceled)
}

// TestStopWritesWhatTheEndsOfConnectionsMake: wills, those without a rule as dead letters, the record of each connection's end,
// and the messages with QoS 0 that came just before.
func TestStopWritesWhatTheEndsOfConnectionsMake(t *testing.T) {
	for _, claim := range []string{"always", "stored"} {
		t.Run(claim, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			in := begin(t, 3, withWills+"unmatched: {dead_letter: dead}\nsessions: {claim: "+claim+"}\n")
			const n = 20
			var wills []string
			for i := range n {
				c := connecting{id: fmt.Sprint("d", i), clean: i%2 == 0, expiry: uint32(i % 2 * 3600), will: fmt.Sprintf("wills/%02d", i)}
				if i%4 > 1 {
					c.will = fmt.Sprintf("elsewhere/%02d", i)
				} else {
					wills = append(wills, c.will)
				}
				d := c.to(t, in.addr, false)
				d.send(0x30, append(append(text16("elsewhere"), 0), "QoS 0"...))
			}
			in.until("all have come", func() bool { return len(in.of("dead")) == n })
			require.NoError(t, in.end())
			in.published(wills...)
			in.until("dead letters", func() bool { return len(in.of("dead")) >= n+n/2 })
			require.Len(t, in.of("dead"), n+n/2)
			ends := func() (ends []string) {
				for _, p := range in.presences() {
					if p.Event == "disconnected" {
						ends = append(ends, p.ClientID+" "+p.Reason)
					}
				}
				return ends
			}
			var want []string
			for i := range n {
				if claim == "always" || i%2 == 1 {
					want = append(want, fmt.Sprintf("d%d server shutting down", i))
				}
			}
			in.until("presence", func() bool { return len(ends()) >= len(want) })
			require.ElementsMatch(t, want, ends())
			require.Zero(t, in.value("sluice_session_presence_records_total", "lost"))
		})
	}
}
