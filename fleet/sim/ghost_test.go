package sim

import (
	"reflect"
	"slices"

	"sluice/fleet"
)

// A ghost is what must be true, kept beside the run: what the device was told.
type ghost struct {
	of         *client
	ok         map[int64]bool   // sessions that the next CONNACK may present, by the epoch they began with; 0: none
	acked      map[int64]uint32 // session -> highest change acknowledged to the device
	zeros      int              // how often "none" became possible
	expiry     uint32           // the shortest Session Expiry Interval that may be in force
	leftAt     int64            // when the device left the last connection that was answered
	eve        bool             // the other device has opened
	at         string           // and the incarnation that had it
	tried      bool             // the other device has connected
	opened     int              // CONNACKs
	present    int              // of them with Session Present
	doubled    int              // plain messages that a crash has stored twice
	lastOpened int64            // the highest epoch that was opened
	wills      map[string]*ghostWill
	removed    map[string]int64     // keys that an owner has removed, and the state epoch they had
	held       map[string]int64     // the highest state epoch that a key has had
	states     map[int64]ghostState // as they were written last, by the epoch under which they were opened
	untold     []int64              // sessions that have begun since the device was told of one
	wanted     map[int64]bool       // claims for which a device waited when they landed
	conns      map[int64]*conn      // that were answered, by their epoch
	dead       map[string]int64     // when the verdict landed
	judged     map[string]bool      // by another
	ended      map[int64]int64      // session -> offset of the record that has ended it for good
}

// A ghostState is what a record says of a session.
type ghostState struct {
	inc     string // who wrote it
	began   int64
	expiry  uint32
	offline int64 // since when
}

// over says that the Session Expiry Interval has passed at a time; of who died connected it is counted from the verdict.
func (g *ghost) over(w *world, s ghostState, at int64) bool {
	from := s.offline
	if from == 0 {
		from, _ = w.tables[w.partition(g.of)].Dead(s.inc)
	}
	return from > 0 && s.expiry != fleet.NeverExpires && from+int64(s.expiry)*1000 <= at
}

// openedBetween says that an opening record of an epoch between those of a state and of a claim has landed after the claim.
// It may have resumed the session in time.
func (g *ghost) openedBetween(state, claim int64) bool {
	for epoch := range g.states {
		if state < epoch && epoch < claim {
			return true
		}
	}
	return false
}

type ghostWill struct {
	conn      *conn
	epoch     int64
	published int
	dropped   bool
	late      bool // or it was dropped by who was dead by then: the owner may see it, or not
	void      bool // the device was back before it was due
	left      int64
}

func newGhost() ghost {
	return ghost{
		ok: map[int64]bool{0: true}, acked: make(map[int64]uint32), wills: make(map[string]*ghostWill), held: make(map[string]int64), states: make(map[int64]ghostState), conns: make(map[int64]*conn), wanted: make(map[int64]bool),
		removed: make(map[string]int64), expiry: fleet.NeverExpires, dead: make(map[string]int64), judged: make(map[string]bool), ended: make(map[int64]int64),
	}
}

func (g *ghost) none() {
	g.ok[0] = true
	g.zeros++
}

func (g *ghost) will(name string) *ghostWill {
	if g.wills[name] == nil {
		g.wills[name] = &ghostWill{}
	}
	return g.wills[name]
}

// died says that an incarnation has crashed, or was judged by another.
func (g *ghost) died(t taker) bool { return t.n.crashed || g.judged[t.inc] }

