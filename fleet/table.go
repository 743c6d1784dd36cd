package fleet

import (
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
)

// A Table is one partition of the sessions topic as far as it was read. It keeps each record as the bytes it came
// in, with the few numbers the fold needs beside them. The zero value is empty and ready.
type Table struct {
	// Name gives the client ID as the caller has it already, where it has, so that it is kept once. It may be nil.
	Name func(client string) string

	clients   map[string][]entry
	instances map[string]*instance
	next      int64
	entries   int
	bytes     int
	lasting   int
}

// An entry is what one key of a client holds.
type entry struct {
	inc   *instance
	claim int64
	state int64
	flags flags
	tx    uint8  // which transactional id of its incarnation raw leaves out, from 1 on; 0: it is the whole value
	raw   string // the record's value behind opening
}

type flags uint8

const (
	flagReleased flags = 1 << iota
	flagEnded
	flagWithdrawn
	flagWill
	flagOwed
	flagPending
	flagLasting
	flagBegins
)

type instance struct {
	name      string
	heartbeat *Instance
	verdict   *Instance
	at        int64    // timestamp of the verdict's record
	from      int64    // epoch that a claim would have in the verdict's place
	keys      int      // of clients
	txIDs     []string // that its records have named
}

// Next is the offset up to which the partition was read.
func (t *Table) Next() int64 { return t.next }

// Advance says that everything below next was read, also what was compacted away.
func (t *Table) Advance(next int64) { t.next = max(t.next, next) }

// Stored is how many records of sessions are held, and how many bytes their values have.
func (t *Table) Stored() (records, bytes int) { return t.entries, t.bytes }

// Lasting is how many clients have a session that outlives its connection, also while they are connected. One that has
// expired counts until the record says that it has ended.
func (t *Table) Lasting() int { return t.lasting }

// Apply takes in a record. client is the client ID the record was about, empty for an instance's; changed says
// that the fold may give another answer than before. ErrMalformed leaves the table as it was.
func (t *Table) Apply(rec Record) (client string, changed bool, err error) {
	t.Advance(rec.Offset + 1)
	kind, client, inc, err := ParseKey(rec.Key)
	if err != nil {
		return "", false, err
	}
	switch kind {
	case KeyLayout, KeyUnknown:
		return "", false, nil
	case KeyInstance:
		changed, err = t.applyHeartbeat(inc, rec)
	case KeyVerdict:
		changed, err = t.applyVerdict(inc, rec)
	default:
		changed, err = t.applySession(client, inc, rec)
	}
	if err != nil {
		return client, false, fmt.Errorf("record %q at offset %d: %w", rec.Key, rec.Offset, err)
	}
	return client, changed, nil
}

func (t *Table) instance(inc string) *instance {
	if i := t.instances[inc]; i != nil {
		return i
	}
	if t.instances == nil {
		t.instances = make(map[string]*instance)
	}
	i := &instance{name: inc}
	t.instances[inc] = i
	return i
}

// forget drops an instance of which nothing is left.
func (t *Table) forget(i *instance) {
	if i.keys == 0 && i.heartbeat == nil && i.verdict == nil {
		delete(t.instances, i.name)
	}
}

func (t *Table) applyHeartbeat(inc string, rec Record) (bool, error) {
	heartbeat, err := decodeInstanceOrNil(rec.Value)
	if err != nil {
		return false, err
	}
	i := t.instance(inc)
	i.heartbeat = heartbeat
	t.forget(i)
	return true, nil
}

func (t *Table) applyVerdict(inc string, rec Record) (bool, error) {
	verdict, err := decodeInstanceOrNil(rec.Value)
	if err != nil {
		return false, err
	}
	i := t.instance(inc)
	i.verdict, i.at, i.from = verdict, rec.Time, rec.Offset+1
	if verdict != nil && verdict.From > 0 {
		i.at, i.from = verdict.Since, min(i.from, verdict.From)
	}
	i.settle()
	t.forget(i)
	return true, nil
}

// settle drops what a verdict says to who goes on with a session of the dead one, if there is none: it stays for days.
func (i *instance) settle() {
	if i.keys == 0 && i.verdict != nil {
		i.verdict.Ends = nil
	}
}

func decodeInstanceOrNil(value []byte) (*Instance, error) {
	if value == nil {
		return nil, nil
	}
	return DecodeInstance(value)
}

// head is what the fold needs of every record; the rest is decoded when it is asked for.
type head struct {
	V         int             `json:"v"`
	Claim     int64           `json:"claim"`
	State     int64           `json:"state"`
	Released  bool            `json:"released"`
	Ended     bool            `json:"ended"`
	Withdrawn bool            `json:"withdrawn"`
	TxID      text            `json:"tx"`
	Will      json.RawMessage `json:"will"`
	Owed      json.RawMessage `json:"owed"`
	Pending   json.RawMessage `json:"pending"`
	Lasting   positive        `json:"expiry"`
	Begins    json.RawMessage `json:"begins"`
}

// A positive is a number of which no more is to be known. What is none reads as 0, as the rest of a record does.
type positive bool

// UnmarshalJSON never fails: the record would be left out.
func (p *positive) UnmarshalJSON(b []byte) error {
	n, err := strconv.ParseUint(string(b), 10, 32)
	*p = err == nil && n > 0
	return nil
}

