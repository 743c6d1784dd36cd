package proxy

import (
	"context"
	"errors"
	"strconv"
	"sync"
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
	layout   *layout
	index    *mqtt.Retained
	m        *retainedMetrics
	log      zerolog.Logger // sampled: devices and records can trigger these lines
	open     sync.WaitGroup // retentions that have not let their message go on
}

func newRetainedWriter(topic string, layout *layout, index *mqtt.Retained, producer *kafka.Producer, m *retainedMetrics, log zerolog.Logger) *retainedWriter {
	log = log.Sample(&zerolog.BurstSampler{Burst: 5, Period: time.Second})
	return &retainedWriter{producer: producer, topic: topic, layout: layout, index: index, m: m, log: log}
}

// retainedOverhead is the memory of a retained record in flight beside its bytes.
const retainedOverhead = 1024

// errRetainedFull: there are as many retained messages as there may be.
var errRetainedFull = errors.New("there is no room for one more retained message")

// retainedFull is what a device is told then. A dead letter is no way out: it would be acknowledged, and the older
// retained message handed out.
var retainedFull = refusal{reason: "retained_full", code: mqtt.QuotaExceeded, text: "too many retained messages", final: true}

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

// A retention is a message of a device on its way to two Kafka topics: first to that of retained messages, then to that
// of its rule. So whoever reads the second finds the message in the first: a subscriber who came too late for the live
// message is handed the retained one, whichever broker is slow (see retainedTail). The device is answered when both have
// it.
type retention struct {
	inLine
	w    *retainedWriter
	rec  kafka.Record
	room int
}

// publish produces the retained record of d, and its record for its rule once Kafka has that. It must be called in the
// order of messages.
func (w *retainedWriter) publish(d *delivery) {
	k := &retention{w: w, inLine: inLine{d: d}}
	m := retainedOf(d.msg)
	var ok bool
	if k.room, ok = w.admit(&m); !ok && !d.msg.Will { // a will can't come again
		w.m.refused(fromDevice)
		d.p.refuse(d, retainedFull)
		return
	}
	w.fill(&k.rec, &m, d.msg.Received)
	k.rec.Reserved, k.rec.ReservedFor, k.rec.Owner = retainedOverhead+len(d.msg.Topic)+len(d.msg.Payload), w.room(), k
	w.producer.Budget().Take(w.room(), k.rec.Reserved)
	if k.line = openLine(d); k.line != nil {
		k.line.join(&k.inLine)
	}
	w.open.Add(1)
	w.producer.Produce(&k.rec)
}

// wait waits until no message is held back any more, or ctx ends. None may come meanwhile.
func (w *retainedWriter) wait(ctx context.Context) {
	over := make(chan struct{})
	go func() { // ends with the producer at the latest
		w.open.Wait()
		close(over)
	}()
	select {
	case <-over:
	case <-ctx.Done():
	}
}

// RecordDone lets the message go on, and what waits for it.
func (k *retention) RecordDone(r *kafka.Record, err error) {
	k.w.release(k.room)
	k.w.m.wrote(fromDevice, r.Value == nil, err)
	k.settle(err)
	k.w.open.Done()
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

// fill makes r the record of m, which shares its memory. An expiry counts from the record's timestamp. It goes among the
// partitions that the fleet was laid out with: in another one it would stand beside the value that it replaces, and which
// of them is the newer one nobody could say.
func (w *retainedWriter) fill(r *kafka.Record, m *mqtt.RetainedMessage, written time.Time) {
	r.Topic, r.Key, r.Timestamp = w.topic, m.Topic, written
	r.To, r.Fixed = kafka.PartitionOf(m.Topic, w.layout.of(w.topic)), true
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
