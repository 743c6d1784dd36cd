package driver

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"sluice/fleet"
	"sluice/kafka"
)

const client = "d1"

// A world is some instances of the driver over one log of sessions and one of commands, each at its own pace, and one device. What
// packages proxy and mqtt do with a command is told again here in a few lines; see node.command.
type world struct {
	gaveUp   bool // a CONNECT
	t        *testing.T
	log      []*kafka.Fetched
	commands int64
	nodes    []*node
	receipts map[int64][]string // by command
	now      int                // counts what happens
	tells    map[int64][]told   // by command
	given    map[int64]int
	trace    func(format string, args ...any)
}

type node struct {
	Host
	w        *world
	name     string
	d        *Driver
	p        *part
	records  []*kafka.Record
	sessions int   // read
	next     int64 // of the commands
	at       *attempt
	dev      *device
	doubts   []doubtful
	reads    map[int64]reading
	asks     chan struct{} // whoever asks where the sessions end waits for somebody here; nil: for nobody
}

type told struct {
	n    *node
	at   int
	lags bool // it had not read all that there is of the sessions
	left bool // another instance had a connection still that the device had left
}

// A reading is that of a command: when, and whether the instance had a connection of the device, whose end was not stored yet, or the
// record was written by which that is opened.
type reading struct {
	at            int
	open, opening bool
	unknowing     bool  // it had a connection, and there was a claim of another one that it had not read, or it had not ended that yet
	leaving       int64 // the epoch of the session whose end was not read back, or not stored; 0: there was none
	seen          int64 // the epoch of the newest session that it had read of
}

type doubtful struct {
	q     *Quest
	until int
}

type device struct {
	Device
	n      *node
	conn   *Conn
	expiry uint32
	subs   bool
	base   fleet.Progress
	joined int64 // where its positions are; -1: it has none
	from   int64 // where the subscription begins
	seen   int64
	past   int64 // below it is told of
	closed bool
}

func newWorld(t *testing.T, names ...string) *world {
	w := &world{t: t, receipts: map[int64][]string{}, tells: map[int64][]told{}, given: map[int64]int{}, trace: func(f string, a ...any) { t.Logf(f, a...) }}
	for _, name := range names {
		n := &node{w: w, name: name, reads: map[int64]reading{}}
		n.d = New(Config{Sessions: "sessions", State: n, Host: n, Journal: empty{}, Table: n, Fencer: n, Metrics: Metrics{Records: new(count), Fences: new(count)}})
		n.d.Lay(1)
		n.d.ctx = t.Context()
		n.d.joined.Store(true)
		inc := &incarnation{name: name}
		for range shardCount {
			inc.shards, inc.txids = append(inc.shards, &shard{d: n.d, writer: fleet.Writer{Inc: name, TxID: "tx-" + name}}), append(inc.txids, "tx-"+name)
		}
		n.d.me.Store(inc)
		n.p = n.d.parts[0]
		w.nodes = append(w.nodes, n)
	}
	return w
}

func (n *node) owns() {
	n.p.owner.Assigned()
	n.p.owner.Taken(&n.p.table)
}

func (n *node) tell(at int64, outcome string) {
	n.w.trace("      %s tells %d: %s", n.name, at, outcome)
	n.w.now++
	n.w.tells[at] = append(n.w.tells[at], told{n, n.w.now, n.sessions < len(n.w.log), n.w.hasLeft(n)})
	n.w.receipts[at] = append(n.w.receipts[at], n.name+" "+outcome)
}

// The Host.
func (n *node) Fence(context.Context, string) error { return nil }
func (n *node) End(context.Context, string, int32) (int64, error) {
	if n.asks != nil {
		<-n.asks
	}
	return int64(len(n.w.log)), nil
}

// ends has Kafka say where the sessions end, if that was asked.
func (n *node) ends() (asked bool) {
	select {
	case n.asks <- struct{}{}:
		n.w.trace("      %s is told where the sessions end", n.name)
		synctest.Wait()
		return true
	default:
		return false
	}
}

