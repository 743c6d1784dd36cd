package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/fleet"
	"sluice/kafka"
)

const (
	deadAfter = 5 * time.Second
	blink     = time.Nanosecond
)

// A world is one run: Kafka, the processes, the devices, and what must hold. It runs in a bubble of testing/synctest: each
// step is taken when no goroutine of the drivers can go on, so that the seed alone says what comes after what.
type world struct {
	rng        *rand.Rand
	rules      rules
	partitions int32
	began      time.Time
	log        [][]fleet.Record // by partition
	ledger     [][]fleet.Record // of committed transactions
	tables     []*fleet.Table   // of log
	decided    []*decided
	epochs     map[string]int // transactional id -> producer epoch
	stalled    map[spot]bool
	nodes      []*node
	owners     []*node // by partition
	crashes    int
	slow       bool // what is committed, and messages, take long
	lags       bool // the ledger is read late
	quiet      bool // no new trouble: everything runs until nothing moves
	tainted    bool // a zombie's record came after the owner had removed its key: the protocol's exception
	clients    []*client
	steps      int
	willNumber int
	running    sync.WaitGroup
	trace      func(format string, args ...any)

	mu     sync.Mutex // guards what goroutines of the drivers write: the lists of nodes and transactors
	incs   map[string]*node
	sleeps int
	bad    string
}

// A step is something that can happen now.
type step struct {
	name string
	run  func()
}

// simulate runs one schedule and gives what has become of it.
func simulate(t *testing.T, seed uint64, r rules, trace func(string, ...any)) (w *world) {
	synctest.Test(t, func(*testing.T) {
		w = newWorld(seed, r, trace)
		w.run(150 + 50*len(w.clients))
		for _, n := range w.nodes {
			n.kill()
		}
		w.running.Wait()
		synctest.Wait()
	})
	return w
}

func newWorld(seed uint64, r rules, trace func(string, ...any)) *world {
	w := &world{
		rng: rand.New(rand.NewPCG(seed, 1)), rules: r, partitions: 1, began: time.Now(), epochs: make(map[string]int),
		stalled: make(map[spot]bool), incs: make(map[string]*node), trace: trace,
	}
	for range 1 + w.rng.IntN(2)*(1+w.rng.IntN(2)) {
		w.addClient()
	}
	if w.rng.IntN(4) == 0 {
		w.partitions = 2
	}
	for range w.partitions {
		w.log, w.ledger = append(w.log, nil), append(w.ledger, nil)
		w.tables = append(w.tables, new(fleet.Table))
	}
	w.owners = make([]*node, w.partitions)
	w.slow, w.lags = w.chance(3), w.chance(3)
	for range 1 + min(1, w.rng.IntN(4)) {
		w.start()
	}
	w.quiet = true
	for !w.nodes[0].ready || !w.nodes[len(w.nodes)-1].ready {
		w.step()
	}
	w.quiet = false
	for p := range w.partitions {
		w.assign(p, w.nodes[0])
	}
	return w
}

func (w *world) tracef(format string, args ...any) {
	if w.trace != nil {
		w.trace(format, args...)
	}
}

func (w *world) fail(format string, args ...any) {
	if w.bad == "" && !w.tainted {
		w.bad = fmt.Sprintf(format, args...)
		w.tracef("VIOLATION %s", w.bad)
	}
}

// now is the time of the run in milliseconds.
func (w *world) now() int64 { return time.Now().UnixMilli() }

func (w *world) chance(oneIn int) bool { return w.rng.IntN(oneIn) == 0 }

// trouble is chance, and never once all is to come to rest.
func (w *world) trouble(oneIn int) bool { return !w.quiet && w.chance(oneIn) }

// held says that what is slow, or lags, does not happen yet.
func (w *world) held(slow bool) bool { return slow && !w.quiet && !w.chance(10) }

// partition is that of a client.
func (w *world) partition(c *client) int32 { return kafka.PartitionOf([]byte(c.id), w.partitions) }

// view is what the whole log says of a client.
func (w *world) view(c *client) fleet.View {
	v, _ := w.tables[w.partition(c)].Client(c.id)
	return v
}

