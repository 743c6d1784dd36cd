package driver

import (
	"context"
	"strconv"
	"sync"
	"time"

	"sluice/fleet"
	"sluice/kafka"
)

// An ownership is the time in which this instance looks after one partition of the sessions topic: it declares those
// dead that are silent, and does for their devices what they can't do any more.
type ownership struct {
	p    *part
	tx   Transactor
	ctx  context.Context
	stop context.CancelFunc
}

// Assigned is called when the group has given a partition of the sessions topic to this process.
func (d *Driver) Assigned(partition int32) {
	if partition >= d.Partitions() {
		return // it was added later, and has nothing of ours
	}
	p := d.parts[partition]
	p.lock()
	defer p.unlock()
	p.assigned, p.initial = true, p.initial || !d.joined.Load()
	if inc := d.me.Load(); inc != nil && !inc.dead.Load() {
		p.own()
	}
}

// Joined is called when the group has given this process its first partitions, which may be none. If another instance was heard
// of until then, that has looked after them.
func (d *Driver) Joined() {
	if d.joined.Swap(true) || !d.company.Load() {
		return
	}
	for _, p := range d.parts {
		p.lock()
		p.initial = false
		p.unlock()
	}
}

// Revoked is called before the partition goes to another one.
func (d *Driver) Revoked(partition int32) {
	if partition >= d.Partitions() {
		return
	}
	p := d.parts[partition]
	p.lock()
	defer p.unlock()
	p.assigned, p.initial = false, false
	p.disown()
}

// own begins an ownership. mu is held.
func (p *part) own() {
	p.disown()
	ctx, stop := context.WithCancel(p.d.ctx)
	o := &ownership{p: p, ctx: ctx, stop: stop}
	tx, err := p.d.cfg.Transactor(p.d.cfg.Sessions+"-owner-"+strconv.Itoa(int(p.id)), o.fenced)
	if err != nil { // the configuration that all others have
		stop()
		p.d.host.Fail(err)
		return
	}
	o.tx = tx
	p.ownership = o
	p.d.goes(func() { _ = tx.Run(ctx) }) // ends with ctx; gives nil
	o.do(p.owner.Assigned())
}

// disown ends the ownership. mu is held.
func (p *part) disown() {
	if p.ownership == nil {
		return
	}
	p.ownership.stop()
	p.ownership = nil
	p.owner.Revoked()
}

// fenced is called when another one has the owner's transactional id, or the outcome of a transaction is unknown. What
// was read so far is not enough any more to act on.
func (o *ownership) fenced(error) {
	o.p.d.m.TransactionsLost.Inc()
	o.p.d.errand(func(ctx context.Context) error {
		pause(ctx, time.Second) // if it is another owner, the group is about to tell
		o.p.lock()
		defer o.p.unlock()
		if o.p.ownership == o && o.p.assigned {
			o.p.own()
		}
		return nil
	})
}

// write is for the wills of the dead.
func (o *ownership) write(g *kafka.TxGroup) { o.tx.Write(g) }

// right is taken once: when it is lost the ownership is over.
func (o *ownership) right() (turn int, held bool) { return 1, true }

// tick has the owner look at the heartbeats and at the time. mu is held.
func (p *part) tick() {
	if o := p.ownership; o != nil {
		p.d.pulse.mu.Lock()
		acts := p.owner.Tick(p.d.pulse.mono(), millis(), p.d.pulse.of, &p.table)
		p.d.pulse.mu.Unlock()
		o.do(acts)
	}
}

// do carries out what the owner asks for. part.mu is held.
func (o *ownership) do(acts []fleet.Action) {
	p, d := o.p, o.p.d
	for _, a := range acts {
		switch a.Kind {
		case fleet.ActTake:
			o.errand(o.take)
		case fleet.ActFence:
			o.errand(func(ctx context.Context) error {
				return d.fence(ctx, a, func() { o.event(func() []fleet.Action { return p.owner.Fenced(a.Inc) }) })
			})
		case fleet.ActReadEnds:
			asked := millis()
			o.errand(func(ctx context.Context) error { return o.readEnds(ctx, asked) })
		case fleet.ActVerdict:
			o.verdict(a)
		case fleet.ActReach:
			o.errand(func(ctx context.Context) error { o.reach(ctx, a); return nil })
		case fleet.ActWill:
			o.errand(func(ctx context.Context) error { return o.publishWill(ctx, a) })
		case fleet.ActTombstone:
			p.produce(a.Key, nil, func(int64, error) {})
		case fleet.ActEnded:
			p.ended(a.Client, a.State)
		}
	}
}

// errand is sessions.errand, for as long as the ownership lasts.
func (o *ownership) errand(f func(ctx context.Context) error) {
	o.p.d.errand(func(context.Context) error {
		if o.ctx.Err() != nil {
			return nil
		}
		err := f(o.ctx)
		if o.ctx.Err() != nil {
			return nil
		}
		return err
	})
}

