package sim

import (
	"encoding/json"

	"sluice/fleet"
)

// A node is an instance: the runtime that carries out what the machines ask for.
type node struct {
	w         *world
	name      string
	up        bool
	paused    bool
	pos       int // in the log
	lpos      int // in the ledger
	table     *fleet.Table
	book      *fleet.Ledger
	pend      []write
	tasks     []*task
	epoch     int // producer epoch of its own transactional id
	fenced    []*commit
	refencing bool
	beat      int64
	beats     int64
	swept     int64
	pulse     *fleet.Pulse
	claimer   *fleet.Claimer
	conn      *conn   // the attempt or connection the claimer works for
	queue     []*conn // accepted, not yet begun
	owner     *fleet.Owner
	ownEpoch  int
	assigned  int
	asked     int64
	condemned bool // it has read the verdict on itself
}

// A task is something under way that may go on when ready says so.
type task struct {
	name  string
	ready func() bool
	run   func()
}

func newNode(w *world, name string) *node {
	n := &node{w: w, name: name, up: true}
	n.table, n.book = new(fleet.Table), new(fleet.Ledger)
	n.pulse = fleet.NewPulse(name, interval, deadAfter, 1)
	n.owner = fleet.NewOwner(name)
	n.epoch = w.fence(n.txid())
	n.heartbeat()
	return n
}

func (n *node) txid() string { return "tx-" + n.name }

func (n *node) view() fleet.View {
	v, _ := n.table.Client(client)
	return v
}

func (n *node) send(key, value []byte, done func(int64)) {
	n.pend = append(n.pend, write{key, value, done})
}

