package topicmap

import "math"

// noRule is larger than every rule index.
const noRule = math.MaxInt

// trie holds all filters, one level a step, so that the time of a lookup depends on the topic's levels and hardly
// on the number of rules. The order of the rules is kept by looking for the smallest index.
type trie struct {
	root node
	// depth is one more than the levels of the longest filter: further levels of a topic change nothing.
	depth int
}

// node is where the filters with the same levels so far meet.
type node struct {
	literal map[string]*node
	any     *node
	here    []*compiledRule // their filter ends here
	rest    []*compiledRule // their filter goes on with # or {name...}, which match from here on, also nothing
	first   int             // the smallest rule index at this node and below: a search with a better one skips it
}

// add puts the rule where its filter leads. Rules come in order.
func (t *trie) add(levels []filterLevel, rule *compiledRule) {
	t.depth = max(t.depth, len(levels)+1)
	n := &t.root
	n.note(rule.index)
	for _, l := range levels {
		if l.kind == restLevels {
			n.rest = append(n.rest, rule)
			return
		}
		n = n.child(l)
		n.note(rule.index)
	}
	n.here = append(n.here, rule)
}

func (n *node) note(index int) { n.first = min(n.first, index) }

// child is the node one level further.
func (n *node) child(l filterLevel) *node {
	if l.kind == anyLevel {
		if n.any == nil {
			n.any = &node{first: noRule}
		}
		return n.any
	}
	if n.literal == nil {
		n.literal = map[string]*node{}
	}
	next := n.literal[l.text]
	if next == nil {
		next = &node{first: noRule}
		n.literal[l.text] = next
	}
	return next
}

// find returns the first rule whose filter and conditions match, or nil.
func (t *trie) find(msg *Message, r *Route) *compiledRule {
	r.levels = appendLevelStarts(r.levels, msg.Topic, t.depth)
	return t.root.find(0, nil, msg, r)
}

// find returns the first matching rule at this node and below, or best, which may be nil, if that comes before.
func (n *node) find(depth int, best *compiledRule, msg *Message, r *Route) *compiledRule {
	if n.first >= best.order() {
		return best
	}
	if depth == len(r.levels) {
		return firstHolding(n.rest, firstHolding(n.here, best, msg, r), msg, r)
	}
	if next := n.literal[string(level(msg.Topic, r.levels, depth))]; next != nil {
		best = next.find(depth+1, best, msg, r)
	}
	// A filter that begins with a wildcard does not match topics that begin with $ [MQTT-4.7.2-1].
	if depth == 0 && msg.Topic[0] == '$' {
		return best
	}
	best = firstHolding(n.rest, best, msg, r)
	if n.any != nil {
		best = n.any.find(depth+1, best, msg, r)
	}
	return best
}

// firstHolding returns the first of rules, which all match the topic, whose conditions hold, or best if that comes
// before it.
func firstHolding(rules []*compiledRule, best *compiledRule, msg *Message, r *Route) *compiledRule {
	for _, rule := range rules {
		if rule.index >= best.order() {
			break
		}
		if rule.when.hold(subject{msg: msg}, &r.scratch) {
			return rule
		}
	}
	return best
}
