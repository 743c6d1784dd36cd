package mqtt

import (
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"
)

// A subscriber is a session with one of its subscriptions.
type subscriber struct {
	session *session
	subscription
}

// An index answers which subscriptions match a topic. Shared subscriptions are not in it. The zero value is
// ready, and any number of goroutines may use it.
//
// It is a tree of nodes, each with the levels that its filters have in common, and nothing reachable from
// root is ever changed: add and remove copy the few nodes on their way and then replace root. So match waits
// for nobody and nobody waits for it, however long it takes, and it sees the subscriptions of one moment:
// whoever subscribes to a second filter before he leaves the first misses nothing.
//
// A filter and what is in the tree bound each other: there are at most two nodes for each filter, match comes
// to a node once at most, and to 2^n nodes at most that lie n levels deep. Filters such as +/+/+/a cost what
// was subscribed to, and not more if they are combined.
type index struct {
	mu   sync.Mutex // of add and remove
	root atomic.Pointer[branch]
	n    atomic.Int64
}

// add makes the subscription of s to filter, which is valid. replaced says that there was one already; sub
// takes its place. A part of filter is kept as long as it is subscribed to, and is no copy: the caller
// keeps the same string.
func (x *index) add(filter string, s *session, sub subscription) (replaced bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	root, replaced := x.root.Load().add(filter, subscriber{s, sub})
	x.root.Store(root)
	if !replaced {
		x.n.Add(1)
	}
	return replaced
}

// remove ends the subscription of s to filter, and says whether there was one. A match that runs meanwhile
// may still give it.
func (x *index) remove(filter string, s *session) (existed bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	root, existed := x.root.Load().remove(filter, s)
	if existed {
		x.root.Store(root)
		x.n.Add(-1)
	}
	return existed
}

// len is the number of subscriptions.
func (x *index) len() int { return int(x.n.Load()) }

// match appends to dst the subscriptions whose filter matches topic, in no order. A session comes once for
// each of its filters that match. If dst has room, nothing is allocated.
func (x *index) match(topic []byte, dst []subscriber) []subscriber {
	b := x.root.Load()
	if b == nil || len(topic) == 0 {
		return dst
	}
	if topic[0] == '$' {
		b = &branch{names: b.names} // [MQTT-4.7.2-1]
	}
	// A view and no copy: it ends with this call, in which nobody changes topic.
	return b.match(unsafe.String(unsafe.SliceData(topic), len(topic)), 0, dst)
}

// A branch is what follows a node: the nodes whose first level is +, # or a name. nil is an empty one.
type branch struct {
	any   *node // +
	rest  *node // #
	names *set[*node]
}

// A node stands for the filters that begin with the levels from root to it.
type node struct {
	levels string           // what is between the branch it is in and its own: one level or several, "a" or "a/+/b"
	subs   *set[subscriber] // to the filter that ends here
	below  *branch
}

func (n *node) same(other *node) bool { return n.beginsWith(firstLevel(other.levels)) }

func (n *node) beginsWith(level string) bool {
	rest, ok := strings.CutPrefix(n.levels, level)
	return ok && (rest == "" || rest[0] == '/')
}

func (e subscriber) same(other subscriber) bool { return e.session == other.session }

// match appends the subscriptions of b for the levels of topic from the byte at on. If at is past the end,
// there is no level left; one that is empty begins where topic ends.
func (b *branch) match(topic string, at int, dst []subscriber) []subscriber {
	if b.rest != nil {
		dst = b.rest.subs.appendTo(dst) // also without a level: "sport/#" matches "sport" (section 4.7.1.2)
	}
	if at > len(topic) {
		return dst
	}
	if b.any != nil {
		dst = b.any.match(topic, at, dst)
	}
	if n := b.name(firstLevel(topic[at:])); n != nil {
		dst = n.match(topic, at, dst)
	}
	return dst
}

func (n *node) match(topic string, at int, dst []subscriber) []subscriber {
	at = n.pass(topic, at)
	if at < 0 {
		return dst
	}
	if at > len(topic) {
		dst = n.subs.appendTo(dst)
	}
	if n.below == nil {
		return dst
	}
	return n.below.match(topic, at, dst)
}

// pass gives the byte of topic at which its levels go on after those of n, -1 if they do not match.
func (n *node) pass(topic string, at int) int {
	for levels, more := n.levels, true; more; {
		var level string
		level, levels, more = strings.Cut(levels, "/")
		if level == "#" {
			return len(topic) + 1
		}
		if at > len(topic) {
			return -1
		}
		found := firstLevel(topic[at:])
		if level != "+" && level != found {
			return -1
		}
		at += len(found) + 1
	}
	return at
}

