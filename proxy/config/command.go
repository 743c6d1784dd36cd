package config

import (
	"time"

	"sluice/topicmap"
)

// A Command takes the records of a Kafka topic to an MQTT topic, as PUBLISH packets to the devices that subscribed to
// it. `publish`, `content_type`, `response_topic`, `correlation_data` and `client` are templates as in `publish`, with
// other names: `{key}` (the record's key), `{header.NAME}` (the first header of that name; it may hold dots, as in
// `{header.mqtt.topic}`), `{kafka.topic}`, `{payload.PATH}` (a path into a JSON value) and what `pattern` captured.
type Command struct {
	// Topic is the Kafka topic whose records are commands. It can't be an internal one (`__*`, `sluice-*`). A command
	// rule has either this or `pattern`.
	Topic string `yaml:"topic"`
	// Pattern is a regular expression (RE2) in place of `topic`, for all Kafka topics it matches, those that are made
	// later included, internal ones never. Its named groups `(?P<name>…)` are names for the templates. It must match
	// whole names, so begin it with `^` and end it with `$`. Write it in single quotes.
	Pattern string `yaml:"pattern"`
	// Publish is the MQTT topic, a template. The result must be a legal Topic Name: not empty, UTF-8 without null
	// characters, at most 65535 bytes, without `+` and `#`, and not beginning with `$share/`. A record that makes
	// another, or that lacks a value, is refused.
	Publish string `yaml:"publish"`
	// QoS is the most that is promised to a device; one that subscribed with less gets less. The record header
	// `mqtt.qos` overrides it.
	QoS int `yaml:"qos"`
	// Retain sets the RETAIN flag of the PUBLISH.
	Retain bool `yaml:"retain"`
	// Expiry is the Message Expiry Interval: a command that has waited longer for its device is dropped. Whole seconds;
	// 0s: it never expires. The record header `mqtt.expiry` overrides it.
	Expiry time.Duration `yaml:"expiry"`
	// ContentType is the Content Type of the PUBLISH, a template. It is left out of a command whose record lacks
	// a value it needs.
	ContentType string `yaml:"content_type"`
	// ResponseTopic is the Response Topic, a template: where the device is to publish its answer. What it makes must be a
	// legal Topic Name, or the record is refused. It is left out of a command whose record lacks a value it needs. The
	// record header `mqtt.response_topic` overrides it.
	ResponseTopic string `yaml:"response_topic"`
	// CorrelationData is the Correlation Data, a template: the device sends it back with its answer. It is left out of a
	// command whose record lacks a value it needs.
	CorrelationData string `yaml:"correlation_data"`
	// When narrows the rule: each name, written as in a template but without braces (`key`, `header.NAME`,
	// `payload.PATH`, a capture), must have exactly this value in the record. The next rules are tried when one has
	// not.
	When []topicmap.Field `yaml:"when"`
	// Client is the client ID of the only device that may get the command, a template; it must have subscribed all the
	// same. Left out, every device that subscribed to the topic gets it. A record that lacks a value it needs is refused.
	Client string `yaml:"client"`
	// Offline says what becomes of a command with QoS 1 or 2 for a device that is away and has a session: keep lets it
	// wait until the device is back, drop forgets it.
	Offline string `yaml:"offline"`
	// Receipts is the Kafka topic that is told what became of each command. It must be legal and not internal, and no
	// command rule may read it, because receipts would then be commands themselves. Left out, there are no receipts.
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
