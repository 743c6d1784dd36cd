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

func refusalOf(err error) refusal {
	var r *topicmap.Refusal
	switch {
	case errors.Is(err, topicmap.ErrNoRule):
		return refusal{"no_rule", mqtt.TopicNameInvalid, "no rule takes this topic", true}
	case errors.As(err, &r):
		return ofRoute(r)
	case errors.Is(err, errPublishDenied):
		return refusal{"denied", mqtt.NotAuthorized, "not allowed to publish to this topic", false}
	case errors.Is(err, errRetainDenied):
		return refusal{"denied", mqtt.NotAuthorized, "not allowed to retain in this topic", false}
	case errors.Is(err, kafka.ErrTooLarge):
		return refusal{"too_large", mqtt.QuotaExceeded, "larger than Kafka takes", false}
	case errors.Is(err, kafka.ErrTopicMissing):
		return refusal{"topic_missing", mqtt.TopicNameInvalid, "no place in Kafka for this topic", false}
	case errors.Is(err, kafka.ErrNotAuthorized):
		return refusal{"not_authorized", mqtt.NotAuthorized, "Kafka does not allow it", false}
	}
	return refusal{"invalid_record", mqtt.ImplementationSpecificError, "Kafka does not take this record", false}
}

// ofRoute maps what the rules say to the code that comes nearest.
func ofRoute(r *topicmap.Refusal) refusal {
	reason := r.Reason.String()
	switch r.Reason {
	case topicmap.ReasonNotJSON:
		return refusal{reason, mqtt.PayloadFormatInvalid, "the payload is not JSON", false}
	case topicmap.ReasonMissingValue:
		return refusal{reason, mqtt.PayloadFormatInvalid, "a value the rule needs is missing", false}
	case topicmap.ReasonTooManyTopics:
		return refusal{reason, mqtt.QuotaExceeded, "too many different topics", false}
	}
	return refusal{reason, mqtt.TopicNameInvalid, "this topic makes no legal Kafka topic", false}
}

// refuse ends d with a negative answer, or sends it to the dead-letter topic if there is one. The caller
// holds d and the budget of its message, and neither afterwards.
func (p *publisher) refuse(d *delivery, r refusal) {
	m := d.msg
	p.m.refused.WithLabelValues(r.reason).Inc()
	fate := p.fate(d, r)
	if fate == deadLettered {
		d.fillDead(p.unmatched.DeadLetter, r.reason)
		p.producer.Produce(&d.rec)
		return
	}
	reserved := m.Reserved
	d.rule.count(fate, len(m.Payload))
	if fate == dropped {
		m.Ack(mqtt.NoMatchingSubscribers)
	} else {
		m.Refuse(r.code, r.text)
	}
	p.budget.Give(reserved)
	d.free()
}

// fate is what the configuration makes of a refusal: the dead letter, except for a dead letter itself; dropped,
// if no rule matches; else refused.
func (p *publisher) fate(d *delivery, r refusal) outcome {
	switch {
	case p.unmatched.Mode == config.DeadLetter && !d.dead:
		return deadLettered
	case p.unmatched.Mode == config.Drop && r.norule:
		return dropped
	}
	return refused
}
