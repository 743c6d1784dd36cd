package fleet

import (
	"cmp"
	"container/heap"
	"slices"
)

// act does what there is to do for one client: first Wills, then what ends, then removal, the oldest first.
func (o *Owner) act(v View, now int64, l *Ledger) []Action {
	dead := o.deadOf(v)
	acts := o.publish(v, dead, now, l)
	acts = append(acts, o.expire(v, now)...)
	for _, e := range dead {
		if o.zombie(v, e) || v.removable(e, now) && !o.owes(v, e, now, l) {
			key := SessionKey(v.client, e.inc.name)
			o.removed[string(key)] = max(o.removed[string(key)], e.state)
			acts = append(acts, Action{Kind: ActTombstone, Key: key})
		} else if !e.settled() && !e.opened() {
			o.again(v.client, max(now+1, e.inc.at+retainVerdicts))
		}
	}
	return acts
}

// deadOf are the entries of those that were fenced before the read, the oldest first.
func (o *Owner) deadOf(v View) []*entry {
	var dead []*entry
	for i := range v.entries {
		if e := &v.entries[i]; e.inc.verdict != nil && o.allowed[e.inc.name] {
			dead = append(dead, e)
		}
	}
	slices.SortFunc(dead, func(a, b *entry) int { return cmp.Compare(a.claim, b.claim) })
	return dead
}

// zombie says that a record of the dead has shown up under a key that we have removed, with no newer state.
func (o *Owner) zombie(v View, e *entry) bool {
	state, removed := o.removed[string(SessionKey(v.client, e.inc.name))]
	return removed && e.state <= state
}

// owed are the Wills that e owes. A key goes when all that it owed is published: what its incarnation wrote late, before it
// knew that, owes nothing that is older. Only the owner that has removed the key knows, not one that comes after it.
func (o *Owner) owed(v View, e *entry) []Owed {
	owed := e.owed()
	if state, removed := o.removed[string(SessionKey(v.client, e.inc.name))]; removed {
		owed = slices.DeleteFunc(slices.Clone(owed), func(w Owed) bool { return w.Epoch <= state })
	}
	return owed
}

func (o *Owner) publish(v View, dead []*entry, now int64, l *Ledger) []Action {
	var acts []Action
	for _, e := range dead {
		for _, w := range o.owed(v, e) {
			switch id := (willID{v.client, w.Epoch}); {
			case l.WillDone(v.client, w.Epoch):
				delete(o.wills, id)
			case !o.wills[id]:
				o.wills[id] = true
				acts = append(acts, Action{Kind: ActWill, Client: v.client, Epoch: w.Epoch, Will: w.Will})
			}
		}
		id := willID{v.client, e.state}
		if l.WillDone(v.client, e.state) {
			delete(o.wills, id)
			continue
		}
		if o.wills[id] || o.zombie(v, e) {
			continue
		}
		switch fate, at := v.Will(e.inc.name, now); fate {
		case WillDue:
			o.wills[id] = true
			acts = append(acts, Action{Kind: ActWill, Client: v.client, Epoch: e.state, Will: e.session().Will})
		case WillWait:
			o.again(v.client, at)
		}
	}
	return acts
}

// owes says that a Will of e is not settled yet.
func (o *Owner) owes(v View, e *entry, now int64, l *Ledger) bool {
	if slices.ContainsFunc(o.owed(v, e), func(w Owed) bool { return !l.WillDone(v.client, w.Epoch) }) {
		return true
	}
	if l.WillDone(v.client, e.state) {
		return false
	}
	fate, _ := v.Will(e.inc.name, now)
	return fate != WillNone
}

// expire tells once of a session that has ended because nobody came back to it, and sees to it that its time is
// not missed.
func (o *Owner) expire(v View, now int64) []Action {
	top := v.top()
	if top == nil || top.is(flagEnded) || top.inc.verdict == nil || !o.allowed[top.inc.name] || o.zombie(v, top) {
		return nil
	}
	s := top.session()
	at, expires := top.expires(s)
	switch {
	case !expires || o.ended[v.client] == top.state:
		return nil
	case at > now:
		o.again(v.client, at)
		return nil
	}
	o.ended[v.client] = top.state
	s.OfflineSince = at - int64(s.Expiry)*1000 // of one that died connected: from the verdict
	return []Action{{Kind: ActEnded, Client: v.client, State: s}}
}

// again looks at the client once more at a time, if it is not looked at earlier anyway; 0 is when its next record is
// read.
func (o *Owner) again(client string, at int64) {
	if planned, ok := o.planned[client]; at == 0 || ok && planned <= at {
		return
	}
	o.planned[client] = at
	heap.Push(&o.later, later{at, client})
}

type later struct {
	at     int64
	client string
}

// laterQueue is a heap, the earliest first.
type laterQueue []later

// Len is for package heap.
func (q laterQueue) Len() int { return len(q) }

// Less is for package heap.
func (q laterQueue) Less(i, j int) bool { return q[i].at < q[j].at }

// Swap is for package heap.
func (q laterQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }

// Push is for package heap.
func (q *laterQueue) Push(x any) { *q = append(*q, x.(later)) }

// Pop is for package heap.
func (q *laterQueue) Pop() any {
	last := len(*q) - 1
	x := (*q)[last]
	*q = (*q)[:last]
	return x
}