func (n *node) Produce(r *kafka.Record)             { n.records = append(n.records, r) }
func (*node) Connected(*Conn)                       {}
func (*node) Disconnected(*Conn, string, int64)     {}
func (*node) Mark(_ int32, offset int64) fleet.Mark { return fleet.Mark{Topic: "t", Offset: offset} }
func (n *node) Ends() Ends                          { return Ends{1: n.next} }
func (*node) Positions(ends Ends) *fleet.Progress {
	p := new(fleet.Progress)
	if at, ok := ends[1]; ok {
		p.Start("t", 0, at)
	}
	return p
}

func (n *node) Ahead(p *fleet.Progress) Ends {
	if p == nil || p.Reach("t", 0) <= n.next {
		return nil
	}
	return Ends{1: p.Reach("t", 0)}
}

// awaits is forfeit.awaited: of origins there is none, since a session's first SUBSCRIBE begins at its positions.
func awaits(s *fleet.Session) bool { return len(s.Subs) > 0 }

func (n *node) Ended(_ string, s *fleet.Session, ends Ends) { // forfeit.span, forfeit.settle
	if _, known := s.Pos["t"]; !known || !awaits(s) {
		return
	}
	for at := s.Pos["t"][0]; at < ends[1]; at++ {
		n.tell(at, "session_ended")
	}
}

func (n *node) Unwanted(_ string, _ int32, at int64, s *fleet.Session) { // forfeits.one
	switch {
	case s == nil:
		n.tell(at, "not_connected")
	case !awaits(s):
		n.tell(at, "not_subscribed")
	default:
		n.w.trace("      %s does not tell %d: it waits for the session of %d", n.name, at, s.Began)
	}
}

// The Device.
func (v *device) Snapshot() (*fleet.Session, uint64) {
	s := &fleet.Session{Progress: v.base}
	s.Met = nil
	if v.joined >= 0 {
		s.Start("t", 0, max(v.joined, v.n.next))
	}
	if v.subs {
		s.Subs = []fleet.Sub{{Filter: "t"}}
	}
	if v.seen > s.Pos["t"][0] {
		s.Meet("t", 0, v.seen)
	}
	return s, 1
}
func (*device) Settle([]uint16, []uint16, bool) func() { return func() {} }
func (*device) Saved(uint64)                           {}
func (*device) HasProgressed() bool                    { return false }
func (v *device) Close(Why) {
	v.closed = true
	v.n.w.trace("      %s: its connection is taken over", v.n.name)
}
func (*device) Received(func(uint16, bool)) (stored, pending []uint16) { return nil, nil }

// land has Kafka take the next record of n, which hears of it.
func (n *node) land() {
	r := n.records[0]
	n.records, r.Offset = n.records[1:], int64(len(n.w.log))
	n.w.log = append(n.w.log, &kafka.Fetched{Key: r.Key, Value: r.Value, Offset: r.Offset})
	n.w.trace("  %s writes @%d %s", n.name, r.Offset, r.Value)
	r.Owner.RecordDone(r, nil)
	n.answer()
}

// read has n read the next record of the sessions.
func (n *node) read() {
	n.w.trace("  %s reads @%d", n.name, n.sessions)
	n.sessions++
	n.d.HandleSession(n.w.log[n.sessions-1])
	n.answer()
	for len(n.doubts) > 0 && n.doubts[0].until <= n.sessions {
		n.resolve()
	}
}

func (n *node) resolve() {
	q := n.doubts[0].q
	n.doubts = n.doubts[1:]
	n.missed(q, n.d.Resolve(q))
	synctest.Wait()
}

// catchUp has n read all that there is of the sessions.
func (n *node) catchUp() {
	for n.sessions < len(n.w.log) {
		n.read()
	}
}

func (n *node) answer() {
	synctest.Wait()
	if n.at == nil || len(n.at.answer) == 0 {
		return
	}
	at := n.at
	n.at = nil
	a := <-at.answer
	if a.Kind != fleet.ActOpened {
		n.w.trace("      %s: its attempt is lost", n.name)
		n.dev = nil
		return
	}
	n.w.trace("      %s: open, present %v", n.name, a.Present)
	v := n.dev
	v.conn = at.conn
	v.past = n.d.Ahead(client)[1]
	if a.Present {
		v.subs, v.base, v.seen = len(a.State.Subs) > 0, a.State.Progress, a.State.Reach("t", 0)
		if pos, ok := a.State.Pos["t"]; ok {
			v.joined = pos[0]
			v.from = pos[0]
		}
	}
	at.conn.Told()
	if v.subs && v.joined >= 0 {
		for at := v.joined; at < n.next; at++ { // the replay
			n.tell(at, "delivered")
			n.w.given[at]++
			v.seen = max(v.seen, at+1)
		}
		v.joined = max(v.joined, n.next)
	}
	synctest.Wait()
}

