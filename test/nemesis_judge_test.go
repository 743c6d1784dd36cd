package test

import (
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

// openFaults are the kinds that are known and are being repaired: that living instances are taken for dead when a Kafka
// node is away, and the doubles that follow from it; two receipts for one command.
var openFaults = []string{"cut", "twice", "receipts twice"}

// fault fails the test unless this kind is known.
func (c *crowd) fault(kind, format string, args ...any) {
	c.t.Helper()
	if slices.Contains(openFaults, kind) {
		c.t.Logf("OPEN, "+kind+": "+format, args...)
		return
	}
	c.t.Errorf(format, args...)
}

// cuts gives how many connections each device of the crowd has had.
func (c *crowd) cuts() (all []int) {
	for device := range c.willful.Devices {
		all = append(all, c.willful.connections(device))
	}
	return all
}

// nobodyCut requires that no device needed a new connection, and that no will was published.
func (c *crowd) nobodyCut(before []int) {
	c.t.Helper()
	var cut []string
	for device, n := range c.cuts() {
		if n != before[device] {
			cut = append(cut, c.willful.ClientID(device))
		}
	}
	if len(cut) > 0 {
		c.fault("cut", "%d of %d devices were cut off while things happened to Kafka alone: %v", len(cut), c.willful.Devices, cut)
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
}

// judgeReceipts wants a receipt for every command, save those that a killed instance took with it.
func (c *crowd) judgeReceipts(written []load.Command) {
	whole := func() (r load.ReceiptReport, missing int) {
		r = c.receipts.Report(written)
		return r, r.Missing
	}
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if _, missing := whole(); missing == 0 {
			break
		}
		time.Sleep(100 * time.Millisecond) // until they came
	}
	r, missing := whole()
	c.t.Log(r)
	lossy := 0
	for _, w := range written {
		if c.n.died(w.At.Add(-time.Second), w.At.Add(deadAfter)) {
			lossy++
		}
	}
	if r.Twice > 0 {
		c.fault("receipts twice", "%s", r)
	}
	if missing > lossy || r.Strange > 0 || r.Outcomes["delivered"] != len(written)-missing {
		c.t.Errorf("%s; %d of %d commands were on their way when an instance died", r, lossy, len(written))
	}
	require.Empty(c.t, c.receipts.Errors())
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
			c.t.Errorf("the will %s is published %d times", name, times)
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

// A written record of a device.
type writtenRecord struct {
	partition int32
	offset    int64
	at        time.Time
}

// judgeFleet compares what a fleet was told with its Kafka topic.
func (c *crowd) judgeFleet(name string, r *load.Result) {
	f, topic := c.fleets[name], c.n.topics[name]
	records := c.records(topic, f.Run)
	lost, twice, strange, disorder := 0, 0, 0, 0
	for device, acked := range r.PerDevice {
		for _, seq := range acked {
			if len(records[device][seq]) == 0 {
				lost++
			}
		}
		last := map[int32]writtenRecord{}
		seqs := slices.Sorted(maps.Keys(records[device]))
		for _, seq := range seqs {
			all := records[device][seq]
			first := all[0]
			if f.QoS > 0 && first.offset < last[first.partition].offset {
				disorder++
			}
			last[first.partition] = first
			if f.QoS == 0 && len(all) > 1 {
				strange++
			}
			if f.QoS != 2 || len(all) == 1 {
				continue
			}
			twice++
			if name == "once" || !c.n.died(first.at.Add(-2*time.Second), all[len(all)-1].at.Add(time.Second)) {
				strange++
			}
		}
	}
	text := fmt.Sprintf("%s: %d sent, %d acknowledged, %d missing, %d twice, %d of these without a reason, %d out of order, %d reconnects, ack p50 %v p99 %v",
		name, r.Sent, r.Acked, lost, twice, strange, disorder, r.Reconnects, r.Quantile(.5), r.Quantile(.99))
	c.t.Log(text)
	if strange > 0 {
		c.fault("twice", "%s", text)
	}
	if lost+disorder > 0 || f.QoS > 0 && r.Acked == 0 {
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
				all[device][seq] = append(all[device][seq], writtenRecord{r.Partition, r.Offset, r.Timestamp})
			}
			if end, ok := left[r.Partition]; ok && r.Offset >= end-1 {
				delete(left, r.Partition)
			}
		})
	}
	return all
}
