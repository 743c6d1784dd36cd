package test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/test/load"
)

// established are the connections that were told CONNACK, by the names of their wills.
type established struct {
	mu    sync.Mutex
	names map[string]bool
}

func (e *established) add(w *willful, device int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.names[willName(w.ClientID(device), w.connections(device))] = true
}

// A greetedConn tells when CONNACK, which accepts, has come.
type greetedConn struct {
	net.Conn
	told func()
	got  []byte
}

func (c *greetedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.told != nil {
		if c.got = append(c.got, b[:n]...); len(c.got) >= 4 {
			if c.got[0] == 0x20 && c.got[3] == 0 {
				c.told()
			}
			c.told = nil
		}
	}
	return n, err
}

// cuts gives how many connections each device of the crowd has had.
func (c *crowd) cuts() (all []int) {
	for device := range c.willful.Devices {
		all = append(all, c.willful.connections(device))
	}
	return all
}

// nobodyCut requires that no device needed a new connection, and no instance was declared dead, since a time from which
// on things happened to Kafka alone.
func (c *crowd) nobodyCut(before []int, from time.Time) {
	c.t.Helper()
	var cut []string
	for device, n := range c.cuts() {
		if n != before[device] {
			cut = append(cut, fmt.Sprint(c.willful.ClientID(device), " at ", c.visits[""].between(device, from, time.Now())))
		}
	}
	if n := c.n.lives.verdictsSince(from); len(cut)+n > 0 {
		c.t.Errorf("%d verdicts, and %d of %d devices were cut off, while things happened to Kafka alone: %v", n, len(cut), c.willful.Devices, cut)
	}
}

// settled waits until all devices are there and have all commands that were written so far.
func (c *crowd) settled() {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 3*time.Minute)
	defer cancel()
	for device := range c.willful.Devices {
		require.NoError(c.t, c.willful.AwaitOnline(ctx, device))
	}
	written := c.writer.Written(nil)
	for c.willful.Report(written).Lost > 0 {
		select {
		case <-ctx.Done():
			c.t.Errorf("commands without fate: %s", c.willful.Report(written))
			return
		case <-time.After(100 * time.Millisecond): // a look at the books
		}
	}
}

// stop lets the devices get what is theirs, and ends the load.
func (c *crowd) stop() {
	c.silence()
	c.settled()
	c.quiet()
}

// judge compares what devices were told with what Kafka has.
func (c *crowd) judge() {
	t := c.t
	for _, name := range slices.Sorted(maps.Keys(c.fleets)) {
		r := <-c.results[name]
		for _, err := range r.Errors {
			t.Errorf("%s: %v", name, err)
		}
		c.judgeFleet(name, r)
	}
	written := c.writer.Written(nil)
	report := c.willful.Report(written)
	t.Logf("%s; %d reconnects", report, c.willful.Reconnects())
	if report.Lost+report.Twice+report.Disordered+report.Strange > 0 {
		t.Errorf("commands: %s", report)
	}
	require.Empty(t, c.willful.Failures())
	require.Zero(t, c.willful.NewSessions(), "sessions that were forgotten")
	c.judgeReceipts(written)
	c.judgeWills()
	c.judgeConnections()
	c.n.judgeVerdicts()
}

// judgeVerdicts wants that nobody was declared dead but who was killed, or kept from Kafka for all the time it is given, or
// had said so itself when it stopped.
func (n *nemesis) judgeVerdicts() {
	n.lives.mu.Lock()
	defer n.lives.mu.Unlock()
	for i, all := range n.lives.of {
		for _, one := range all {
			for _, name := range one.incarnations {
				at, judged := n.lives.verdicts[name]
				if !judged || !one.stopping.IsZero() && one.stopping.Before(at) || slices.ContainsFunc(one.deaths, func(d death) bool { return d.from.Before(at) && d.what != declaredDead }) {
					continue
				}
				const enough = deadAfter - 2*time.Second // the last heartbeat before was as long ago at most
				if silenced := n.during(at.Add(-verdictLag), at, 0, func(d deed) bool { return d.silenced == i }); silenced < enough {
					n.t.Errorf("instance %d was declared dead at %.1f s, and was kept from Kafka for %v", i, at.Sub(n.lives.begin).Seconds(), silenced)
				}
			}
		}
	}
}

