package acl

// What is compared here is always a rule with the levels of what a device sent, read one after the other: no filter is
// put together for a device, so nothing in its names can be read as a wildcard.

// verdict is what comparing one level came to.
type verdict uint8

const (
	goOn verdict = iota // equal so far
	yes
	no
)

// text is a topic as it came in a packet, or a topic filter.
type text interface{ ~string | ~[]byte }

// levels reads a text level by level.
type levels[T text] struct {
	rest T
	done bool
}

// next gives the next level; false after the last.
func (l *levels[T]) next() (level T, more bool) {
	if l.done {
		return level, false
	}
	for i := range len(l.rest) {
		if l.rest[i] == '/' {
			level, l.rest = l.rest[:i], l.rest[i+1:]
			return level, true
		}
	}
	l.done = true
	return l.rest, true
}

// cannotTell is the verdict on a level whose variables can't be taken literally for the device. An entry that allows
// matches nothing then. One that denies matches everything from that level on, $ topics included: whatever its author
// meant to protect is in there, be the value read as one level or, with a / in it, as several.
func (r *rule) cannotTell() verdict {
	if r.deny {
		return yes
	}
	return no
}

// spares tells whether the wildcard l, in the first level, does not match a level for its $ [MQTT-4.7.2-1].
func spares[T text](l *level, index int, text T) bool {
	return index == 0 && l.kind != exact && len(text) > 0 && text[0] == '$'
}

// matches tells whether the topic is one of those the rule is about.
func (r *rule) matches(topic []byte, d *device) bool {
	rd := levels[[]byte]{rest: topic}
	for i := range r.levels {
		l := &r.levels[i]
		if !l.literal(d, i) {
			return r.cannotTell() == yes
		}
		text, more := rd.next()
		switch {
		case l.kind == rest:
			return !spares(l, i, text)
		case !more || spares(l, i, text) || l.kind == exact && !is(l, text, d):
			return false
		}
	}
	return rd.done
}

// overlaps tells whether there is a topic that both the rule and the filter of a subscription match.
func (r *rule) overlaps(filter string, d *device) bool {
	rd := levels[string]{rest: filter}
	for i := range r.levels {
		l := &r.levels[i]
		if !l.literal(d, i) {
			return r.cannotTell() == yes
		}
		text, more := rd.next()
		if v := l.meets(text, more, d, i); v != goOn {
			return v == yes
		}
	}
	text, more := rd.next()
	return !more || text == "#"
}

// meets compares one level for overlaps.
func (l *level) meets(text string, more bool, d *device, index int) verdict {
	switch {
	case spares(l, index, text):
		return no
	case l.kind == rest:
		return yes
	case !more:
		return no
	case text == "#" || text == "+":
		return l.meetsWildcard(text, index)
	case l.kind == exact && !is(l, text, d):
		return no
	}
	return goOn
}

// meetsWildcard compares a level with + or # of a subscription.
func (l *level) meetsWildcard(text string, index int) verdict {
	switch {
	case index == 0 && l.dollar():
		return no
	case text[0] == '#':
		return yes
	}
	return goOn
}

// covers tells whether the rule matches every topic that the filter of a subscription matches.
func (r *rule) covers(filter string, d *device) bool {
	if filter == "#" { // the same as +/#, because a topic has at least one level
		return r.levels[0].kind == rest || len(r.levels) == 2 && r.levels[0].kind == one && r.levels[1].kind == rest
	}
	rd := levels[string]{rest: filter}
	for i := range r.levels {
		l := &r.levels[i]
		if !l.literal(d, i) {
			return r.cannotTell() == yes
		}
		text, more := rd.next()
		switch {
		case l.kind == rest:
			return !spares(l, i, text)
		case !more || text == "#" || spares(l, i, text):
			return false
		case l.kind == exact && (text == "+" || !is(l, text, d)):
			return false
		}
	}
	return rd.done
}
