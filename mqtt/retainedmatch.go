package mqtt

import (
	"strings"
	"time"
)

// Match visits the messages whose topic a filter matches, in the order of topics from `from` on, until visit says no or
// it has looked at so many messages as steps, those that do not match included. next is where to go on, the topic that
// visit refused included; more is false if there are no others. What visit is given is valid during the call, what that
// points to is valid for ever, and nobody may write to it. Writers wait meanwhile.
func (x *Retained) Match(filter, from string, steps int, visit func(*RetainedMessage) bool) (next string, more bool) {
	now := time.Now().UnixMilli()
	var m RetainedMessage
	x.mu.RLock()
	defer x.mu.RUnlock()
	at := x.rows.seek(from)
	for range steps {
		r, ok := x.rows.at(at)
		if !ok {
			return "", false
		}
		topic := r.topic()
		if filterMatches(filter, topic) {
			if !r.expired(now) {
				if r.message(&m); !visit(&m) {
					return topic, true
				}
			}
			at = x.rows.after(at)
			continue
		}
		to := nextMatch(filter, topic)
		if to == "" {
			return "", false
		}
		at = x.rows.leap(x.rows.after(at), to)
	}
	r, more := x.rows.at(at)
	if !more {
		return "", false
	}
	return r.topic(), true
}

// leap gives the spot of the first row at or after to, which is not before s. It is s itself more often than not.
func (t *rows) leap(s spot, to string) spot {
	if r, ok := t.at(s); !ok || r.topic() >= to {
		return s
	}
	return t.seek(to)
}

// afterLevel is the byte after "/": what begins with a level and it comes after all topics below that level.
const afterLevel = "0"

// nextMatch gives a text that is after topic, which filter does not match, and not after any later topic that it does
// match; "" if there is no such topic. So a search goes from one place to the next and not through all that is between.
func nextMatch(filter, topic string) string {
	if topic[0] == '$' && (filter[0] == '+' || filter[0] == '#') {
		return "%" // after all that begins with $
	}
	for at := 0; ; {
		want, filterRest, moreFilter := strings.Cut(filter, "/")
		got := firstLevel(topic[at:])
		end := at + len(got)
		switch {
		case want != "+" && want != got:
			return nextAt(topic, at, want, moreFilter)
		case end == len(topic): // it has too few levels
			return topic + "\x00"
		case !moreFilter: // it has too many, as all below this level have
			return topic[:end] + afterLevel
		}
		filter, at = filterRest, end+1
	}
}

// nextAt is nextMatch where the level of topic that begins at the byte at is another than want.
func nextAt(topic string, at int, want string, below bool) string {
	if next := topic[:at] + want; next > topic {
		return next
	}
	if next := topic[:at] + want + "/"; below && next > topic {
		return next
	}
	if at == 0 {
		return ""
	}
	return topic[:at-1] + afterLevel
}
