package driver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/fleet"
	"sluice/kafka"
)

// A part is one partition of the sessions topic: what was read of it, the devices that are here, and what its owner
// has to do if that is this instance.
type part struct {
	d    *Driver
	id   int32
	mark Watermark
	end  Joined[int64]

	mu        sync.Mutex // guards what follows; an outbox's lock may be taken under it, none of a Conn's callers is held
	table     fleet.Table
	clients   map[string]*holder
	owner     *fleet.Owner
	assigned  bool       // the group has given the partition to this process
	initial   bool       // when it joined, and still
	ownership *ownership // nil: this incarnation is not its owner
	due       dues
	left      map[int32]lastLeft // by stream
	ahead     map[string]Ends    // by client ID: it is told what became of its commands below, which are still to be read here
	quests    map[*Quest]struct{}
	heard     heards
	suspended []suspended
	reading   bool // for those, there is an errand
	readings  int
	births    map[string]*birth // by client ID: the last one
	after     []func()          // to be called when mu is not held any more
}

func (p *part) lock() { p.mu.Lock() }

// unlock gives mu up and then does what was put off.
func (p *part) unlock() {
	after := p.after
	p.after = nil
	p.mu.Unlock()
	for _, f := range after {
		f()
	}
}

// later has f called when mu is not held any more.
func (p *part) later(f func()) { p.after = append(p.after, f) }

// named gives the client ID of a device that is here as its holder has it. mu is held.
func (p *part) named(client string) string {
	if h := p.clients[client]; h != nil {
		return h.id
	}
	return client
}

func (p *part) view(clientID string) fleet.View {
	v, _ := p.table.Client(clientID)
	return v
}

// handle takes a record of the partition.
func (p *part) handle(r *kafka.Fetched) {
	p.lock()
	lasting := p.table.Lasting()
	_, held := p.table.Stored()
	_, id, inc, _ := fleet.ParseKey(r.Key)
	ended, kept := p.view(id).Ended(inc), p.view(id).Keep()
	client, changed, err := p.table.Apply(fleet.Record{Key: r.Key, Value: r.Value, Offset: r.Offset, Time: r.Timestamp.UnixMilli()})
	p.d.lasting.Add(int64(p.table.Lasting() - lasting))
	_, now := p.table.Stored()
	p.d.held.Add(int64(now - held))
	switch {
	case errors.Is(err, fleet.ErrNewerVersion):
		p.d.host.Fail(fmt.Errorf("cannot read the sessions: %w; a newer release of Sluice has written them", err))
	case err != nil:
		p.d.m.Malformed.Inc()
		p.d.lines.Error().Err(err).Int32("partition", p.id).Int64("offset", r.Offset).Msg("left out a record of the sessions topic")
	case p.d.me.Load() == nil || !changed: // as long as it is read for the first time nobody acts on it
	case client == "":
		p.notice(r)
	default:
		p.read(client)
		p.lastWord(client, inc)
		if inc != p.d.me.Load().name {
			p.overtaken(client, inc)
			p.begun(client, kept)
			if p.view(client).Ended(inc) != ended {
				p.gap(client, p.view(client).Session(inc))
			}
		}
		p.reconsider(client)
	}
	p.unlock()
	p.mark.Reach(r.Offset + 1)
}

// progress notes that everything below next was read.
func (p *part) progress(next int64) {
	p.lock()
	p.table.Advance(next)
	p.unlock()
	p.mark.Reach(next)
}

// read lets those act for whom the record of a client matters. mu is held.
func (p *part) read(client string) {
	p.look(client)
	p.owner.Read(client, &p.table)
}

// look lets who has to do with a client here see what the table says of it now. mu is held.
func (p *part) look(client string) {
	h := p.clients[client]
	if h != nil && !h.idles {
		h.do(h.m.Read(p.view(client)))
		h.tellPasts()
		h.awaitWill()
		return
	}
	p.duty(client)
	if h != nil {
		h.tellPasts() // behind that: who is let go has no duty left
	}
}

// notice takes a heartbeat or a verdict. mu is held.
func (p *part) notice(r *kafka.Fetched) {
	kind, _, name, err := fleet.ParseKey(r.Key)
	if err != nil || r.Value == nil {
		return
	}
	if name != p.d.me.Load().name {
		p.d.company.Store(true)
	}
	if kind == fleet.KeyInstance {
		beat, _ := p.table.Instance(name)
		p.d.pulse.heard(name, p.id, beat.Beat)
		return
	}
	verdict, _ := p.table.Instance(name)
	p.d.pulse.condemned(name)
	if inc := p.d.me.Load(); inc.name == name && !p.d.stopped.Load() {
		p.later(func() { p.d.judged(inc, verdict.By) })
		return
	}
	for _, client := range p.table.ClientsOf(name) { // a Will may have waited for an attempt there, a key for what it would tell
		p.look(client)
		p.reconsider(client)
	}
	p.tick()
}

