package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"sluice/mqtt"
	"sluice/proxy"
)

// Flags with one xor group exclude each other: what is said of a message does not fit a record, and the other way
// round.
type explainCommand struct {
	configFlag
	Topic        string   `xor:"topic,key,header" required:"" help:"The MQTT topic of a message from a device."`
	KafkaTopic   string   `xor:"topic,user,cert,retain,property,partitions" required:"" help:"The Kafka topic of a command for devices."`
	Key          *string  `xor:"key" help:"With --kafka-topic: the record's key (default: none)."`
	Header       []string `xor:"header" placeholder:"NAME=VALUE" sep:"none" help:"With --kafka-topic: a record header; may be repeated."`
	ClientID     string   `default:"device-1" help:"The client ID of the device."`
	Username     string   `xor:"user" help:"The user name of the device."`
	CertCN       string   `xor:"cert" name:"cert-cn" help:"The common name of the device's certificate."`
	Payload      string   `help:"The payload; @FILE reads it from a file."`
	QoS          byte     `name:"qos" default:"1" enum:"0,1,2" help:"The QoS."`
	Retain       bool     `xor:"retain" help:"With the RETAIN flag."`
	UserProperty []string `xor:"property" placeholder:"NAME=VALUE" sep:"none" help:"A user property; may be repeated."`
	Partitions   int32    `xor:"partitions" help:"How many partitions the Kafka topic has (default: create_topics.partitions)."`
}

// Run prints what becomes of the message. It asks no network.
func (c *explainCommand) Run(std streams) error {
	cfg, err := c.load()
	if err != nil {
		return err
	}
	if c.KafkaTopic != "" {
		return c.explainCommand(cfg, std.out)
	}
	if c.Topic == "" || strings.ContainsAny(c.Topic, "+#\x00") || !utf8.ValidString(c.Topic) {
		return usageError{fmt.Errorf("--topic %q is not a topic a device can publish to", c.Topic)}
	}
	sample := proxy.Sample{MQTTTopic: c.Topic, ClientID: c.ClientID, Username: c.Username, CommonName: c.CertCN, QoS: c.QoS, Retain: c.Retain, Partitions: c.Partitions}
	if sample.Payload, err = payloadOf(c.Payload); err != nil {
		return usageError{err}
	}
	if sample.UserProperties, err = pairs[mqtt.Property]("--user-property", c.UserProperty); err != nil {
		return usageError{err}
	}
	if sample.Partitions == 0 && cfg.Kafka.CreateTopics != nil {
		sample.Partitions = cfg.Kafka.CreateTopics.Partitions
	}
	e, err := proxy.Explain(cfg, sample)
	if err != nil {
		return usageError{err}
	}
	printExplanation(std.out, e, sample.Partitions)
	return nil
}

// pairs reads arguments of the form NAME=VALUE.
func pairs[P ~struct{ Key, Value []byte }](flag string, args []string) (all []P, err error) {
	for _, a := range args {
		name, value, ok := strings.Cut(a, "=")
		if !ok {
			return nil, fmt.Errorf("%s %q is not NAME=VALUE", flag, a)
		}
		all = append(all, P{Key: []byte(name), Value: []byte(value)})
	}
	return all, nil
}

func payloadOf(arg string) (string, error) {
	name, isFile := strings.CutPrefix(arg, "@")
	if !isFile {
		return arg, nil
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return "", fmt.Errorf("cannot read the payload: %w", err)
	}
	return string(b), nil
}

// fields gives a function that prints a name and what follows it, in two columns.
func fields(w io.Writer) func(name, format string, args ...any) {
	return func(name, format string, args ...any) {
		fmt.Fprintf(w, "%-16s %s\n", name, fmt.Sprintf(format, args...))
	}
}

func printExplanation(w io.Writer, e *proxy.Explanation, partitions int32) {
	field := fields(w)
	if e.Rule > 0 {
		field("rule", "%d  %s", e.Rule, e.Match)
	} else {
		field("rule", "none matches")
	}
	if e.Refused != "" {
		field("refused", "%s", e.Refused)
	}
	switch {
	case e.Dropped:
		field("answer", "MQTT 5: 0x%02X %s; 3.1.1: acknowledged; the message is dropped, as `unmatched: drop` says", byte(mqtt.NoMatchingSubscribers), mqtt.NoMatchingSubscribers)
		return
	case e.KafkaTopic == "":
		old := "the connection closes"
		switch {
		case e.Refusal.DeadLetter != "":
			old = "stored in the dead-letter topic " + e.Refusal.DeadLetter
		case e.Refusal.Acknowledge:
			old = "acknowledged and forgotten"
		}
		field("answer", "MQTT 5: 0x%02X %s (%s); 3.1.1: %s", byte(e.Code), e.Code, e.ReasonText, old)
		return
	case e.DeadLetter:
		field("Kafka topic", "%s  (dead letter)", e.KafkaTopic)
	default:
		field("Kafka topic", "%s", e.KafkaTopic)
	}
	switch {
	case e.Key == nil:
		field("key", "none")
		field("partition", "any")
	case e.Partition < 0:
		field("key", "%q", e.Key)
		field("partition", "murmur2 of the key; say --partitions N to see it")
	default:
		field("key", "%q", e.Key)
		field("partition", "%d of %d", e.Partition, partitions)
	}
	for i, h := range e.Headers {
		name := ""
		if i == 0 {
			name = "headers"
		}
		field(name, "%s = %q", h.Key, h.Value)
	}
	for _, u := range e.LeftOut {
		field("left out", "user property %q", u)
	}
}