// compacted is a log after a legal compaction: the last record of each key stays, of the others any.
func (w *world) compacted(log []fleet.Record) []fleet.Record {
	last := make(map[string]int)
	for i, rec := range log {
		last[string(rec.Key)] = i
	}
	var left []fleet.Record
	for i, rec := range log {
		if last[string(rec.Key)] == i || w.chance(3) {
			left = append(left, rec)
		}
	}
	return left
}

// assign gives a partition to n. The one that had it may learn of it late.
func (w *world) assign(p int32, n *node) {
	if old := w.owners[p]; old != nil && old != n && old.up {
		revoke := func() {
			if w.owners[p] != old && old.owns[p] {
				delete(old.owns, p)
				old.d.Revoked(p)
			}
		}
		w.owners[p] = n
		if old.paused || w.chance(2) {
			old.later("revoked", revoke)
		} else {
			revoke()
		}
	}
	w.owners[p] = n
	n.owns[p] = true
	n.d.Assigned(p)
}

// run takes up to steps random steps, then lets everything come to rest, then looks at what is left.
func (w *world) run(steps int) {
	for range steps {
		if !w.step() || w.bad != "" {
			break
		}
	}
	w.settle()
	for _, c := range w.clients {
		if w.bad == "" {
			c.ghost.quiet(w)
		}
	}
}

// settle ends all trouble and goes on until nothing moves. Time passes, so that what is silent is judged, and what is
// delayed is due.
func (w *world) settle() {
	w.quiet = true
	clear(w.stalled)
	for _, n := range w.nodes {
		n.paused = false
	}
	for calm := 0; calm < 3; calm++ {
		for range 2000 {
			if !w.step() || w.bad != "" {
				break
			}
		}
		if w.bad != "" {
			return
		}
		before := w.sizes()
		for range 7 {
			w.second()
			for range 2000 {
				if !w.step() || w.bad != "" {
					break
				}
			}
		}
		if w.sizes() != before || len(w.unjudged()) > 0 {
			calm = -1
		}
		if w.now()-w.began.UnixMilli() > 600_000 {
			w.fail("it does not come to rest: %v, not judged: %v", w.sizes(), w.unjudged())
			return
		}
	}
}

// sizes tell whether anything but heartbeats has happened.
func (w *world) sizes() (n [2]int) {
	for p := range w.partitions {
		for _, rec := range w.log[p] {
			if kind, _, _, _ := fleet.ParseKey(rec.Key); kind != fleet.KeyInstance {
				n[0]++
			}
		}
		n[1] += len(w.ledger[p])
	}
	return n
}

// unjudged are the dead incarnations that have a record and no verdict.
func (w *world) unjudged() (all []string) {
	for p := range w.partitions {
		for _, inc := range w.tables[p].Instances() {
			if _, dead := w.tables[p].Dead(inc); !dead && w.gone(inc) && len(w.ups()) > 0 {
				all = append(all, inc)
			}
		}
	}
	return all
}

// gone says that an incarnation will not come back.
func (w *world) gone(inc string) bool {
	n := w.incs[inc]
	return !n.up || n.d.Name() != inc
}

// second is a second in which Kafka is healthy, but for what is stalled.
func (w *world) second() {
	w.sleep(time.Second)
	for _, n := range w.nodes {
		n.flow()
	}
	for _, n := range w.nodes {
		n.flowRead()
	}
	synctest.Wait()
}

func (w *world) ups() []*node {
	return slices.DeleteFunc(slices.Clone(w.nodes), func(n *node) bool { return !n.up || n.stops })
}

// readies are those that take devices.
func (w *world) readies() []*node {
	return slices.DeleteFunc(slices.Clone(w.nodes), func(n *node) bool { return !n.up || !n.ready })
}

// sleep lets time pass, and waits until no goroutine can go on. The lock tells the race detector that what was read before
// was read before what timers write.
func (w *world) sleep(d time.Duration) {
	w.mu.Lock()
	w.sleeps++
	w.mu.Unlock()
	time.Sleep(d)
	synctest.Wait()
}

// step takes one, a moment after the one before: of timers that are due at one time it is chance which comes first.
func (w *world) step() bool {
	w.sleep(blink)
	steps := w.enabled()
	if len(steps) == 0 {
		return false
	}
	s := steps[w.rng.IntN(len(steps))]
	w.tracef("-- %d %s", w.now()-w.began.UnixMilli(), s.name)
	w.steps++
	s.run()
	synctest.Wait()
	return true
}