// A text that is none reads as an empty one.
type text string

// UnmarshalJSON never fails, as that of positive.
func (t *text) UnmarshalJSON(b []byte) error {
	var s string
	_ = json.Unmarshal(b, &s)
	*t = text(s)
	return nil
}

func (t *Table) applySession(client, inc string, rec Record) (bool, error) {
	if rec.Value == nil {
		return t.remove(client, inc), nil
	}
	var h head
	if err := decode(rec.Value, &h, &h.V); err != nil {
		return false, err
	}
	e := entry{claim: h.Claim, state: h.State, flags: h.flags()}
	if e.claim == 0 {
		e.claim = rec.Offset + 1
	}
	if e.state > e.claim || e.claim > rec.Offset+1 {
		return false, fmt.Errorf("%w: epoch of the future", ErrMalformed)
	}
	e.inc = t.instance(inc)
	e.pack(rec.Value, h.TxID)
	t.set(client, e)
	return true, nil
}

func (h *head) flags() flags {
	var f flags
	for _, bit := range []struct {
		on   bool
		flag flags
	}{
		{h.Released, flagReleased}, {h.Ended, flagEnded}, {h.Withdrawn, flagWithdrawn}, {len(h.Will) > 0, flagWill}, {len(h.Owed) > 0, flagOwed}, {len(h.Pending) > 0, flagPending},
		{bool(h.Lasting), flagLasting}, {len(h.Begins) > 0, flagBegins},
	} {
		if bit.on {
			f |= bit.flag
		}
	}
	return f
}

// count adds n if the client has a session that outlives its connection.
func (t *Table) count(client string, n int) {
	if v, _ := t.Client(client); v.Lasting() {
		t.lasting += n
	}
}

func (t *Table) set(client string, e entry) {
	t.count(client, -1)
	defer t.count(client, 1)
	entries := t.clients[client]
	i := index(entries, e.inc.name)
	if i < 0 {
		t.entries++
		e.inc.keys++
		t.bytes += len(e.raw)
		if t.clients == nil {
			t.clients = make(map[string][]entry)
		}
		if t.Name != nil {
			client = t.Name(client)
		}
		// Nearly all clients have one key: append's spare room would double their size.
		t.clients[client] = append(slices.Clip(entries), e)
		return
	}
	t.bytes += len(e.raw) - len(entries[i].raw)
	entries[i] = e
}

func (t *Table) remove(client, inc string) bool {
	t.count(client, -1)
	defer t.count(client, 1)
	entries := t.clients[client]
	i := index(entries, inc)
	if i < 0 {
		return false
	}
	t.entries--
	t.bytes -= len(entries[i].raw)
	entries[i].inc.keys--
	entries[i].inc.settle()
	t.forget(entries[i].inc)
	if len(entries) == 1 {
		delete(t.clients, client)
		return true
	}
	left := make([]entry, 0, len(entries)-1)
	t.clients[client] = append(append(left, entries[:i]...), entries[i+1:]...)
	return true
}

func index(entries []entry, inc string) int {
	return slices.IndexFunc(entries, func(e entry) bool { return e.inc.name == inc })
}

// Client is the view of one client ID. false: nothing is stored of it, and the view is the empty one.
func (t *Table) Client(id string) (View, bool) {
	entries, ok := t.clients[id]
	return View{client: id, table: t, entries: entries}, ok
}

// Clients are the client IDs with a record, in no order.
func (t *Table) Clients() iter.Seq[string] { return maps.Keys(t.clients) }

// ClientsOf are the client IDs that have a key of an incarnation, in their order.
func (t *Table) ClientsOf(inc string) (all []string) {
	if t.Keys(inc) == 0 {
		return nil
	}
	for id, entries := range t.clients {
		if index(entries, inc) >= 0 {
			all = append(all, id)
		}
	}
	slices.Sort(all)
	return all
}

// Instances are the incarnations of which this partition has a record, in the order of their names: what is done about
// one after the other must not depend on chance.
func (t *Table) Instances() []string { return slices.Sorted(maps.Keys(t.instances)) }

// Instance is the verdict on an incarnation, else its newest heartbeat, as far as this partition has one.
func (t *Table) Instance(inc string) (Instance, bool) {
	switch i := t.instances[inc]; {
	case i == nil:
		return Instance{}, false
	case i.verdict != nil:
		return *i.verdict, true
	case i.heartbeat != nil:
		return *i.heartbeat, true
	default:
		return Instance{}, false
	}
}

// Dead says that this partition has a verdict on inc, and gives the timestamp of its record.
func (t *Table) Dead(inc string) (at int64, dead bool) {
	if i := t.instances[inc]; i != nil && i.verdict != nil {
		return i.at, true
	}
	return 0, false
}

// Beats says that this partition has a heartbeat of inc.
func (t *Table) Beats(inc string) bool {
	i := t.instances[inc]
	return i != nil && i.heartbeat != nil
}

// Keys is how many clients' records of an incarnation this partition has.
func (t *Table) Keys(inc string) int {
	if i := t.instances[inc]; i != nil {
		return i.keys
	}
	return 0
}
