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
	fromPayload                        // the value at path in the JSON payload
)

// source is a resolved name: it finds its value in a message.
type source struct {
	kind  sourceKind
	index int
	name  []byte
	path  jsonPath
}

// appendTo appends the value to dst; false means that the message does not have it.
func (s *source) appendTo(dst []byte, msg *Message, r *Route) ([]byte, bool) {
	switch s.kind {
	case fromLevel, fromRest:
		return s.appendLevels(dst, msg.Topic, r.levels)
	case fromGroup:
		return appendGroup(dst, msg.Topic, r.groups, s.index)
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
	default:
		return s.path.appendValue(dst, msg.Payload)
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
func appendGroup(dst, mqttTopic []byte, groups []int, i int) ([]byte, bool) {
	start, end := groups[2*i], groups[2*i+1]
	if start < 0 {
		return dst, false
	}
	return append(dst, mqttTopic[start:end]...), true
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

// captures are the names a rule's match or regex defines.
type captures struct {
	byName map[string]*source
	// broken says that the match or regex has faults, so that the names are not all known: an unknown one is then
	// no second fault.
	broken bool
}

// The names of a message that hold for every publish rule, and the prefixes that need a name or a path behind them.
var (
	plainNames = map[string]sourceKind{
		"mqtt.topic":     fromTopic,
		"mqtt.client_id": fromClientID,
		"mqtt.username":  fromUsername,
		"cert.cn":        fromCertCN,
	}
	openNames = []string{"mqtt.user.NAME", "payload.PATH"}
)

const (
	userPrefix    = "mqtt.user."
	payloadPrefix = "payload."
)

// resolve finds a name of a publish rule.
func (c captures) resolve(name string) (*source, error) {
	if s, ok := c.byName[name]; ok {
		return s, nil
	}
	if kind, ok := plainNames[name]; ok {
		return &source{kind: kind}, nil
	}
	if property, ok := strings.CutPrefix(name, userPrefix); ok && property != "" {
		return &source{kind: fromUserProperty, name: []byte(property)}, nil
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
func (c captures) unknown(name string) error {
	known := slices.Sorted(maps.Keys(c.byName))
	known = append(known, slices.Sorted(maps.Keys(plainNames))...)
	known = append(known, openNames...)
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
