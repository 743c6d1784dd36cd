package topicmap

import (
	"errors"
	"slices"
	"strings"
)

// compiledRule is a rule made ready: nothing of it is parsed or looked up by name again.
type compiledRule struct {
	index   int
	filter  *filter     // of Match
	regex   *expression // of Regex
	when    conditions
	topic   topicTemplate
	key     *template // nil for no key
	headers []header
}

// conditions are a When made ready: the rule matches when all of them hold.
type conditions []condition

// condition is an entry of When.
type condition struct {
	value *source
	want  string
}

// topicTemplate makes the Kafka topic: a literal, or names that go through a table.
type topicTemplate struct {
	literal string
	text    *template   // nil for a literal
	names   *topicNames // nil for a literal
}

// header is an entry of Headers.
type header struct {
	name  string
	value *template
}

// compiler makes what all rules have ready, and gathers what is wrong with one of them.
type compiler struct {
	index int
	names captures
	errs  []error
}

// ruleCompiler is the compiler of a publish rule.
type ruleCompiler struct {
	compiler
	rule *Rule
}

// compileRule makes the rule ready, or returns everything that is wrong with it.
func compileRule(index int, rule *Rule) (*compiledRule, []error) {
	c := &ruleCompiler{compiler{index: index, names: captures{words: &publishNames}}, rule}
	compiled := &compiledRule{index: index}
	c.pattern(compiled)
	compiled.when = c.conditions(rule.When)
	compiled.topic = c.topic(compiled.filter)
	if text, ok := rule.keyText(); ok {
		compiled.key = c.template("key", text)
	}
	compiled.headers = c.headers()
	return compiled, c.errs
}

// report adds faults of one field, in the order of their places.
func (c *compiler) report(field string, faults ...fault) {
	slices.SortStableFunc(faults, func(a, b fault) int { return a.offset - b.offset })
	for _, f := range faults {
		c.errs = append(c.errs, &RuleError{Rule: c.index, Field: field, Offset: f.offset, Err: f.err})
	}
}

// pattern compiles the one of Match and Regex that is set, and learns the names it captures.
func (c *ruleCompiler) pattern(compiled *compiledRule) {
	switch {
	case c.rule.Match != "" && c.rule.Regex != "":
		c.names.broken = true
		c.report("regex", faultf(-1, "a rule has match or regex, not both"))
	case c.rule.Regex != "":
		regex, faults := parseRegex(c.rule.Regex)
		c.report("regex", faults...)
		if c.names.broken = faults != nil; !c.names.broken {
			compiled.regex, c.names.byName = regex, regex.captures
		}
	case c.rule.Match != "":
		filter, faults := parseFilter(c.rule.Match)
		c.report("match", faults...)
		compiled.filter = filter
		c.names.byName, c.names.broken = filter.captures, faults != nil
	default:
		c.names.broken = true
		c.report("match", faultf(-1, "a rule needs match, a topic filter, or regex"))
	}
}

func (c *compiler) template(field, text string) *template {
	t, faults := parseTemplate(text, c.names.resolve)
	c.report(field, faults...)
	return t
}

func (c *compiler) conditions(fields []Field) conditions {
	var all conditions
	for _, when := range fields {
		value, err := c.names.resolve(when.Name)
		if err != nil {
			c.report("when."+when.Name, fault{0, err})
			continue
		}
		all = append(all, condition{value, when.Value})
	}
	return all
}

func (c *ruleCompiler) headers() []header {
	var headers []header
	for _, h := range c.rule.Headers {
		field := "headers." + h.Name
		if h.Name == "" {
			c.report(field, faultf(-1, "a header needs a name"))
		}
		headers = append(headers, header{h.Name, c.template(field, h.Value)})
	}
	return headers
}

// topic compiles the topic template and refuses what can never be a legal name of a topic.
func (c *ruleCompiler) topic(f *filter) topicTemplate {
	if c.rule.MaxTopics < 0 {
		c.report("max_topics", faultf(-1, "max_topics must be 1 or more, or 0 for %d", DefaultMaxTopics))
	}
	t, faults := parseTemplate(c.rule.Topic, c.names.resolve)
	if faults == nil {
		faults = t.topicFaults(f)
	}
	c.report("topic", faults...)
	if t.literal != nil {
		return topicTemplate{literal: string(t.literal)}
	}
	return topicTemplate{text: t, names: newTopicNames(c.rule)}
}

// topicFaults are those that make every Kafka topic of the template illegal, or hold a "/" as soon as there are two
// levels to hold.
func (t *template) topicFaults(f *filter) []fault {
	if t.literal != nil {
		if fl := checkKafkaTopic(string(t.literal)); fl.err != nil {
			return []fault{fl}
		}
		return nil
	}
	var (
		faults []fault
		length int
	)
	for i := range t.parts {
		p := &t.parts[i]
		length += len(p.literal)
		if fl := p.topicFault(f); fl.err != nil {
			faults = append(faults, fl)
		}
	}
	if err := internalTopic(t.parts[0].literal); err != nil {
		faults = append(faults, fault{0, err})
	}
	if length > maxKafkaTopic {
		faults = append(faults, faultf(0, "%w: %d characters without the values, the most is %d", ErrIllegalTopic, length, maxKafkaTopic))
	}
	return faults
}

// topicFault is that of one part of a Kafka topic.
func (p *part) topicFault(f *filter) fault {
	if !p.isValue {
		if i := illegalByte(p.literal); i >= 0 {
			return faultf(p.offset+i, "%w: %q is none of a-z A-Z 0-9 . _ -", ErrIllegalTopic, runeAt(p.literal, i))
		}
		return fault{}
	}
	if p.value.kind == fromRest || p.value.kind == fromTopic && f.severalLevels() {
		return faultf(p.offset, "%w: {%s} can hold several levels, and no Kafka topic has a \"/\"", ErrIllegalTopic, p.name)
	}
	return fault{}
}

// severalLevels tells whether the filter matches topics with a "/"; of a regex, which has no filter, nobody knows.
func (f *filter) severalLevels() bool {
	return f != nil && (len(f.levels) > 1 || f.levels[0].kind == restLevels)
}

// Compile makes a Map of the rules, or returns all that is wrong with them, as *[RuleError] joined by errors.Join.
// It keeps no slice of rules.
func Compile(rules []Rule) (*Map, error) {
	m := &Map{rules: cloneRules(rules)}
	m.filters.root.first = noRule
	var errs []error
	for i := range m.rules {
		compiled, faults := compileRule(i, &m.rules[i])
		errs = append(errs, faults...)
		if faults == nil {
			m.add(compiled)
		}
	}
	if errs != nil {
		return nil, errors.Join(errs...)
	}
	if m.regexes != nil {
		m.memo = newRegexMemo(memoSlots)
	}
	return m, nil
}

// add puts a rule without faults where Route finds it.
func (m *Map) add(rule *compiledRule) {
	if rule.regex != nil {
		m.regexes = append(m.regexes, rule)
	} else {
		m.filters.add(rule.filter.levels, rule)
	}
	m.names = append(m.names, rule.topic.names)
	if rule.topic.text == nil {
		m.topics = append(m.topics, rule.topic.literal)
	}
}

// cloneRules copies the rules with all their slices, so that nobody can change a compiled map.
func cloneRules(rules []Rule) []Rule {
	rules = slices.Clone(rules)
	for i := range rules {
		r := &rules[i]
		r.Headers, r.When = slices.Clone(r.Headers), slices.Clone(r.When)
		if r.Key != nil {
			key := strings.Clone(*r.Key)
			r.Key = &key
		}
	}
	return rules
}
