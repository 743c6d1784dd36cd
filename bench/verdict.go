package bench

import (
	"errors"
	"fmt"
	"strings"
)

// A Readback compares what devices were told with what Kafka holds.
type Readback struct {
	Topics         []string `json:"topics"`
	Seconds        float64  `json:"seconds"`        // that reading took after the end
	Records        int      `json:"records"`        // of this run
	Lost           int      `json:"lost"`           // acknowledged, and not there
	Doubled        int      `json:"doubled"`        // records beyond the first of a message that was sent once
	Disordered     int      `json:"disordered"`     // records behind a later one of their device in the same partition
	Repeats        int      `json:"repeats"`        // records beyond the first of a message that was sent again
	Unacknowledged int      `json:"unacknowledged"` // messages that are there and were not acknowledged
	NotStored      int      `json:"not_stored"`     // with QoS 0: sent, and not there
	Spread         int      `json:"spread"`         // devices with records in several partitions
	Deleted        int64    `json:"deleted"`        // offsets that Kafka had deleted before they were read
	Examples       []string `json:"examples,omitempty"`
}

// Err says what must not be; nil: all is well.
func (r *Readback) Err() error {
	var errs []error
	for _, f := range []struct {
		n    int
		what string
	}{{r.Lost, "acknowledged messages are not in Kafka"}, {r.Doubled, "records are doubles of messages that were sent once"},
		{r.Disordered, "records are out of order"}} {
		if f.n > 0 {
			errs = append(errs, fmt.Errorf("%d %s", f.n, f.what))
		}
	}
	if r.Records == 0 && r.Lost > 0 {
		errs = append(errs, fmt.Errorf("nothing of this run is in %s: is that where the rules put it?", strings.Join(r.Topics, ", ")))
	}
	if r.Deleted > 0 {
		errs = append(errs, fmt.Errorf("what is lost can't be told: Kafka deleted %d records before they were read (its retention is too short for this run; --read-along reads during the run)", r.Deleted))
	}
	return errors.Join(errs...)
}

const (
	// maxExamples is how many faults are described one by one.
	maxExamples = 10
	// maxDoubles is how many doubles are remembered, as they may be those of messages that were sent again.
	maxDoubles = 1 << 20
)

// A place is a partition.
type place struct {
	topic     string
	partition int32
}

// A message is one of a device.
type message struct {
	device int
	seq    uint64
}

// A verdict takes the records of the run in the order of their partitions.
type verdict struct {
	id      identity
	seen    []runs                   // by device
	last    map[place]map[int]uint64 // of each device
	doubles map[message]int          // records beyond the first
	report  Readback
}

func newVerdict(run string, devices int) *verdict {
	return &verdict{id: identityOf(run), seen: make([]runs, devices), last: make(map[place]map[int]uint64), doubles: make(map[message]int)}
}

// record takes a record's value; what is not of this run is passed over.
func (v *verdict) record(at place, offset int64, value []byte) {
	device, seq, ok := v.id.read(value)
	if !ok || device >= len(v.seen) {
		return
	}
	v.report.Records++
	last := v.last[at]
	if last == nil {
		last = make(map[int]uint64)
		v.last[at] = last
	}
	switch {
	case !v.seen[device].add(seq):
		if len(v.doubles) < maxDoubles {
			v.doubles[message{device, seq}]++
		} else {
			v.report.Doubled++
		}
		return // where a double stands says nothing
	case seq < last[device]:
		v.report.Disordered++
		v.example("out of order: message %d of device %d behind %d, partition %d of %s at %d", seq, device, last[device], at.partition, at.topic, offset)
	}
	last[device] = max(last[device], seq)
}

func (v *verdict) example(format string, args ...any) {
	if len(v.report.Examples) < maxExamples {
		v.report.Examples = append(v.report.Examples, fmt.Sprintf(format, args...))
	}
}

// judge compares with what the devices were told. It is called once, after all records.
func (v *verdict) judge(told []ledger, qos byte) *Readback {
	r := &v.report
	for m, n := range v.doubles {
		if told[m.device].repeated.has(m.seq) {
			r.Repeats += n
			continue
		}
		r.Doubled += n
		v.example("doubled: message %d of device %d is there %d times", m.seq, m.device, n+1)
	}
	for device, of := range told {
		for _, lost := range of.acked.without(v.seen[device]) {
			r.Lost += int(lost.last - lost.first + 1)
			v.example("lost: messages %d to %d of device %d", lost.first, lost.last, device)
		}
		if qos == 0 {
			r.NotStored += int(of.sent) - v.seen[device].count()
		} else {
			r.Unacknowledged += v.seen[device].without(of.acked).count()
		}
		partitions := 0
		for _, last := range v.last {
			if last[device] > 0 {
				partitions++
			}
		}
		if partitions > 1 {
			r.Spread++
		}
	}
	return r
}
