package proxy

import (
	"bytes"
	"time"

	"sluice/kafka"
	"sluice/mqtt"
)

// writeCommand makes the command of record r the retained message of its topic, if it says so. done is called exactly
// once, perhaps before writeCommand returns, and must not block; cmd must not change until then. Its error is nil if
// there is nothing left to do; errRetainedFull or one that kafka.Final knows if the message can't be retained; any other
// one leaves it unknown, and the call is to be repeated.
//
// Every instance reads every command, so it is called by one of them only. Calls for one partition are in its order.
func (w *retainedWriter) writeCommand(r *kafka.Fetched, cmd *command, done func(error)) {
	if !cmd.Retain || isRetained(r, cmd) {
		done(nil)
		return
	}
	m := cmd.retained(time.Now())
	room, ok := w.admit(&m)
	if !ok {
		w.m.refused(fromCommand)
		w.log.Warn().Str("kafka_topic", cmd.topic).Int32("partition", cmd.partition).Int64("offset", cmd.offset).Msg("no room for the retained message of a command")
		done(errRetainedFull)
		return
	}
	c := &retainedCommand{w: w, room: room, done: done}
	w.fill(&c.rec, &m, cmd.written)
	c.rec.Reserved, c.rec.ReservedFor, c.rec.Owner = retainedOverhead+len(m.Topic)+len(m.Payload), w.room(), c
	w.producer.Budget().Take(w.room(), c.rec.Reserved)
	w.producer.Produce(&c.rec)
}

// A retainedCommand is the retained record of a command on its way to Kafka.
type retainedCommand struct {
	w    *retainedWriter
	rec  kafka.Record
	room int
	done func(error)
}

// RecordDone passes the outcome on.
func (c *retainedCommand) RecordDone(r *kafka.Record, err error) {
	c.w.release(c.room)
	c.w.m.wrote(fromCommand, r.Value == nil, err)
	c.done(err)
}

// isRetained says whether the record is a device's message with RETAIN for the same topic: then it was retained when the
// device was answered, and is perhaps not the last one of its topic any more.
func isRetained(r *kafka.Fetched, cmd *command) bool {
	var topic []byte
	retain := false
	for _, h := range r.Headers {
		switch {
		case topic == nil && bytes.Equal(h.Key, headerTopic):
			topic = h.Value
		case bytes.Equal(h.Key, headerRetain):
			retain = retain || bytes.Equal(h.Value, valueTrue)
		}
	}
	return retain && cmd.From != "" && bytes.Equal(topic, cmd.Topic)
}

// retained shows the command as a retained message; one that is over only ends the message before it.
func (c *command) retained(now time.Time) mqtt.RetainedMessage {
	if !c.Expires.IsZero() && !now.Before(c.Expires) {
		return mqtt.RetainedMessage{Topic: c.Topic}
	}
	return mqtt.RetainedMessage{
		Topic: c.Topic, Payload: c.Payload, ContentType: c.ContentType, ResponseTopic: c.ResponseTopic,
		CorrelationData: c.CorrelationData, User: c.User, PayloadFormat: c.PayloadFormat, QoS: c.QoS, Expires: c.Expires, ClientID: c.From,
	}
}
