package acl

import "strings"

// variable is a name in braces.
type variable uint8

const (
	clientID variable = iota
	username
	commonName
)

// variables are their names, in the order of the constants.
var variables = [...]string{"mqtt.client_id", "mqtt.username", "cert.cn"}

// device is who asks, as rules see it.
type device struct {
	value   [len(variables)]string
	literal [len(variables)]bool // the value can stand in a level, see literal
	leads   [len(variables)]bool // and at the beginning of the filter
}

func newDevice(w Who) device {
	d := device{value: [...]string{clientID: w.ClientID, username: w.Username, commonName: w.CommonName}}
	for v, value := range d.value {
		d.literal[v] = literal(value)
		d.leads[v] = d.literal[v] && value[0] != '$'
	}
	return d
}

// literal tells whether a value can stand in a level of a filter and be that text and nothing else. An empty one would
// make devices/{mqtt.username}/x the filter of everybody without a name; / would make two levels of one; + and # are in
// no topic. A $ is fine, but not at the very beginning: it would lead from the topics of devices to those that wildcards
// spare.
func literal(value string) bool { return value != "" && !strings.ContainsAny(value, "/+#\x00") }

// literal tells whether all variables of the level can be taken literally for this device.
func (l *level) literal(d *device, index int) bool {
	for i := range l.parts {
		p := &l.parts[i]
		if p.isVariable && !d.literal[p.variable] || p.isVariable && index == 0 && i == 0 && !d.leads[p.variable] {
			return false
		}
	}
	return true
}

// is tells whether the level, with the values of the device in it, is exactly text.
func is[T text](l *level, text T, d *device) bool {
	for i := range l.parts {
		p := &l.parts[i]
		want := p.text
		if p.isVariable {
			want = d.value[p.variable]
		}
		if len(text) < len(want) || string(text[:len(want)]) != want {
			return false
		}
		text = text[len(want):]
	}
	return len(text) == 0
}
