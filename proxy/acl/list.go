package acl

import (
	"errors"
	"slices"
)

// rule is a compiled [Rule].
type rule struct {
	index    int
	deny     bool
	rights   Right
	levels   []level
	username string
	clientID string
	share    string
}

// isFor tells whether the rule is for this device.
func (r *rule) isFor(w *Who) bool {
	return (r.username == "" || r.username == w.Username) && (r.clientID == "" || r.clientID == w.ClientID)
}

// List is a compiled list of rules.
type List struct {
	all        []*rule            // that are for every device
	byUsername map[string][]*rule // the others, by the user name if they have one
	byClientID map[string][]*rule // and else by the client ID
}

// Compile makes a list of rules. The error joins a [*RuleError] for each fault.
func Compile(rules []Rule) (*List, error) {
	l := &List{byUsername: make(map[string][]*rule), byClientID: make(map[string][]*rule)}
	var errs []error
	for i := range rules {
		levels, faults := parse(rules[i].Filter)
		if rules[i].Rights == 0 {
			faults = append(faults, fault{0, errNoRight})
		}
		for _, f := range faults {
			errs = append(errs, &RuleError{i, f.offset, f.err})
		}
		l.add(&rule{i, rules[i].Deny, rules[i].Rights, levels, rules[i].Username, rules[i].ClientID, rules[i].Share})
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *List) add(r *rule) {
	switch {
	case r.username != "":
		l.byUsername[r.username] = append(l.byUsername[r.username], r)
	case r.clientID != "":
		l.byClientID[r.clientID] = append(l.byClientID[r.clientID], r)
	default:
		l.all = append(l.all, r)
	}
}

// Access gives what one device may do. It costs memory only for rules that are for this device alone.
func (l *List) Access(who Who) *Access {
	a := &Access{rules: l.all, device: newDevice(who)}
	own := len(l.byUsername[who.Username]) + len(l.byClientID[who.ClientID])
	if own == 0 {
		return a
	}
	a.rules = make([]*rule, 0, len(l.all)+own)
	a.rules = append(append(append(a.rules, l.all...), l.byUsername[who.Username]...), l.byClientID[who.ClientID]...)
	a.rules = slices.DeleteFunc(a.rules, func(r *rule) bool { return !r.isFor(&who) })
	slices.SortFunc(a.rules, func(a, b *rule) int { return a.index - b.index })
	return a
}
