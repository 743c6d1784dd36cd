package topicmap

import (
	"errors"
	"slices"
	"strings"
)

// compiledCommand is a command rule made ready.
type compiledCommand struct {
	index   int
	topic   string      // the Kafka topic, or empty
	pattern *expression // of Kafka topics, or nil
	when    conditions

	publish, client, contentType, responseTopic, correlationData *mqttText // nil for none
}

// commandCompiler is the compiler of a command rule.
type commandCompiler struct {
	compiler
	rule *CommandRule
}

// CompileCommands makes a CommandMap of the rules, or returns all that is wrong with them, as *[RuleError] joined by
// errors.Join. It keeps no slice of rules.
func CompileCommands(rules []CommandRule) (*CommandMap, error) {
	m := &CommandMap{rules: cloneCommandRules(rules), known: newNameTable[[]commandHit](maxKnownTopics)}
	var errs []error
	for i := range m.rules {
		compiled, faults := compileCommand(i, &m.rules[i])
		errs = append(errs, faults...)
		m.compiled = append(m.compiled, compiled)
	}
	if errs != nil {
		return nil, errors.Join(errs...)
	}
	return m, nil
}

// compileCommand makes the rule ready, or returns everything that is wrong with it.
func compileCommand(index int, rule *CommandRule) (*compiledCommand, []error) {
	c := &commandCompiler{compiler{index: index, names: captures{words: &commandNames}}, rule}
	compiled := &compiledCommand{index: index}
	c.source(compiled)
	compiled.when = c.conditions(rule.When)
	compiled.publish = c.text(&publishField, rule.Publish)
	compiled.client = c.optional(&clientField, rule.Client)
	compiled.contentType = c.optional(&contentTypeField, rule.ContentType)
	compiled.responseTopic = c.optional(&responseTopicField, rule.ResponseTopic)
	compiled.correlationData = c.optional(&correlationDataField, rule.CorrelationData)
	return compiled, c.errs
}

// source compiles the one of Topic and Pattern that is set, and learns the names it captures.
func (c *commandCompiler) source(compiled *compiledCommand) {
	switch {
	case c.rule.Topic != "" && c.rule.Pattern != "":
		c.names.broken = true
		c.report("pattern", faultf(-1, "a command rule has topic or pattern, not both"))
	case c.rule.Pattern != "":
		pattern, faults := parsePattern(c.rule.Pattern)
		c.report("pattern", faults...)
		if c.names.broken = faults != nil; !c.names.broken {
			compiled.pattern, c.names.byName = pattern, pattern.captures
		}
	case c.rule.Topic != "":
		compiled.topic = c.rule.Topic
		if f := checkKafkaTopic(c.rule.Topic); f.err != nil {
			c.report("topic", f)
		}
	default:
		c.names.broken = true
		c.report("topic", faultf(-1, "a command rule needs topic, a Kafka topic, or pattern"))
	}
}

// parsePattern compiles a Pattern, reporting every fault.
func parsePattern(text string) (*expression, []fault) {
	e, faults := parseRegex(text)
	if e == nil {
		return nil, faults
	}
	for name, s := range e.captures {
		s.kind = fromKafkaGroup
		// Only a name without a dot can be a capture's; {key} would then have two meanings.
		if _, taken := commandNames.plain[name]; taken {
			faults = append(faults, faultf(groupOffset(text, name), "{%s} is a part of the record already; call the group otherwise", name))
		}
	}
	if err := internalTopic(string(e.prefix)); err != nil {
		faults = append(faults, fault{strings.Index(text, string(e.prefix)), err})
	}
	return e, faults
}

// text compiles the template of a field.
func (c *commandCompiler) text(field *mqttField, text string) *mqttText {
	t, faults := parseTemplate(text, c.names.resolve)
	if faults == nil {
		faults = field.faults(t)
	}
	c.report(field.name, faults...)
	return &mqttText{field, t}
}

// optional is text for a field that the rule may do without.
func (c *commandCompiler) optional(field *mqttField, text string) *mqttText {
	if text == "" {
		return nil
	}
	return c.text(field, text)
}

// cloneCommandRules copies the rules with all their slices, so that nobody can change a compiled map.
func cloneCommandRules(rules []CommandRule) []CommandRule {
	rules = slices.Clone(rules)
	for i := range rules {
		rules[i].When = slices.Clone(rules[i].When)
	}
	return rules
}
