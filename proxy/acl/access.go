package acl

import "strings"

// Access is what one device may do. Its methods may be called from any goroutine and allocate nothing.
type Access struct {
	rules  []*rule // that are for the device, in the order of the list
	device device
}

// Publish tells whether the device may publish to the topic.
func (a *Access) Publish(topic []byte) bool { return a.may(Publish, topic) }

// Retain tells whether a message, or a will, to the topic may have the RETAIN flag. Publish, or Will, is asked as
// well.
func (a *Access) Retain(topic []byte) bool { return a.may(Retain, topic) }

// Will tells whether the device may leave a will message for the topic.
func (a *Access) Will(topic []byte) bool { return a.may(Will, topic) }

// Receive tells whether the device may get what is published to the topic.
// It does not ask by what subscription that comes, so a rule that denies for a ShareName does not count.
func (a *Access) Receive(topic []byte) bool { return a.may(Subscribe, topic) }

// may finds the first rule that says something about the right on the topic.
func (a *Access) may(right Right, topic []byte) bool {
	for _, r := range a.rules {
		if r.rights&right != 0 && !(r.deny && r.share != "") && r.matches(topic, &a.device) {
			return !r.deny
		}
	}
	return false
}

// Subscribe tells whether the device may subscribe to the topic filter, which is without $share/ and the ShareName; share
// is that name, "" if the subscription is not shared. It
// may, only if it may receive whatever the filter matches: a rule that denies counts if it matches any of that, one that
// allows if it matches all of it. Rules that allow a part each are not added up.
func (a *Access) Subscribe(filter, share string) bool {
	for _, r := range a.rules {
		switch {
		case r.rights&Subscribe == 0, r.share != "" && (share == "" || !MatchShare(r.share, share)):
		case r.deny && r.overlaps(filter, &a.device):
			return false
		case !r.deny && r.covers(filter, &a.device):
			return true
		}
	}
	return false
}

// MatchShare tells whether a pattern matches the whole of a ShareName: * in it stands for any characters, also none.
func MatchShare(pattern, name string) bool {
	first, rest, wild := strings.Cut(pattern, "*")
	if !wild {
		return pattern == name
	}
	name, ok := strings.CutPrefix(name, first)
	for ok {
		part, after, more := strings.Cut(rest, "*")
		if !more {
			return strings.HasSuffix(name, part)
		}
		_, name, ok = strings.Cut(name, part)
		rest = after
	}
	return false
}
