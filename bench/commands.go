package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"sluice/kafka"
)

// A Commands is a load of devices that receive: numbered records go to a Kafka topic, and the devices tell what came.
type Commands struct {
	Target
	Run         string
	Connections int
	QoS         byte           // of the subscriptions
	Filter      string         // that a device subscribes to, with {client_id}, {run} and {device}
	KafkaTopic  string         // where the commands are written
	Key         string         // of the records, with {client_id}, {run} and {device}
	Headers     []kafka.Header // of the records
	Rate        int            // records a second, for the devices in turn
	Size        int            // of the records' values in bytes, MinCommand at least
	Duration    time.Duration
	Wait        time.Duration // for what is on its way at the end
}

// MinCommand is the smallest value of a command, in bytes.
const MinCommand = 96

// A CommandsResult is what a Commands saw.
type CommandsResult struct {
	Kind        string      `json:"kind"` // commands
	Run         string      `json:"run"`
	QoS         byte        `json:"qos"`
	Size        int         `json:"size"`
	Rate        int         `json:"rate"`
	Seconds     float64     `json:"seconds"` // that it wrote
	Connections Connections `json:"connections"`
	Written     int         `json:"written"`        // records that Kafka acknowledged
	NotWritten  int         `json:"not_written"`    // records that it did not
	WhyNot      string      `json:"why,omitempty"`  // of the first of these
	Late        int         `json:"late,omitempty"` // due by the rate, and not given to Kafka: too much waited for it
	Received    int         `json:"received"`
	PerSecond   float64     `json:"per_second"`   // received while it wrote
	Lost        int         `json:"lost"`         // written and not received
	NotReceived int         `json:"not_received"` // the same, which nobody has promised: with QoS 0, or while the device was not subscribed
	Doubled     int         `json:"doubled"`      // received again
	Disordered  int         `json:"disordered"`   // received behind a later one of the same device
	Strange     int         `json:"strange"`      // messages of no record of this run, or of another device's
	Examples    []string    `json:"examples,omitempty"`
	Times       *Times      `json:"delivery_ms,omitempty"` // from just before the record is given to the Kafka client to the device
	Stored      *Times      `json:"stored_ms,omitempty"`   // of that, until Kafka's acknowledgement
	CPU         float64     `json:"cpu_seconds"`
	Receipts    *Receipts   `json:"receipts,omitempty"`
}

// A CommandsRun is a Commands that goes on.
type CommandsRun struct {
	c         Commands
	f         *fleet
	receivers []*receiver
	producer  *kafka.Producer

	granted   atomic.Int64    // subscriptions
	due       int             // records, also those that were not given to the producer
	late      atomic.Int64    // of these
	seq       []atomic.Uint64 // by device: records given to the producer
	open      atomic.Int64    // bytes of those of which it has not said what became
	unsure    atomic.Bool     // something came with QoS 0
	written   atomic.Int64
	received  atomic.Int64
	delivered Histogram
	stored    Histogram

	mu     sync.Mutex // guards what follows
	acked  []runs     // by device: the records that Kafka has
	failed int
	why    error // of the first
}

// New checks how to reach Kafka. It connects and starts nothing.
func (c Commands) New(cfg kafka.Config) (*CommandsRun, error) {
	cfg.Linger, cfg.Compression = 0, "none" // the time until delivery is what is measured
	producer, err := kafka.NewProducer(cfg)
	if err != nil {
		return nil, err
	}
	r := &CommandsRun{c: c, producer: producer, acked: make([]runs, c.Connections), seq: make([]atomic.Uint64, c.Connections)}
	r.f = newFleet(c.Target, c.Run, c.Connections, 512, func(m *member) device {
		d := &receiver{r: r, m: m, filter: c.expand(c.Filter, c.Run, m.number), open: map[uint16]bool{}}
		r.receivers = append(r.receivers, d)
		return d
	})
	return r, nil
}

// subscribeTime is how long the subscriptions may take.
const subscribeTime = 10 * time.Second

// Connect connects the devices and waits until they have subscribed. The error says that none could, or that one may not.
func (r *CommandsRun) Connect(ctx context.Context) error {
	if err := r.f.connectSome(ctx); err != nil {
		return err
	}
	for end := time.Now().Add(subscribeTime); r.granted.Load() < int64(r.f.connects.Count()); {
		if time.Now().After(end) || r.f.lost.Load() > 0 || !sleep(ctx, 5*time.Millisecond) {
			r.f.stop(0)
			if c := r.f.connections(); c.Lost > 0 {
				return fmt.Errorf("cannot subscribe: %s", c.why())
			}
			return errors.New("not every device could subscribe")
		}
	}
	return nil
}

// Connected is how many attempts to connect have ended.
func (r *CommandsRun) Connected() int { return int(r.f.begun.Load()) }

// Counts gives what was written and received so far.
func (r *CommandsRun) Counts() (written, received int) {
	return int(r.written.Load()), int(r.received.Load())
}

// Quantile gives one of the times until delivery so far.
func (r *CommandsRun) Quantile(q float64) time.Duration { return r.delivered.Quantile(q) }

