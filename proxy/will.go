package proxy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sluice/fleet"
	"sluice/kafka"
	"sluice/mqtt"
	"sluice/proxy/acl"
)

// A willing is a will that is to be published: by the instance that had its device, or by the owner of the partition
// if that instance is dead.
type willing struct {
	s      *sessions
	client string
	epoch  int64
	will   *fleet.Will
	by     willWriter
	turn   int // of by
}

// A willWriter is a shard, or the ownership of the partition.
type willWriter interface {
	write(g *kafka.TxGroup)
	right() (turn int, held bool)
}

var errNoRight = errors.New("the right to write transactions was lost and is not taken again yet")

// publish publishes the will, unless the ledger says that it was. The record and the note in the ledger are one
// transaction: after a crash between them the will would be published again. An error: try again.
func (w *willing) publish(ctx context.Context) error {
	l := w.s.ledger(w.client)
	var held bool
	if w.turn, held = w.by.right(); !held {
		return errNoRight
	}
	if err := w.s.readLedger(ctx, l); err != nil {
		return err
	}
	if l.willDone(w.client, w.epoch) {
		return nil
	}
	records, end, done := w.s.publisher.willRecords(willMessage(w.will, w.client), w.will.CommonName)
	note, err := w.note(end)
	if err == nil {
		err = w.write(ctx, append(records, note))
	}
	done(err)
	if err == nil {
		w.s.m.wills.WithLabelValues(string(end)).Inc()
	} else if kafka.Final(err) && end == fleet.WillPublished {
		w.s.lines.Warn().Err(err).Str("client_id", w.client).Msg("Kafka does not take a will")
		return w.drop(ctx)
	} else {
		return err
	}
	return nil
}

// drop notes that the will can't be published.
func (w *willing) drop(ctx context.Context) error {
	note, err := w.note(fleet.WillDropped)
	if err != nil {
		return err
	}
	if err := w.write(ctx, []*kafka.TxRecord{note}); err != nil {
		return err
	}
	w.s.m.wills.WithLabelValues(string(fleet.WillDropped)).Inc()
	return nil
}

// note makes the record of the ledger that says what became of the will.
func (w *willing) note(end fleet.WillEnd) (*kafka.TxRecord, error) {
	value, err := fleet.LedgerWill{Will: end}.Encode()
	return &kafka.TxRecord{Topic: w.s.cfg.Sessions.Ledger, Key: fleet.LedgerWillKey(w.client, w.epoch), PartitionKey: []byte(w.client), Among: w.s.spread(), Value: value}, err
}