// event gives the owner an event, if it still is one.
func (o *ownership) event(f func() []fleet.Action) {
	o.p.lock()
	defer o.p.unlock()
	if o.p.ownership == o {
		o.do(f())
	}
}

func (o *ownership) take(ctx context.Context) error {
	if err := o.tx.Renew(ctx); err != nil {
		return err
	}
	o.event(func() []fleet.Action { return o.p.owner.Taken(&o.p.table) })
	return nil
}

func (o *ownership) readEnds(ctx context.Context, asked int64) error {
	p, d := o.p, o.p.d
	l := d.ledgers[p.id]
	if err := d.readEnd(ctx, p); err != nil {
		return err
	}
	if err := d.readLedger(ctx, l); err != nil {
		return err
	}
	o.event(func() []fleet.Action {
		l.mu.Lock()
		defer l.mu.Unlock()
		return p.owner.EndsRead(asked, &p.table, &l.table)
	})
	return nil
}

// verdict writes that an incarnation is dead, which is final, and tells of the end of its connections. part.mu is held.
func (o *ownership) verdict(a fleet.Action) {
	p, d := o.p, o.p.d
	d.m.VerdictsOther.Inc()
	d.cfg.Log.Warn().Str("incarnation", a.Inc).Int32("partition", p.id).Msg("an instance is silent and is declared dead")
	at := millis()
	d.write(p, a.Key, a.Verdict, func(err error) {
		if err != nil {
			d.host.Fail(err)
			return
		}
		o.event(func() []fleet.Action {
			o.tellEnds(a.Inc, at)
			return p.owner.Judged(a.Inc, &p.table)
		})
	})
}

// reach writes a verdict once more, with how far the command topics go now. Until it is read, and should it not come to that,
// whoever opens a session of the dead one finds that out.
func (o *ownership) reach(ctx context.Context, a fleet.Action) {
	d := o.p.d
	ends := d.host.LogEnds(ctx)
	if ends == nil {
		return
	}
	a.Verdict.Ends = d.host.Positions(ends)
	o.event(func() []fleet.Action {
		d.write(o.p, a.Key, a.Verdict, func(error) {})
		return nil
	})
}

// tellEnds tells of the connections that a dead incarnation had. part.mu is held.
func (o *ownership) tellEnds(inc string, at int64) {
	d := o.p.d
	if !d.cfg.TellDied {
		return
	}
	for client := range o.p.table.Clients() {
		st := o.p.view(client).Session(inc)
		if st == nil || !st.Opened() || st.Released || st.OfflineSince > 0 {
			continue
		}
		d.host.Died(client, inc, st, at)
	}
}

func (o *ownership) publishWill(ctx context.Context, a fleet.Action) error {
	w := &willing{d: o.p.d, client: a.Client, epoch: a.Epoch, will: a.Will, by: o}
	if err := w.publish(ctx); err != nil {
		return err
	}
	o.event(func() []fleet.Action {
		o.p.owner.WillDone(a.Client, a.Epoch)
		return nil
	})
	return nil
}

// A pulse is what is known of the heartbeats.
type pulse struct {
	mu    sync.Mutex
	start time.Time
	of    *fleet.Pulse // nil until the first incarnation
}

// mono is the time on a clock that is never set, in milliseconds.
func (p *pulse) mono() int64 { return time.Since(p.start).Milliseconds() }

func (p *pulse) begin(name string, deadAfter time.Duration, partitions int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.start.IsZero() {
		p.start = time.Now()
	}
	p.of = fleet.NewPulse(name, heartbeat.Milliseconds(), deadAfter.Milliseconds(), partitions)
}

// heard notes a heartbeat that was read from a partition.
func (p *pulse) heard(name string, partition int32, beat int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.of != nil {
		p.of.Heard(name, partition, beat, p.mono())
	}
}

// known notes that a partition has a heartbeat, which may be an old one.
func (p *pulse) known(name string, partition int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.of.Known(name, partition, p.mono())
}

// condemned notes that a verdict was read.
func (p *pulse) condemned(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.of != nil {
		p.of.Condemned(name)
	}
}

// recallInstances gives a new pulse what was read before it was there: in which partitions there are heartbeats, and
// the verdicts. Who has a verdict in any partition need not be silent once more before the owners of the others act.
func (d *Driver) recallInstances() {
	for _, p := range d.parts {
		p.lock()
		for _, name := range p.table.Instances() {
			if _, dead := p.table.Dead(name); dead {
				d.pulse.condemned(name)
			}
			if p.table.Beats(name) {
				d.pulse.known(name, p.id)
			}
		}
		p.unlock()
	}
}