// child gives the node that begins with level, nil if there is none.
func (b *branch) child(level string) *node {
	switch {
	case b == nil:
		return nil
	case level == "+":
		return b.any
	case level == "#":
		return b.rest
	}
	return b.name(level)
}

// name is child for a level that is no wildcard.
func (b *branch) name(level string) *node {
	if b.names == nil {
		return nil
	}
	hash := maphash.String(indexSeed, level)
	for _, m := range b.names.near(hash) {
		if m.hash == hash && m.value.beginsWith(level) {
			return m.value
		}
	}
	return nil
}

// with gives b with n as the child of level. Without n, there must be a child, and it is taken away.
func (b *branch) with(level string, n *node) *branch {
	var c branch
	if b != nil {
		c = *b
	}
	switch {
	case level == "+":
		c.any = n
	case level == "#":
		c.rest = n
	case n == nil:
		c.names = c.names.without(memberOf(maphash.String(indexSeed, level), b.name(level)), 0)
	default:
		c.names, _ = c.names.with(memberOf(maphash.String(indexSeed, level), n), 0)
	}
	if c == (branch{}) {
		return nil
	}
	return &c
}

// only gives the child if there is just one.
func (b *branch) only() *node {
	switch {
	case b.names == nil && b.rest == nil:
		return b.any
	case b.names == nil && b.any == nil:
		return b.rest
	case b.any == nil && b.rest == nil && len(b.names.few) == 1:
		return b.names.few[0].value
	}
	return nil
}

func (b *branch) add(filter string, e subscriber) (_ *branch, replaced bool) {
	level := firstLevel(filter)
	n, replaced := b.child(level).add(filter, e)
	return b.with(level, n), replaced
}

func (n *node) add(filter string, e subscriber) (_ *node, replaced bool) {
	c := &node{levels: filter}
	if n != nil {
		c = n.upTo(commonLevels(n.levels, filter))
	}
	if len(c.levels) == len(filter) {
		c.subs, replaced = c.subs.with(sessionMember(e), 0)
	} else {
		c.below, replaced = c.below.add(filter[len(c.levels)+1:], e)
	}
	return c, replaced
}

// upTo gives a copy of n, or if end is within its levels, a node for those before and n's own below it.
func (n *node) upTo(end int) *node {
	c := *n
	if end == len(n.levels) {
		return &c
	}
	c.levels = n.levels[end+1:]
	var below *branch
	// A copy: these levels may stay when the filter that they are from, which may be much longer, is gone.
	return &node{levels: strings.Clone(n.levels[:end]), below: below.with(firstLevel(c.levels), &c)}
}

func (b *branch) remove(filter string, s *session) (_ *branch, existed bool) {
	level := firstLevel(filter)
	n := b.child(level)
	if n == nil {
		return b, false
	}
	n, existed = n.remove(filter, s)
	if !existed {
		return b, false
	}
	return b.with(level, n), true
}

func (n *node) remove(filter string, s *session) (_ *node, existed bool) {
	end := commonLevels(n.levels, filter)
	if end < len(n.levels) {
		return n, false
	}
	c := *n
	if end < len(filter) {
		c.below, existed = n.below.remove(filter[end+1:], s)
	} else if m := sessionMember(subscriber{session: s}); n.subs.has(m) {
		c.subs, existed = n.subs.without(m, 0), true
	}
	return c.pruned(), existed
}

// pruned gives n, or nil if nothing is left of it, or if only one node is below, both as one.
func (n *node) pruned() *node {
	switch {
	case n.subs != nil:
		return n
	case n.below == nil:
		return nil
	}
	only := n.below.only()
	if only == nil {
		return n
	}
	return &node{levels: n.levels + "/" + only.levels, subs: only.subs, below: only.below}
}

func firstLevel(s string) string {
	if i := strings.IndexByte(s, '/'); i >= 0 {
		return s[:i]
	}
	return s
}

// commonLevels is the length of the levels that a and b begin with, whose first is the same.
func commonLevels(a, b string) int {
	end, i := 0, 0
	for ; i < len(a) && i < len(b) && a[i] == b[i]; i++ {
		if a[i] == '/' {
			end = i
		}
	}
	if (i == len(a) || a[i] == '/') && (i == len(b) || b[i] == '/') {
		return i
	}
	return end
}

// indexSeed is the seed of all hashes of indexes; devices can't know it, so they can't choose names that meet
// in one place.
var indexSeed = maphash.MakeSeed()

func sessionMember(e subscriber) member[subscriber] {
	return memberOf(maphash.Comparable(indexSeed, e.session), e)
}
