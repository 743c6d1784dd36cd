package proxy

import (
	"errors"

	"sluice/kafka"
	"sluice/mqtt"
	"sluice/proxy/config"
	"sluice/topicmap"
)

// A refusal says for good that a message will not be stored, in the words of each side.
type refusal struct {
	reason string    // metric label and dead-letter header
	code   mqtt.Code // of PUBACK or PUBREC
	text   string    // Reason String: told to a device, so it names no Kafka topic and no rule
	norule bool
	final  bool // no dead letter takes it
	denied bool // by the acl: nothing of it is stored, whatever the configuration says
}

// noRule is the label of messages that no rule matches.
const noRule = -1

func ruleOf(err error) int {
	var r *topicmap.Refusal
	if errors.As(err, &r) {
		return r.Rule
	}
	return noRule
}

// errTooDeep refuses what has more topic levels than allowed.
var errTooDeep = errors.New("more topic levels than allowed")

func refusalOf(err error) refusal {
	var r *topicmap.Refusal
	switch {
	case errors.Is(err, topicmap.ErrNoRule):
		return refusal{reason: "no_rule", code: mqtt.TopicNameInvalid, text: "no rule takes this topic", norule: true}
	case errors.As(err, &r):
		return ofRoute(r)
	case errors.Is(err, errTooDeep):
		return refusal{reason: "topic_levels", code: mqtt.TopicNameInvalid, text: errTooDeep.Error()}
	case errors.Is(err, errPublishDenied):
		return refusal{reason: "denied", code: mqtt.NotAuthorized, text: "not allowed to publish to this topic", denied: true}
	case errors.Is(err, errSystemTopic):
		return refusal{reason: "denied", code: mqtt.NotAuthorized, text: "topics below $SYS are the server's own", denied: true}
	case errors.Is(err, errRetainDenied):
		return refusal{reason: "denied", code: mqtt.NotAuthorized, text: "not allowed to retain in this topic", denied: true}
	case errors.Is(err, kafka.ErrTooLarge):
		return refusal{reason: "too_large", code: mqtt.QuotaExceeded, text: "larger than Kafka takes"}
	case errors.Is(err, kafka.ErrTopicMissing):
		return refusal{reason: "topic_missing", code: mqtt.TopicNameInvalid, text: "no place in Kafka for this topic"}
	case errors.Is(err, kafka.ErrNotAuthorized):
		return refusal{reason: "not_authorized", code: mqtt.NotAuthorized, text: "Kafka does not allow it"}
	}
	return refusal{reason: "invalid_record", code: mqtt.ImplementationSpecificError, text: "Kafka does not take this record"}
}

// ofRoute maps what the rules say to the code that comes nearest.
func ofRoute(r *topicmap.Refusal) refusal {
	reason := r.Reason.String()
	switch r.Reason {
	case topicmap.ReasonNotJSON:
		return refusal{reason: reason, code: mqtt.PayloadFormatInvalid, text: "the payload is not JSON"}
	case topicmap.ReasonMissingValue:
		return refusal{reason: reason, code: mqtt.PayloadFormatInvalid, text: "a value the rule needs is missing"}
	case topicmap.ReasonTooManyTopics:
		return refusal{reason: reason, code: mqtt.QuotaExceeded, text: "too many different topics"}
	}
	return refusal{reason: reason, code: mqtt.TopicNameInvalid, text: "this topic makes no legal Kafka topic"}
}

// refuse ends d with a negative answer, or sends it to the dead-letter topic if there is one. The caller
// holds d and the budget of its message, and neither afterwards.
func (p *publisher) refuse(d *delivery, r refusal) {
	m := d.msg
	p.m.refused.WithLabelValues(r.reason).Inc()
	fate, topic := p.fate(d, r)
	switch {
	case fate == deadLettered:
		p.budget.Give(d.room, m.Reserved)
		d.room = deadRoom(topic)
		p.budget.Take(d.room, m.Reserved)
		d.kept = d.kept || !p.retains(fate, r)
		d.fillDead(topic, r.reason)
		p.produce(d, p.producer)
		return
	case fate == dropped && m.Retain && p.retained != nil:
		p.produce(d, nil) // acknowledged, so the older retained message is over
		return
	}
	room, reserved := d.room, m.Reserved
	d.rule.count(fate, len(m.Payload))
	if fate == dropped || p.refused.Acknowledge && !m.CanRefuse() {
		m.Ack(mqtt.NoMatchingSubscribers)
	} else {
		m.Refuse(r.code, r.text)
	}
	p.budget.Give(room, reserved)
	d.free()
}

// deadRoom is what the memory of dead letters is taken for.
func deadRoom(topic string) kafka.Destination {
	return kafka.Destination{Topic: topic, Partition: kafka.AnyPartition}
}

// fate is what the configuration makes of a refusal: the dead letter in a topic, except for a dead letter itself;
// dropped, if no rule matches; else refused. What MQTT 3.1.1 devices get instead of a refusal comes last.
func (p *publisher) fate(d *delivery, r refusal) (fate outcome, topic string) {
	switch {
	case p.unmatched.Mode == config.DeadLetter && !d.dead && !r.denied && !r.final:
		return deadLettered, p.unmatched.DeadLetter
	case p.unmatched.Mode == config.Drop && r.norule:
		return dropped, ""
	case p.refused.DeadLetter != "" && !d.dead && !d.msg.CanRefuse():
		return deadLettered, p.refused.DeadLetter
	}
	return refused, ""
}

// retains says whether a message with RETAIN that was refused is retained all the same: whenever its device is told of
// success. What MQTT 3.1.1 devices get for lack of a refusal is none.
func (p *publisher) retains(fate outcome, r refusal) bool {
	return fate == dropped || fate == deadLettered && p.unmatched.Mode == config.DeadLetter && !r.denied && !r.final
}