// opening says that an opening record has landed: its session exists, until the device is told or the attempt given up.
func (g *ghost) opening(w *world, t taker, s *fleet.Session) {
	g.lastOpened = max(g.lastOpened, s.StateEpoch)
	if at, ended := g.ended[s.Began]; ended && s.StateEpoch <= at {
		delete(g.ended, s.Began) // its claim came before that
	}
	if s.Began == s.Claim {
		g.forgetReturns()
	}
	if s.Principal != g.of.dev.principal {
		g.eve = true
		g.none()
		return
	}
	g.of.dev.pub.at(g.of.dev.pub.message, t)
	if s.Began == s.Claim { // else it lasts as before, unless the device is told otherwise
		g.expiry = min(g.expiry, s.Expiry)
		g.ok[s.Began] = true
		if g.wanted[s.Claim] { // if the device is never told of it, it ends with the attempt
			g.untold = append(g.untold, s.Claim)
			g.zeros++
		}
		if s.Expiry == 0 {
			g.none()
		}
	}
}

func (g *ghost) mayHaveExpired(w *world) {
	from := g.leftAt
	if at, dead := g.dead[g.at]; dead { // what a zombie holds expires from the verdict on
		from = min(from, at)
	}
	if g.expiry != fleet.NeverExpires && from > 0 && w.now()-from >= int64(g.expiry)*1000 {
		g.none()
	}
}

func (g *ghost) connack(w *world, c *conn, epoch int64) {
	present, began := c.driver.Present, c.driver.Session
	g.opened++
	if present {
		g.present++
	}
	g.conns[epoch] = c
	switch {
	case present == (began == epoch):
		w.fail("Session Present %t for the session that began with %d", present, began)
	case present && c.req.Clean:
		w.fail("Session Present after a clean start") // [MQTT-3.2.2-2]
	case present && c.found.began == began && !g.openedBetween(c.foundAt, epoch) && g.over(w, c.found, c.asks) && g.over(w, g.states[c.foundAt], c.asks):
		w.fail("resurrected: session %d had expired", began) // section 3.1.2.11.2
	}
	if c.will != "" {
		will := g.will(c.will)
		will.conn, will.epoch = c, epoch
	}
	if at, ended := g.ended[began]; ended && epoch > at {
		w.fail("resurrected: session %d has ended at %d, and is presented to the claim of %d", began, at, epoch)
	}
	if c.dev != &g.of.dev {
		g.mayHaveExpired(w)
		if c.guarded && c.zero == g.zeros-1 || present && c.driver.Principal != "q" {
			w.fail("another principal has opened the session")
		}
		return
	}
	if g.of.dev.cur != c { // it was let in, though the device has left and does not know
		if g.expiry = min(g.expiry, c.req.Expiry); g.expiry == 0 {
			g.none()
		}
		return
	}
	g.mayHaveExpired(w)
	switch {
	case present && !g.ok[began]:
		w.fail("resurrected: session %d, not one of %v", began, g.ok)
	case present && c.ver < g.acked[began]:
		w.fail("acknowledged change lost: %d, was %d", c.ver, g.acked[began])
	case !present && !c.req.Clean && !g.ok[0] && !slices.ContainsFunc(g.untold, func(began int64) bool { return began != epoch }):
		w.fail("session lost: %v", g.ok)
	}
	g.untold = nil
	g.returned(w, c, epoch)
	g.ok, g.expiry = map[int64]bool{began: true}, c.req.Expiry
	if g.eve {
		g.none()
	}
}

// returned cancels the delayed Wills of the connections before, if the claim landed before they were due.
// A claim of an incarnation that is judged holds up nobody's Will, though a zombie may open it. With Session Expiry Interval 0
// a session ends with its connection, and its Will is due then; that its instance has died before it could write that down
// brings the session back, not the Will.
func (g *ghost) returned(w *world, c *conn, epoch int64) {
	if g.dead[c.inc] > 0 {
		return
	}
	for name, will := range g.wills {
		old := will.conn
		if old == nil || old == c || will.epoch >= epoch || old.dev != c.dev || old.req.Will.Delay == 0 || old.req.Expiry == 0 || will.left == 0 {
			continue
		}
		from := will.left
		if at, dead := g.dead[old.inc]; dead {
			from = min(from, at)
		}
		if c.driver.Present && c.driver.Session <= will.epoch && c.claimed > 0 && c.claimed < from+int64(old.req.Will.Delay)*1000 {
			if will.published > 0 {
				w.fail("the Will %s was published although the device was back in time", name)
			}
			will.void = true
		}
	}
}

