package proxy

import (
	"errors"
	"strconv"
	"sync"
	"time"
	"unsafe"

	"sluice/kafka"
	"sluice/mqtt"
	"sluice/proxy/config"
	"sluice/topicmap"
)

// A delivery is one message on its way to Kafka, with all the memory that takes. Deliveries are pooled: in
// a steady flow a message allocates nothing here.
type delivery struct {
	p       *publisher
	msg     *mqtt.Message
	rec     kafka.Record
	in      topicmap.Message
	route   topicmap.Route
	fault   error             // why there is no route
	room    kafka.Destination // that its memory is taken for
	exists  bool              // the Kafka topic of its rule does
	rule    *ruleMetrics
	headers []kafka.Header
	expiry  []byte          // digits of mqtt.expiry
	dead    bool            // on its way to the dead-letter topic
	late    bool            // it was refused after it had its turn among the messages of its connection
	kept    bool            // its retained message is stored, or is not to be
	to      *kafka.Producer // nil: no topic takes it, and it is only retained
	reason  [1]topicmap.Header
}

var deliveries = sync.Pool{New: func() any { return new(delivery) }}

// keptHeaders is the most headers a pooled delivery keeps room for.
const keptHeaders = 64

// free recycles d. Only the memory that is meant to be used again stays.
func (d *delivery) free() {
	d.p.rules.Settle(&d.route, d.exists)
	if cap(d.headers) > keptHeaders {
		return // one message with very many properties must not make the pool large
	}
	clear(d.headers)
	clear(d.in.UserProperties)
	d.p, d.msg, d.rule, d.dead, d.fault, d.exists = nil, nil, nil, false, nil, false
	d.late, d.kept, d.to = false, false, nil
	d.headers = d.headers[:0]
	d.in = topicmap.Message{UserProperties: d.in.UserProperties[:0]}
	d.rec.Key, d.rec.Value, d.rec.Headers = nil, nil, nil
	deliveries.Put(d)
}

// The names of the record headers that tell what MQTT said.
var (
	headerTopic           = []byte("mqtt.topic")
	headerClientID        = []byte("mqtt.client_id")
	headerQoS             = []byte("mqtt.qos")
	headerRetain          = []byte("mqtt.retain")
	headerPayloadFormat   = []byte("mqtt.payload_format")
	headerContentType     = []byte("mqtt.content_type")
	headerResponseTopic   = []byte("mqtt.response_topic")
	headerCorrelationData = []byte("mqtt.correlation_data")
	headerExpiry          = []byte("mqtt.expiry")
	headerWill            = []byte("mqtt.will")
	reservedPrefixes      = [2][]byte{[]byte("mqtt."), []byte("sluice.")}

	// noBytes is an empty payload: stored as what it is, not as the null that deletes a key.
	noBytes = []byte{}

	valueTrue = []byte("true")
	valueQoS  = [3][]byte{[]byte("0"), []byte("1"), []byte("2")}

	// valueFormat is by mqtt.PayloadFormat; nil: no header.
	valueFormat = [...][]byte{mqtt.FormatBytes: []byte("0"), mqtt.FormatText: []byte("1")}
)

// headerReason says on a dead-letter record why the message was refused.
const headerReason = "sluice.refused"

// describe fills in what the rules may ask of the message.
func (d *delivery) describe(m *mqtt.Message) {
	d.in.Topic, d.in.Payload = m.Topic, m.Payload
	d.in.ClientID, d.in.Username = m.ClientID, m.Username
	if id := m.Identity(); id != nil {
		d.in.CertCN = id.CommonName
	}
	props := d.in.UserProperties[:0]
	for _, u := range m.User {
		props = append(props, topicmap.Property{Key: u.Key, Value: u.Value})
	}
	d.in.UserProperties = props
}

// fillRouted makes the record that the rule asks for.
func (d *delivery) fillRouted() {
	d.fill(d.route.Topic, d.key(), d.route.Headers, &d.p.passing[d.route.Rule])
}

// key is the one that the rule asks for, nil for none.
func (d *delivery) key() []byte {
	if !d.route.HasKey {
		return nil
	}
	return d.route.Key
}

// fillDead makes the record for the dead-letter topic: keyed by the client ID, with the reason.
func (d *delivery) fillDead(kafkaTopic, reason string) {
	d.dead = true
	d.reason[0] = topicmap.Header{Name: headerReason, Value: []byte(reason)}
	d.fill(kafkaTopic, stringBytes(d.msg.ClientID), d.reason[:], new(passing)) // all: whoever replays it wants the message
}