func (n *node) connect(clean bool, expiry uint32) {
	n.w.trace("%s: CONNECT clean %v expiry %d", n.name, clean, expiry)
	n.dev = &device{n: n, expiry: expiry, joined: -1}
	at, err := n.p.begin(n.w.t.Context(), client, fleet.ConnectRequest{Clean: clean, Expiry: expiry}, &Conn{p: n.p, dev: n.dev})
	require.NoError(n.w.t, err)
	n.at = at
	n.answer()
}

// claims connects, and has the record that opens the session be on its way.
func (n *node) claims(clean bool, expiry uint32) {
	n.connect(clean, expiry)
	n.land()
	n.catchUp()
}

// open connects and has all of n land and be read until it is open.
func (n *node) open(clean bool, expiry uint32) {
	n.connect(clean, expiry)
	for n.at != nil {
		n.step()
	}
	require.NotNil(n.w.t, n.dev)
}

// step has a record of n land, and n read.
func (n *node) step() {
	if len(n.records) > 0 {
		n.land()
	}
	n.catchUp()
}

func (n *node) settle() {
	for len(n.records) > 0 || n.sessions < len(n.w.log) {
		n.step()
	}
}

func (n *node) giveUp() {
	n.w.trace("%s: gives the CONNECT up", n.name)
	at := n.at
	n.at, n.dev = nil, nil
	_ = n.p.abandon(at)
	n.answer()
}

// leave ends the connection of n.
func (n *node) leave() {
	v := n.dev
	n.w.trace("%s: the connection ends, expiry %d", n.name, v.expiry)
	n.dev = nil
	s, _ := v.Snapshot()
	met := Ends{}
	if to := s.Reach("t", 0); to > 0 {
		met[1] = to
	}
	v.conn.Leave(Leaving{Expiry: v.expiry, State: s, Met: met})
	n.answer()
}

func (n *node) subscribe() {
	n.w.trace("%s: SUBSCRIBE", n.name)
	v := n.dev
	if !v.subs {
		v.subs, v.from = true, n.next
		if v.joined < 0 {
			v.joined = n.next
		}
	}
	v.conn.Save()
	n.answer()
}

// written is a new command.
func (w *world) written() int64 {
	w.commands++
	w.trace("command %d is written", w.commands-1)
	return w.commands - 1
}

// command has n read the next command: commander.send.
func (n *node) command() {
	at := n.next
	n.w.trace("%s: reads command %d", n.name, at)
	defer func() {
		n.next = at + 1
		synctest.Wait()
	}()
	n.w.now++
	r := reading{at: n.w.now, opening: n.isOpening()}
	connected := n.dev != nil && n.dev.conn != nil
	r.leaving, r.seen = n.leaving(), opened(n.w.log[:n.sessions])
	r.open, r.unknowing = connected || n.isUnread(), connected && (n.dev.closed || n.claimUnread())
	n.reads[at] = r
	q := func() *Quest {
		return &Quest{
			ClientID: client, Written: millis(), Stream: 1, Offset: at, Subscribed: awaits,
			Told: func(s *fleet.Session, ends Ends) bool {
				pos, known := s.Pos["t"]
				return known && pos[0] <= at && at < ends[1] && awaits(s)
			},
		}
	}
	early, tells := n.d.Precedes(q())
	if tells {
		n.tell(at, "not_connected")
	}
	if early {
		return
	}
	told := at < n.d.Ahead(client)[1]
	if v := n.dev; v != nil && v.conn != nil {
		if v.subs && at >= v.from && at >= v.joined {
			n.tell(at, "delivered")
			n.w.given[at]++
		} else {
			skipped, tells := n.d.Skipped(client, 1, at)
			if tells || !skipped && !told {
				n.tell(at, "not_subscribed")
			}
		}
		v.seen = max(v.seen, at+1)
		return
	}
	query := q()
	switch found := n.d.Seek(query); found {
	case Doubtful:
		n.doubts = append(n.doubts, doubtful{query, len(n.w.log)})
		if n.doubts[0].until <= n.sessions {
			n.resolve()
		}
	default:
		n.missed(query, found)
	}
}

