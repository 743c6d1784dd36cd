package topicmap

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// levelKind is what a level of a filter matches.
type levelKind uint8

const (
	literalLevel levelKind = iota // exactly text
	anyLevel                      // one level: + or {name}
	restLevels                    // all levels from here on, also none: # or {name...}
)

// filterLevel is one level of a parsed filter.
type filterLevel struct {
	kind    levelKind
	text    string // of a literalLevel
	capture string // the name of anyLevel or restLevels, or empty
}

// filter is a parsed Match.
type filter struct {
	levels   []filterLevel
	captures map[string]*source
}

// parseFilter reads a topic filter with captures, reporting every fault.
func parseFilter(text string) (*filter, []fault) {
	f := &filter{captures: map[string]*source{}}
	faults := filterFaults(text)
	at := 0
	for name := range strings.SplitSeq(text, "/") {
		level, levelFaults := parseLevel(name)
		for _, lf := range levelFaults {
			faults = append(faults, fault{at + lf.offset, lf.err})
		}
		if level.kind == restLevels && at+len(name) < len(text) {
			faults = append(faults, faultf(at, "%s must be the last level [MQTT-4.7.1-1]", name))
		}
		if !f.add(level) {
			faults = append(faults, faultf(at+1, "the name %q is captured twice", level.capture))
		}
		at += len(name) + 1
	}
	return f, faults
}

// filterFaults are those of the filter as a whole.
func filterFaults(text string) []fault {
	switch {
	case len(text) > maxMQTTBytes:
		return []fault{faultf(maxMQTTBytes, "a topic filter has at most %d bytes, this has %d", maxMQTTBytes, len(text))}
	case !utf8.ValidString(text):
		return []fault{faultf(invalidUTF8(text), "a topic filter is valid UTF-8 [MQTT-1.5.4-1]")}
	case strings.HasPrefix(text, sharePrefix):
		return []fault{faultf(0, "$share/ is for subscriptions; a PUBLISH has no share group")}
	}
	if i := strings.IndexByte(text, 0); i >= 0 {
		return []fault{faultf(i, "a topic filter has no null character [MQTT-4.7.3-2]")}
	}
	return nil
}

// invalidUTF8 is the place of the first byte that is not UTF-8.
func invalidUTF8(text string) int {
	for i, r := range text {
		if r != utf8.RuneError {
			continue
		}
		if _, width := utf8.DecodeRuneInString(text[i:]); width == 1 {
			return i
		}
	}
	return -1
}

// add appends the level and remembers its capture; false means that the name is taken.
func (f *filter) add(level filterLevel) bool {
	index := len(f.levels)
	f.levels = append(f.levels, level)
	if level.capture == "" {
		return true
	}
	if f.captures[level.capture] != nil {
		return false
	}
	s := &source{kind: fromLevel, index: index}
	if level.kind == restLevels {
		s.kind = fromRest
	}
	f.captures[level.capture] = s
	return true
}

// parseLevel reads the text between two slashes.
func parseLevel(text string) (filterLevel, []fault) {
	switch {
	case text == "+":
		return filterLevel{kind: anyLevel}, nil
	case text == "#":
		return filterLevel{kind: restLevels}, nil
	case strings.HasPrefix(text, "{") && !strings.HasPrefix(text, "{{") && strings.IndexByte(text, '}') == len(text)-1:
		return captureLevel(text[1 : len(text)-1])
	}
	literal, faults := literalText(text)
	return filterLevel{kind: literalLevel, text: literal}, faults
}

// captureLevel reads what is between the braces of {name} and {name...}.
func captureLevel(name string) (filterLevel, []fault) {
	level := filterLevel{kind: anyLevel}
	if rest, ok := strings.CutSuffix(name, "..."); ok {
		level.kind, name = restLevels, rest
	}
	if !captureName(name) {
		return level, []fault{faultf(1, "a capture's name is letters, digits and _, not %q", name)}
	}
	level.capture = name
	return level, nil
}

// literalText undoes {{ and }}, and reports what a literal level cannot hold.
func literalText(text string) (string, []fault) {
	var (
		literal strings.Builder
		faults  []fault
	)
	for i := 0; i < len(text); i++ {
		if doubledBrace(text[i:]) {
			i++
		} else if f := wildcardFault(text, i); f.err != nil {
			faults = append(faults, f)
		}
		literal.WriteByte(text[i])
	}
	return literal.String(), faults
}

// doubledBrace tells whether text begins with {{ or }}, which stand for { and }.
func doubledBrace(text string) bool {
	return strings.HasPrefix(text, "{{") || strings.HasPrefix(text, "}}")
}

// wildcardFault is the fault of a wildcard or brace at i within a level.
func wildcardFault(text string, i int) fault {
	switch c := text[i]; c {
	case '+', '#':
		return faultf(i, "%c must be a whole level [MQTT-4.7.1]; use regex: to match a part of one", c)
	case '{':
		if !strings.Contains(text[i:], "}") {
			return faultf(i, "this { is not closed in its level; write {{ for the character")
		}
		return faultf(i, "a capture must be a whole level; use regex: for a part of one, or {{ for the character")
	case '}':
		if strings.Contains(text[:i], "{") {
			return fault{} // the brace before it is reported
		}
		return faultf(i, "this } closes nothing; write }} for the character")
	}
	return fault{}
}

// level is level number i of an MQTT topic whose levels begin at starts.
func level(mqttTopic []byte, starts []int, i int) []byte {
	if i+1 < len(starts) {
		return mqttTopic[starts[i] : starts[i+1]-1]
	}
	return mqttTopic[starts[i]:]
}

// appendLevelStarts appends where each level of the topic begins, at most limit of them.
func appendLevelStarts(starts []int, mqttTopic []byte, limit int) []int {
	starts = append(starts, 0)
	for i := 0; len(starts) < limit; {
		n := bytes.IndexByte(mqttTopic[i:], '/')
		if n < 0 {
			break
		}
		i += n + 1
		starts = append(starts, i)
	}
	return starts
}
