package proxy

import (
	"bytes"
	"errors"
	"math"
	"strconv"
	"sync"
	"time"

	"sluice/kafka"
	"sluice/mqtt"
	"sluice/proxy/config"
	"sluice/topicmap"
)

// A command is one record of a command topic on its way to devices. It owns all memory it points to.
type command struct {
	mqtt.Command
	c        *commander
	rule     int
	settings *config.Command

	topic     string // of the record
	partition int32
	offset    int64
	key       []byte // nil: none
	written   time.Time
	open      openDevices
	link      // among those of its name in pending
}

// commandMemory is what a command costs here beside what mqtt counts, in bytes.
const commandMemory = 512

// A translator makes commands of records by the rules.
type translator struct {
	c        *commander // that answers for the commands; nil: nobody does
	rules    *topicmap.CommandMap
	settings []config.Command
	leftOut  func() // called for each header that can't be a user property
}

// A translation is the memory one record needs while it is translated.
type translation struct {
	rec   topicmap.Record
	route topicmap.CommandRoute
	said  said
	user  []mqtt.Property
}

var translations = sync.Pool{New: func() any { return new(translation) }}

// said are the headers by which a record speaks of its PUBLISH; nil: not there.
type said struct {
	qos, retain, expiry, format, contentType, responseTopic, correlationData, clientID, topic, will []byte
}

// A recordRefusal says why a record makes no command, for good.
type recordRefusal struct {
	rule   int
	reason string // metric label and reason of the receipt
	detail string
}

// Error is the reason with its detail.
func (r *recordRefusal) Error() string { return r.reason + ": " + r.detail }

// reasonInvalidHeader is a header of the record contract with a value that it can't have.
const reasonInvalidHeader = "invalid_header"

// translate makes a command of r. The error is a *recordRefusal; its command then has what a receipt needs.
func (t *translator) translate(r *kafka.Fetched) (*command, error) {
	tr := translations.Get().(*translation)
	defer tr.free()
	tr.read(r)
	cmd := &command{c: t.c, rule: noRule, topic: r.Topic, partition: r.Partition, offset: r.Offset, written: r.Timestamp}
	if cmd.written.UnixMilli() <= 0 {
		cmd.written = time.Now() // the record has none
	}
	cmd.Owner = cmd
	err := t.rules.Route(&tr.rec, &tr.route)
	if err == nil {
		cmd.rule = tr.route.Rule
	} else {
		cmd.rule = ruleOf(err)
	}
	if cmd.rule != noRule {
		cmd.settings = &t.settings[cmd.rule]
	}
	if err != nil {
		cmd.correlate(tr.said.correlationData)
		cmd.own(r, tr)
		return cmd, refusedByRules(err)
	}
	err = cmd.describe(tr)
	if cmd.From != "" && !r.Appended && tr.said.will == nil && bytes.Equal(tr.said.topic, cmd.Topic) {
		cmd.Published = cmd.written.UnixMilli()
	}
	cmd.Memory = commandMemory + 2*len(r.Key) // the key stands in pending too
	if cmd.settings.Receipts != "" {
		cmd.MemoryEach = receiptBytes
	}
	for range tr.properties(r) {
		t.leftOut()
	}
	cmd.own(r, tr)
	return cmd, err
}

func refusedByRules(err error) *recordRefusal {
	var r *topicmap.Refusal
	if errors.As(err, &r) {
		return &recordRefusal{r.Rule, r.Reason.String(), r.Detail}
	}
	return &recordRefusal{noRule, topicmap.ReasonNoRule.String(), "no rule takes this record"}
}

func (tr *translation) free() {
	clear(tr.rec.Headers)
	clear(tr.user)
	tr.rec = topicmap.Record{Headers: tr.rec.Headers[:0]}
	tr.user, tr.said = tr.user[:0], said{}
	if cap(tr.rec.Headers) <= keptHeaders && cap(tr.user) <= keptHeaders {
		translations.Put(tr)
	}
}

// read shows the record to the rules and finds the headers of the record contract, the first of each.
func (tr *translation) read(r *kafka.Fetched) {
	tr.rec.Topic, tr.rec.Key, tr.rec.Value = r.Topic, r.Key, r.Value
	for _, h := range r.Headers {
		tr.rec.Headers = append(tr.rec.Headers, topicmap.Property{Key: h.Key, Value: h.Value})
		if p := tr.said.field(h.Key); p != nil && *p == nil {
			*p = h.Value
			if h.Value == nil {
				*p = noBytes
			}
		}
	}
}

// field gives the place of a header of the record contract, nil for any other.
func (s *said) field(name []byte) *[]byte {
	if !bytes.HasPrefix(name, reservedPrefixes[0]) {
		return nil
	}
	switch string(name) {
	case "mqtt.qos":
		return &s.qos
	case "mqtt.retain":
		return &s.retain
	case "mqtt.expiry":
		return &s.expiry
	case "mqtt.payload_format":
		return &s.format
	case "mqtt.content_type":
		return &s.contentType
	case "mqtt.response_topic":
		return &s.responseTopic
	case "mqtt.correlation_data":
		return &s.correlationData
	case "mqtt.topic":
		return &s.topic
	case "mqtt.client_id":
		return &s.clientID
	case "mqtt.will":
		return &s.will
	}
	return nil
}

