package topicmap

import (
	"bytes"
	"errors"
	"regexp"
	"regexp/syntax"
	"strings"
)

// expression is a compiled Regex.
type expression struct {
	re       *regexp.Regexp
	prefix   []byte // what every match begins with: a cheap no to most topics
	captures map[string]*source
}

// A regex that matches a part of a topic is refused: it would also match longer topics that nobody thought of.
var (
	errNotAnchoredStart = errors.New("the regex must match the whole topic: begin it with ^")
	errNotAnchoredEnd   = errors.New("the regex must match the whole topic: end it with $")
)

// parseRegex compiles a Regex, reporting every fault.
func parseRegex(text string) (*expression, []fault) {
	tree, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return nil, []fault{regexFault(text, err)}
	}
	if faults := anchorFaults(text, tree); faults != nil {
		return nil, faults
	}
	re, err := regexp.Compile(text)
	if err != nil {
		return nil, []fault{regexFault(text, err)}
	}
	groups, faults := groupSources(text, re.SubexpNames())
	return &expression{re: re, prefix: requiredPrefix(tree), captures: groups}, faults
}

// regexFault says what regexp/syntax found, and where if the piece it names stands only once in the text.
func regexFault(text string, err error) fault {
	var detail *syntax.Error
	if !errors.As(err, &detail) {
		return fault{-1, err}
	}
	f := faultf(-1, "%s: %q", detail.Code, detail.Expr)
	if detail.Expr != text && strings.Count(text, detail.Expr) == 1 {
		f.offset = strings.Index(text, detail.Expr)
	}
	return f
}

// groupSources are the named groups. RE2 as Go has it lets two share a name; which of them a template means nobody
// could tell.
func groupSources(text string, names []string) (map[string]*source, []fault) {
	var faults []fault
	sources := map[string]*source{}
	for i, name := range names {
		if name == "" {
			continue
		}
		if sources[name] != nil {
			faults = append(faults, faultf(groupOffset(text, name), "the name %q is captured twice", name))
		}
		sources[name] = &source{kind: fromGroup, index: i}
	}
	return sources, faults
}

// groupOffset is where the last group of that name is named.
func groupOffset(text, name string) int {
	return strings.LastIndex(text, "<"+name+">") + 1
}

func anchorFaults(text string, tree *syntax.Regexp) []fault {
	var faults []fault
	if !anchored(tree, syntax.OpBeginText, firstSub) {
		faults = append(faults, fault{0, errNotAnchoredStart})
	}
	if !anchored(tree, syntax.OpEndText, lastSub) {
		faults = append(faults, fault{len(text), errNotAnchoredEnd})
	}
	return faults
}

func firstSub(subs []*syntax.Regexp) *syntax.Regexp { return subs[0] }
func lastSub(subs []*syntax.Regexp) *syntax.Regexp  { return subs[len(subs)-1] }

// anchored tells whether every match of the tree touches the anchor at the edge that edge picks. It may say no to
// an odd expression that is anchored, and never yes to one that is not.
func anchored(tree *syntax.Regexp, anchor syntax.Op, edge func([]*syntax.Regexp) *syntax.Regexp) bool {
	switch tree.Op {
	case anchor:
		return true
	case syntax.OpCapture, syntax.OpPlus:
		return anchored(tree.Sub[0], anchor, edge)
	case syntax.OpConcat:
		return anchored(edge(tree.Sub), anchor, edge)
	case syntax.OpAlternate:
		for _, sub := range tree.Sub {
			if !anchored(sub, anchor, edge) {
				return false
			}
		}
		return true
	}
	return false
}

// requiredPrefix is the literal text right behind the ^, if there is any.
func requiredPrefix(tree *syntax.Regexp) []byte {
	if tree.Op != syntax.OpConcat || len(tree.Sub) < 2 || tree.Sub[0].Op != syntax.OpBeginText {
		return nil
	}
	if lit := tree.Sub[1]; lit.Op == syntax.OpLiteral && lit.Flags&syntax.FoldCase == 0 {
		return []byte(string(lit.Rune))
	}
	return nil
}

// find returns what the groups captured, as FindSubmatchIndex does, or nil when the topic does not match. Only a
// match allocates.
func (e *expression) find(mqttTopic []byte) []int {
	if !bytes.HasPrefix(mqttTopic, e.prefix) {
		return nil
	}
	return e.re.FindSubmatchIndex(mqttTopic)
}
