package sim

import (
	"reflect"
	"slices"

	"sluice/fleet"
)

// A ghost is what must be true, kept beside the run: what the device was told.
type ghost struct {
	ok         map[int64]bool       // sessions that the next CONNACK may present, by the epoch they began with; 0: none
	acked      map[int64]uint32     // session -> highest change acknowledged to the device
	zeros      int                  // how often "none" became possible
	expiry     uint32               // the shortest Session Expiry Interval that may be in force
	leftAt     int64                // when the device left the last connection that was answered
	eve        bool                 // the other device has opened
	at         string               // and the instance that had it
	tried      bool                 // the other device has connected
	opened     int                  // CONNACKs
	present    int                  // of them with Session Present
	doubled    int                  // plain messages that a crash has stored twice
	lastOpened int64                // the highest epoch that was opened
	wills      map[int64]*ghostWill // by epoch
	removed    map[string]int64     // keys that an owner has removed, and the state epoch they had
	dead       map[string]int64
}

type ghostWill struct {
	conn      *conn
	published int
	dropped   bool
	void      bool // the device was back before it was due
	clean     bool // the device has asked for a clean start since, perhaps in an attempt that it gave up
	left      int64
}

func newGhost() ghost {
	return ghost{
		ok: map[int64]bool{0: true}, acked: make(map[int64]uint32), wills: make(map[int64]*ghostWill),
		removed: make(map[string]int64), expiry: fleet.NeverExpires, dead: make(map[string]int64),
	}
}

func (g *ghost) none() {
	g.ok[0] = true
	g.zeros++
}

// opening says that an opening record is on its way: from here on its session may or may not exist.
func (g *ghost) opening(c *conn, s *fleet.Session) {
	g.lastOpened = max(g.lastOpened, s.StateEpoch)
	if s.Began == s.Claim {
		g.forgetReturns()
	}
	if c.dev != &c.n.w.dev {
		g.eve = true
		g.none()
		return
	}
	c.dev.pub.at(c.dev.pub.message, c.n)
	g.expiry = min(g.expiry, s.Expiry)
	if s.Began == s.Claim {
		g.ok[s.Began] = true
	}
	if s.Expiry == 0 {
		g.none()
	}
}

func (g *ghost) mayHaveExpired(w *world) {
	from := g.leftAt
	if at, dead := g.dead[g.at]; dead { // what a zombie holds expires from the verdict on
		from = min(from, at)
	}
	if g.expiry != fleet.NeverExpires && from > 0 && w.now-from >= int64(g.expiry)*1000 {
		g.none()
	}
}

func (g *ghost) connack(w *world, c *conn, a fleet.Action) {
	began := a.State.Began
	g.opened++
	if a.Present {
		g.present++
	}
	if a.Present == (began == a.Epoch) {
		w.fail("Session Present %t for the session that began with %d", a.Present, began)
	}
	if c.req.Will != nil {
		if g.wills[a.Epoch] == nil {
			g.wills[a.Epoch] = &ghostWill{}
		}
		g.wills[a.Epoch].conn = c
	}
	if c.dev != &w.dev {
		g.mayHaveExpired(w)
		if c.guarded && c.zero == g.zeros-g.ownZeros(c) || a.Present && a.State.Principal != "q" {
			w.fail("another principal has opened the session")
		}
		return
	}
	if w.dev.cur != c {
		return
	}
	g.mayHaveExpired(w)
	switch {
	case a.Present && !g.ok[began]:
		w.fail("resurrected: session %d, not one of %v", began, g.ok)
	case a.Present && c.ver < g.acked[began]:
		w.fail("acknowledged change lost: %d, was %d", c.ver, g.acked[began])
	case !a.Present && !c.req.Clean && !g.ok[0]:
		w.fail("session lost: %v", g.ok)
	}
	g.returned(c, a)
	g.ok, g.expiry = map[int64]bool{began: true}, c.req.Expiry
	if g.eve {
		g.none()
	}
}

// ownZeros are the times that the other device's own opening made "none" possible.
func (g *ghost) ownZeros(c *conn) int {
	if c.asked {
		return 1
	}
	return 0
}

