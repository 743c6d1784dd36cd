package proxy

import (
	"sluice/kafka"
	"sluice/mqtt"
)

// txRecord makes the retained record of m for a transaction: of a message that is to be stored exactly once, or a will.
// It shares the memory of m.
func (w *retainedWriter) txRecord(m *mqtt.Message) *kafka.TxRecord {
	retained := retainedOf(m)
	var r kafka.Record
	w.fill(&r, &retained, m.Received)
	return &kafka.TxRecord{Topic: r.Topic, Key: r.Key, Value: r.Value, Headers: r.Headers, Timestamp: r.Timestamp, Among: w.layout.of(w.topic)}
}

// transact is publish for a message whose records are written in one transaction: it gives the retained record, and
// what is to be called with the outcome of the transaction in place of then. ok is false if the message was refused.
func (w *retainedWriter) transact(d *delivery, then func(error)) (r *kafka.TxRecord, done func(error), ok bool) {
	m := retainedOf(d.msg)
	room, ok := w.admit(&m)
	if !ok {
		w.m.refused(fromDevice)
		d.p.refuse(d, retainedFull)
		return nil, nil, false
	}
	r = w.txRecord(d.msg)
	turn := &inLine{line: openLine(d), topic: string(d.msg.Topic), passed: make(chan struct{})} // a subscription of the device waits for it
	if turn.line != nil {
		turn.line.join(turn)
	}
	return r, func(err error) {
		w.release(room)
		w.m.wrote(fromDevice, r.Value == nil, err)
		then(err)
		if turn.line != nil {
			turn.settle(nil)
		}
	}, true
}
