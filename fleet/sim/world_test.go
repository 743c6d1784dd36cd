package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"sluice/fleet"
)

const (
	client    = "c"
	interval  = 200
	deadAfter = 1000
	ownerTx   = "owner"
	days      = 8 * 24 * 3600 * 1000
)

// rules are the protocol's rules that a test takes away. None is known to the machines: the world answers them
// early, or changes what they asked for.
type rules struct {
	noOpen, noRead, cleanAtOnce, noOrder, noReadEnd, verdictAfter, noFence, noLedger, noCarry, noPending bool
}

// A world is one run: Kafka, the instances, the devices, and what must hold.
type world struct {
	rng      *rand.Rand
	rules    rules
	now      int64
	skipped  int64 // by which the wall clock is ahead of the monotonic one
	log      []fleet.Record
	ledger   []fleet.Record
	epochs   map[string]int // transactional id -> producer epoch
	commits  []*commit
	produces []*produce
	nodes    []*node
	owner    *node
	names    int
	crashes  int
	slow     bool // transactions take long
	quiet    bool // no new trouble: everything runs until nothing moves
	tainted  bool // a zombie's record came after the owner had removed its key: the protocol's exception
	ghost    ghost
	dev      device
	eve      device
	steps    int
	trace    func(format string, args ...any)
	bad      string
}

// A write is a record on its way to the sessions log. Those of one instance land in their order.
type write struct {
	key, value []byte
	done       func(offset int64)
}

// A commit is a transaction whose EndTxn is on its way. It may arrive after its instance has crashed.
type commit struct {
	txid  string
	epoch int
	node  *node
	apply func()
	done  func()
	still func() bool // may it be sent again after a fence?
	drop  func()      // called if not
}

// A step is something that can happen now.
type step struct {
	name string
	run  func()
}

func newWorld(seed uint64, r rules, trace func(string, ...any)) *world {
	w := &world{
		rng: rand.New(rand.NewPCG(seed, 1)), rules: r, now: 1_000_000, epochs: make(map[string]int), trace: trace,
		ghost: newGhost(),
		dev:   device{name: "dev", principal: "p", connects: 5}, eve: device{name: "eve", principal: "q"},
	}
	if w.rng.IntN(4) == 0 {
		w.eve.connects = 2
	}
	w.slow = w.chance(3)
	w.dev.pub.message = w.rng.IntN(2)
	for range 2 {
		w.start()
	}
	w.assign(w.nodes[0])
	return w
}

func (w *world) fail(format string, args ...any) {
	if w.bad == "" && !w.tainted {
		w.bad = fmt.Sprintf(format, args...)
		w.trace("VIOLATION %s", w.bad)
	}
}

func (w *world) mono() int64 { return w.now - w.skipped }

func (w *world) chance(oneIn int) bool { return w.rng.IntN(oneIn) == 0 }

// start adds an instance that has read the compacted log.
func (w *world) start() {
	w.names++
	n := newNode(w, string(rune('A'+w.names-1)))
	for _, rec := range w.compacted() {
		n.apply(rec)
	}
	n.table.Advance(int64(len(w.log)))
	n.pos = len(w.log)
	n.readLedger(len(w.ledger))
	w.nodes = append(w.nodes, n)
}

// compacted is the log after a legal compaction: the last record of each key stays, of the others any.
func (w *world) compacted() []fleet.Record {
	last := make(map[string]int)
	for i, rec := range w.log {
		last[string(rec.Key)] = i
	}
	var left []fleet.Record
	for i, rec := range w.log {
		if last[string(rec.Key)] == i || w.chance(3) {
			left = append(left, rec)
		}
	}
	return left
}

// land appends the oldest record on its way from n.
func (w *world) land(n *node) {
	wr := n.pend[0]
	n.pend = n.pend[1:]
	offset := int64(len(w.log))
	if w.rules.cleanAtOnce {
		wr.value = cleanAtOnce(wr.value, offset+1)
	}
	w.log = append(w.log, fleet.Record{Key: wr.key, Value: wr.value, Offset: offset, Time: w.now})
	w.trace("%s: %q lands at %d: %s", n.name, wr.key, offset, wr.value)
	w.ghost.landed(w, n, wr)
	if n.up && wr.done != nil {
		wr.done(offset)
	}
}

// commit decides a transaction.
func (w *world) commit(i int) {
	c := w.commits[i]
	w.commits = append(w.commits[:i], w.commits[i+1:]...)
	if w.epochs[c.txid] != c.epoch {
		w.trace("%s: transaction of %s is fenced", c.node.name, c.txid)
		if c.node.up {
			c.node.wasFenced(c)
		}
		return
	}
	c.apply()
	if c.node.up && c.done != nil {
		c.done()
	}
}

// fence takes a new producer epoch, after which no transaction of an older one can commit.
func (w *world) fence(txid string) int {
	w.epochs[txid]++
	return w.epochs[txid]
}