// describe fills in what the PUBLISH says, from the record's headers or else from the rule.
func (c *command) describe(tr *translation) error {
	s := c.settings
	route, said := &tr.route, &tr.said
	c.QoS, c.Retain, c.Connected = byte(s.QoS), s.Retain, s.Offline == config.OfflineDrop
	c.To, c.From = string(route.Client), string(said.clientID)
	c.Topic = route.Topic
	c.ContentType = either(said.contentType, route.ContentType)
	c.ResponseTopic = either(said.responseTopic, route.ResponseTopic)
	correlated := c.correlate(either(said.correlationData, route.CorrelationData))
	if err := errors.Join(c.takeQoS(said), c.takeRetain(said), c.takeExpiry(said), c.takeFormat(said)); err != nil {
		return c.invalid(err)
	}
	switch {
	case len(c.ContentType) > math.MaxUint16 || !mqtt.ValidString(c.ContentType):
		return c.invalid(errors.New("mqtt.content_type is no UTF-8 string of at most 65535 bytes"))
	case !legalResponseTopic(c.ResponseTopic):
		return c.invalid(errNoResponseTopic)
	case !correlated:
		return c.invalid(errors.New("mqtt.correlation_data is longer than 65535 bytes"))
	}
	return nil
}

// correlate takes the Correlation Data, also of a record that is refused: its sender knows it by them. False if
// they are too long, which a receipt must not become.
func (c *command) correlate(data []byte) bool {
	if len(data) > math.MaxUint16 {
		return false
	}
	c.CorrelationData = data
	return true
}

func (c *command) invalid(err error) error {
	return &recordRefusal{c.rule, reasonInvalidHeader, err.Error()}
}

func either(first, second []byte) []byte {
	if first != nil {
		return first
	}
	return second
}

func (c *command) takeQoS(s *said) error {
	if s.qos == nil {
		return nil
	}
	if len(s.qos) != 1 || s.qos[0] < '0' || s.qos[0] > '2' {
		return errors.New("mqtt.qos is not 0, 1 or 2")
	}
	c.QoS = s.qos[0] - '0'
	return nil
}

func (c *command) takeRetain(s *said) error {
	switch string(s.retain) {
	case "":
		if s.retain == nil {
			return nil
		}
	case "true":
		c.Retain = true
		return nil
	case "false":
		c.Retain = false
		return nil
	}
	return errors.New("mqtt.retain is not true or false")
}

func (c *command) takeFormat(s *said) (err error) {
	c.PayloadFormat, err = formatOf(s.format)
	return err
}

// takeExpiry counts from the record's timestamp: a command is not younger because it waited in Kafka.
func (c *command) takeExpiry(s *said) error {
	if s.expiry == nil {
		if c.settings.Expiry > 0 {
			c.Expires = c.written.Add(c.settings.Expiry)
		}
		return nil
	}
	seconds, err := strconv.ParseUint(string(s.expiry), 10, 32)
	if err != nil {
		return errors.New("mqtt.expiry is no number of seconds from 0 to 4294967295")
	}
	c.Expires = c.written.Add(time.Duration(seconds) * time.Second)
	return nil
}

// properties makes User Properties of the headers that are not the proxy's, in their order, and says how many
// can't be one.
func (tr *translation) properties(r *kafka.Fetched) (leftOut int) {
	for _, h := range r.Headers {
		switch {
		case bytes.HasPrefix(h.Key, reservedPrefixes[0]), bytes.HasPrefix(h.Key, reservedPrefixes[1]):
		case len(h.Key) > math.MaxUint16, len(h.Value) > math.MaxUint16, !mqtt.ValidString(h.Key), !mqtt.ValidString(h.Value):
			leftOut++
		default:
			tr.user = append(tr.user, mqtt.Property{Key: h.Key, Value: h.Value})
		}
	}
	return leftOut
}

// own copies what the command points to: a record shares its memory with all that was fetched with it. The key
// is apart, because it goes into receipts, and those must not keep the payload while they wait for Kafka.
func (c *command) own(r *kafka.Fetched, tr *translation) {
	c.key, c.Payload = bytes.Clone(r.Key), r.Value
	if len(tr.user) > 0 {
		c.User = append([]mqtt.Property(nil), tr.user...)
	}
	parts := [...]*[]byte{&c.Topic, &c.Payload, &c.ContentType, &c.ResponseTopic, &c.CorrelationData}
	n := 0
	for _, p := range parts {
		n += len(*p)
	}
	for _, u := range c.User {
		n += len(u.Key) + len(u.Value)
	}
	own := make([]byte, 0, n)
	keep := func(b *[]byte) {
		if *b == nil {
			return // absent
		}
		begin := len(own)
		own = append(own, *b...)
		*b = own[begin:len(own):len(own)]
	}
	for _, p := range parts {
		keep(p)
	}
	for i := range c.User {
		keep(&c.User[i].Key)
		keep(&c.User[i].Value)
	}
}
