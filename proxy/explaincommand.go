package proxy

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"time"

	"sluice/kafka"
	"sluice/mqtt"
	"sluice/proxy/config"
	"sluice/topicmap"
)

// A CommandSample is a record that was never written, to see what would become of it.
type CommandSample struct {
	KafkaTopic string
	Key        []byte // nil: none
	Headers    []kafka.Header
	Value      []byte
}

// A CommandExplanation is what the rules make of a CommandSample.
type CommandExplanation struct {
	Rule    int    // counted from 1 in the order of the file; 0: none
	Source  string // its Kafka topic or pattern
	Cancels []byte // not nil: the record withdraws the command with these correlation data, and is none itself
	Refused string // why it makes no command, in the words of the metrics; "" if it does
	// PUBLISH is what a device gets whose subscription lowers nothing.
	PUBLISH *mqtt.Command
	// Expiry is the Message Expiry Interval; negative: none.
	Expiry time.Duration
	// LeftOut is how many headers can't be User Properties.
	LeftOut  int
	Keep     bool   // for stored sessions too
	Receipts string // Kafka topic; "": none
}

// ExplainCommand runs the sample through the code that serves devices, up to their subscriptions.
func ExplainCommand(cfg *config.Config, s CommandSample) (*CommandExplanation, error) {
	rules, err := cfg.CommandRules()
	if err != nil {
		return nil, err
	}
	e := &CommandExplanation{Expiry: -1}
	r := &kafka.Fetched{Topic: s.KafkaTopic, Key: s.Key, Value: s.Value, Headers: s.Headers, Timestamp: time.Now()}
	if data, ok := cancellation(r); ok && reads(rules, s.KafkaTopic) {
		e.Cancels = data
		return e, nil
	}
	t := translator{rules: rules, settings: cfg.Commands, leftOut: func() { e.LeftOut++ }}
	cmd, err := t.translate(r)
	if cmd.rule != noRule {
		rule := rules.Rules()[cmd.rule]
		e.Rule, e.Source = cmd.rule+1, rule.Topic+rule.Pattern
		e.Keep, e.Receipts = cmd.settings.Offline == config.OfflineKeep, cmd.settings.Receipts
	}
	var refusal *recordRefusal
	if errors.As(err, &refusal) {
		e.Refused = refusal.Error()
		return e, nil
	}
	e.PUBLISH = &cmd.Command
	if !cmd.Expires.IsZero() {
		e.Expiry = cmd.Expires.Sub(cmd.written)
	}
	return e, nil
}

// reads says whether the records of a Kafka topic are read at all, whatever the conditions of the rules. Patterns may
// match internal topics and never take them.
func reads(rules *topicmap.CommandMap, kafkaTopic string) bool {
	if strings.HasPrefix(kafkaTopic, "__") || strings.HasPrefix(kafkaTopic, "sluice-") {
		return false
	}
	matches := func(p *regexp.Regexp) bool { return p.MatchString(kafkaTopic) }
	return slices.Contains(rules.Topics(), kafkaTopic) || slices.ContainsFunc(rules.Patterns(), matches)
}
