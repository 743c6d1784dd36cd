package config

import (
	"fmt"
	"regexp"

	"sluice/topicmap"
)

// checkCommands compiles the command rules and checks their receipts.
func (d *decoder) checkCommands(c *Config) {
	for i := range c.Commands {
		path := fmt.Sprintf("commands[%d]", i)
		if d.isBad(path) {
			continue // no mapping at all
		}
		if d.places[path+".topic"] == nil && d.places[path+".pattern"] == nil {
			d.fail("", d.places[path].key, "a command rule needs topic, a Kafka topic, or pattern")
		}
		d.checkNotEmpty(path, &c.Commands[i])
		d.checkReceipts(path+".receipts", c.Commands, c.Commands[i].Receipts)
	}
	_, err := c.CommandRules()
	d.reportRules("commands", err)
}

// checkNotEmpty refuses a field that is in the file and says nothing. An empty client, as one from an empty variable
// of the environment, would send to everybody what was meant for one.
func (d *decoder) checkNotEmpty(path string, c *Command) {
	for _, f := range []struct{ name, text string }{
		{"client", c.Client}, {"content_type", c.ContentType}, {"response_topic", c.ResponseTopic}, {"correlation_data", c.CorrelationData},
	} {
		if at := path + "." + f.name; f.text == "" && d.places[at] != nil {
			d.report(at, -1, "%s is empty; give it a value or leave it out", f.name)
		}
	}
}

// checkReceipts refuses a topic that is not legal, or that a command rule reads: each receipt would be a command with
// a receipt of its own.
func (d *decoder) checkReceipts(path string, commands []Command, kafkaTopic string) {
	if d.places[path] == nil || d.isBad(path) {
		return
	}
	if err := topicmap.LegalKafkaTopic(kafkaTopic); err != nil {
		d.report(path, -1, "receipts: %v", err)
		return
	}
	for i := range commands {
		if commands[i].reads(kafkaTopic) {
			d.report(path, -1, "receipts: commands[%d] reads the Kafka topic %s, so each receipt would be a command", i, kafkaTopic)
			return
		}
	}
}

// reads tells whether records of the Kafka topic are for this rule. A pattern with faults, which are told elsewhere,
// matches nothing.
func (c *Command) reads(kafkaTopic string) bool {
	if c.Pattern == "" {
		return c.Topic == kafkaTopic
	}
	re, err := regexp.Compile(c.Pattern)
	return err == nil && re.MatchString(kafkaTopic)
}
