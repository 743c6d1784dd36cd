package config

import (
	"time"

	"sluice/topicmap"
)

// A Command takes the records of a Kafka topic to an MQTT topic, as PUBLISH packets to the devices that subscribed to
// it. `publish`, `client`, `content_type`, `response_topic` and `correlation_data` are templates as in `publish`, with
// other names: `{key}` (the record's key), `{header.NAME}` (the first header of that name, which may hold dots:
// `{header.mqtt.topic}`), `{kafka.topic}`, `{payload.PATH}` (a path into a JSON value) and what `pattern` captured.
// The value of the record is the payload. Its headers whose names do not begin with `mqtt.` or `sluice.` become User
// Properties; the headers `mqtt.qos`, `mqtt.retain`, `mqtt.expiry`, `mqtt.payload_format`, `mqtt.content_type`,
// `mqtt.response_topic` and `mqtt.correlation_data` come before what the rule says.
type Command struct {
	// Topic is the Kafka topic whose records are commands. It can't be an internal one (`__*`, `sluice-*`). A rule has
	// either this or `pattern`.
	Topic string `yaml:"topic"`
	// Pattern is a regular expression (RE2) in place of `topic`, for all Kafka topics it matches, those that are made
	// later included, internal ones never. Its named groups `(?P<name>…)` are names for the templates. It must match
	// whole names, so begin it with `^` and end it with `$`. Write it in single quotes.
	Pattern string `yaml:"pattern"`
	// Publish is the MQTT topic, a template. The result must be a legal topic name: not empty, UTF-8 without null
	// characters, at most 65535 bytes, without `+` and `#`, and not beginning with `$share/`. A record that makes
	// another one, or that lacks a value, is refused; characters are never replaced.
	Publish string `yaml:"publish"`
	// QoS is the Quality of Service of the PUBLISH; a device whose subscription was granted less gets less.
	QoS int `yaml:"qos"`
	// Retain is the RETAIN flag of the PUBLISH: the command becomes the retained message of its topic too, for all who
	// may subscribe to that, whatever `client` says. Only subscriptions with Retain As Published see the flag.
	Retain bool `yaml:"retain"`
	// Expiry is how old a command, counted from the record's timestamp, may be when it is sent; MQTT 5 devices are
	// told what is left of it. Whole seconds; 0s: it never expires.
	Expiry time.Duration `yaml:"expiry"`
	// ContentType is the Content Type of the PUBLISH, a template. It is left out of a command whose record lacks
	// a value it needs; a record that makes no legal string of it is refused.
	ContentType string `yaml:"content_type"`
	// ResponseTopic is the Response Topic, a template: where the device is to publish its answer. It is left out of a
	// command whose record lacks a value it needs; a record that makes no legal topic name of it is refused.
	ResponseTopic string `yaml:"response_topic"`
	// CorrelationData is the Correlation Data, a template: the device sends it back with its answer. It is left out of a
	// command whose record lacks a value it needs; a record that makes more than 65535 bytes of it is refused.
	CorrelationData string `yaml:"correlation_data"`
	// When narrows the rule: each name, written as in a template but without braces (`key`, `header.NAME`,
	// `payload.PATH`, a capture), must have exactly this value in the record. The next rules are tried when one has
	// not.
	When []topicmap.Field `yaml:"when"`
	// Client is the client ID of the only device that gets the command, a template; it must have subscribed to the
	// topic all the same. Left out, every device that subscribed gets it. A record that lacks a value it needs, or
	// makes an empty one of it, is refused.
	Client string `yaml:"client"`
	// Offline is what becomes of a command for a device that is away and has a session: keep lets it wait until the
	// device is back, drop does not.
	Offline string `yaml:"offline"`
	// Receipts is the Kafka topic that is told what became of each command at each device. It must be legal and not
	// internal, and no command rule may read it, because each receipt would then be a command. Left out, there are no
	// receipts.
	Receipts string `yaml:"receipts"`
}

// The words of Command.Offline.
const (
	OfflineKeep = "keep"
	OfflineDrop = "drop"
)

// defaultCommand gives the values of what a command rule leaves out.
func defaultCommand() Command { return Command{QoS: 1, Offline: OfflineKeep} }

// CommandRules compiles the command rules. It can't fail for a Config that Parse gave.
func (c *Config) CommandRules() (*topicmap.CommandMap, error) {
	rules := make([]topicmap.CommandRule, len(c.Commands))
	for i := range c.Commands {
		rules[i] = c.Commands[i].rule()
	}
	return topicmap.CompileCommands(rules)
}

// rule is the part of the command that package topicmap decides on.
func (c *Command) rule() topicmap.CommandRule {
	return topicmap.CommandRule{
		Topic: c.Topic, Pattern: c.Pattern, Publish: c.Publish, ContentType: c.ContentType, ResponseTopic: c.ResponseTopic,
		CorrelationData: c.CorrelationData, Client: c.Client, When: c.When,
	}
}
