package driver

import (
	"context"
	"time"

	"sluice/fleet"
)

// runHeart writes heartbeats, and looks after the partitions once a second, until ctx ends.
func (d *Driver) runHeart(ctx context.Context, inc *incarnation) {
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return
		case at := <-second.C:
			if n%heartbeatSeconds == 0 {
				d.beat(inc)
			}
			for _, p := range d.parts {
				p.sweep(at)
			}
		}
	}
}

func (d *Driver) instance(inc *incarnation) *fleet.Instance {
	return &fleet.Instance{Started: inc.began, TxIDs: inc.txids, Alive: millis(), Beat: d.pulse.mono()}
}

// write writes what is said of an incarnation.
func (d *Driver) write(p *part, key []byte, v *fleet.Instance, done func(error)) {
	value, err := v.Encode()
	if err != nil { // an Instance can be encoded
		d.host.Fail(err)
		return
	}
	p.produce(key, value, func(_ int64, err error) { done(err) })
}

// beat writes a heartbeat into each partition in which none is under way: one that Kafka does not take now is one
// record that waits, however long that is.
func (d *Driver) beat(inc *incarnation) {
	for i, p := range d.parts {
		if inc.beating[i].Swap(true) {
			continue
		}
		d.write(p, fleet.InstanceKey(inc.name), d.instance(inc), func(err error) {
			inc.beating[i].Store(false)
			select {
			case inc.beaten <- err:
			default:
			}
		})
	}
}

// firstBeat writes the first heartbeats and waits until Kafka has one: from then on the others can judge us.
func (d *Driver) firstBeat(ctx context.Context, inc *incarnation) error {
	d.beat(inc)
	select {
	case err := <-inc.beaten:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Stop ends the incarnation in order, when all connections have ended: their sessions are released, and the verdict on
// itself, the last word, gives what is left to do for them to the owners. idle says that nothing else is to be told before
// that.
func (d *Driver) Stop(ctx context.Context, idle func() bool) {
	d.stopped.Store(true)
	inc := d.me.Load()
	if inc == nil || inc.dead.Load() {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(d.ctx, cancel)() // a part has failed, and nothing is written any more
	releases, done := beforeVerdicts(ctx)
	d.awaitReleases(releases, inc, idle)
	released := releases.Err() == nil
	done()
	if !released {
		d.cfg.Log.Warn().Msg("stopped before all sessions were released")
	}
	verdict := d.instance(inc)
	verdict.Dead, verdict.By, verdict.At = true, inc.name, millis()
	verdict.Ends = d.host.Positions(d.host.Ends())
	written := make(chan error, len(d.parts))
	for _, p := range d.parts {
		d.write(p, fleet.VerdictKey(inc.name), verdict, func(err error) { written <- err })
	}
	for range d.parts {
		select {
		case err := <-written:
			if err != nil {
				d.cfg.Log.Error().Err(err).Msg("cannot say that this instance has ended")
			}
		case <-ctx.Done():
			d.cfg.Log.Warn().Msg("stopped before it was told that this instance has ended; the other instances notice within seconds")
			return
		}
	}
}

// verdictTime is the most that is kept of the time of a stop for the verdicts: they are one record for each partition.
const verdictTime = 2 * time.Second

// beforeVerdicts ends so much before ctx that the verdicts can still be written. A message that is stuck in Kafka may
// have releases wait to the end; without a verdict the others would take over only when they have missed our heartbeats.
func beforeVerdicts(ctx context.Context) (context.Context, context.CancelFunc) {
	end, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, end.Add(-min(verdictTime, time.Until(end)/4)))
}

// awaitReleases waits until the ends of all connections are written, and the wills that are due are published, or until
// that is for others to do.
func (d *Driver) awaitReleases(ctx context.Context, inc *incarnation, idle func() bool) {
	for {
		_, judged := d.verdict(inc)
		if idle() && (judged || d.leaving.Load() == 0 && !d.busy()) { // in this order: what was in doubt may be suspended then
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// busy says whether there is anything to write for a device that was here.
func (d *Driver) busy() bool {
	for _, p := range d.parts {
		if p.busy() {
			return true
		}
	}
	return false
}

func (p *part) busy() bool {
	p.lock()
	defer p.unlock()
	for _, h := range p.clients {
		if !h.m.Settled(p.view(h.id)) {
			return true
		}
	}
	return len(p.suspended) > 0 || p.heard.owned()
}