// duty does what this incarnation has to do for a client that is not connected here, or notes when. mu is held.
func (p *part) duty(client string) {
	inc := p.d.me.Load()
	if inc.dead.Load() {
		return
	}
	v := p.view(client)
	switch duty, at := v.Duty(inc.name, millis()); duty {
	case fleet.DutyNone:
		// What is over and is no duty is not ours to end. Noted again, it would be due again before sweep is through.
		if at, ok := p.expiry(v, inc); ok && at > millis() {
			p.due.add(at, client)
		}
	case fleet.DutyRead:
		h := p.holder(client, inc)
		h.do(h.m.Read(v))
	case fleet.DutyEnd:
		h := p.holder(client, inc)
		h.do(h.m.End(v))
		p.ended(client, v.Session(inc.name))
	case fleet.DutyWill:
		if at > millis() {
			p.due.add(at, client)
			return
		}
		p.holder(client, inc).awaitWill()
	}
}

// expiry gives when a session that this incarnation has left expires.
func (p *part) expiry(v fleet.View, inc *incarnation) (at int64, ok bool) {
	s := v.Session(inc.name)
	if s == nil || s.Ended || s.OfflineSince == 0 || s.Expiry == fleet.NeverExpires {
		return 0, false
	}
	return s.OfflineSince + int64(s.Expiry)*1000, true
}

// sweep looks after those whose time has come.
func (p *part) sweep(at time.Time) {
	p.lock()
	defer p.unlock()
	for {
		client, ok := p.due.take(at.UnixMilli())
		if !ok {
			break
		}
		if h := p.clients[client]; h != nil && !h.idles {
			h.awaitWill()
		} else {
			p.duty(client)
		}
	}
	for _, h := range p.those(func(h *holder) bool { return len(h.pasts) > 0 || h.conn != nil && h.conn.wantsCheckpoint(at) }) {
		if h.conn != nil && h.conn.wantsCheckpoint(at) {
			h.conn.save()
		}
		h.tellPasts()
	}
	p.forget()
	p.forgetBirths()
	p.tick()
}

// those gives the holders that are to do something now, in the order of their client IDs: it must not depend on chance.
func (p *part) those(want func(h *holder) bool) (all []*holder) {
	for _, h := range p.clients {
		if want(h) {
			all = append(all, h)
		}
	}
	slices.SortFunc(all, func(a, b *holder) int { return strings.Compare(a.id, b.id) })
	return all
}

// holder gives the machine of a client ID, and makes it if need be. mu is held.
func (p *part) holder(clientID string, inc *incarnation) *holder {
	h := p.clients[clientID]
	if h == nil || h.inc != inc && h.unused() {
		h = &holder{p: p, id: clientID, inc: inc, m: fleet.NewClaimer(&inc.shard(clientID).writer)}
		p.clients[clientID] = h
	}
	h.idles = false
	return h
}

// begin begins the attempt of a CONNECT, once what an earlier connection here has left is written.
func (p *part) begin(ctx context.Context, clientID string, req fleet.ConnectRequest, c *Conn) (*attempt, error) {
	for {
		p.lock()
		inc := p.d.me.Load()
		if inc == nil || inc.dead.Load() || p.d.stopped.Load() {
			p.unlock()
			return nil, fmt.Errorf("%w: this instance is stopping, or was declared dead", ErrNotNow)
		}
		h := p.holder(clientID, inc)
		if h.unused() {
			at := &attempt{h: h, conn: c, answer: make(chan fleet.Action, 1)}
			c.h, h.opening = h, at
			req.Now = millis()
			h.refusals = 0
			acts := h.m.Connect(req, p.view(h.id))
			p.hearDoubts(clientID)
			h.m.Heard(p.heardBy(clientID))
			h.do(acts)
			p.unlock()
			return at, nil
		}
		free := h.freed()
		p.unlock()
		select {
		case <-free:
		case <-ctx.Done():
			p.lock()
			defer p.unlock()
			return nil, notNow(h.waitsFor())
		}
	}
}

// abandon gives an attempt up, and gives the error that says what it waited for; nil: it was answered.
func (p *part) abandon(at *attempt) error {
	p.lock()
	defer p.unlock()
	h := at.h
	if h.opening != at {
		return nil
	}
	err := notNow(h.waitsFor())
	h.giveUp()
	return err
}

// bury ends all that an incarnation which was declared dead had under way.
func (p *part) bury(inc *incarnation) {
	p.lock()
	defer p.unlock()
	p.disown()
	for _, h := range p.those(func(h *holder) bool { return h.inc == inc }) {
		h.do(h.m.Judged())
		if h.conn == nil && h.departing == nil {
			delete(p.clients, h.id)
		}
	}
}