func (w *world) enabled() []step {
	var all []step
	for _, n := range w.nodes {
		all = n.enabled(all)
	}
	for i, d := range w.decided {
		if slices.IndexFunc(w.decided, func(o *decided) bool { return o.id == d.id }) == i && !w.held(w.slow) {
			all = append(all, step{"the transaction of " + d.id + " is marked", func() { w.markNext(d.id) }})
		}
	}
	for _, c := range w.clients {
		all = c.dev.pub.enabled(w, all)
	}
	if !w.quiet {
		all = w.happenings(all)
	}
	return all
}

// happenings are what may go wrong, and what devices do.
func (w *world) happenings(all []step) []step {
	all = append(all, step{"time", func() { w.sleep(time.Duration(w.rng.IntN(200)) * time.Millisecond) }})
	for _, c := range w.clients {
		all = c.dev.enabled(w, all)
		all = c.eve.enabled(w, all)
	}
	if w.chance(8) {
		all = append(all, step{"a second", w.second})
	}
	if w.chance(40) {
		all = append(all, step{"much time", func() {
			for range 8 {
				w.second()
			}
		}})
	}
	if w.chance(20) {
		at := []spot{{sessionsTopic, w.rng.Int32N(w.partitions)}, {ledgerTopic, w.rng.Int32N(w.partitions)}, {upTopic, 0}, {willsTopic, 0}}[w.rng.IntN(4)]
		all = append(all, step{fmt.Sprint(at, " stalls"), func() { w.stalled[at] = true }})
	}
	if len(w.stalled) > 0 && w.chance(6) {
		all = append(all, step{"all partitions are well", func() { clear(w.stalled) }})
	}
	if up := w.ups(); len(up) > 0 && w.chance(6) {
		n := up[w.rng.IntN(len(up))]
		p := w.rng.Int32N(w.partitions)
		all = append(all,
			step{n.name + " pause", func() { n.paused = !n.paused }},
			step{n.name + " owner", func() {
				if n.ready && !n.paused {
					w.assign(p, n)
				}
			}},
			step{n.name + " crash", func() { w.crash(n) }})
		if w.chance(3) {
			all = append(all, step{n.name + " is condemned", func() { w.condemn(n, p) }})
		}
		if w.chance(3) && n.ready && !n.paused && len(up) > 1 {
			all = append(all, step{n.name + " stops", n.stop})
		}
	}
	if len(w.nodes) < 4 && w.chance(20) {
		all = append(all, step{"start", w.start})
	}
	return all
}

// crash kills a process; one always lives.
func (w *world) crash(n *node) {
	if w.crashes >= 2 || len(w.ups()) < 2 {
		return
	}
	w.crashes++
	n.crash()
	w.reown()
}

// reown gives the partitions of those that are gone to another.
func (w *world) reown() {
	for p, owner := range w.owners {
		if ready := w.readies(); owner != nil && !owner.up && len(ready) > 0 {
			w.assign(int32(p), ready[0])
		}
	}
}

// condemn has a verdict on a living incarnation land, as if an owner had been parted from what it heard.
func (w *world) condemn(n *node, p int32) {
	name := n.d.Name()
	if name == "" || w.clients[0].ghost.dead[name] > 0 || w.nodes[0].names > 3 {
		return
	}
	var ids []string
	for _, t := range n.transactors {
		ids = append(ids, t.id)
	}
	value, err := (&fleet.Instance{Dead: true, By: "a judge", At: w.now(), TxIDs: txidsOf(ids, name)}).Encode()
	must(err)
	rec := &kafka.Record{Key: fleet.VerdictKey(name), Value: value, To: p}
	n.land(p, &sent{rec: rec})
}

func txidsOf(ids []string, inc string) []string {
	return slices.DeleteFunc(ids, func(id string) bool { return len(id) < 8+len(inc) || id[7:7+len(inc)] != inc || id[7+len(inc)] != '-' })
}

// traced writes a line of the trace.
func traced(b *strings.Builder, format string, args []any) {
	fmt.Fprintf(b, format, args...)
	b.WriteByte('\n')
}