func (w *world) appendLedger(key, value []byte) {
	w.ledger = append(w.ledger, fleet.Record{Key: key, Value: value, Offset: int64(len(w.ledger)), Time: w.now})
	w.trace("ledger: %q %s", key, value)
}

// assign gives the partition to n. The one that had it may learn of it late.
func (w *world) assign(n *node) {
	w.owner = n
	n.ownerActs(n.owner.Assigned())
}

// run takes up to steps random steps, then lets everything come to rest, then looks at what is left.
func (w *world) run(steps int) {
	for range steps {
		if !w.step() || w.bad != "" {
			break
		}
	}
	w.settle()
	if w.bad == "" {
		w.ghost.quiet(w)
	}
}

// settle ends all trouble and goes on until nothing moves. Time passes, so that what is silent is judged, what is
// delayed is due, and what was judged is removed.
func (w *world) settle() {
	w.quiet = true
	for _, n := range w.nodes {
		n.paused = false
	}
	if !w.owner.up {
		w.assign(w.alive()[0])
	}
	for round := range 14 {
		for range 2000 {
			if !w.step() || w.bad != "" {
				break
			}
		}
		w.pass([]int64{interval, deadAfter, deadAfter, 5000}[round%4])
		if round == 11 {
			w.now += days
			w.skipped += days
		}
	}
}

// pass lets time pass in which all that live hear of each other, so that the verdict falls on the dead and on nobody
// else while all comes to rest.
func (w *world) pass(d int64) {
	for end := w.now + d; w.now < end; {
		w.now += interval
		for _, n := range w.alive() {
			for _, other := range w.alive() {
				n.pulse.Heard(other.name, 0, w.mono(), w.mono())
			}
		}
	}
	for _, n := range w.alive() {
		n.heartbeat()
	}
}

func (w *world) alive() []*node {
	var up []*node
	for _, n := range w.nodes {
		if n.up {
			up = append(up, n)
		}
	}
	return up
}

func (w *world) step() bool {
	steps := w.enabled()
	if len(steps) == 0 {
		return false
	}
	s := steps[w.rng.IntN(len(steps))]
	w.trace("-- %d %s", w.now, s.name)
	w.steps++
	s.run()
	return true
}

func (w *world) enabled() []step {
	var all []step
	for _, n := range w.nodes {
		if len(n.pend) > 0 {
			all = append(all, step{n.name + " land", func() { w.land(n) }})
		}
		if n.up && !n.paused {
			all = n.enabled(all)
		}
	}
	for i, c := range w.commits {
		if w.slow && !w.quiet && !w.chance(10) {
			continue
		}
		all = append(all, step{c.node.name + " commit " + c.txid, func() { w.commit(i) }})
	}
	for _, p := range w.produces {
		if p.node.paused && !w.quiet || w.slow && !w.quiet && !w.chance(10) {
			continue
		}
		all = append(all, step{p.node.name + " produce", func() {
			w.produces = slices.DeleteFunc(w.produces, func(q *produce) bool { return q == p })
			p.land()
		}})
	}
	if !w.quiet {
		all = w.trouble(all)
	}
	return all
}

// trouble is what may go wrong, and what devices do.
func (w *world) trouble(all []step) []step {
	all = append(all, step{"time", func() { w.now += int64(w.rng.IntN(interval)) }})
	all = w.dev.enabled(w, all)
	all = w.eve.enabled(w, all)
	if w.chance(12) {
		all = append(all, step{"much time", func() { w.now += deadAfter }})
	}
	if up := w.alive(); w.chance(12) {
		n := up[w.rng.IntN(len(up))]
		all = append(all, step{n.name + " is condemned", func() { w.owner.pulse.Condemned(n.name) }})
	}
	if w.chance(6) {
		up := w.alive()
		n := up[w.rng.IntN(len(up))]
		all = append(all,
			step{n.name + " pause", func() { n.paused = !n.paused }},
			step{n.name + " owner", func() { w.move(n) }},
			step{n.name + " crash", func() { w.crash(n) }})
	}
	if w.names < 4 && w.chance(20) {
		all = append(all, step{"start", w.start})
	}
	return all
}

func (w *world) move(n *node) {
	if n != w.owner && !n.paused {
		w.assign(n)
	}
}

func (w *world) crash(n *node) {
	if w.crashes >= 2 || len(w.alive()) < 2 {
		return
	}
	w.crashes++
	n.up = false
	w.produces = slices.DeleteFunc(w.produces, func(p *produce) bool { return p.node == n && w.chance(2) })
	w.dev.lostNode(w, n)
	w.eve.lostNode(w, n)
}

// judged is called when a verdict on inc is durable: the requests of a crashed process have landed or are lost by
// then.
func (w *world) judged(inc string) {
	for _, n := range w.nodes {
		if n.name == inc && !n.up {
			for len(n.pend) > 0 && w.chance(2) {
				w.land(n)
			}
			n.pend = nil
		}
	}
}
