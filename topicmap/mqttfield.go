package topicmap

import (
	"bytes"
	"errors"
	"fmt"
	"unicode/utf8"
)

// maxMQTTBytes is the longest string, and the longest binary data, of MQTT [MQTT-4.7.3-3].
const maxMQTTBytes = 65535

// sharePrefix begins the topic filters of shared subscriptions; what is published is never under it.
const sharePrefix = "$share/"

// What a field is not, when it was refused.
var (
	errIllegalString = errors.New("illegal MQTT string")
	errIllegalBinary = errors.New("illegal MQTT binary data")
	errNoClientID    = errors.New("no client ID")
)

// mqttField is what MQTT, and a rule, ask of one field of a PUBLISH.
type mqttField struct {
	name     string // as in the configuration
	required bool   // a missing value refuses the record
	topic    bool   // a Topic Name
	binary   bool   // any bytes
	notEmpty bool
	reason   Reason // of the refusal when it is not what it must be
	err      error
}

// The fields that command rules render.
var (
	publishField = mqttField{name: "publish", required: true, topic: true, notEmpty: true,
		reason: ReasonIllegalMQTTTopic, err: ErrIllegalMQTTTopic}
	responseTopicField = mqttField{name: "response_topic", topic: true, notEmpty: true,
		reason: ReasonIllegalMQTTTopic, err: ErrIllegalMQTTTopic}
	contentTypeField     = mqttField{name: "content_type", reason: ReasonIllegalProperty, err: errIllegalString}
	correlationDataField = mqttField{name: "correlation_data", binary: true, reason: ReasonIllegalProperty, err: errIllegalBinary}
	// An empty client ID is missing rather than nobody's: taken for "none named" it would send to everybody what is
	// for one.
	clientField = mqttField{name: "client", required: true, notEmpty: true, binary: true,
		reason: ReasonMissingValue, err: errNoClientID}
)

// LegalMQTTTopic checks that a PUBLISH may go to name: a Topic Name [MQTT-4.7.3] without wildcards [MQTT-3.3.2-2] that
// does not begin with $share/. The error is [ErrIllegalMQTTTopic].
func LegalMQTTTopic(name []byte) error {
	f := publishField.check(name)
	return f.err
}

// check finds what is wrong with the whole text of the field, and where.
func (f *mqttField) check(text []byte) fault {
	switch {
	case f.notEmpty && len(text) == 0:
		return faultf(0, "%w: it is empty", f.err)
	case len(text) > maxMQTTBytes:
		return faultf(maxMQTTBytes, "%w: %d bytes, the most is %d", f.err, len(text), maxMQTTBytes)
	case f.topic && bytes.HasPrefix(text, []byte(sharePrefix)):
		return faultf(0, "%w: %s is for subscriptions", f.err, sharePrefix)
	}
	return f.checkPiece(text)
}

// checkPiece finds what is wrong with a piece of the text, whatever stands before and behind it.
func (f *mqttField) checkPiece(text []byte) fault {
	if f.binary {
		return fault{}
	}
	if i := bytes.IndexByte(text, 0); i >= 0 {
		return faultf(i, "%w: it has a null character [MQTT-1.5.4-2]", f.err)
	}
	if !utf8.Valid(text) {
		return faultf(invalidUTF8(string(text)), "%w: it is not UTF-8 [MQTT-1.5.4-1]", f.err)
	}
	if f.topic {
		return f.checkWildcards(text)
	}
	return fault{}
}

func (f *mqttField) checkWildcards(text []byte) fault {
	for _, wildcard := range [...]byte{'+', '#'} {
		if i := bytes.IndexByte(text, wildcard); i >= 0 {
			return faultf(i, "%w: %c is for subscriptions [MQTT-3.3.2-2]", f.err, wildcard)
		}
	}
	return fault{}
}

// faults are those that make every text of the template illegal.
func (f *mqttField) faults(t *template) []fault {
	if t.literal != nil {
		return f.literalFaults(t)
	}
	var (
		faults []fault
		length int
	)
	for i := range t.parts {
		p := &t.parts[i]
		length += len(p.literal)
		if fl := f.checkPiece([]byte(p.literal)); fl.err != nil {
			faults = append(faults, fault{p.textOffset(fl.offset), fl.err})
		}
	}
	if f.topic && bytes.HasPrefix([]byte(t.parts[0].literal), []byte(sharePrefix)) {
		faults = append(faults, faultf(0, "%w: %s is for subscriptions", f.err, sharePrefix))
	}
	if length > maxMQTTBytes {
		faults = append(faults, faultf(0, "%w: %d bytes without the values, the most is %d", f.err, length, maxMQTTBytes))
	}
	return faults
}

func (f *mqttField) literalFaults(t *template) []fault {
	fl := f.check(t.literal)
	if fl.err == nil {
		return nil
	}
	if len(t.parts) > 0 {
		fl.offset = t.parts[0].textOffset(fl.offset)
	}
	return []fault{fl}
}

// textOffset is where byte i of a literal stands in the template's text, in which its braces are doubled.
func (p *part) textOffset(i int) int {
	braces := 0
	for _, c := range []byte(p.literal[:i]) {
		if c == '{' || c == '}' {
			braces++
		}
	}
	return p.offset + i + braces
}

// mqttText is a field with its template.
type mqttText struct {
	*mqttField
	value *template
}

// render makes the field of the subject: nil when the rule has none, or a value is missing that the field can do
// without.
func (t *mqttText) render(rule int, of subject, sc *scratch) ([]byte, error) {
	if t == nil {
		return nil, nil
	}
	text, missing := t.value.render(of, sc)
	switch {
	case missing == nil && t.value.literal != nil:
		return text, nil // checked when it was compiled
	case missing == nil:
		return t.checked(rule, text)
	case t.required:
		return nil, missing.refusal(rule, t.name, of)
	}
	return nil, nil
}

// checked is the text, or the refusal of it.
func (t *mqttText) checked(rule int, text []byte) ([]byte, error) {
	if f := t.check(text); f.err != nil {
		return nil, &Refusal{rule, t.reason, fmt.Sprintf("%s %s: %v", t.name, quote(text), f.err)}
	}
	return text, nil
}