func (n *node) heartbeat() {
	if n.condemned {
		return
	}
	n.beats++
	n.beat = n.w.now
	value, err := (&fleet.Instance{TxIDs: []string{n.txid()}, Alive: n.beats, Beat: n.w.mono()}).Encode()
	must(err)
	n.send(fleet.InstanceKey(n.name), value, nil)
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// enabled are the steps this node may take.
func (n *node) enabled(all []step) []step {
	if n.pos < len(n.w.log) {
		all = append(all, step{n.name + " read", func() { n.read(n.w.rng.IntN(len(n.w.log)-n.pos) + 1) }})
	}
	if n.lpos < len(n.w.ledger) {
		all = append(all, step{n.name + " read ledger", func() { n.readLedger(n.lpos + 1) }})
	}
	if c := n.conn; c != nil && c.live && !c.busy && !c.closing && !n.refencing && len(c.packets) > 0 &&
		(c.packets[0].release || !c.packets[0].plain() || !c.ids.unsure()) {
		all = append(all, step{n.name + " packet", c.take})
	}
	for i, t := range n.tasks {
		if t.ready == nil || t.ready() {
			all = append(all, step{n.name + " " + t.name, func() {
				n.tasks = append(n.tasks[:i:i], n.tasks[i+1:]...)
				t.run()
			}})
		}
	}
	if n.w.now-n.beat >= interval && !n.condemned {
		all = append(all, step{n.name + " heartbeat", n.heartbeat})
	}
	if n.w.now-n.swept >= interval && !n.condemned {
		all = append(all, step{n.name + " sweep", n.sweep})
	}
	return all
}

func (n *node) do(name string, ready func() bool, run func()) {
	n.tasks = append(n.tasks, &task{name, ready, run})
}

// atEnd runs when this node has read the log, and the ledger, to ends that are fetched when the task is begun.
func (n *node) atEnd(name string, run func()) {
	n.do(name+" ends", nil, func() {
		end, lend := len(n.w.log), len(n.w.ledger)
		n.do(name, func() bool { return n.pos >= end && n.lpos >= lend }, run)
	})
}

func (n *node) readLedger(to int) {
	for ; n.lpos < to; n.lpos++ {
		_, err := n.book.Apply(n.w.ledger[n.lpos])
		must(err)
	}
}

func (n *node) apply(rec fleet.Record) (changed bool) {
	id, _, err := n.table.Apply(rec)
	must(err)
	kind, _, inc, err := fleet.ParseKey(rec.Key)
	must(err)
	switch kind {
	case fleet.KeyInstance:
		beat, _ := n.table.Instance(inc)
		n.pulse.Heard(inc, 0, beat.Beat, n.w.mono())
	case fleet.KeyVerdict:
		n.condemned = n.condemned || inc == n.name && rec.Value != nil
		return true
	default:
		n.owner.Read(id, n.table)
		return true
	}
	return false
}

// read takes in some records, and lets the machines see them once.
func (n *node) read(records int) {
	was := n.condemned
	for ; records > 0; records-- {
		n.apply(n.w.log[n.pos])
		n.pos++
	}
	if n.condemned && !was {
		n.reborn()
		return
	}
	if n.claimer != nil {
		n.acts(n.claimer.Read(n.view()))
	} else {
		n.duty()
	}
	n.tick()
}

func (n *node) sweep() {
	n.swept = n.w.now
	n.tick()
	if n.conn == nil {
		n.duty()
	}
}

func (n *node) tick() {
	n.asked = n.w.now
	n.ownerActs(n.owner.Tick(n.w.mono(), n.w.now, n.pulse, n.table))
}

// duty does what a node that holds no connection of the client has to do for it.
func (n *node) duty() {
	duty, at := n.view().Duty(n.name, n.w.now)
	if duty == fleet.DutyNone || duty == fleet.DutyWill && at > n.w.now {
		return
	}
	c := n.machine()
	switch duty {
	case fleet.DutyRead:
		n.acts(c.Read(n.view()))
	case fleet.DutyEnd:

		n.acts(c.End(n.view()))
	case fleet.DutyWill:
		now := n.w.now
		n.atEnd("due", func() {
			if n.claimer != nil {
				n.acts(n.claimer.Due(now, n.view()))
			}
		})
	}
}

func (n *node) machine() *fleet.Claimer {
	if n.claimer == nil {
		n.claimer = fleet.NewClaimer(client, n.name, n.txid())
	}
	return n.claimer
}

// reborn is what an instance does that reads the verdict on itself: it closes all without Wills, and goes on as a
// new incarnation.
func (n *node) reborn() {
	if n.claimer != nil {
		n.claimer.Judged()
	}
	n.w.dev.lostNode(n.w, n)
	n.w.eve.lostNode(n.w, n)
	n.up = false
	if n.w.names < 9 {
		n.w.start()
	}
	if n.w.owner == n && len(n.w.alive()) > 0 {
		n.w.assign(n.w.alive()[0])
	}
}

// acts carries out what the claimer asks for.
func (n *node) acts(acts []fleet.Action) {
	c := n.claimer
	tell := func(call func() []fleet.Action) func() {
		return func() {
			if n.claimer == c { // one that was let go hears no answers
				n.acts(call())
			}
		}
	}
	for _, a := range acts {
		switch a.Kind {
		case fleet.ActWrite:
			n.write(c, a.Value)
		case fleet.ActFence:
			n.doFence(a, tell(func() []fleet.Action { return c.Fenced(a.Inc, n.view()) }))
		case fleet.ActLedger:
			n.ledgerEnd(tell(func() []fleet.Action { return c.LedgerRead(n.view()) }))
		case fleet.ActWait:
			n.do("waited", nil, tell(func() []fleet.Action { return c.Waited(a.N, n.view()) }))
		case fleet.ActOpened:
			n.conn.opened(a)
		case fleet.ActSaved:
			n.conn.saved(a.N)
		case fleet.ActReceived:
			n.conn.settle(a.Received, a.Pending)
		case fleet.ActLost, fleet.ActRefused:
			n.conn.over(a)
		case fleet.ActWill:
			n.delayedWill(a, tell(func() []fleet.Action { return c.WillDone(a.Epoch, n.view()) }))
		case fleet.ActIdle:
			if n.conn == nil && len(n.queue) == 0 && n.claimer == c {
				n.claimer = nil
			}
		}
	}
}

// doFence takes the transactional ids of a.Inc away. The answer comes when its transactions are decided.
func (n *node) doFence(a fleet.Action, done func()) {
	n.do("fence "+a.Inc, nil, func() {
		if !n.w.rules.noFence {
			for _, txid := range a.TxIDs {
				n.w.fence(txid)
			}
		}
		done()
	})
}

func (n *node) ledgerEnd(done func()) {
	if n.w.rules.noLedger {
		n.do("ledger", nil, done)
		return
	}
	n.do("ledger end", nil, func() {
		end := len(n.w.ledger)
		n.do("ledger", func() bool { return n.lpos >= end }, done)
	})
}

func (n *node) write(c *fleet.Claimer, s *fleet.Session) {
	r := n.w.rules
	if s != nil && s.Opened() && n.conn != nil && !n.conn.asked && !s.Released {
		n.conn.asked = true
		n.w.ghost.opening(n.conn, s)
		if r.noOpen {
			n.do("unwritten", nil, func() { n.acts(c.Wrote(s.Claim-1, n.view())) })
			return
		}
	}
	if s != nil && s.Ended && r.noOrder {
		s = nil
	}
	value, err := forgetful(r, s).Encode()
	must(err)
	n.send(fleet.SessionKey(client, n.name), value, func(offset int64) {
		if r.noRead && s != nil && s.Claim == 0 {
			n.table.Advance(offset + 1)
		}
		n.acts(c.Wrote(offset, n.view()))
	})
}

// forgetful takes QoS 2 ids out of a record.
func forgetful(r rules, s *fleet.Session) *fleet.Session {
	if s == nil {
		return nil
	}
	n := *s
	if r.noCarry && s.Claim == 0 {
		n.Received, n.Pending = nil, nil
	}
	if r.noPending {
		n.Pending = nil
	}
	return &n
}

// cleanAtOnce makes the claim of a clean start the state itself.
func cleanAtOnce(value []byte, epoch int64) []byte {
	if value == nil {
		return nil
	}
	s, err := fleet.DecodeSession(value)
	if err != nil || s.Claim != 0 || !s.Clean || s.TxID == "" {
		return value
	}
	*s = fleet.Session{
		Claim: epoch, StateEpoch: epoch, Began: epoch, TxID: s.TxID, Principal: s.Principal,
		Connected: s.Connected, Clean: true, Expiry: fleet.NeverExpires,
	}
	value, err = s.Encode()
	must(err)
	return value
}

func ledgerValue(v any) []byte {
	var value []byte
	var err error
	switch v := v.(type) {
	case fleet.LedgerWill:
		value, err = v.Encode()
	case fleet.LedgerIDs:
		value, err = v.Encode()
	default:
		value, err = json.Marshal(v)
	}
	must(err)
	return value
}
