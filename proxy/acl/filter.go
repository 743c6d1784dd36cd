package acl

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// levelKind is what a level of a filter matches.
type levelKind uint8

const (
	exact levelKind = iota // one text, put together from parts
	one                    // +, any level
	rest                   // #, all levels from here on, also none
)

// level is one level of a filter.
type level struct {
	kind  levelKind
	parts []part // of exact; none is the empty level
}

// part is a text, or a variable that stands for one.
type part struct {
	text       string
	isVariable bool
	variable   variable
}

// dollar tells whether the filter begins with $, as the topics do that wildcards in the first level do not match
// [MQTT-4.7.2-1].
func (l *level) dollar() bool {
	return l.kind == exact && len(l.parts) > 0 && strings.HasPrefix(l.parts[0].text, "$")
}

// maxFilter is how many bytes a topic filter can have [MQTT-4.7.3-3].
const maxFilter = 65535

// sharePrefix begins the filters of shared subscriptions; rules are about what stands behind.
const sharePrefix = "$share/"

// fault is what is wrong at a byte of a filter.
type fault struct {
	offset int
	err    error
}

func faultf(offset int, format string, args ...any) fault {
	return fault{offset, fmt.Errorf(format, args...)}
}

// parse reads a filter and gives every fault.
func parse(filter string) (levels []level, faults []fault) {
	if f := wholeFault(filter); f.err != nil {
		return nil, []fault{f}
	}
	at := 0
	for text := range strings.SplitSeq(filter, "/") {
		l, wrong := parseLevel(text)
		for _, f := range wrong {
			faults = append(faults, fault{at + f.offset, f.err})
		}
		if l.kind == rest && at+len(text) < len(filter) {
			faults = append(faults, faultf(at, "# must be the last level [MQTT-4.7.1-1]"))
		}
		levels = append(levels, l)
		at += len(text) + 1
	}
	return levels, faults
}

// wholeFault is what is wrong with the filter as a text.
func wholeFault(filter string) fault {
	switch {
	case filter == "":
		return faultf(0, "a topic filter is not empty [MQTT-4.7.3-1]")
	case len(filter) > maxFilter:
		return faultf(maxFilter, "a topic filter has at most %d bytes, this has %d", maxFilter, len(filter))
	case !utf8.ValidString(filter):
		return faultf(invalidUTF8(filter), "a topic filter is valid UTF-8 [MQTT-1.5.4-1]")
	case strings.HasPrefix(filter, sharePrefix):
		return faultf(0, "write the filter without $share/ and the ShareName; it counts for shared subscriptions too")
	}
	if i := strings.IndexByte(filter, 0); i >= 0 {
		return faultf(i, "a topic filter has no null character [MQTT-4.7.3-2]")
	}
	return fault{}
}

// invalidUTF8 is the place of the first byte that is not UTF-8.
func invalidUTF8(text string) int {
	at := 0
	for at < len(text) {
		r, width := utf8.DecodeRuneInString(text[at:])
		if r == utf8.RuneError && width == 1 {
			break
		}
		at += width
	}
	return at
}

// parseLevel reads the text between two slashes.
func parseLevel(text string) (level, []fault) {
	switch text {
	case "+":
		return level{kind: one}, nil
	case "#":
		return level{kind: rest}, nil
	}
	var (
		l      level
		faults []fault
	)
	for i := 0; i < len(text); {
		n, f := l.take(text[i:])
		if f.err != nil {
			faults = append(faults, fault{i + f.offset, f.err})
		}
		i += n
	}
	return l, faults
}

// take adds the variable, the doubled brace or the character that text begins with, and gives its length.
func (l *level) take(text string) (n int, f fault) {
	switch {
	case strings.HasPrefix(text, "{{") || strings.HasPrefix(text, "}}"):
		l.add(text[:1])
		return 2, fault{}
	case text[0] == '{':
		return l.takeVariable(text)
	case text[0] == '}':
		return 1, faultf(0, "this } closes nothing; write }} for the character")
	case text[0] == '+' || text[0] == '#':
		return 1, faultf(0, "%c must be a whole level [MQTT-4.7.1]", text[0])
	}
	l.add(text[:1])
	return 1, fault{}
}

// takeVariable adds the variable that text begins with.
func (l *level) takeVariable(text string) (n int, f fault) {
	end := strings.IndexByte(text, '}')
	if end < 0 {
		return len(text), faultf(0, "this { is not closed in its level; write {{ for the character")
	}
	for v, name := range variables {
		if text[1:end] == name {
			l.parts = append(l.parts, part{isVariable: true, variable: variable(v)})
			return end + 1, fault{}
		}
	}
	return end + 1, faultf(0, "unknown name %q; known here: %s", text[1:end], strings.Join(variables[:], ", "))
}

// add appends a piece of text.
func (l *level) add(text string) {
	if n := len(l.parts); n > 0 && !l.parts[n-1].isVariable {
		l.parts[n-1].text += text
		return
	}
	l.parts = append(l.parts, part{text: text})
}

// errNoRight says that a rule would do nothing.
var errNoRight = errors.New("a rule needs at least one right")
