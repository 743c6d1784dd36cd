package topicmap

import (
	"errors"
	"fmt"
	"strconv"
)

// ErrNoRule says that no rule matches. What then happens to a message is the configuration's unmatched:; a record is
// then no command.
var ErrNoRule = errors.New("no rule matches")

// ErrIllegalTopic says that Kafka has no topic of that name and never will have.
var ErrIllegalTopic = errors.New("illegal Kafka topic name")

// ErrInternalTopic says that the name belongs to Kafka or to Sluice itself.
var ErrInternalTopic = errors.New("internal Kafka topic")

// ErrIllegalMQTTTopic says that no PUBLISH may go to that name.
var ErrIllegalMQTTTopic = errors.New("illegal MQTT topic name")

// RuleError is one fault of one rule.
type RuleError struct {
	Rule int // index in the slice given to Compile or CompileCommands
	// Field is match, regex, topic, key, max_topics, headers.NAME or when.NAME of a publish rule, and topic, pattern,
	// publish, client, content_type, response_topic, correlation_data or when.NAME of a command rule.
	Field  string
	Offset int // byte offset in the text of that field, in that of NAME for when.NAME; -1 when unknown
	Err    error
}

// Error names the rule by its index, as the field does.
func (e *RuleError) Error() string {
	if e.Offset < 0 {
		return fmt.Sprintf("rule %d: %s: %v", e.Rule, e.Field, e.Err)
	}
	return fmt.Sprintf("rule %d: %s, offset %d: %v", e.Rule, e.Field, e.Offset, e.Err)
}

// Unwrap gives the fault without its place.
func (e *RuleError) Unwrap() error { return e.Err }

// Reason is why a message or a record was not routed.
type Reason uint8

// The reasons. Their texts are metric labels and stay as they are.
const (
	ReasonNoRule           Reason = iota // no rule matches: ErrNoRule
	ReasonMissingValue                   // the topic, the key or the client needs a value the message or record does not have
	ReasonNotJSON                        // it needs a value of the payload, and the payload is not JSON
	ReasonIllegalTopic                   // the rendered name is not a legal Kafka topic
	ReasonInternalTopic                  // the rendered name is an internal topic
	ReasonTooManyTopics                  // the template has created as many topics as it may
	ReasonIllegalMQTTTopic               // of a record: the rendered topic, or response topic, is not a legal MQTT topic
	ReasonIllegalProperty                // of a record: MQTT can't express the rendered content type or correlation data
)

var reasonNames = [...]string{
	"no_rule", "missing_value", "not_json", "illegal_topic", "internal_topic", "too_many_topics",
	"illegal_mqtt_topic", "illegal_property",
}

// Reasons are all there are, of both kinds of rules, for making metric handles before the first message.
func Reasons() []Reason {
	all := make([]Reason, len(reasonNames))
	for i := range all {
		all[i] = Reason(i)
	}
	return all
}

// String is the reason as a metric label.
func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return "reason_" + strconv.Itoa(int(r))
}

// Refusal is the final answer to a message or record whose rule cannot route it.
type Refusal struct {
	Rule   int    // the rule that matched
	Reason Reason // bounded: fit for a metric label
	Detail string // one short sentence of printable text, fit for an MQTT 5 Reason String
}

// Error is the reason with its detail.
func (r *Refusal) Error() string { return r.Reason.String() + ": " + r.Detail }

// maxQuoted bounds what a device or a producer can put into a Detail.
const maxQuoted = 80

// quote makes text from outside printable, valid UTF-8 and short.
func quote(text []byte) string {
	if len(text) > maxQuoted {
		return strconv.QuoteToASCII(string(text[:maxQuoted])) + "…"
	}
	return strconv.QuoteToASCII(string(text))
}

// fault is an error at a place of one text; -1 is an unknown place.
type fault struct {
	offset int
	err    error
}

// faultf makes the one fault at offset.
func faultf(offset int, format string, args ...any) fault {
	return fault{offset, fmt.Errorf(format, args...)}
}