// A passing says which User Properties of a device become headers of a rule's records. The zero value lets all pass.
type passing struct {
	only []string // nil: all, but for
	but  []string // the names of the rule's own headers, which a device can't speak in the name of
}

func passingOf(r *config.Rule) (p passing) {
	if p.only = r.UserProperties.Names; r.UserProperties.None {
		p.only = []string{}
	}
	for _, h := range r.Headers {
		p.but = append(p.but, h.Name)
	}
	return p
}

func (p *passing) passes(name []byte) bool {
	for _, b := range p.but {
		if string(name) == b {
			return false
		}
	}
	for _, o := range p.only {
		if string(name) == o {
			return true
		}
	}
	return p.only == nil
}

// fill makes the record for a Kafka topic, with the headers a rule adds.
func (d *delivery) fill(kafkaTopic string, key []byte, routed []topicmap.Header, user *passing) {
	m := d.msg
	d.headers = d.headers[:0]
	d.mqttHeaders(m)
	for _, u := range m.User {
		if isReserved(u.Key) {
			d.p.m.forged.Inc() // a device can't speak in the name of the proxy
			continue
		}
		if user.passes(u.Key) {
			d.header(u.Key, u.Value)
		}
	}
	for _, h := range routed {
		d.header(stringBytes(h.Name), h.Value)
	}
	d.rec.Topic, d.rec.Key, d.rec.Value, d.rec.Headers = kafkaTopic, key, m.Payload, d.headers
	if d.rec.Value == nil {
		d.rec.Value = noBytes
	}
	d.rec.Timestamp, d.rec.Reserved, d.rec.ReservedFor, d.rec.Owner = m.Received, m.Reserved, d.room, d
}

// mqttHeaders appends the headers of the record contract, those of MQTT 5 only when the device sent them.
func (d *delivery) mqttHeaders(m *mqtt.Message) {
	d.header(headerTopic, m.Topic)
	d.header(headerClientID, stringBytes(m.ClientID))
	d.header(headerQoS, valueQoS[m.QoS])
	if m.Retain {
		d.header(headerRetain, valueTrue)
	}
	if f := valueFormat[m.PayloadFormat]; f != nil {
		d.header(headerPayloadFormat, f)
	}
	if m.ContentType != nil {
		d.header(headerContentType, m.ContentType)
	}
	if m.ResponseTopic != nil {
		d.header(headerResponseTopic, m.ResponseTopic)
	}
	if m.CorrelationData != nil {
		d.header(headerCorrelationData, m.CorrelationData)
	}
	if m.HasExpiry {
		d.expiry = strconv.AppendUint(d.expiry[:0], uint64(m.Expiry), 10)
		d.header(headerExpiry, d.expiry)
	}
	if m.Will {
		d.header(headerWill, valueTrue)
	}
}

func (d *delivery) header(key, value []byte) {
	d.headers = append(d.headers, kafka.Header{Key: key, Value: value})
}

// stringBytes shows s as bytes that nobody may write to. Records are only read, and a copy of the client ID
// for each message would be one more allocation on the hot path.
func stringBytes(s string) []byte {
	return unsafe.Slice(unsafe.StringData(s), len(s))
}

// exists says whether there is a Kafka topic for a record with this outcome.
func exists(err error) bool {
	return err == nil || errors.Is(err, kafka.ErrTooLarge) || errors.Is(err, kafka.ErrUncertain)
}

// transacted is RecordDone for a record that was part of a transaction, of which the producer knows nothing.
func (d *delivery) transacted(err error) {
	p, room, reserved := d.p, d.room, d.msg.Reserved
	d.RecordDone(nil, err)
	p.budget.Give(room, reserved)
	p.flush()
}

// RecordDone turns the outcome of the record into that of the message. It runs on the producer's goroutine
// and does not block.
func (d *delivery) RecordDone(_ *kafka.Record, err error) {
	p, m := d.p, d.msg
	d.exists = d.exists || !d.dead && exists(err)
	switch {
	case err == nil:
		outcome := stored
		if d.dead {
			outcome = deadLettered
		}
		d.rule.count(outcome, len(m.Payload))
		if m.QoS > 0 {
			p.m.latency[m.QoS].Observe(time.Since(m.Received).Seconds())
		}
		m.Ack(mqtt.Success)
	case kafka.Final(err):
		d.late = true
		p.budget.Take(d.room, m.Reserved) // refuse gives it back or uses it again; the producer gives back its own
		p.refuse(d, refusalOf(err))
		return
	default:
		d.rule.count(unknown, len(m.Payload))
		p.unanswered(err)
		m.Abandon("Kafka did not say whether the message is stored")
	}
	d.free()
}
