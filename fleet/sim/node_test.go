package sim

import (
	"context"
	"fmt"
	"slices"

	"github.com/rs/zerolog"

	"sluice/fleet"
	"sluice/fleet/driver"
	"sluice/kafka"
)

// A node is one process: the driver that ships, over the world's Kafka.
type node struct {
	w       *world
	name    string
	d       *driver.Driver
	life    context.Context
	kill    context.CancelFunc
	up      bool
	paused  bool // or parted from Kafka and from its devices: what it has sent may still arrive
	crashed bool
	ready   bool // it takes devices
	stops   bool // in order

	names       int
	sent        [][]*sent // by partition
	pos         []int     // in the sessions topic
	lpos        []int     // in the ledger
	asks        []*ask
	transactors []*transactor
	tasks       []step // what is to be done here, in any order
	owns        map[int32]bool

	seats []seat // by client
}

// A seat is a client ID at a process.
type seat struct {
	conn  *conn   // the CONNECT that has it
	queue []*conn // those that wait for that to end
}

func (n *node) seat(c *client) *seat { return &n.seats[c.number] }

// silent counts nothing.
type silent struct{}

func (silent) Inc() {}

// start adds a process, which has read the compacted topics.
func (w *world) start() {
	n := &node{w: w, name: string(rune('A' + len(w.nodes))), up: true, owns: map[int32]bool{}, seats: make([]seat, len(w.clients))}
	n.life, n.kill = context.WithCancel(context.Background())
	n.sent, n.pos, n.lpos = make([][]*sent, w.partitions), make([]int, w.partitions), make([]int, w.partitions)
	var c silent
	n.d = driver.New(driver.Config{
		Sessions: sessionsTopic, Ledger: ledgerTopic, DeadAfter: deadAfter, Log: zerolog.Nop(), Lines: zerolog.Nop(), Refusals: zerolog.Nop(),
		Metrics: driver.Metrics{Records: c, Retries: c, Malformed: c, Fences: c, TransactionsLost: c, WillsPublished: c, WillsDropped: c, VerdictsOwn: c, VerdictsOther: c},
		Host:    n, State: producer{n}, Table: n, Journal: n, Fencer: n, Transactor: n.transactor, Name: n.newName,
	})
	n.d.Lay(w.partitions)
	for p := range w.partitions {
		for _, rec := range w.compacted(w.log[p]) {
			n.d.HandleSession(fetched(sessionsTopic, p, rec))
		}
		n.pos[p], n.lpos[p] = len(w.log[p]), w.readable(p)
		for _, rec := range w.compacted(w.ledger[p][:n.lpos[p]]) {
			n.d.HandleLedger(fetched(ledgerTopic, p, rec))
		}
		n.d.SessionsRead(p, int64(n.pos[p]))
		n.d.LedgerRead(p, int64(n.lpos[p]))
	}
	w.nodes = append(w.nodes, n)
	w.running.Go(func() { // ends with life
		if n.d.Start(n.life, n.life) == nil {
			n.later("ready", func() {
				n.ready = true
				w.reown()
			})
		}
		<-n.life.Done()
		n.d.Wait()
	})
}

// newName gives the next incarnation's name. Names tell the node.
func (n *node) newName() string {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	n.names++
	name := fmt.Sprint(n.name, n.names)
	n.w.incs[name] = n
	return name
}

// alive says that Kafka's answers reach it.
func (n *node) alive() bool { return n.up && !n.paused }

// later has something done here at a later step.
func (n *node) later(name string, run func()) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	n.tasks = append(n.tasks, step{n.name + " " + name, run})
}

// enabled are the steps that this node may take.
func (n *node) enabled(all []step) []step {
	all = n.enabledLanding(all)
	for _, t := range n.transactors {
		all = t.enabled(all)
	}
	if !n.alive() {
		return all
	}
	for p := range n.w.partitions {
		if left := len(n.w.log[p]) - n.pos[p]; left > 0 {
			all = append(all, step{n.name + " read", func() { n.read(p, 1+n.w.rng.IntN(left)) }})
		}
		if left := n.w.readable(p) - n.lpos[p]; left > 0 && !n.w.held(n.w.lags) {
			all = append(all, step{n.name + " read ledger", func() { n.readLedger(p, 1+n.w.rng.IntN(left)) }})
		}
	}
	for _, at := range n.seats {
		if c := at.conn; c != nil && c.canTake() {
			all = append(all, step{n.name + " packet", c.take})
		}
	}
	all = n.enabledAsks(all)
	for i, t := range n.tasks {
		all = append(all, step{t.name, func() {
			n.w.mu.Lock()
			n.tasks = append(n.tasks[:i:i], n.tasks[i+1:]...)
			n.w.mu.Unlock()
			t.run()
		}})
	}
	return all
}

