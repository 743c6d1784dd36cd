package main

import (
	"io"
	"time"

	"sluice/kafka"
	"sluice/mqtt"
	"sluice/proxy"
	"sluice/proxy/config"
)

// explainCommand prints what becomes of a record of a command topic.
func (c *explainCommand) explainCommand(cfg *config.Config, w io.Writer) error {
	sample := proxy.CommandSample{KafkaTopic: c.KafkaTopic}
	if c.Key != nil {
		sample.Key = []byte(*c.Key)
	}
	payload, err := payloadOf(c.Payload)
	if err != nil {
		return usageError{err}
	}
	sample.Value = []byte(payload)
	if sample.Headers, err = pairs[kafka.Header]("--header", c.Header); err != nil {
		return usageError{err}
	}
	e, err := proxy.ExplainCommand(cfg, sample)
	if err != nil {
		return usageError{err}
	}
	printCommand(w, e)
	return nil
}

func printCommand(w io.Writer, e *proxy.CommandExplanation) {
	field := fields(w)
	if e.Cancels != nil {
		field("cancels", "the commands with the same Kafka topic and key and correlation data %q, where they were not yet sent", e.Cancels)
		return
	}
	if e.Rule > 0 {
		field("rule", "%d  %s", e.Rule, e.Source)
	} else {
		field("rule", "none matches")
	}
	if e.Refused != "" {
		field("refused", "%s", e.Refused)
	} else {
		printPublish(field, e)
	}
	if e.Receipts != "" {
		field("receipts", "%s", e.Receipts)
	}
}

func printPublish(field func(name, format string, args ...any), e *proxy.CommandExplanation) {
	p := e.PUBLISH
	field("MQTT topic", "%s", p.Topic)
	to := "every device that has subscribed to the topic"
	if p.To != "" {
		to = "client ID " + p.To + ", if it has subscribed to the topic"
	}
	if e.Keep {
		field("to", "%s; stored sessions get it at their return", to)
	} else {
		field("to", "%s and is connected", to)
	}
	field("QoS", "%d", p.QoS)
	if p.Retain {
		field("RETAIN", "set, for subscriptions with Retain As Published")
	}
	switch {
	case e.Expiry == 0:
		field("expires", "at once")
	case e.Expiry > 0:
		field("expires", "%s after the record's timestamp", e.Expiry.Round(time.Second))
	}
	printProperties(field, e)
}

func printProperties(field func(name, format string, args ...any), e *proxy.CommandExplanation) {
	p := e.PUBLISH
	for _, o := range []struct {
		name  string
		value []byte
	}{{"content type", p.ContentType}, {"response topic", p.ResponseTopic}, {"correlation", p.CorrelationData}} {
		if o.value != nil {
			field(o.name, "%q", o.value)
		}
	}
	if p.PayloadFormat != mqtt.FormatAbsent {
		field("payload format", "%d", p.PayloadFormat-mqtt.FormatBytes)
	}
	printUser(field, p.User)
	if e.LeftOut > 0 {
		field("left out", "%d headers that are no UTF-8 strings of at most 65535 bytes", e.LeftOut)
	}
}

func printUser(field func(name, format string, args ...any), user []mqtt.Property) {
	for i, u := range user {
		name := ""
		if i == 0 {
			name = "user properties"
		}
		field(name, "%s = %q", u.Key, u.Value)
	}
}
