package fleet

import (
	"container/heap"
	"slices"
)

// retainVerdicts is how long a verdict stays after the last key of its incarnation.
const retainVerdicts = 7 * 24 * 3600 * 1000

// An Owner is the owner of one partition of the sessions topic: it passes the verdict on incarnations that are
// silent, fences them, publishes the Wills of their devices, and removes their keys. It acts on nothing but a
// partition and a ledger that were read to an end fetched after the right was taken.
//
// All methods but Tick are answers to actions. Times are wall clock milliseconds, but for mono.
type Owner struct {
	me      string
	state   ownerState
	judged  map[string]*judgement
	fresh   []string        // incarnations whose clients are all to be looked at after the next read to the end
	reading []string        // the same for the read under way
	todo    map[string]bool // clients to look at after the next read to the end
	acting  []string        // clients to look at after the read under way
	allowed map[string]bool // incarnations that were fenced when it began
	wills   map[willID]bool // ActWill given, and not seen in the ledger yet
	ended   map[string]int64
	removed map[string]int64 // keys of the dead that we removed, and the state epoch they had
	later   laterQueue
	planned map[string]int64 // client -> its earliest time in later
}

type ownerState uint8

const (
	ownerNot ownerState = iota
	ownerTaking
	ownerReady
	ownerReading
)

type judgement uint8

const (
	judging judgement = iota
	fencing
	judgedFenced
)

type willID struct {
	client string
	epoch  int64
}

// NewOwner makes the machine for one partition at incarnation me, which does not own it yet.
func NewOwner(me string) *Owner { return &Owner{me: me} }

// Assigned says that the group has given us the partition.
func (o *Owner) Assigned() []Action {
	*o = Owner{
		me: o.me, state: ownerTaking, judged: make(map[string]*judgement), todo: make(map[string]bool),
		wills: make(map[willID]bool), ended: make(map[string]int64), removed: make(map[string]int64), planned: make(map[string]int64),
	}
	return []Action{{Kind: ActTake}}
}

// Revoked says that the partition is no longer ours: by the group, or because our producer epoch was fenced. Answers
// to earlier actions are ignored from now on; the runtime withholds them when the partition is assigned again. Who
// was fenced although the group still gives it the partition calls Assigned again: a former owner may have taken its
// producer epoch late.
func (o *Owner) Revoked() { *o = Owner{me: o.me} }

// Taken says that the transactional id of the partition's owner has a new producer epoch, and is ours.
func (o *Owner) Taken(t *Table) []Action {
	if o.state != ownerTaking {
		return nil
	}
	o.state = ownerReady
	var acts []Action
	for _, inc := range t.Instances() {
		if _, dead := t.Dead(inc); dead {
			acts = append(acts, o.fence(t, inc)...)
		}
	}
	return acts
}

// Owns says that the partition is ours and work has begun.
func (o *Owner) Owns() bool { return o.state >= ownerReady }

// Read says that a record of client was read.
func (o *Owner) Read(client string, t *Table) {
	if !o.Owns() {
		return
	}
	if v, ok := t.Client(client); ok && v.hasDead() {
		o.todo[client] = true
	}
}

func (v View) hasDead() bool {
	return slices.ContainsFunc(v.entries, func(e entry) bool { return e.inc.verdict != nil })
}

// Tick is called every second or so, and when the table has got a verdict. now is the wall clock.
func (o *Owner) Tick(mono, now int64, p *Pulse, t *Table) []Action {
	if !o.Owns() {
		return nil
	}
	var acts []Action
	for _, inc := range t.Instances() {
		acts = append(acts, o.judge(t, p, inc, mono, now)...)
	}
	for len(o.later) > 0 && o.later[0].at <= now {
		client := heap.Pop(&o.later).(later).client
		delete(o.planned, client)
		o.todo[client] = true
	}
	return append(acts, o.readEnds()...)
}

func (o *Owner) judge(t *Table, p *Pulse, inc string, mono, now int64) []Action {
	if o.judged[inc] != nil {
		return o.forgive(t, p, inc, now)
	}
	if _, dead := t.Dead(inc); dead {
		return o.fence(t, inc)
	}
	if !p.Silent(inc, mono) {
		return nil
	}
	known, _ := t.Instance(inc)
	known.Dead, known.By, known.At = true, o.me, now
	known.TxIDs = t.txIDs(inc)
	o.judged[inc] = new(judgement)
	return []Action{{Kind: ActVerdict, Inc: inc, Key: VerdictKey(inc), Verdict: &known}}
}

