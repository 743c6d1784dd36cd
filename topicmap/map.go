package topicmap

import (
	"errors"
	"slices"
)

// Map is a compiled set of rules. It is immutable and may be used by any number of goroutines; what
// grows in it, up to bounds, are the names its topic templates have made and a memo of what its regexes matched.
type Map struct {
	rules   []Rule
	filters trie
	regexes []*compiledRule // in the order of the rules
	memo    *regexMemo      // of regexes; nil when there are none
	topics  []string        // the literal Kafka topics of the rules
	names   []*topicNames   // by rule; nil where the Kafka topic is literal
}

// Len is the number of rules; [Route.Rule] and [Refusal.Rule] are below it.
func (m *Map) Len() int { return len(m.rules) }

// Rules are the rules the map was made of, as a copy.
func (m *Map) Rules() []Rule { return cloneRules(m.rules) }

// Topics are the Kafka topics that stand in the rules literally, sorted, each once. Those of templates are known
// only when a message makes them.
func (m *Map) Topics() []string {
	return slices.Compact(slices.Sorted(slices.Values(m.topics)))
}

// Route finds the first rule that matches msg and fills r with where it goes. The error is [ErrNoRule] or a
// *[Refusal], both final.
func (m *Map) Route(msg *Message, r *Route) error {
	r.reset()
	if len(msg.Topic) == 0 {
		return ErrNoRule // no topic name is empty [MQTT-4.7.3-1]
	}
	rule := m.match(msg, r)
	if rule == nil {
		return ErrNoRule
	}
	r.Rule = rule.index
	return rule.fill(msg, r)
}

// match finds the first rule that matches.
func (m *Map) match(msg *Message, r *Route) *compiledRule {
	best := m.filters.find(msg, r)
	if len(m.regexes) == 0 || m.regexes[0].index >= best.order() {
		return best
	}
	best = firstHit(m.memo.hits(r.hits[:0], m.regexes, msg.Topic), best, msg, r)
	clear(r.hits[:]) // an idle Route must not keep the rules of a map that was replaced
	return best
}

// firstHit returns the first of hits whose conditions hold, or best if that comes before it.
func firstHit(hits []hit, best *compiledRule, msg *Message, r *Route) *compiledRule {
	for _, h := range hits {
		if h.rule.index >= best.order() {
			break
		}
		r.groups = h.groups
		if h.rule.when.hold(subject{msg: msg}, &r.scratch) {
			return h.rule
		}
	}
	return best
}

// order is the rule's index; that of no rule comes behind all others.
func (c *compiledRule) order() int {
	if c == nil {
		return noRule
	}
	return c.index
}

// hold tells whether all of the conditions hold. What it writes to sc.buf is taken back.
func (all conditions) hold(of subject, sc *scratch) bool {
	for i := range all {
		value, ok := all[i].value.appendTo(sc.buf, of, sc)
		sc.buf = value[:len(sc.buf)]
		if !ok || string(value[len(sc.buf):]) != all[i].want {
			return false
		}
	}
	return true
}

// fill renders the rule's templates.
func (c *compiledRule) fill(msg *Message, r *Route) error {
	if err := c.fillTopic(msg, r); err != nil {
		return err
	}
	if err := c.fillKey(msg, r); err != nil {
		return err
	}
	for i := range c.headers {
		h := &c.headers[i]
		if value, missing := h.value.render(subject{msg: msg}, &r.scratch); missing == nil {
			r.Headers = append(r.Headers, Header{h.name, value})
		}
	}
	return nil
}

func (c *compiledRule) fillTopic(msg *Message, r *Route) error {
	if c.topic.text == nil {
		r.Topic = c.topic.literal
		return nil
	}
	name, missing := c.topic.text.render(subject{msg: msg}, &r.scratch)
	if missing != nil {
		return missing.refusal(c.index, "the topic", subject{msg: msg})
	}
	made, full := c.topic.names.made.get(name)
	if made == nil {
		return c.newTopic(name, full, r)
	}
	r.Topic = made.name
	return nil
}

// newTopic lets a name in of which the template does not know that there is such a topic.
func (c *compiledRule) newTopic(name []byte, full bool, r *Route) error {
	if err := LegalKafkaTopic(string(name)); err != nil {
		reason := ReasonIllegalTopic
		if errors.Is(err, ErrInternalTopic) {
			reason = ReasonInternalTopic
		}
		return &Refusal{c.index, reason, quote(name) + ": " + err.Error()}
	}
	if !full {
		var ok bool
		if r.Topic, r.Tried, ok = c.topic.names.try(name); ok {
			return nil
		}
	}
	return &Refusal{c.index, ReasonTooManyTopics, quote(name) + " would be one more Kafka topic than the rule may create"}
}

// Settle tells whether there is the Kafka topic that r was routed to, if that was not known: names of topics that there
// are count for [Rule.MaxTopics] for good, others no longer. It is called once for each Route that has Tried set, when it
// is known what became of the record.
func (m *Map) Settle(r *Route, exists bool) {
	if r.Tried {
		r.Tried = false
		m.names[r.Rule].settle(r.Topic, exists)
	}
}

func (c *compiledRule) fillKey(msg *Message, r *Route) error {
	if c.key == nil {
		return nil
	}
	key, missing := c.key.render(subject{msg: msg}, &r.scratch)
	if missing != nil {
		return missing.refusal(c.index, "the key", subject{msg: msg})
	}
	r.Key, r.HasKey = key, true
	return nil
}

// refusal is the answer to a subject without the value of p, which what needs. Only here, off the path of messages
// that are routed, is the whole payload checked, to tell a missing value from what is no JSON.
func (p *part) refusal(rule int, what string, of subject) *Refusal {
	detail := what + " needs {" + p.name + "}"
	switch {
	case p.value.kind == fromPayload && !isJSON(of.payload()):
		return &Refusal{rule, ReasonNotJSON, detail + ", and the payload is not JSON"}
	case of.rec != nil:
		return &Refusal{rule, ReasonMissingValue, detail + ", which the record does not have"}
	}
	return &Refusal{rule, ReasonMissingValue, detail + ", which the message does not have"}
}
