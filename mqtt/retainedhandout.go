package mqtt

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"
)

// A handout is what a subscription still has to get of the retained messages: those from a topic on. It holds no
// message, so it costs the same for one and for a million.
type handout struct{ filter, next string }

// handing is the part of an outbox that hands out retained messages. Guarded by outbox.mu.
type handing struct {
	awaited  []string // filters that wait for Retained to catch up
	attached any      // of the connection that they came on
	catching bool     // catchUp runs
	handouts []handout
	inTurn   bool // in Retained.turns
	parked   bool // there was no memory for the next message
}

// turns are the outboxes that can hand out more. They are served by one goroutine, a portion each: neither a search
// through a million topics nor a subscription to all of them delays anybody else.
type turns struct {
	mu     sync.Mutex // taken after outbox.mu
	list   []*outbox
	parked []*outbox // wait for memory
}

// What one turn does: it goes on when the device has taken that.
const (
	portionMessages = 32
	portionBytes    = 64 << 10
	portionSteps    = 1024
)

// owes says whether a subscription that is about to be made is to get the retained messages [MQTT-3.3.1-9]
// [MQTT-3.3.1-10] [MQTT-3.3.1-11]. Those of a share group never do (section 4.8.2).
func (o *outbox) owes(r filterRequest) bool {
	switch {
	case o.srv.cfg.Retained == nil, r.retainHandling == 2, strings.HasPrefix(r.filter, "$share/"):
		return false
	case r.retainHandling == 0:
		return true
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.place(r.filter) < 0
}

// owe has the retained messages of new subscriptions handed out once all are there that were acknowledged before.
func (o *outbox) owe(filters []string, attached any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	x := o.srv.cfg.Retained
	if x.cfg.CatchUp == nil {
		o.handOut(filters)
		return
	}
	o.attached = attached
	for _, f := range filters {
		if !slices.Contains(o.awaited, f) {
			o.awaited = append(o.awaited, f)
		}
	}
	if !o.catching {
		o.catching = x.work.start(o.catchUp)
	}
}

// catchUp hands out what is awaited, round by round: who subscribes while one is under way waits for the next.
func (o *outbox) catchUp(ctx context.Context) {
	for {
		o.mu.Lock()
		filters, attached := o.awaited, o.attached
		o.awaited, o.attached = nil, nil
		if o.catching = len(filters) > 0 && !o.ended; !o.catching {
			o.mu.Unlock()
			return
		}
		o.mu.Unlock()
		if o.srv.cfg.Retained.cfg.CatchUp(ctx, filters, attached) != nil {
			return // the process stops
		}
		o.mu.Lock()
		o.handOut(filters)
		o.mu.Unlock()
	}
}

// work is goroutines that end with Run.
type work struct {
	ctx  context.Context
	stop context.CancelFunc

	mu    sync.Mutex // taken after outbox.mu
	ended bool
	all   sync.WaitGroup
}

// start runs f, unless Run has ended.
func (w *work) start(f func(context.Context)) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ended {
		w.all.Go(func() { f(w.ctx) })
	}
	return !w.ended
}

func (w *work) end() {
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
	w.stop()
	w.all.Wait()
}

// handOut begins to hand out the retained messages of subscriptions, from the beginning where that is under way already.
// mu is held.
func (o *outbox) handOut(filters []string) {
	for _, f := range filters {
		o.handouts = slices.DeleteFunc(o.handouts, func(h handout) bool { return h.filter == f })
		o.handouts = append(o.handouts, handout{filter: f})
	}
	o.handOn()
}

// handOn asks for a turn if more can be handed out now. What the device can't take at once waits in the queue, so the
// next portion comes when that is empty; and none comes before SUBACK. mu is held.
func (o *outbox) handOn() {
	if len(o.handouts) == 0 || o.inTurn || o.parked || !o.canHandOut() {
		return
	}
	o.inTurn = true
	o.srv.cfg.Retained.enlist(o)
}

// canHandOut is asked with mu held.
func (o *outbox) canHandOut() bool {
	return o.conn != nil && !o.ended && len(o.queue) == 0 && len(o.acks) == 0
}

// enlist gives o a turn. o.mu is held.
func (x *Retained) enlist(o *outbox) {
	x.turns.mu.Lock()
	x.turns.list = append(x.turns.list, o)
	x.turns.mu.Unlock()
	x.signal()
}

