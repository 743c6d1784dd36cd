package bench

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// A Publish is a load of devices that publish.
type Publish struct {
	Target
	Run         string // tells runs apart, in client IDs and payloads
	Connections int
	QoS         byte
	Window      int    // unacknowledged messages of a device; at most what the server's Receive Maximum allows
	Size        int    // of payloads in bytes, MinSize at least
	Rate        int    // messages a second, all devices together; 0: as fast as they are acknowledged, or with QoS 0 read
	Topic       string // with {device}, {client_id} and {run}
	Duration    time.Duration
	Wait        time.Duration // for acknowledgements after the end
	Keep        bool          // what was acknowledged, for a read-back
}

// A PublishResult is what a Publish saw.
type PublishResult struct {
	Kind           string      `json:"kind"` // publish
	Run            string      `json:"run"`
	QoS            byte        `json:"qos"`
	Window         int         `json:"window"`
	Size           int         `json:"size"`
	Rate           int         `json:"rate"`
	Seconds        float64     `json:"seconds"` // that it published
	Connections    Connections `json:"connections"`
	Sent           int         `json:"sent"`
	Acknowledged   int         `json:"acknowledged"`
	PerSecond      float64     `json:"per_second"` // acknowledged, with QoS 0 sent, while it published
	Refused        int         `json:"refused"`    // by the server, with a reason code
	Refusals       []string    `json:"refusals,omitempty"`
	Unacknowledged int         `json:"unacknowledged"` // at the end of the wait
	Repeated       int         `json:"repeated"`       // sent again after a lost connection
	Late           int         `json:"late,omitempty"` // due by the rate, and not sent
	Times          *Times      `json:"ack_ms,omitempty"`
	CPU            float64     `json:"cpu_seconds"` // of this process, while it published
	Readback       *Readback   `json:"kafka,omitempty"`

	ledger []ledger
}

// A PublishRun is a Publish that goes on.
type PublishRun struct {
	p     Publish
	f     *fleet
	fleet []*publisher

	sent  atomic.Int64
	acked atomic.Int64
	times Histogram
}

// New gives a run, which connects and starts nothing.
func (p Publish) New() *PublishRun {
	r := &PublishRun{p: p}
	buffer := 256
	if p.QoS > 0 {
		buffer = 4 << 10
	}
	r.f = newFleet(p.Target, p.Run, p.Connections, buffer, func(m *member) device {
		d := newPublisher(r, m)
		r.fleet = append(r.fleet, d)
		return d
	})
	return r
}

// Connect connects the devices. The error says that none could.
func (r *PublishRun) Connect(ctx context.Context) error { return r.f.connectSome(ctx) }

// Connected is how many attempts to connect have ended.
func (r *PublishRun) Connected() int { return int(r.f.begun.Load()) }

// Counts gives what was sent and acknowledged so far.
func (r *PublishRun) Counts() (sent, acked int) { return int(r.sent.Load()), int(r.acked.Load()) }

// Quantile gives one of the times from sending to acknowledgement so far. Where messages are paced, they count from
// when they were due.
func (r *PublishRun) Quantile(q float64) time.Duration { return r.times.Quantile(q) }

// Publish publishes until its time is over or ctx ends, and waits for what is not acknowledged. It is called once,
// after Connect.
func (r *PublishRun) Publish(ctx context.Context) *PublishResult {
	ctx, cancel := context.WithTimeout(ctx, r.p.Duration)
	defer cancel()
	cpu := cpuTime()
	begin := time.Now()
	r.f.wg.Go(func() { r.start(ctx) }) // ends with stop: a server that does not read may take nothing of the first window
	<-ctx.Done()
	elapsed := time.Since(begin)
	sent, acked := r.Counts()
	cpu = cpuTime() - cpu
	r.f.stop(r.p.Wait)
	return r.result(elapsed, cpu, sent, acked)
}

// start has the devices begin.
func (r *PublishRun) start(ctx context.Context) {
	for _, d := range r.fleet {
		if ctx.Err() != nil {
			return
		}
		d.m.mu.Lock()
		d.start = r.f.now()
		if c := d.m.conn.Load(); c != nil && !d.paced() && r.p.QoS > 0 {
			d.burst(c)
			c.write(d.start)
		}
		d.m.mu.Unlock()
		if d.paced() || r.p.QoS == 0 {
			r.f.wg.Go(d.write) // ends with stop
		}
	}
}

// result is called when nothing runs any more. sent and acked are as they were at the end of the time.
func (r *PublishRun) result(elapsed, cpu time.Duration, sent, acked int) *PublishResult {
	out := &PublishResult{Kind: "publish", Run: r.p.Run, QoS: r.p.QoS, Window: r.p.Window, Size: r.p.Size, Rate: r.p.Rate, Seconds: seconds(elapsed),
		Connections: r.f.connections(), PerSecond: perSecond(acked, elapsed), Times: r.times.Times(), CPU: seconds(cpu)}
	if r.p.QoS == 0 {
		out.PerSecond = perSecond(sent, elapsed)
	}
	out.Sent, out.Acknowledged = r.Counts()
	refusals := map[string]int{}
	for _, d := range r.fleet {
		out.Refused += d.refused
		out.Unacknowledged += d.unacked
		out.Repeated += d.repeats
		if d.refused > 0 {
			refusals[d.refusal] += d.refused
		}
		if d.paced() && d.start > 0 {
			out.Late += max(0, int(d.due(d.start+int64(elapsed)))-int(d.seq))
		}
		out.ledger = append(out.ledger, d.ledger())
	}
	out.Refusals = sortedReasons(refusals)
	return out
}

// Err says what must not be; nil: all is well.
func (p *PublishResult) Err() error {
	errs := []error{p.Connections.fault()}
	switch {
	case p.Sent == 0:
		errs = append(errs, errors.New("nothing was sent"))
	case p.QoS > 0 && p.Acknowledged == 0:
		why := "no answer came"
		if len(p.Refusals) > 0 {
			why = "refused with " + p.Refusals[0]
		} else if p.Connections.Lost > 0 {
			why = p.Connections.why()
		}
		errs = append(errs, fmt.Errorf("no message was acknowledged: %s", why))
	}
	if p.Readback != nil {
		errs = append(errs, p.Readback.Err())
	}
	return errors.Join(errs...)
}