func (n *node) missed(q *Quest, found Finding) {
	switch found {
	case NotConnected:
		n.tell(q.Offset, "not_connected")
	case NotSubscribed:
		n.tell(q.Offset, "not_subscribed")
	default:
		n.w.trace("      %s leaves %d", n.name, q.Offset)
	}
}

// over has everything be written and read.
func (w *world) over() {
	for busy := true; busy; {
		busy = false
		for _, n := range w.nodes {
			if n.dev != nil && n.dev.closed && n.dev.conn != nil {
				n.leave()
				busy = true
			}
			for n.next < w.commands {
				n.command()
				busy = true
			}
			if len(n.records) > 0 || n.sessions < len(w.log) {
				n.step()
				busy = true
			}
			busy = n.ends() || busy
		}
	}
}

// telling plays f, and all that is left to happen: then the first command has one receipt.
func telling(t *testing.T, names []string, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, names...)
		f(t, w)
		w.over()
		require.Len(t, w.receipts[0], 1)
	})
}

// isOpening says that the record of an attempt's opening is written, or on its way.
func (n *node) isOpening() bool {
	h := n.p.clients[client]
	if h == nil || h.opening == nil {
		return false
	}
	for _, r := range n.records {
		if s, err := fleet.DecodeSession(r.Value); r.Value != nil && err == nil && s.Opened() && !s.Released {
			return true
		}
	}
	own := n.p.view(client).Session(n.name)
	return h.m.Begins() > 0 || h.shown() != nil || own != nil && own.Claim < int64(len(n.w.log)) && n.sessions < len(n.w.log) && n.landedOpening()
}

// landedOpening says that the last record of n that has landed opens a session.
func (n *node) landedOpening() bool {
	for i := len(n.w.log) - 1; i >= n.sessions; i-- {
		if _, _, inc, _ := fleet.ParseKey(n.w.log[i].Key); inc == n.name && n.w.log[i].Value != nil {
			s, err := fleet.DecodeSession(n.w.log[i].Value)
			return err == nil && s.Opened() && !s.Released
		}
	}
	return false
}

// leaving gives the epoch of the session of which n has not read back that its connection has ended; 0: there is none.
func (n *node) leaving() (epoch int64) {
	note := func(key, value []byte) {
		s, err := fleet.DecodeSession(value)
		if _, _, inc, _ := fleet.ParseKey(key); value != nil && err == nil && inc == n.name && s.Released {
			epoch = max(epoch, s.StateEpoch)
		}
	}
	for _, r := range n.w.log[n.sessions:] {
		note(r.Key, r.Value)
	}
	for _, r := range n.records {
		note(r.Key, r.Value)
	}
	return epoch
}

// opened gives the epoch of the newest session that records open; 0: there is none.
func opened(records []*kafka.Fetched) (epoch int64) {
	for _, r := range records {
		if s, err := fleet.DecodeSession(r.Value); r.Value != nil && err == nil && s.Opened() {
			epoch = max(epoch, s.StateEpoch)
		}
	}
	return epoch
}

// hasLeft says that another instance than n has a connection, and a session was opened since.
func (w *world) hasLeft(n *node) bool {
	return slices.ContainsFunc(w.nodes, func(o *node) bool {
		return o != n && o.dev != nil && o.dev.conn != nil && o.dev.conn.epoch < opened(w.log)
	})
}

// isUnread says that a record of its own is on its way or still to be read back.
func (n *node) isUnread() bool {
	return len(n.records) > 0 || n.unread(func(inc string) bool { return inc == n.name })
}

func (n *node) claimUnread() bool { return n.unread(func(inc string) bool { return inc != n.name }) }

func (n *node) unread(of func(inc string) bool) bool {
	return slices.ContainsFunc(n.w.log[n.sessions:], func(r *kafka.Fetched) bool {
		_, _, inc, _ := fleet.ParseKey(r.Key)
		return r.Value != nil && of(inc)
	})
}

func tellingOf(t *testing.T, name string, names []string, f func(t *testing.T, w *world)) {
	t.Run(name, func(t *testing.T) { telling(t, names, f) })
}