func (x *Retained) signal() {
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// takeTurns serves those who have a turn now, each once.
func (x *Retained) takeTurns(ctx context.Context) {
	x.turns.mu.Lock()
	list := x.turns.list
	x.turns.list = nil
	x.turns.mu.Unlock()
	for _, o := range list {
		if ctx.Err() != nil {
			return
		}
		x.turn(o)
	}
}

// turn hands out the next portion of o.
func (x *Retained) turn(o *outbox) {
	now := time.Now()
	o.mu.Lock()
	o.inTurn = false
	if !o.canHandOut() {
		o.mu.Unlock() // pump comes to it
		return
	}
	if o.portion(x); o.parked {
		x.turns.mu.Lock()
		x.turns.parked = append(x.turns.parked, o)
		x.turns.mu.Unlock()
	}
	o.unlock(o.pump(now))
	o.srv.Flush()
}

// unpark gives those a turn who waited for memory.
func (x *Retained) unpark() {
	x.turns.mu.Lock()
	list := x.turns.parked
	x.turns.parked = nil
	x.turns.mu.Unlock()
	for _, o := range list {
		o.mu.Lock()
		o.parked = false
		o.handOn()
		o.mu.Unlock()
	}
}

// portion puts the next messages into the queue. mu is held.
func (o *outbox) portion(x *Retained) {
	p := portion{o: o, x: x, steps: portionSteps}
	for len(o.handouts) > 0 && p.steps > 0 && !p.full && !p.noMemory {
		h := &o.handouts[0]
		more := false
		if at := o.place(h.filter); at >= 0 { // else it was unsubscribed [MQTT-3.10.4-2]
			p.sub = o.subs[at].subscription
			h.next, more = p.match(h)
		}
		if !more {
			o.handouts = o.handouts[1:]
		}
	}
	if len(o.handouts) == 0 {
		o.handouts = nil
	}
	// With something under way here the next answer of the device brings the next turn.
	o.parked = p.noMemory && len(o.queue)+len(o.flight) == 0
}

// A portion is what one turn puts into a queue.
type portion struct {
	o        *outbox
	x        *Retained
	sub      subscription // whose messages it takes now
	steps    int          // that are left
	bytes    int64
	full     bool
	noMemory bool
}

// match takes the next messages of h.
func (p *portion) match(h *handout) (next string, more bool) {
	steps := min(p.steps, portionSteps/4) // writers wait that long
	p.steps -= steps
	return p.x.Match(h.filter, h.next, steps, p.take)
}

// take puts a message into the queue; false: not now. It is sent with RETAIN 1 whatever the subscription says of Retain
// As Published [MQTT-3.3.1-8].
func (p *portion) take(m *RetainedMessage) bool {
	o := p.o
	if p.full = len(o.queue) >= portionMessages || p.bytes >= portionBytes; p.full {
		return false
	}
	if p.sub.noLocal && m.ClientID == o.session.clientID && m.ClientID != "" {
		return true
	}
	if !o.conn.mayReceive(m.Topic) {
		p.x.m.settled[Dropped].Inc()
		return true
	}
	d := delivery{cmd: m.command(p.x), qos: min(p.sub.qos, m.QoS), retain: true}
	if p.sub.id != 0 {
		d.ids = []int{p.sub.id}
	}
	if d.weight() > o.srv.cfg.CommandMemory {
		p.x.m.settled[Dropped].Inc()
		return true
	}
	// Half of the memory is left to commands: those are dropped without it, and this can wait.
	p.noMemory = o.srv.held.Load() > o.srv.cfg.CommandMemory/2 || o.full(&d) != ""
	if p.noMemory {
		return false
	}
	o.push(d)
	p.bytes += d.weight()
	return true
}

// Command makes the command that brings m, which was handed out on an earlier connection, to its device again. It shares
// no memory with m.
func (x *Retained) Command(m *RetainedMessage) *Command {
	var own RetainedMessage
	m.row().message(&own)
	return own.command(x)
}

// command makes the command that brings m to one device. It shares the memory of what m points to.
func (m *RetainedMessage) command(owner CommandOwner) *Command {
	return &Command{
		Topic: m.Topic, Payload: m.Payload, ContentType: m.ContentType, ResponseTopic: m.ResponseTopic, CorrelationData: m.CorrelationData,
		User: slices.Clone(m.User), PayloadFormat: m.PayloadFormat, QoS: m.QoS, Retain: true, Expires: m.Expires, Place: m.Place, Owner: owner,
	}
}

// CommandSent does nothing.
func (x *Retained) CommandSent(*Command) {}

// CommandSettled counts.
func (x *Retained) CommandSettled(_ *Command, _ string, fate Fate, _ Code, _ string) {
	x.m.settled[fate].Inc()
}
