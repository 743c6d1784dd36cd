package load

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// parsePayload reads what a stream wrote: the run, the device, the place in its order, the time.
func parsePayload(b []byte) (run string, device int, seq uint64, sent time.Time, ok bool) {
	var nanos int64
	n, _ := fmt.Sscanf(string(b[:min(len(b), 96)]), "%s %d %d %d", &run, &device, &seq, &nanos)
	return run, device, seq, time.Unix(0, nanos), n == 4
}

// A CommandReport compares what was written with what the devices got.
type CommandReport struct {
	Written    int
	Received   int // deliveries, with repeats
	Lost       int // written and not delivered
	Twice      int // deliveries beyond the first of a command
	Disordered int // first deliveries that come after a later command of their device
	Strange    int // messages of another device or run
}

// String gives the report in one line.
func (r CommandReport) String() string {
	return fmt.Sprintf("%d commands, %d deliveries: %d lost, %d twice, %d out of order, %d strange",
		r.Written, r.Received, r.Lost, r.Twice, r.Disordered, r.Strange)
}

// Report compares the commands with what their devices got. Devices that none of the commands is for are left out.
func (f *CommandFleet) Report(commands []Command) (r CommandReport) {
	wanted := make(map[int][]uint64)
	for _, c := range commands {
		wanted[c.Device] = append(wanted[c.Device], c.Seq)
	}
	r.Written = len(commands)
	for number, seqs := range wanted {
		f.receivers[number].report(seqs, &r)
	}
	return r
}

func (d *receiver) report(wanted []uint64, r *CommandReport) {
	d.mu.Lock()
	defer d.mu.Unlock()
	seen, last := make(map[uint64]bool), uint64(0)
	for _, g := range d.books.got {
		switch {
		case seen[g.seq]:
			r.Twice++
		case g.seq < last:
			r.Disordered++
		}
		seen[g.seq] = true
		last = max(last, g.seq)
	}
	r.Received += len(d.books.got)
	r.Strange += d.books.strange
	for _, seq := range wanted {
		if !seen[seq] {
			r.Lost++
		}
	}
}

// Received counts deliveries so far, of all devices.
func (f *CommandFleet) Received() int {
	return f.sum(func(b *receiverBooks) int { return len(b.got) })
}

// Reconnects counts connections after a device's first, as it saw them end.
func (f *CommandFleet) Reconnects() int {
	return f.sum(func(b *receiverBooks) int { return b.reconnects })
}

// NewSessions counts CONNACKs after a device's first that said that no session was present.
func (f *CommandFleet) NewSessions() int {
	return f.sum(func(b *receiverBooks) int { return b.newSessions })
}

// Answered counts messages of the devices' own that were acknowledged.
func (f *CommandFleet) Answered() int {
	return f.sum(func(b *receiverBooks) int { return b.answered })
}

// MaxUnacked gives how many messages of QoS 1 and 2 the server had under way to a device at most.
func (f *CommandFleet) MaxUnacked(device int) int {
	d := f.receivers[device]
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.books.maxUnacked
}

func (f *CommandFleet) sum(of func(*receiverBooks) int) (n int) {
	for _, d := range f.receivers {
		d.mu.Lock()
		n += of(&d.books)
		d.mu.Unlock()
	}
	return n
}

// Messages gives what a device got so far, with Keep.
func (f *CommandFleet) Messages(device int) []*Message {
	d := f.receivers[device]
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.books.messages)
}

// Failures gives what went wrong for the devices so far.
func (f *CommandFleet) Failures() (all []error) {
	for _, d := range f.receivers {
		d.mu.Lock()
		all = append(all, d.failures...)
		d.mu.Unlock()
	}
	return all
}

// Delivered gives the commands that a device got, and how long after they were written.
func (f *CommandFleet) Delivered(device int) map[uint64]time.Duration {
	d := f.receivers[device]
	d.mu.Lock()
	defer d.mu.Unlock()
	first := make(map[uint64]time.Duration)
	for _, g := range d.books.got {
		if _, repeat := first[g.seq]; !repeat {
			first[g.seq] = g.latency
		}
	}
	return first
}

// Latencies are times in ascending order.
type Latencies []time.Duration

// Latencies gives the times from the moment before the command was handed to the Kafka client to its delivery,
// repeats not counted.
func (f *CommandFleet) Latencies() (all Latencies) {
	for _, d := range f.receivers {
		d.mu.Lock()
		seen := make(map[uint64]bool)
		for _, g := range d.books.got {
			if !seen[g.seq] {
				all = append(all, g.latency)
			}
			seen[g.seq] = true
		}
		d.mu.Unlock()
	}
	return all.Sorted()
}

// LatenciesOf is Latencies of these commands alone, and what of each lies behind Kafka's acknowledgement to the writer:
// 0 where the device was faster.
func (f *CommandFleet) LatenciesOf(commands []Command) (all, behind Latencies) {
	wanted := make(map[int]map[uint64]time.Duration)
	for _, c := range commands {
		if wanted[c.Device] == nil {
			wanted[c.Device] = make(map[uint64]time.Duration)
		}
		wanted[c.Device][c.Seq] = c.Stored
	}
	for number, seqs := range wanted {
		d := f.receivers[number]
		d.mu.Lock()
		for _, g := range d.books.got {
			if stored, ok := seqs[g.seq]; ok {
				all = append(all, g.latency)
				behind = append(behind, max(0, g.latency-stored))
			}
			delete(seqs, g.seq)
		}
		d.mu.Unlock()
	}
	return all.Sorted(), behind.Sorted()
}

// Sorted sorts l and gives it.
func (l Latencies) Sorted() Latencies {
	slices.SortFunc(l, cmp.Compare[time.Duration])
	return l
}

// Quantile gives the time that the share q did not exceed, 0 if there is none.
func (l Latencies) Quantile(q float64) time.Duration {
	if len(l) == 0 {
		return 0
	}
	return l[int(q*float64(len(l)-1))]
}

// String gives the usual quantiles.
func (l Latencies) String() string {
	var b strings.Builder
	for _, q := range []float64{.5, .9, .99, 1} {
		fmt.Fprintf(&b, "p%g %v ", q*100, l.Quantile(q).Round(100*time.Microsecond))
	}
	return strings.TrimSpace(b.String())
}