// judgeReceipts wants one receipt for every command, that it was delivered. An instance that dies can take receipts with
// it, and what it completed last can have a second one, also if Kafka did not take the session's record before the device
// went on elsewhere (docs/commands.md).
func (c *crowd) judgeReceipts(written []load.Command) {
	for end := time.Now().Add(patience); c.receipts.Report(written).Missing > 0 && time.Now().Before(end); {
		time.Sleep(100 * time.Millisecond) // until they came
	}
	of := map[string][]load.Receipt{}
	place := func(topic string, partition int32, offset int64) string {
		return fmt.Sprint(topic, " ", partition, " ", offset)
	}
	for _, r := range c.receipts.All() {
		of[place(r.Topic, r.Partition, r.Offset)] = append(of[place(r.Topic, r.Partition, r.Offset)], r)
	}
	delivered := map[int]map[uint64]time.Duration{}
	for device := range c.willful.Devices {
		delivered[device] = c.willful.Delivered(device)
	}
	missing, twice := 0, 0
	for _, w := range written {
		all := of[place(w.Topic, w.Partition, w.Offset)]
		if len(all) == 0 {
			missing++
			got := w.At.Add(delivered[w.Device][w.Seq])
			if told := got.Add(receiptLag + c.n.disturbed(got)); !c.n.lost(c.visits[""], w.Device, w.At, told) {
				c.t.Errorf("no receipt for command %d of %s, partition %d at %d, which had it at %.3f s from instance %v, and was at %v until %.3f s", w.Seq, w.Key, w.Partition, w.Offset,
					got.Sub(c.n.lives.begin).Seconds(), c.visits[""].between(w.Device, got, got), c.visits[""].between(w.Device, got, told), told.Sub(c.n.lives.begin).Seconds())
			}
			continue
		}
		slices.SortFunc(all, func(a, b load.Receipt) int { return cmp.Compare(a.Milliseconds, b.Milliseconds) }) // who was cut off writes later
		for i, r := range all {
			if r.Outcome != "delivered" || r.ClientID != w.Key {
				c.t.Errorf("command %d of %s: %+v", w.Seq, w.Key, r)
			}
			if i == len(all)-1 {
				continue
			}
			twice++
			instance, ok := c.n.lives.writer(r.Instance)
			if !ok {
				c.t.Errorf("command %d of %s: a receipt of %s, which nobody is", w.Seq, w.Key, r.Instance)
				continue
			}
			times := c.n.lives.times(instance, w.At.Add(time.Duration(r.Milliseconds)*time.Millisecond))
			if !slices.ContainsFunc(times, func(at time.Time) bool {
				by := at.Add(receiptLag + c.n.disturbed(at))
				_, died := c.n.lives.died(instance, at, by)
				return died || c.movedWhileDisturbed(w.Device, at, by)
			}) {
				c.t.Errorf("command %d of %s has the receipts %+v, the one at %v s of instance %d, which lived on", w.Seq, w.Key, all, c.n.since(times), instance)
			}
		}
	}
	r := c.receipts.Report(written)
	c.t.Logf("%s; by instances that died %d missing, %d twice", r, missing, twice)
	if r.Strange > 0 {
		c.t.Error(r)
	}
	require.Empty(c.t, c.receipts.Errors())
}

// movedWhileDisturbed says whether a device asked for another connection between two times, when Kafka may not have taken
// what its instance had to write for it: who lets it in waits two seconds for that.
func (c *crowd) movedWhileDisturbed(device int, from, to time.Time) bool {
	v := c.visits[""]
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.ContainsFunc(v.of[device], func(one visit) bool {
		return one.at.After(from) && one.at.Before(to) && c.n.during(one.at, one.at.Add(2*time.Second), 0, func(d deed) bool { return d.onKafka || d.silenced >= 0 }) > 0
	})
}

// receiptLag is how long after the outcome of a command a living instance has written it down with the session, five
// seconds, and some for this machine.
const receiptLag = 7 * time.Second

// disturbed gives how much longer Kafka can have kept something from being written that was to be written at a time.
func (n *nemesis) disturbed(at time.Time) time.Duration {
	const horizon = time.Minute
	return n.during(at, at.Add(horizon), 10*time.Second, func(d deed) bool { return d.onKafka || d.silenced >= 0 })
}

// judgeWills wants a will of each connection that was lost, once, and of no other.
func (c *crowd) judgeWills() {
	want := map[string]bool{} // false: it may be
	living := map[string]bool{}
	for device := range c.willful.Devices {
		for k := 1; k <= c.willful.connections(device); k++ {
			name := willName(c.willful.ClientID(device), k)
			if k == c.willful.connections(device) {
				living[name] = true
				continue
			}
			c.known.mu.Lock()
			want[name] = c.known.names[name]
			c.known.mu.Unlock()
		}
	}
	missing := func() (names []string) {
		c.book.mu.Lock()
		defer c.book.mu.Unlock()
		for name, must := range want {
			if must && c.book.wills[name] == 0 {
				names = append(names, name)
			}
		}
		return names
	}
	for end := time.Now().Add(2 * time.Minute); len(missing()) > 0 && time.Now().Before(end); {
		time.Sleep(100 * time.Millisecond) // until they came
	}
	if names := missing(); len(names) > 0 {
		c.t.Errorf("%d wills are missing: %v", len(names), names)
	}
	c.book.mu.Lock()
	defer c.book.mu.Unlock()
	c.t.Logf("%d wills, of %d connections that were lost", len(c.book.wills), len(want))
	for name, times := range c.book.wills {
		if _, lost := want[name]; !lost {
			c.t.Errorf("the will %s is published, and its connection lives: %v", name, living[name])
		}
		if times > 1 {
			c.t.Errorf("the will %s is published %d times: %v", name, times, c.book.where[name])
		}
	}
}

