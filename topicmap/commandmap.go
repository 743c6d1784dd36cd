package topicmap

import (
	"regexp"
	"slices"
)

// maxKnownTopics is how many Kafka topics a CommandMap remembers the rules of. Of more, which few clusters have, each
// record asks the patterns.
const maxKnownTopics = 1 << 15

// CommandMap is a compiled set of command rules. It is immutable and may be used by any number of goroutines; what
// grows in it, up to a bound, is a memo of which rules take a Kafka topic.
type CommandMap struct {
	rules    []CommandRule
	compiled []*compiledCommand
	known    *nameTable[[]commandHit]
}

// commandHit is a rule that takes a Kafka topic, with what its pattern captured. Whether its conditions hold, the
// record says.
type commandHit struct {
	rule   *compiledCommand
	groups []int
}

// Len is the number of rules; [CommandRoute.Rule] and [Refusal.Rule] are below it.
func (m *CommandMap) Len() int { return len(m.rules) }

// Rules are the rules the map was made of, as a copy.
func (m *CommandMap) Rules() []CommandRule { return cloneCommandRules(m.rules) }

// Topics are the Kafka topics that the rules name, sorted, each once. They are legal and not internal.
func (m *CommandMap) Topics() []string {
	var topics []string
	for _, c := range m.compiled {
		if c.pattern == nil {
			topics = append(topics, c.topic)
		}
	}
	return slices.Compact(slices.Sorted(slices.Values(topics)))
}

// Patterns are the expressions of the rules in their order, each once. They match whole names; internal topics, which
// they may match too, take no part all the same.
func (m *CommandMap) Patterns() []*regexp.Regexp {
	var patterns []*regexp.Regexp
	for _, c := range m.compiled {
		if c.pattern == nil {
			continue
		}
		same := func(re *regexp.Regexp) bool { return re.String() == c.pattern.re.String() }
		if !slices.ContainsFunc(patterns, same) {
			patterns = append(patterns, c.pattern.re)
		}
	}
	return patterns
}

// Route finds the first rule that matches rec and fills r with where the command goes. The error is [ErrNoRule] or a
// *[Refusal], both final.
func (m *CommandMap) Route(rec *Record, r *CommandRoute) error {
	r.reset()
	of := subject{rec: rec}
	for _, h := range m.hits(rec.Topic, &r.scratch) {
		r.groups = h.groups
		if h.rule.when.hold(of, &r.scratch) {
			r.Rule = h.rule.index
			return h.rule.fill(of, r)
		}
	}
	return ErrNoRule
}

// hits are the rules that take the Kafka topic, in order, up to the first without conditions. They are shared: nobody
// changes them.
func (m *CommandMap) hits(kafkaTopic string, sc *scratch) []commandHit {
	name := append(sc.buf, kafkaTopic...)
	sc.buf = name[:0]
	known, full := m.known.get(name)
	if known != nil {
		return known.value
	}
	hits := m.ask(name)
	if !full {
		m.known.add(name, hits)
	}
	return hits
}

// ask goes through the rules.
func (m *CommandMap) ask(kafkaTopic []byte) (hits []commandHit) {
	if internalTopic(string(kafkaTopic)) != nil {
		return nil
	}
	for _, c := range m.compiled {
		groups, ok := c.takes(kafkaTopic)
		if !ok {
			continue
		}
		hits = append(hits, commandHit{c, groups})
		if c.when == nil {
			break
		}
	}
	return hits
}

// takes tells whether the rule is for records of the Kafka topic, and what its pattern captures.
func (c *compiledCommand) takes(kafkaTopic []byte) (groups []int, ok bool) {
	if c.pattern == nil {
		return nil, c.topic == string(kafkaTopic)
	}
	groups = c.pattern.find(kafkaTopic)
	return groups, groups != nil
}

// fill renders the rule's templates.
func (c *compiledCommand) fill(of subject, r *CommandRoute) (err error) {
	if r.Topic, err = c.publish.render(c.index, of, &r.scratch); err != nil {
		return err
	}
	if r.Client, err = c.client.render(c.index, of, &r.scratch); err != nil {
		return err
	}
	if r.ContentType, err = c.contentType.render(c.index, of, &r.scratch); err != nil {
		return err
	}
	if r.ResponseTopic, err = c.responseTopic.render(c.index, of, &r.scratch); err != nil {
		return err
	}
	r.CorrelationData, err = c.correlationData.render(c.index, of, &r.scratch)
	return err
}

// reset forgets the record before and keeps the memory.
func (r *CommandRoute) reset() {
	r.Rule, r.Topic, r.Client = 0, nil, nil
	r.ContentType, r.ResponseTopic, r.CorrelationData = nil, nil, nil
	r.scratch.reset()
}