// forgive removes a verdict when it is old and nothing of its incarnation is left.
func (o *Owner) forgive(t *Table, p *Pulse, inc string, now int64) []Action {
	at, dead := t.Dead(inc)
	if !dead || *o.judged[inc] != judgedFenced || t.Keys(inc) > 0 || now-at < retainVerdicts {
		return nil
	}
	delete(o.judged, inc)
	p.Forget(inc)
	acts := []Action{{Kind: ActTombstone, Key: VerdictKey(inc)}}
	if t.Beats(inc) {
		acts = append([]Action{{Kind: ActTombstone, Key: InstanceKey(inc)}}, acts...)
	}
	return acts
}

// txIDs are all transactional ids that inc is known to have used.
func (t *Table) txIDs(inc string) []string {
	known, ok := t.Instance(inc)
	if ok && len(known.TxIDs) > 0 {
		return known.TxIDs
	}
	if i := t.instances[inc]; i != nil {
		return slices.Sorted(slices.Values(i.txIDs))
	}
	return nil
}

// Judged says that the verdict of an ActVerdict is durable.
func (o *Owner) Judged(inc string, t *Table) []Action {
	if j := o.judged[inc]; j == nil || *j != judging {
		return nil
	}
	return o.fence(t, inc)
}

func (o *Owner) fence(t *Table, inc string) []Action {
	j := fencing
	o.judged[inc] = &j
	return []Action{{Kind: ActFence, Inc: inc, TxIDs: t.txIDs(inc)}}
}

// Fenced says that all transactional ids of inc have a new producer epoch, and its transactions are decided.
func (o *Owner) Fenced(inc string) []Action {
	j := o.judged[inc]
	if j == nil || *j != fencing {
		return nil
	}
	*j = judgedFenced
	o.fresh = append(o.fresh, inc)
	return o.readEnds()
}

func (o *Owner) readEnds() []Action {
	if o.state != ownerReady || len(o.todo)+len(o.fresh) == 0 {
		return nil
	}
	o.reading, o.fresh = o.fresh, nil
	o.acting = o.acting[:0]
	for client := range o.todo {
		o.acting = append(o.acting, client)
	}
	clear(o.todo)
	o.allowed = make(map[string]bool)
	for inc, j := range o.judged {
		o.allowed[inc] = *j == judgedFenced
	}
	o.state = ownerReading
	return []Action{{Kind: ActReadEnds}}
}

// EndsRead says that the partition and the ledger were read to ends that were fetched after ActReadEnds; asked is
// the time at which that was given, so that what was due then is due by what was read.
func (o *Owner) EndsRead(asked int64, t *Table, l *Ledger) []Action {
	if o.state != ownerReading {
		return nil
	}
	o.state = ownerReady
	acts := o.reach(t)
	for _, client := range o.clients(t) {
		if v, ok := t.Client(client); ok {
			acts = append(acts, o.act(v, asked, l)...)
		}
	}
	return append(acts, o.readEnds()...)
}

// reach has the verdicts that were read say how far the dead may have given commands. Asked for before a verdict is there,
// that would leave out what was written in between, which one who lives has given until it reads the verdict.
func (o *Owner) reach(t *Table) (acts []Action) {
	for _, inc := range o.reading {
		if i := t.instances[inc]; i != nil && i.keys > 0 && i.verdict != nil && i.verdict.Ends == nil {
			verdict := *i.verdict
			verdict.Since, verdict.From = i.at, i.from
			acts = append(acts, Action{Kind: ActReach, Inc: inc, Key: VerdictKey(inc), Verdict: &verdict})
		}
	}
	return acts
}

// clients are those to look at after a read to the end. All that an incarnation has is looked for only now, when the
// table shows its last record from before the verdict.
func (o *Owner) clients(t *Table) []string {
	for _, inc := range o.reading {
		o.acting = append(o.acting, t.ClientsOf(inc)...)
	}
	o.reading = nil
	slices.Sort(o.acting)
	return slices.Compact(o.acting)
}

// WillDone says that the Will of an ActWill is published, or was found to be done already. A transaction that was
// aborted is repeated until it commits or is fenced.
func (o *Owner) WillDone(client string, epoch int64) {
	// The mark stays until the ledger shows it: a read under way may have fetched its end before.
	if o.wills[willID{client, epoch}] {
		o.todo[client] = true
	}
}