// Write writes commands until its time is over or ctx ends, and waits for what is on its way. It is called once, after
// Connect.
func (r *CommandsRun) Write(ctx context.Context) *CommandsResult {
	begin, cpu := time.Now(), cpuTime()
	ctx, cancel := context.WithTimeout(ctx, r.c.Duration)
	defer cancel()
	var running sync.WaitGroup
	running.Go(func() { _ = r.producer.Run(context.Background()) }) // ends with Close; it gives nil
	r.pace(ctx)
	out := &CommandsResult{Kind: "commands", Run: r.c.Run, QoS: r.c.QoS, Size: r.c.Size, Rate: r.c.Rate,
		Seconds: seconds(time.Since(begin)), PerSecond: perSecond(int(r.received.Load()), time.Since(begin)), CPU: seconds(cpuTime() - cpu)}
	wait, stop := context.WithTimeout(context.Background(), r.c.Wait)
	defer stop()
	_ = r.producer.Close(wait) // what it gives up is counted
	running.Wait()
	for r.received.Load() < r.written.Load() && sleep(wait, 10*time.Millisecond) {
	}
	r.f.stop(time.Second)
	r.judge(out)
	return out
}

// pace writes what is due until ctx ends.
func (r *CommandsRun) pace(ctx context.Context) {
	keys := make([][]byte, r.c.Connections)
	for i := range keys {
		keys[i] = []byte(r.c.expand(r.c.Key, r.c.Run, i))
	}
	for start := time.Now(); ; {
		for due := int(time.Since(start).Seconds() * float64(r.c.Rate)); r.due < due; r.due++ {
			if device := r.due % r.c.Connections; r.open.Load() < mostOpen {
				r.give(device, r.seq[device].Add(1), keys[device])
			} else {
				r.late.Add(1)
			}
		}
		if !sleep(ctx, time.Millisecond) {
			return
		}
	}
}

// mostOpen is how many bytes of records wait for Kafka at most. While it is away, what is due beyond that is not written.
const mostOpen = 64 << 20

// commandOverhead is about what a record under way takes beside its value, in bytes.
const commandOverhead = 512

func (r *CommandsRun) weight() int64 { return int64(r.c.Size + commandOverhead) }

// A command is a record under way.
type command struct {
	kafka.Record
	r      *CommandsRun
	device int
	seq    uint64
	at     int64
}

func (r *CommandsRun) give(device int, seq uint64, key []byte) {
	c := &command{r: r, device: device, seq: seq, at: r.f.now()}
	b := fmt.Appendf(make([]byte, 0, r.c.Size), `{"run":"%s","device":%d,"seq":%d,"at":%d,"pad":"`, r.c.Run, device, seq, c.at)
	for len(b) < r.c.Size-2 {
		b = append(b, 'x')
	}
	c.Record = kafka.Record{Topic: r.c.KafkaTopic, Key: key, Value: append(b, `"}`...), Headers: r.c.Headers, Owner: c}
	r.open.Add(r.weight())
	r.producer.Produce(&c.Record)
}

// RecordDone is called by the producer.
func (c *command) RecordDone(_ *kafka.Record, err error) {
	r := c.r
	r.open.Add(-r.weight())
	if err == nil {
		r.stored.Add(time.Duration(r.f.now()-c.at), 1)
		r.written.Add(1)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		if r.failed++; r.why == nil {
			r.why = err
		}
		return
	}
	r.acked[c.device].add(c.seq)
}

// judge is called when nothing runs any more.
func (r *CommandsRun) judge(out *CommandsResult) {
	out.Connections = r.f.connections()
	out.Written, out.Received = r.Counts()
	out.Late = int(r.late.Load())
	out.Times, out.Stored = r.delivered.Times(), r.stored.Times()
	if out.NotWritten = r.failed; r.why != nil {
		out.WhyNot = r.why.Error()
	}
	for i, d := range r.receivers {
		out.Doubled += d.doubled
		out.Disordered += d.disordered
		out.Strange += d.strange
		if !d.subscribed || !d.m.left { // it has lost its connection, or had none
			d.excuse()
		}
		missing := r.acked[i].without(d.got)
		lost := missing.without(d.excused)
		if r.c.QoS == 0 || r.unsure.Load() {
			lost = nil
		}
		out.NotReceived += missing.count() - lost.count()
		for _, lost := range lost {
			out.Lost += int(lost.last - lost.first + 1)
			if len(out.Examples) < maxExamples {
				out.Examples = append(out.Examples, fmt.Sprintf("lost: commands %d to %d of device %d", lost.first, lost.last, i))
			}
		}
	}
}

// Err says what must not be; nil: all is well.
func (c *CommandsResult) Err() error {
	errs := []error{c.Connections.fault()}
	for _, f := range []struct {
		n    int
		what string
	}{{c.Lost, "commands did not come"}, {c.Doubled, "commands came again"}, {c.Disordered, "commands came out of order"}} {
		if f.n > 0 {
			errs = append(errs, fmt.Errorf("%d %s", f.n, f.what))
		}
	}
	switch {
	case c.NotWritten > 0:
		errs = append(errs, fmt.Errorf("%d commands could not be written: %s", c.NotWritten, c.WhyNot))
	case c.Written == 0:
		errs = append(errs, errors.New("nothing was written"))
	}
	if c.Receipts != nil {
		errs = append(errs, c.Receipts.Err())
	}
	return errors.Join(errs...)
}