// flow is what a healthy Kafka does within a second: what was sent lands, and what has landed is read.
func (n *node) flow() {
	for p := range n.w.partitions {
		if n.w.stalled[spot{sessionsTopic, p}] || !n.up {
			continue
		}
		for len(n.sent[p]) > 0 {
			s := n.sent[p][0]
			if !s.landed {
				n.land(p, s)
			}
			if !n.alive() {
				return
			}
			n.acknowledge(p, s)
			n.w.sleep(blink)
		}
	}
}

func (n *node) flowRead() {
	for p := range n.w.partitions {
		if left := len(n.w.log[p]) - n.pos[p]; left > 0 && n.alive() {
			n.read(p, left)
			n.w.sleep(blink)
		}
	}
}

// crash ends the process at once. What it has sent may still land.
func (n *node) crash() {
	w := n.w
	w.mu.Lock()
	n.up, n.ready, n.crashed, n.asks, n.tasks = false, false, true, nil, nil
	for p := range w.partitions {
		for i, s := range n.sent[p] {
			if s.landed {
				continue
			}
			if w.chance(2) { // that one, and what comes after it, is lost
				n.sent[p] = n.sent[p][:i]
				break
			}
		}
	}
	w.mu.Unlock()
	n.kill()
	for _, c := range w.clients {
		pub := &c.dev.pub
		pub.produces = slices.DeleteFunc(pub.produces, func(p *produce) bool { return p.c.n == n && (p.landed || w.chance(2)) })
	}
	n.lost()
}

// stop ends the process in order.
func (n *node) stop() {
	n.stops, n.ready = true, false
	for _, at := range n.seats {
		if c := at.conn; c != nil && c.live {
			n.later("close", func() { c.close(false, 0) })
		}
	}
	n.w.running.Go(func() { // ends with life
		n.d.Stop(n.life, func() bool {
			n.w.mu.Lock()
			defer n.w.mu.Unlock()
			return !slices.ContainsFunc(n.seats, func(at seat) bool { return at.conn != nil })
		})
		n.later("is gone", n.gone)
	})
}

// gone ends a process that has stopped in order.
func (n *node) gone() {
	n.w.mu.Lock()
	n.up = false
	n.asks, n.tasks = nil, nil
	n.w.mu.Unlock()
	n.kill()
	n.lost()
	n.w.reown()
}

// lost tells the devices.
func (n *node) lost() {
	for _, c := range n.w.clients {
		c.dev.lostNode(n.w, n)
		c.eve.lostNode(n.w, n)
	}
}

// Connected is nothing to the simulator, which knows it by CONNACK.
func (n *node) Connected(*driver.Conn) {}

// Disconnected and Died are nothing either.
func (n *node) Disconnected(*driver.Conn, string, int64) {}

// Died is told at Disconnected.
func (n *node) Died(string, string, *fleet.Session, int64) {}

// Ended notes that a session is told to be over.
func (n *node) Ended(_ string, s *fleet.Session, _ driver.Ends) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	n.w.tracef("%s: the session that began with %d has ended", n.name, s.Began)
}

// Unwanted is nothing either.
func (n *node) Unwanted(string, int32, int64, *fleet.Session) {}

// Mark is nowhere.
func (n *node) Mark(int32, int64) fleet.Mark { return fleet.Mark{} }

// Ends, Positions and Ahead: there are no commands.
func (n *node) Ends() driver.Ends { return driver.Ends{} }

// LogEnds is told at Ends.
func (n *node) LogEnds(context.Context) driver.Ends { return driver.Ends{} }

// Positions is told at Ends.
func (n *node) Positions(driver.Ends) *fleet.Progress { return &fleet.Progress{} }

// Ahead is told at Ends.
func (n *node) Ahead(*fleet.Progress) driver.Ends { return nil }

// WillRecords makes the one record of a Will, whose topic names it.
func (n *node) WillRecords(client string, will *fleet.Will) ([]*kafka.TxRecord, fleet.WillEnd, func(error)) {
	return []*kafka.TxRecord{{Topic: willsTopic, Key: []byte(will.Topic), PartitionKey: []byte(client)}}, fleet.WillPublished, func(error) {}
}

// Fail is a finding: nothing here ends a process.
func (n *node) Fail(err error) { n.w.fail("%s fails: %v", n.name, err) }
