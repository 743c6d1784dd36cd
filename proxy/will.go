package proxy

import (
	"time"

	"sluice/fleet"
	"sluice/kafka"
	"sluice/mqtt"
	"sluice/proxy/acl"
)

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
