package proxy

import (
	"sync"

	"sluice/kafka"
	"sluice/mqtt"
)

// A line keeps the order of a connection whose retained messages are written twice, one after the other: what comes
// behind them waits until they have their turn in the topic of their rule. It is empty most of the time.
type line struct {
	mu          sync.Mutex // taken before the producer's
	first, last *inLine
}

// An inLine is a message in a line: a retained one that Kafka has not acknowledged yet, or one behind it.
type inLine struct {
	d      *delivery // nil: none, and passed is closed when it has its turn
	topic  string    // of a retained message whose d is nil
	passed chan struct{}
	line   *line // nil: it stands alone
	next   *inLine
	ready  bool
	stored chan struct{} // closed with ready; nil: nobody waits for it
	err    error         // of its retained record
}

// lineOf gives the line of the connection that d came on, nil if it has none.
func lineOf(d *delivery) *line {
	if d.late {
		return nil
	}
	if at := d.msg.Attached(); at != nil && *at != nil {
		return (*at).(*line)
	}
	return nil
}

// openLine is lineOf, and makes the line of a connection.
func openLine(d *delivery) *line {
	if at := d.msg.Attached(); at != nil && *at == nil && !d.late {
		*at = new(line)
	}
	return lineOf(d)
}

// wait has d wait behind what is in the line; false: there is nothing.
func (l *line) wait(d *delivery) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first == nil {
		return false
	}
	l.push(&inLine{d: d, line: l, ready: true})
	return true
}

// passed is closed when all that is in the line now has gone on; nil: nothing is.
func (l *line) passed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first == nil {
		return nil
	}
	w := &inLine{passed: make(chan struct{}), ready: true}
	l.push(w)
	return w.passed
}

// Empty says that nothing is in the line.
func (l *line) Empty() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first == nil
}

// Stored gives what is closed when Kafka has the retained messages with a topic that are on their way; nil: none are. Those of
// other topics may take longer.
func (l *line) Stored(topic string) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	var last *inLine
	for w := l.first; w != nil; w = w.next {
		if !w.ready && (w.topic == topic || w.d != nil && string(w.d.msg.Topic) == topic) {
			last = w
		}
	}
	if last == nil {
		return nil
	}
	if last.stored == nil {
		last.stored = make(chan struct{})
	}
	return last.stored
}

func (l *line) join(w *inLine) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.push(w)
}

// push is called with mu held. What stands in line has the memory of its own destination for as long as the line takes,
// so it is bounded by what its connection may have in flight.
func (l *line) push(w *inLine) {
	if w.d != nil {
		w.d.msg.Hold()
	}
	if l.first == nil {
		l.first, l.last = w, w
		return
	}
	l.last.next, l.last = w, w
}

// settle notes the outcome of the retained record, and sends what has its turn now.
func (w *inLine) settle(err error) {
	w.err = err
	l := w.line
	if l == nil {
		w.d.goOn(err)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock() // what follows is sent under it: nothing may overtake
	if w.stored != nil {
		close(w.stored)
	}
	for w.ready = true; l.first != nil && l.first.ready; {
		first := l.first
		l.first = first.next
		if first.d == nil {
			close(first.passed)
		} else {
			first.d.goOn(first.err)
		}
	}
	if l.first == nil {
		l.last = nil // it holds a message, and the line lives as long as the connection
	}
}

// goOn sends the record of d, or ends its message by the outcome of its retained record.
func (d *delivery) goOn(err error) {
	p, m, room, reserved := d.p, d.msg, d.room, d.msg.Reserved
	switch {
	case err == nil && d.to != nil:
		d.kept = m.Retain
		d.to.Produce(&d.rec)
		return
	case err == nil: // unmatched: drop
		d.rule.count(dropped, len(m.Payload))
		m.Ack(mqtt.NoMatchingSubscribers)
	case kafka.Final(err):
		r := refusalOf(err)
		r.final, d.late = true, true
		p.refuse(d, r)
		return
	default:
		d.rule.count(unknown, len(m.Payload))
		p.unanswered(err)
		m.Abandon("Kafka did not say whether the message is stored")
	}
	p.budget.Give(room, reserved)
	d.free()
}
