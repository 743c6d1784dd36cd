package proxy

import (
	"errors"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"sluice/kafka"
	"sluice/mqtt"
)

// A retainedWriter writes retained messages to their Kafka topic, from where every instance reads them. Only what comes
// back from there is handed out: the order of records is the same for all.
type retainedWriter struct {
	producer *kafka.Producer
	topic    string
	index    *mqtt.Retained
	m        *retainedMetrics
	log      zerolog.Logger // sampled: devices and records can trigger these lines
}

func newRetainedWriter(topic string, index *mqtt.Retained, producer *kafka.Producer, m *retainedMetrics, log zerolog.Logger) *retainedWriter {
	log = log.Sample(&zerolog.BurstSampler{Burst: 5, Period: time.Second})
	return &retainedWriter{producer: producer, topic: topic, index: index, m: m, log: log}
}

// retainedOverhead is the memory of a retained record in flight beside its bytes.
const retainedOverhead = 1024

// errRetainedFull: there are as many retained messages as there may be.
var errRetainedFull = errors.New("there is no room for one more retained message")

// full is what a device is told then.
var retainedFull = refusal{reason: "retained_full", code: mqtt.QuotaExceeded, text: "too many retained messages"}

// admit keeps room in the index for what is to be written, until release. A deletion needs none.
func (w *retainedWriter) admit(m *mqtt.RetainedMessage) (room int, ok bool) {
	if len(m.Payload) == 0 {
		return 0, true
	}
	room = m.RetainedBytes()
	if !w.index.Reserve(m.Topic, room) {
		return 0, false
	}
	return room, true
}

// room is what the memory of retained records is taken for.
func (w *retainedWriter) room() kafka.Destination {
	return kafka.Destination{Topic: w.topic, Partition: kafka.AnyPartition}
}

func (w *retainedWriter) release(room int) {
	if room > 0 {
		w.index.Release(room)
	}
}

// A retention is a message of a device on its way to two Kafka topics: that of its rule and that of retained messages.
// The device is answered when both have it. Both records go at once, since one that waited for the other could come
// after the next message of its connection; so where Kafka takes only one of them for good, the device is told that its
// message is refused, and the other record stays.
type retention struct {
	w       *retainedWriter
	d       *delivery
	rec     kafka.Record
	room    int
	open    atomic.Int32 // records without an outcome
	routed  error        // of the rule's record
	written error        // of ours
}

// publish produces the record that d has for its rule, and the retained one. It is what Produce is for a message with
// RETAIN, and must be called in the order of messages, as that.
func (w *retainedWriter) publish(d *delivery) {
	k := &retention{w: w, d: d}
	m := retainedOf(d.msg)
	var ok bool
	if k.room, ok = w.admit(&m); !ok && !d.msg.Will { // a will can't come again
		w.m.refused(fromDevice)
		d.p.refuse(d, retainedFull)
		return
	}
	fillRetained(&k.rec, w.topic, &m, d.msg.Received)
	size := retainedOverhead + len(d.msg.Topic) + len(d.msg.Payload)
	w.producer.Budget().Take(w.room(), size) // the message's own room may be given back before the retained record is done
	k.rec.Reserved, k.rec.ReservedFor, k.rec.Owner, d.rec.Owner = size, w.room(), k, k
	k.open.Store(2)
	w.producer.Produce(&k.rec)
	d.p.producers[d.route.Rule].Produce(&d.rec)
}

// RecordDone notes one outcome, and after both passes them on as that of the message.
func (k *retention) RecordDone(r *kafka.Record, err error) {
	if r == &k.rec {
		k.written = err
	} else {
		k.routed = err
	}
	if k.open.Add(-1) > 0 {
		return
	}
	k.w.release(k.room)
	k.w.m.wrote(fromDevice, k.rec.Value == nil, k.written)
	err = k.routed
	if err == nil {
		err = k.written
	}
	k.d.RecordDone(&k.d.rec, err)
}

// retainedOf shows a message of a device as a retained one.
func retainedOf(m *mqtt.Message) mqtt.RetainedMessage {
	r := mqtt.RetainedMessage{
		Topic: m.Topic, Payload: m.Payload, ContentType: m.ContentType, ResponseTopic: m.ResponseTopic,
		CorrelationData: m.CorrelationData, User: m.User, PayloadFormat: m.PayloadFormat, QoS: m.QoS, ClientID: m.ClientID,
	}
	if m.HasExpiry {
		r.Expires = m.Received.Add(time.Duration(m.Expiry) * time.Second)
	}
	return r
}

// fillRetained makes r the record of m, which shares its memory. An expiry counts from the record's timestamp.
func fillRetained(r *kafka.Record, kafkaTopic string, m *mqtt.RetainedMessage, written time.Time) {
	r.Topic, r.Key, r.Timestamp = kafkaTopic, m.Topic, written
	r.Headers = append(r.Headers[:0], kafka.Header{Key: headerVersion, Value: valueVersion})
	if len(m.Payload) == 0 {
		r.Value = nil // a tombstone
		return
	}
	r.Value = m.Payload
	add := func(key, value []byte) {
		if value != nil {
			r.Headers = append(r.Headers, kafka.Header{Key: key, Value: value})
		}
	}
	add(headerQoS, valueQoS[m.QoS])
	if m.ClientID != "" {
		add(headerClientID, stringBytes(m.ClientID))
	}
	add(headerPayloadFormat, valueFormat[m.PayloadFormat])
	add(headerContentType, m.ContentType)
	add(headerResponseTopic, m.ResponseTopic)
	add(headerCorrelationData, m.CorrelationData)
	if !m.Expires.IsZero() {
		left := max(0, m.Expires.Sub(written)+time.Second-1) / time.Second
		add(headerExpiry, strconv.AppendInt(nil, int64(left), 10))
	}
	for _, u := range m.User {
		if !isReserved(u.Key) {
			r.Headers = append(r.Headers, kafka.Header(u))
		}
	}
}
