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

// maxExamples is how many faults are described one by one.
const maxExamples = 10

// A place is a partition.
type place struct {
	topic     string
	partition int32
}

// A verdict takes the records of the run in the order of their partitions.
type verdict struct {
	id     identity
	seen   []copies                 // by device
	last   map[place]map[int]uint64 // of each device
	report Readback
}

// copies are the messages that are there, then those that are there twice at least, and so on. Windows that were sent again
// are a run each.
type copies []runs

// add takes one more copy of a message, and reports whether it is the first.
func (c *copies) add(seq uint64) bool {
	for i := range *c {
		if (*c)[i].add(seq) {
			return i == 0
		}
	}
	*c = append(*c, runs{{seq, seq}})
	return len(*c) == 1
}

// first gives the messages that are there.
func (c copies) first() runs {
	if len(c) == 0 {
		return nil
	}
	return c[0]
}

// beyond gives the others.
func (c copies) beyond() copies { return c[min(1, len(c)):] }

func newVerdict(run string, devices int) *verdict {
	return &verdict{id: identityOf(run), seen: make([]copies, devices), last: make(map[place]map[int]uint64)}
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
	for device, of := range told {
		seen := v.seen[device].first()
		for i, again := range v.seen[device].beyond() {
			doubled := again.without(of.repeated)
			r.Repeats += again.count() - doubled.count()
			r.Doubled += doubled.count()
			for _, d := range doubled {
				v.example("doubled: messages %d to %d of device %d are there %d times", d.first, d.last, device, i+2)
			}
		}
		for _, lost := range of.acked.without(seen) {
			r.Lost += int(lost.last - lost.first + 1)
			v.example("lost: messages %d to %d of device %d", lost.first, lost.last, device)
		}
		if qos == 0 {
			r.NotStored += int(of.sent) - seen.count()
		} else {
			r.Unacknowledged += seen.without(of.acked).count()
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