// forgetReturns: a new session hides from who judges the dead later that the one before had been resumed. The Will may
// then go out, once.
func (g *ghost) forgetReturns() {
	for _, will := range g.wills {
		will.void = false
	}
}

// left says that the device has left a connection. A DISCONNECT may die with its instance.
func (g *ghost) left(w *world, c *conn, tidy bool, expiry uint32) {
	if will := g.wills[c.will]; will != nil && c.live {
		if will.left = w.now(); c.closed > 0 {
			will.left = c.closed
		}
	}
	if c.dev != &g.of.dev || !c.live {
		return
	}
	g.leftAt, g.at = w.now(), c.inc
	if c.closed > 0 {
		g.leftAt = c.closed // the device has learnt of it late
	}
	if tidy {
		g.expiry = min(g.expiry, expiry)
	}
	switch {
	case c.req.Expiry == 0 && g.states[c.driver.Epoch()].expiry > 0: // it was longer, and that it is not any more is not stored
		g.none()
	case c.req.Expiry == 0:
		g.ok = make(map[int64]bool)
		g.none()
	case tidy && expiry == 0:
		g.none()
	}
}

func (g *ghost) refused(w *world, c *conn) {
	if c.dev == &g.of.dev && !g.tried {
		w.fail("the device was refused its own session")
	}
}

// landed looks at a record that has just landed.
func (g *ghost) landed(w *world, n *node, rec fleet.Record) {
	kind, _, inc, err := fleet.ParseKey(rec.Key)
	must(err)
	if kind == fleet.KeyVerdict && g.dead[inc] == 0 && rec.Value != nil {
		g.dead[inc] = w.now()
		verdict, err := fleet.DecodeInstance(rec.Value)
		must(err)
		g.judged[inc] = verdict.By != inc
	}
	if kind != fleet.KeySession {
		return
	}
	key := string(rec.Key)
	if rec.Value == nil {
		if w.incs[inc] != n || n.d.Name() != inc { // by an owner
			g.removed[key] = max(g.removed[key], g.held[key])
		}
		return
	}
	s, err := fleet.DecodeSession(rec.Value)
	must(err)
	if s.Claim == 0 {
		s.Claim = rec.Offset + 1
		if c := n.seat(g.of).conn; c != nil && !c.live {
			g.wanted[s.Claim] = c.dev.cur == c
			c.claimed, c.asks, c.foundAt, c.found = w.now(), s.Connected, g.lastOpened, g.states[g.lastOpened]
		}
	}
	if state, removed := g.removed[key]; removed && s.StateEpoch > 0 && s.StateEpoch <= state {
		w.tainted = true
	}
	g.held[key] = max(g.held[key], s.StateEpoch)
	_, known := g.states[s.StateEpoch]
	if known || s.Opened() {
		g.states[s.StateEpoch] = ghostState{inc, s.Began, s.Expiry, s.OfflineSince}
	}
	if s.Opened() && !known {
		g.opening(w, taker{n, inc}, s)
	}
	g.hasEnded(w, n, s, rec.Offset)
}

// hasEnded looks at a record that leaves a state.
func (g *ghost) hasEnded(w *world, n *node, s *fleet.Session, offset int64) {
	if (s.Released || !s.Opened()) && s.Will == nil {
		for _, will := range g.wills {
			if c := will.conn; c != nil && will.epoch == s.StateEpoch && c.tidy && will.published == 0 {
				will.dropped, will.late = g.dead[c.inc] == 0, g.dead[c.inc] > 0
			}
		}
	}
	// The end of a connection that has taken its session with it, by CONNECT or by DISCONNECT, section 3.14.2.2.2.
	if c := g.conns[s.StateEpoch]; c != nil && c.closing && c.expiry == 0 && s.Released && g.dead[c.inc] == 0 && s.StateEpoch >= g.lastOpened && g.ended[s.Began] == 0 {
		g.ended[s.Began] = offset
	}
	if _, state, ok := w.view(g.of).Base(w.now()); s.Ended && s.StateEpoch > 0 && (!ok || state.Began != s.Began) && s.StateEpoch >= g.lastOpened && g.ended[s.Began] == 0 {
		g.ended[s.Began] = offset
	}
}