// judgeConnections wants one connection for each device of the crowd at all instances together.
func (c *crowd) judgeConnections() {
	n := 0
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(100 * time.Millisecond) { // until the instances have noticed
		n = 0
		for _, s := range c.n.instances {
			if _, body := s.get("/metrics"); strings.Contains(body, "\nsluice_mqtt_connections{") { // none yet after a start
				n += int(s.metric("sluice_mqtt_connections"))
			}
		}
		if n == c.willful.Devices {
			return
		}
	}
	c.t.Errorf("%d connections of %d devices", n, c.willful.Devices)
}

// since gives times in seconds.
func (n *nemesis) since(times []time.Time) (seconds []float64) {
	for _, at := range times {
		seconds = append(seconds, at.Sub(n.lives.begin).Seconds())
	}
	return seconds
}

// A written record of a device.
type writtenRecord struct {
	partition int32
	offset    int64
}

// judgeFleet compares what a fleet was told with its Kafka topic.
func (c *crowd) judgeFleet(name string, r *load.Result) {
	f, topic := c.fleets[name], c.n.topics[name]
	records := c.records(topic, f.Run)
	lost, twice, strange, disordered, moved := 0, 0, 0, 0, 0
	grew := c.n.grew(topic)
	for device, acked := range r.PerDevice {
		for _, seq := range acked {
			if len(records[device][seq]) == 0 {
				lost++
			}
		}
		if f.QoS > 0 {
			for _, d := range disorders(records[device], r.Repeated[device], grew, uint64(f.Window)) {
				tell := c.t.Errorf
				if d.moved {
					tell = c.t.Logf
					moved++
				} else {
					disordered++
				}
				tell("%s: message %d of device %d is at %v in Kafka, and %d at %v; sent again at %v and %v; more partitions at %v", name, d.earlier, device,
					records[device][d.earlier], d.later, records[device][d.later], c.n.since(r.Repeated[device][d.earlier]), c.n.since(r.Repeated[device][d.later]), c.n.since(grew))
			}
		}
		for _, seq := range slices.Sorted(maps.Keys(records[device])) {
			all := records[device][seq]
			if f.QoS == 0 && len(all) > 1 {
				strange++
			}
			if f.QoS != 2 || len(all) == 1 {
				continue
			}
			twice++
			sent := r.Repeated[device][seq]
			if name == "once" || len(sent) == 0 || !c.n.lost(c.visits[name], device, sent[0], sent[len(sent)-1]) {
				strange++
				c.t.Errorf("%s: message %d of device %d is in Kafka %d times, sent at %v", name, seq, device, len(all), c.n.since(sent))
			}
		}
	}
	text := fmt.Sprintf("%s: %d sent, %d acknowledged, %d missing, %d twice, %d of these without a reason, %d out of order, %d more where a partition was added, %d reconnects, ack p50 %v p99 %v",
		name, r.Sent, r.Acked, lost, twice, strange, disordered, moved, r.Reconnects, r.Quantile(.5), r.Quantile(.99))
	c.t.Log(text)
	if lost+strange+disordered > 0 || f.QoS > 0 && r.Acked == 0 {
		c.t.Error(text)
	}
}

// records reads a topic to its end: by device and number, in the order of each partition.
func (c *crowd) records(topic, run string) map[int]map[uint64][]writtenRecord {
	t := c.t
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	ends, err := c.n.admin.ListCommittedOffsets(ctx, topic)
	require.NoError(t, err)
	require.NoError(t, ends.Error())
	left := map[int32]int64{}
	for p, o := range ends[topic] {
		if o.Offset > 0 {
			left[p] = o.Offset
		}
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(c.n.kafka.Direct()...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	require.NoError(t, err)
	defer client.Close()
	all := map[int]map[uint64][]writtenRecord{}
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		require.NoError(t, ctx.Err(), "reading %s: %v", topic, left)
		fetches.EachRecord(func(r *kgo.Record) {
			var of string
			var device int
			var seq uint64
			if n, _ := fmt.Sscanf(string(r.Value[:min(len(r.Value), 64)]), "%s %d %d", &of, &device, &seq); n == 3 && of == run && !r.Attrs.IsControl() {
				if all[device] == nil {
					all[device] = map[uint64][]writtenRecord{}
				}
				all[device][seq] = append(all[device][seq], writtenRecord{r.Partition, r.Offset})
			}
			if end, ok := left[r.Partition]; ok && r.Offset >= end-1 {
				delete(left, r.Partition)
			}
		})
	}
	return all
}