// write writes records in one transaction.
func (w *willing) write(ctx context.Context, records []*kafka.TxRecord) error {
	done := make(chan error, 1)
	w.by.write(&kafka.TxGroup{Records: records, Owner: groupDone(func(err error) { done <- err }), Prepare: w.prepare})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// prepare holds that the right is the one with which the ledger was read. Between them another one may have had it, and
// have published the will.
func (w *willing) prepare() error {
	if turn, held := w.by.right(); !held || turn != w.turn {
		return fmt.Errorf("%w: %w", kafka.ErrAborted, errNoRight)
	}
	return nil
}

// groupDone is called with the outcome of a group.
type groupDone func(err error)

// GroupDone passes the outcome on.
func (f groupDone) GroupDone(_ *kafka.TxGroup, err error) { f(err) }

// willMessage makes the Will Message that is handed to the rules.
func willMessage(w *fleet.Will, clientID string) *mqtt.Message {
	m := &mqtt.Message{
		Topic: []byte(w.Topic), Payload: w.Payload, QoS: w.QoS, Retain: w.Retain, Will: true, Received: time.Now(),
		ClientID: clientID, Username: w.Username, CorrelationData: w.CorrelationData,
	}
	if w.ContentType != nil {
		m.ContentType = []byte(*w.ContentType)
	}
	if w.ResponseTopic != nil {
		m.ResponseTopic = []byte(*w.ResponseTopic)
	}
	if w.PayloadFormat != nil {
		m.PayloadFormat = mqtt.FormatBytes + mqtt.PayloadFormat(*w.PayloadFormat)
	}
	if w.Expiry != nil {
		m.Expiry, m.HasExpiry = *w.Expiry, true
	}
	for _, u := range w.User {
		m.User = append(m.User, mqtt.Property{Key: u[0], Value: u[1]})
	}
	return m
}

// willOf writes down the will of a CONNECT, nil if it has none.
func willOf(o *mqtt.Opening) *fleet.Will {
	m := o.Will
	if m == nil {
		return nil
	}
	w := &fleet.Will{
		Topic: string(m.Topic), Payload: m.Payload, QoS: m.QoS, Retain: m.Retain, ContentType: optional(m.ContentType),
		ResponseTopic: optional(m.ResponseTopic), CorrelationData: m.CorrelationData, Delay: o.WillDelay, Username: o.Username,
	}
	if m.PayloadFormat != mqtt.FormatAbsent {
		format := byte(m.PayloadFormat - mqtt.FormatBytes)
		w.PayloadFormat = &format
	}
	if who := m.Identity(); who != nil {
		w.CommonName = who.CommonName
	}
	if m.HasExpiry {
		w.Expiry = &m.Expiry
	}
	for _, u := range m.User {
		w.User = append(w.User, [2][]byte{u.Key, u.Value})
	}
	return w
}

// optional gives a property as text, nil if it is absent.
func optional(b []byte) *string {
	if b == nil {
		return nil
	}
	s := string(b)
	return &s
}

// willRecords makes the records of a will by the rules, and says whether there are any. commonName is that of the
// device's certificate, since a message from Kafka has no Identity. It takes memory of the budget, which nobody can wait
// for here; done gives it back and is to be called with the outcome.
func (p *publisher) willRecords(m *mqtt.Message, commonName string) (records []*kafka.TxRecord, end fleet.WillEnd, done func(error)) {
	taken := len(m.Topic) + len(m.Payload) + mqtt.MessageOverhead
	p.budget.Take(kafka.Destination{}, taken)
	d := &delivery{p: p, msg: m}
	done = func(err error) {
		p.rules.Settle(&d.route, end == fleet.WillPublished && !d.dead && exists(err))
		p.budget.Give(kafka.Destination{}, taken)
	}
	d.describe(m)
	d.in.CertCN = commonName
	err := p.deniedWill(m, commonName)
	if err == nil {
		err = p.rules.Route(&d.in, &d.route)
	}
	fate, retains := stored, true
	if err == nil {
		d.rule = p.m.rule(d.route.Rule)
		d.fillRouted()
	} else {
		r := refusalOf(err)
		d.rule = p.m.rule(ruleOf(err))
		p.m.refused.WithLabelValues(r.reason).Inc()
		var topic string
		if fate, topic = p.fate(d, r); fate == deadLettered {
			d.fillDead(topic, r.reason)
		}
		retains = p.retains(fate, r)
	}
	d.rule.count(fate, len(m.Payload))
	if fate == stored || fate == deadLettered {
		records = append(records, d.txRecord())
	}
	if retains && m.Retain && p.retained != nil {
		records = append(records, p.retained.txRecord(m))
	}
	if len(records) == 0 {
		return nil, fleet.WillDropped, done
	}
	return records, fleet.WillPublished, done
}

// deniedWill says why a will from Kafka may not be published: rights may have been withdrawn since its CONNECT.
func (p *publisher) deniedWill(m *mqtt.Message, commonName string) error {
	switch {
	case isSystemTopic(m.Topic):
		return errSystemTopic
	case p.access == nil:
		return nil
	}
	return willDenied(p.access.Access(acl.Who{ClientID: m.ClientID, Username: m.Username, CommonName: commonName}), m)
}

// txRecord gives the record for a transaction.
func (d *delivery) txRecord() *kafka.TxRecord {
	return &kafka.TxRecord{Topic: d.rec.Topic, Key: d.rec.Key, Value: d.rec.Value, Headers: d.rec.Headers, Timestamp: d.rec.Timestamp}
}