func (g *ghost) published(w *world, name string) {
	will := g.will(name)
	will.published++
	switch {
	case will.published > 1:
		w.fail("the Will %s was published twice", name)
	case will.dropped:
		w.fail("the Will %s was published after DISCONNECT", name)
	case will.void:
		w.fail("the Will %s was published although the device was back", name)
	case will.conn != nil && will.conn.live && !will.conn.closing && will.conn.n.up && will.conn.n.seat(g.of).conn == will.conn && g.dead[will.conn.inc] == 0:
		w.fail("the Will %s was published, and the connection lives", name)
	}
}

// quiet looks at what is left when nothing moves any more.
func (g *ghost) quiet(w *world) {
	if len(w.ups()) == 0 {
		return
	}
	g.oneConnection(w)
	for name, will := range g.wills {
		c := will.conn
		if c == nil || c.n.up && c.n.seat(g.of).conn == c || will.dropped || will.late || will.published == 1 || c.req.Will.Delay > 0 && g.lastOpened > will.epoch {
			continue
		}
		w.fail("the Will %s of %d was never published", name, will.epoch)
	}
	records, bytes := 0, 0
	for p := range w.partitions {
		n, b := w.tables[p].Stored()
		records, bytes = records+n, bytes+b
		fresh := new(fleet.Table)
		for _, rec := range w.compacted(w.log[p]) {
			_, _, err := fresh.Apply(rec)
			must(err)
		}
		whole, _ := w.tables[p].Client(g.of.id)
		left, _ := fresh.Client(g.of.id)
		if !reflect.DeepEqual(whole.Entries(), left.Entries()) {
			w.fail("the log says %+v, compacted it says %+v", whole.Entries(), left.Entries())
		}
	}
	for _, n := range w.ups() {
		if r, b := n.d.Stored(); r != records || b != bytes {
			w.fail("%s has %d records with %d bytes, the log has %d with %d", n.name, r, b, records, bytes)
		}
	}
	g.removal(w, w.view(g.of))
}

func (g *ghost) oneConnection(w *world) {
	live := 0
	for _, n := range w.ups() {
		switch c := n.seat(g.of).conn; {
		case c == nil:
		case c.live:
			live++
		default:
			w.fail("%s neither answers nor refuses the connection", n.name)
		}
	}
	if live > 1 {
		w.fail("%d connections live", live)
	}
}

// removal looks for keys that should be gone. A claim of the dead that may still be opened stays for days.
func (g *ghost) removal(w *world, v fleet.View) {
	entries := v.Entries()
	var top fleet.Head
	for _, e := range entries {
		if e.StateEpoch > top.StateEpoch {
			top = e
		}
	}
	for _, e := range entries {
		awaited := top.StateEpoch > 0 && slices.ContainsFunc(v.Session(top.Inc).Pending, func(p fleet.Pending) bool { return p.Inc == e.Inc })
		switch {
		case top.Dead && (top.Released || top.StateEpoch < top.Claim) && awaited: // who has the session next takes it over
		case e.Dead && !e.Released && !e.Withdrawn && e.StateEpoch < e.Claim:
		case e.StateEpoch < top.StateEpoch || top.Ended && (e == top || e.StateEpoch > 0) && len(entries) == 1:
			w.fail("key of %s was never removed: %+v", e.Inc, entries)
		}
	}
}
