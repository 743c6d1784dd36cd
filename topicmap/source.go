package topicmap

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// sourceKind is where a value comes from.
type sourceKind uint8

const (
	fromLevel        sourceKind = iota // level number index of the MQTT topic
	fromRest                           // the MQTT topic from level number index on
	fromGroup                          // group number index of the rule's regex
	fromTopic                          // the whole MQTT topic
	fromClientID                       //
	fromUsername                       //
	fromUserProperty                   // the first user property called name
	fromCertCN                         //
	fromPayload                        // the value at path in the JSON payload, of a record in its value
	fromKafkaTopic                     // of a record: its Kafka topic
	fromKafkaGroup                     // of a record: group number index of the rule's pattern
	fromKey                            // of a record
	fromHeader                         // of a record: the first header called name
)

// subject is what templates speak of: exactly one of the two is set.
type subject struct {
	msg *Message
	rec *Record
}

// payload is where fromPayload looks.
func (of subject) payload() []byte {
	if of.rec != nil {
		return of.rec.Value
	}
	return of.msg.Payload
}

// source is a resolved name: it finds its value in a message or record.
type source struct {
	kind  sourceKind
	index int
	name  []byte
	path  jsonPath
}

// appendTo appends the value to dst; false means that the subject does not have it.
func (s *source) appendTo(dst []byte, of subject, sc *scratch) ([]byte, bool) {
	switch msg := of.msg; s.kind {
	case fromLevel, fromRest:
		return s.appendLevels(dst, msg.Topic, sc.levels)
	case fromGroup:
		return appendGroup(dst, msg.Topic, sc.groups, s.index)
	case fromTopic:
		return append(dst, msg.Topic...), true
	case fromClientID:
		return append(dst, msg.ClientID...), msg.ClientID != ""
	case fromUsername:
		return append(dst, msg.Username...), msg.Username != ""
	case fromUserProperty:
		return appendProperty(dst, msg.UserProperties, s.name)
	case fromCertCN:
		return append(dst, msg.CertCN...), msg.CertCN != ""
	case fromPayload:
		return s.path.appendValue(dst, of.payload())
	default:
		return s.appendOfRecord(dst, of.rec, sc)
	}
}

// appendOfRecord is appendTo for what only records have.
func (s *source) appendOfRecord(dst []byte, rec *Record, sc *scratch) ([]byte, bool) {
	switch s.kind {
	case fromKafkaTopic:
		return append(dst, rec.Topic...), true
	case fromKafkaGroup:
		return appendGroup(dst, rec.Topic, sc.groups, s.index)
	case fromKey:
		return append(dst, rec.Key...), rec.Key != nil
	default:
		return appendHeader(dst, rec.Headers, s.name)
	}
}

// appendLevels appends one level or all from it on. {name...} matches no level at all, as # does, and is missing then.
func (s *source) appendLevels(dst, mqttTopic []byte, levels []int) ([]byte, bool) {
	if s.index >= len(levels) {
		return dst, false
	}
	if s.kind == fromRest {
		return append(dst, mqttTopic[levels[s.index]:]...), true
	}
	return append(dst, level(mqttTopic, levels, s.index)...), true
}

// appendGroup appends what a group of the regex captured; a group that took no part in the match is missing.
func appendGroup[T []byte | string](dst []byte, topic T, groups []int, i int) ([]byte, bool) {
	start, end := groups[2*i], groups[2*i+1]
	if start < 0 {
		return dst, false
	}
	return append(dst, topic[start:end]...), true
}

// appendProperty appends the first user property of that name: MQTT lets a device repeat one, and the order holds.
func appendProperty(dst []byte, properties []Property, name []byte) ([]byte, bool) {
	for i := range properties {
		if bytes.Equal(properties[i].Key, name) {
			return append(dst, properties[i].Value...), true
		}
	}
	return dst, false
}

// appendHeader appends the first header of that name. Kafka knows headers without a value, which is missing then.
func appendHeader(dst []byte, headers []Property, name []byte) ([]byte, bool) {
	for i := range headers {
		if bytes.Equal(headers[i].Key, name) {
			return append(dst, headers[i].Value...), headers[i].Value != nil
		}
	}
	return dst, false
}

// captures are the names a rule's match, regex or pattern defines, next to those of its kind of rule.
type captures struct {
	words  *vocabulary
	byName map[string]*source
	// broken says that the match or regex has faults, so that the names are not all known: an unknown one is then
	// no second fault.
	broken bool
}

// A vocabulary are the names that hold for every rule of one kind.
type vocabulary struct {
	plain    map[string]sourceKind
	property string     // what the names of properties begin with, as mqtt.user.NAME does
	kind     sourceKind // of a property
}

var publishNames = vocabulary{
	plain: map[string]sourceKind{
		"mqtt.topic":     fromTopic,
		"mqtt.client_id": fromClientID,
		"mqtt.username":  fromUsername,
		"cert.cn":        fromCertCN,
	},
	property: "mqtt.user.", kind: fromUserProperty,
}

var commandNames = vocabulary{
	plain:    map[string]sourceKind{"key": fromKey, "kafka.topic": fromKafkaTopic},
	property: "header.", kind: fromHeader,
}

const payloadPrefix = "payload."

// resolve finds a name of the rule.
func (c *captures) resolve(name string) (*source, error) {
	if s, ok := c.byName[name]; ok {
		return s, nil
	}
	if kind, ok := c.words.plain[name]; ok {
		return &source{kind: kind}, nil
	}
	if property, ok := strings.CutPrefix(name, c.words.property); ok && property != "" {
		return &source{kind: c.words.kind, name: []byte(property)}, nil
	}
	if path, ok := strings.CutPrefix(name, payloadPrefix); ok {
		return payloadSource(path)
	}
	if c.broken && captureName(name) {
		return &source{}, nil
	}
	return nil, c.unknown(name)
}

// unknown is the error for a name nobody defines; it lists those that are defined.
func (c *captures) unknown(name string) error {
	known := slices.Sorted(maps.Keys(c.byName))
	known = append(known, slices.Sorted(maps.Keys(c.words.plain))...)
	known = append(known, c.words.property+"NAME", payloadPrefix+"PATH")
	return fmt.Errorf("unknown name %q; known here: %s", name, strings.Join(known, ", "))
}

// captureName tells whether a capture may be called so: letters, digits and _, as in RE2. Without a dot, none can
// hide mqtt.topic and its like.
func captureName(name string) bool {
	for i := range len(name) {
		c := name[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' {
			continue
		}
		return false
	}
	return name != ""
}