// returned cancels the delayed Wills of the connections before, if the claim landed before they were due.
// A claim of an incarnation that is judged holds up nobody's Will, though a zombie may open it.
func (g *ghost) returned(c *conn, a fleet.Action) {
	if g.dead[c.n.name] > 0 {
		return
	}
	for epoch, will := range g.wills {
		old := will.conn
		if old == nil || old == c || epoch >= a.Epoch || old.dev != c.dev || old.delay == 0 || will.left == 0 {
			continue
		}
		from := will.left
		if at, dead := g.dead[old.n.name]; dead {
			from = min(from, at)
		}
		if a.Present && !will.clean && a.State.Began <= epoch && c.claimed < from+int64(old.delay)*1000 {
			will.void = true
		}
	}
}

// cleanStart: an attempt to begin a new session makes delayed Wills due before it is known whether it succeeds.
func (g *ghost) cleanStart() {
	for _, will := range g.wills {
		will.clean = will.left > 0
	}
}

// forgetReturns: a new session hides from who judges the dead later that the one before had been resumed. The Will may
// then go out, once.
func (g *ghost) forgetReturns() {
	for _, will := range g.wills {
		will.void = false
	}
}

func (g *ghost) left(w *world, c *conn) {
	if will := g.wills[c.epoch]; will != nil && c.live {
		will.left = w.now
	}
	if c.dev != &w.dev || !c.live {
		return
	}
	g.leftAt, g.at = w.now, c.n.name
	if c.req.Expiry == 0 {
		g.ok = make(map[int64]bool)
		g.none()
	}
}

func (g *ghost) refused(w *world, c *conn) {
	if c.dev == &w.dev && !g.tried {
		w.fail("the device was refused its own session")
	}
}

func (g *ghost) landed(w *world, n *node, wr write) {
	kind, _, inc, err := fleet.ParseKey(wr.key)
	must(err)
	if kind == fleet.KeyVerdict && g.dead[inc] == 0 {
		g.dead[inc] = w.now
	}
	if kind != fleet.KeySession || wr.value == nil {
		return
	}
	s, err := fleet.DecodeSession(wr.value)
	must(err)
	if state, removed := g.removed[string(wr.key)]; removed && s.StateEpoch > 0 && s.StateEpoch <= state {
		w.tainted = true
	}
	if s.Claim == 0 && n.conn != nil {
		n.conn.claimed = w.now
	}
}

func (g *ghost) published(w *world, epoch int64) {
	will := g.wills[epoch]
	if will == nil {
		will = &ghostWill{}
		g.wills[epoch] = will
	}
	will.published++
	switch {
	case will.published > 1:
		w.fail("the Will of %d was published twice", epoch)
	case will.dropped:
		w.fail("the Will of %d was published after DISCONNECT", epoch)
	case will.void:
		w.fail("the Will of %d was published although the device was back", epoch)
	}
}

func (g *ghost) dropped(epoch int64) {
	if will := g.wills[epoch]; will != nil {
		will.dropped = will.published == 0
	}
}

// quiet looks at what is left when nothing moves any more.
func (g *ghost) quiet(w *world) {
	g.oneConnection(w)
	for epoch, will := range g.wills {
		c := will.conn
		if c == nil || c.n.up && c.n.conn == c || will.dropped || will.published == 1 || c.delay > 0 && g.later(epoch) {
			continue
		}
		w.fail("the Will of %d was never published", epoch)
	}
	fresh := new(fleet.Table)
	for _, rec := range w.compacted() {
		_, _, err := fresh.Apply(rec)
		must(err)
	}
	v, _ := fresh.Client(client)
	for _, n := range w.alive() {
		if mine := n.view(); !reflect.DeepEqual(mine.Entries(), v.Entries()) {
			w.fail("%s reads %+v, the compacted log says %+v", n.name, mine.Entries(), v.Entries())
		}
	}
	g.removal(w, v)
}

// later says that a connection was answered, or opened, after epoch.
func (g *ghost) later(epoch int64) bool { return g.lastOpened > epoch }

func (g *ghost) oneConnection(w *world) {
	live := 0
	for _, n := range w.alive() {
		if n.conn == nil {
			continue
		}
		if n.conn.live {
			live++
		}
		if !n.conn.live && !n.conn.over_ {
			w.fail("%s neither answers nor refuses the connection", n.name)
		}
	}
	if live > 1 {
		w.fail("%d connections live", live)
	}
}

// removal looks for keys that should be gone.
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
		if top.Dead && (top.Released || top.StateEpoch < top.Claim) && awaited {
			continue // who has the session next takes it over
		}
		if e.StateEpoch < top.StateEpoch || top.Ended {
			w.fail("key of %s was never removed: %+v", e.Inc, entries)
		}
	}
}
