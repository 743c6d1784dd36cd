package mqtt

import (
	"context"
	"slices"
	"sync"
	"time"
)

// A handout is what a subscription still has to get of the retained messages: those from a topic on. It holds no
// message, so it costs the same for one and for a million. It owns the commands that it makes.
type handout struct {
	*Retained
	filter, next string
	stage        stage
	over         bool // the subscription is no more; what waits in the queue is still sent
}

// A stage is how far a handout has got.
type stage byte

const (
	announced stage = iota // SUBACK, or after a return CONNACK, is to be said first
	awaiting               // the next round of catchUp is for it
	asking                 // this one is
	ready
)

// handing is the part of an outbox that hands out retained messages. Guarded by outbox.mu.
type handing struct {
	handouts []*handout // one for a filter
	attached any        // of the connection that they came on
	catching func()     // ends what catchUp waits for; nil: it does not run
	inTurn   bool       // in Retained.turns
	parked   bool       // there was no memory for the next message
	handed   int        // settled since the last snapshot
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

// owe notes that a subscription which is made, or replaced, is to get the retained messages, if it is: from the beginning,
// where that is under way already [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11]. Those of a share group never do (section
// 4.8.2). mu is held.
func (o *outbox) owe(r *filterRequest, replaced bool) {
	x := o.srv.cfg.Retained
	if x == nil || r.retainHandling == 2 || r.retainHandling == 1 && replaced || isShared(r.filter) {
		return
	}
	if i := slices.IndexFunc(o.handouts, func(h *handout) bool { return h.filter == r.filter }); i >= 0 {
		o.handouts[i].next, o.handouts[i].stage = "", announced
		return
	}
	o.handouts = append(o.handouts, &handout{Retained: x, filter: r.filter})
}

// forgive ends the handout of a subscription that is no more [MQTT-3.10.4-2]. mu is held.
func (o *outbox) forgive(filter string) {
	o.handouts = slices.DeleteFunc(o.handouts, func(h *handout) bool { return h.filter == filter })
	for i := range o.queue {
		if h := handoutOf(o.queue[i].cmd); h != nil && h.filter == filter {
			h.over = true
		}
	}
}

// handoutOf gives the handout that a command in the queue is still to be counted for.
func handoutOf(c *Command) *handout {
	if h, is := c.Owner.(*handout); is && !h.over {
		return h
	}
	return nil
}

// debts gives the topics from which on subscriptions still have to get their retained messages. What waits in the queue is
// among them: it goes with the connection. What is in flight is not, as it comes again by itself. mu is held.
func (o *outbox) debts() (from map[string]*string) {
	note := func(h *handout, topic string) {
		if from == nil {
			from = make(map[string]*string)
		}
		if low := from[h.filter]; low == nil || topic < *low {
			from[h.filter] = &topic
		}
	}
	for i := range o.queue {
		if h := handoutOf(o.queue[i].cmd); h != nil {
			note(h, string(o.queue[i].cmd.Topic))
		}
	}
	for _, h := range o.handouts {
		note(h, h.next)
	}
	return from
}

// advance brings the handouts of a stage to the next one and gives their filters. mu is held.
func (o *outbox) advance(from stage) (filters []string) {
	for _, h := range o.handouts {
		if h.stage == from {
			h.stage++
			filters = append(filters, h.filter)
		}
	}
	return filters
}

// handOut has what is announced handed out once all messages are there that were acknowledged before. mu is held.
func (o *outbox) handOut(attached any) {
	if len(o.advance(announced)) == 0 {
		return
	}
	if o.attached = attached; o.catching == nil {
		o.catching = o.srv.cfg.Retained.work.start(o.catchUp)
	}
}

// catchUp serves what waits for it, round by round: who subscribes while one is under way waits for the next.
func (o *outbox) catchUp(ctx context.Context) {
	for {
		o.mu.Lock()
		filters, attached := o.advance(awaiting), o.attached
		o.attached = nil
		if len(filters) == 0 {
			o.catching()
			o.catching = nil
			o.mu.Unlock()
			return
		}
		o.mu.Unlock()
		if o.srv.cfg.Retained.cfg.CatchUp(ctx, filters, attached) != nil {
			return // the process stops, or the session has left
		}
		o.mu.Lock()
		o.advance(asking)
		o.handOn()
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

// start runs f until stop at the latest; nil: Run has ended.
func (w *work) start(f func(context.Context)) (stop func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return nil
	}
	ctx, stop := context.WithCancel(w.ctx)
	w.all.Go(func() { f(ctx) })
	return stop
}

func (w *work) end() {
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
	w.stop()
	w.all.Wait()
}

// handOn asks for a turn if more can be handed out now. What the device can't take at once waits in the queue, so the
// next portion comes when that is empty; and none comes before SUBACK. mu is held.
func (o *outbox) handOn() {
	if len(o.handouts) == 0 || o.inTurn || o.parked || !o.canHandOut() || o.ready() < 0 {
		return
	}
	o.inTurn = true
	o.srv.cfg.Retained.enlist(o)
}

// ready gives the place of the first handout that can go on, or -1. mu is held.
func (o *outbox) ready() int {
	return slices.IndexFunc(o.handouts, func(h *handout) bool { return h.stage == ready })
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
	for i := o.ready(); i >= 0 && p.steps > 0 && !p.full && !p.noMemory; i = o.ready() {
		h := o.handouts[i]
		p.h, p.sub = h, o.subs[o.place(h.filter)].subscription
		var more bool
		if h.next, more = p.match(); !more {
			o.handouts = slices.Delete(o.handouts, i, i+1)
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
	h        *handout     // whose messages it takes now
	sub      subscription // of h
	steps    int          // that are left
	bytes    int64
	full     bool
	noMemory bool
}

// match takes the next messages of p.h.
func (p *portion) match() (next string, more bool) {
	steps := min(p.steps, portionSteps/4) // writers wait that long
	p.steps -= steps
	return p.x.Match(p.h.filter, p.h.next, steps, p.take)
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
	d := delivery{cmd: m.command(p.h), qos: min(p.sub.qos, m.QoS), retain: true}
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
