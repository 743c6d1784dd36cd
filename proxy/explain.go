package proxy

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/kafka"
	"sluice/mqtt"
	"sluice/proxy/acl"
	"sluice/proxy/config"
	"sluice/topicmap"
)

// A Sample is a message that was never sent, to see what would become of it.
type Sample struct {
	MQTTTopic      string
	ClientID       string
	Username       string
	CommonName     string // of the certificate
	Payload        string
	QoS            byte
	Retain         bool
	UserProperties []mqtt.Property
	// Partitions is the number of partitions to compute the partition for; 0: not computed.
	Partitions int32
}

// An Explanation is what the rules make of a Sample.
type Explanation struct {
	Rule       int    // counted from 1 in the order of the file; 0: none
	Match      string // its filter or expression
	Refused    string // why it would be refused, in the words of the metrics; "" if not
	Code       mqtt.Code
	ReasonText string
	KafkaTopic string // "" if dropped or refused
	DeadLetter bool   // KafkaTopic is the dead-letter topic
	Dropped    bool
	Refusal    config.Refused // what an MQTT 3.1.1 device gets if the message is refused
	Key        []byte         // nil: no key
	Partition  int32          // -1: not computed, or any for a record without a key
	Headers    []kafka.Header
	LeftOut    [][]byte // names of user properties that become no header
}

// Explain runs the sample through the code that serves devices, up to the producer.
func Explain(cfg *config.Config, s Sample) (*Explanation, error) {
	rules, err := cfg.Rules()
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(prometheus.NewRegistry(), rules.Rules())
	if err != nil {
		return nil, err
	}
	p := &publisher{unmatched: cfg.Unmatched, refused: cfg.Refused, m: m}
	for i := range cfg.Publish {
		p.passing = append(p.passing, passingOf(&cfg.Publish[i]))
	}
	msg := &mqtt.Message{Topic: []byte(s.MQTTTopic), ClientID: s.ClientID, Username: s.Username, Payload: []byte(s.Payload),
		QoS: s.QoS, Retain: s.Retain, User: s.UserProperties, Received: time.Now()}
	d := &delivery{p: p, msg: msg}
	d.describe(msg)
	d.in.CertCN = s.CommonName
	list, err := cfg.AccessList()
	if err != nil {
		return nil, err
	}
	if mqtt.IsTooDeep(msg.Topic, cfg.Limits.TopicLevels) {
		err = errTooDeep
	} else if isSystemTopic(msg.Topic) {
		err = errSystemTopic
	} else if list != nil {
		err = deniedTo(list.Access(acl.Who{ClientID: s.ClientID, Username: s.Username, CommonName: s.CommonName}), msg.Topic, s.Retain)
	}
	if err == nil {
		err = rules.Route(&d.in, &d.route)
	}
	return p.explain(d, err, rules.Rules(), s.Partitions), nil
}

func (p *publisher) explain(d *delivery, err error, rules []topicmap.Rule, partitions int32) *Explanation {
	e := &Explanation{Partition: -1}
	rule := d.route.Rule
	if err != nil {
		rule = ruleOf(err)
	}
	if rule != noRule {
		e.Rule, e.Match = rule+1, rules[rule].Match+rules[rule].Regex
	}
	if err == nil {
		d.fillRouted()
	} else if !p.explainRefusal(e, d, err) {
		return e
	}
	e.KafkaTopic, e.Key, e.Headers = d.rec.Topic, d.rec.Key, d.rec.Headers
	user := new(passing)
	if err == nil {
		user = &p.passing[rule]
	}
	for _, u := range d.msg.User {
		if isReserved(u.Key) || !user.passes(u.Key) {
			e.LeftOut = append(e.LeftOut, u.Key)
		}
	}
	if e.Key != nil && partitions > 0 {
		e.Partition = kafka.PartitionOf(e.Key, partitions)
	}
	return e
}

// explainRefusal says why there is no route, and whether there is a record all the same: the dead letter.
func (p *publisher) explainRefusal(e *Explanation, d *delivery, err error) bool {
	r := refusalOf(err)
	e.Refused, e.Code, e.ReasonText = r.reason, r.code, r.text
	var detail *topicmap.Refusal
	if errors.As(err, &detail) && detail.Detail != "" {
		e.Refused += ": " + detail.Detail
	}
	fate, topic := p.fate(d, r)
	e.DeadLetter, e.Dropped, e.Refusal = fate == deadLettered, fate == dropped, p.refused
	if e.DeadLetter {
		d.fillDead(topic, r.reason)
	}
	return e.DeadLetter
}
