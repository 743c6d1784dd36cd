package proxy

import (
	"errors"
	"time"

	"github.com/rs/zerolog"

	"sluice/fleet/driver"
	"sluice/kafka"
	"sluice/mqtt"
	"sluice/proxy/acl"
	"sluice/proxy/config"
	"sluice/topicmap"
)

// A publisher is the mqtt.Handler: it routes messages and answers for them.
type publisher struct {
	rules       *topicmap.Map
	producer    *kafka.Producer   // of what no rule has one for
	producers   []*kafka.Producer // by rule
	budget      *kafka.Budget
	unmatched   config.Unmatched
	refused     config.Refused
	access      *acl.List // nil: everybody may do everything
	exactlyOnce []bool    // by rule
	passing     []passing // by rule
	flush       func()    // sends what was settled
	retained    *retainedWriter
	m           *metrics
	log         zerolog.Logger // sampled: a fleet can trigger these lines
}

func newPublisher(rules *topicmap.Map, producers *producers, cfg *config.Config, m *metrics, log zerolog.Logger) *publisher {
	p := &publisher{
		rules:     rules,
		producer:  producers.main,
		budget:    producers.main.Budget(),
		unmatched: cfg.Unmatched,
		refused:   cfg.Refused,
		m:         m,
		log:       log.Sample(&zerolog.BurstSampler{Burst: 5, Period: time.Second}),
	}
	for _, r := range cfg.Publish {
		p.exactlyOnce = append(p.exactlyOnce, r.ExactlyOnce)
		p.passing = append(p.passing, passingOf(&r))
		p.producers = append(p.producers, producers.of(r.Identity))
	}
	return p
}

// Admit routes m and takes its memory for where it goes.
func (p *publisher) Admit(m *mqtt.Message, resume func()) bool {
	d := p.routed(m)
	if p.admitted(d, resume) {
		m.Held = d
		return true
	}
	d.free()
	return false
}

func (p *publisher) admitted(d *delivery, resume func()) bool {
	m := d.msg
	if w, ok := m.Turn.(*kafka.Waiter); ok {
		// The way may be another one than when the wait began: the topic has shown its partitions meanwhile. The bytes were
		// taken for where it led then, and are given back there.
		d.room = w.For()
		return w.Take()
	}
	if p.budget.TryTake(d.room, m.Reserved) {
		return true
	}
	if resume != nil {
		m.Turn = p.budget.Wait(d.room, m.Reserved, resume)
	}
	return false
}

// Release gives the memory back that Admit took.
func (p *publisher) Release(m *mqtt.Message) {
	d := m.Held.(*delivery)
	m.Held = nil
	p.budget.Give(d.room, m.Reserved)
	d.free()
}

// routed says where m goes.
func (p *publisher) routed(m *mqtt.Message) *delivery {
	d := deliveries.Get().(*delivery)
	d.p, d.msg = p, m
	d.describe(m)
	if d.fault = denied(m); m.TooDeep {
		d.fault = errTooDeep
	}
	if d.fault == nil {
		d.fault = p.rules.Route(&d.in, &d.route)
	}
	if d.fault == nil {
		d.room = p.budget.Destination(d.route.Topic, d.key())
		return d
	}
	d.room = kafka.Destination{} // it is refused at once
	if fate, topic := p.fate(d, refusalOf(d.fault)); fate == deadLettered {
		d.room = deadRoom(topic)
	}
	return d
}

// Publish produces the record of m.
func (p *publisher) Publish(m *mqtt.Message) {
	var d *delivery
	if m.Will {
		// A will can't wait for room: its device is gone, and there is no other moment to publish it.
		m.Reserved = len(m.Topic) + len(m.Payload) + mqtt.MessageOverhead
		d = p.routed(m)
		p.budget.Take(d.room, m.Reserved)
	} else {
		d = m.Held.(*delivery)
	}
	if d.fault != nil {
		d.rule = p.m.rule(ruleOf(d.fault))
		p.refuse(d, refusalOf(d.fault))
		return
	}
	d.rule = p.m.rule(d.route.Rule)
	d.fillRouted()
	if p.exactlyOnce[d.route.Rule] {
		// Of each QoS: one that took another way could come before those that were sent before it.
		if held, id := m.Keeper(); held != nil {
			p.transact(d, held.(*keeper).conn, id)
			return
		}
	}
	p.produce(d, p.producers[d.route.Rule])
}

// produce sends the record of d, in the order of the messages of its connection; to is nil for one that is only retained.
func (p *publisher) produce(d *delivery, to *kafka.Producer) {
	d.to = to
	switch l := lineOf(d); {
	case d.msg.Retain && p.retained != nil && !d.kept:
		p.retained.publish(d)
	case l == nil || !l.wait(d):
		to.Produce(&d.rec)
	}
}

// transact stores the record with the packet identifier of its message, if it has QoS 2, and the retained message with it.
func (p *publisher) transact(d *delivery, c *driver.Conn, id uint16) {
	records, done := []*kafka.TxRecord{d.txRecord()}, d.transacted
	if d.msg.Retain && p.retained != nil {
		rec, both, ok := p.retained.transact(d, done)
		if !ok {
			return
		}
		records, done = append(records, rec), both
	}
	c.Ingest(d.msg.QoS, id, records, done)
}

// unanswered says in the log that a message has no answer, and what that means: with its connection, as when the client ID is
// taken over, what is not stored yet ends too, and is sent again elsewhere.
func (p *publisher) unanswered(err error) {
	switch {
	case errors.Is(err, kafka.ErrClosed):
	case errors.Is(err, kafka.ErrAborted):
		p.log.Debug().Err(err).Msg("a record is not stored; its device was not answered and is disconnected")
	case errors.Is(err, kafka.ErrFenced):
		p.log.Warn().Err(err).Msg("a record is not stored; its device was not answered and is disconnected")
	default:
		p.log.Error().Err(err).Msg("it is unknown whether a record is stored; its device was not answered and is disconnected")
	}
}
