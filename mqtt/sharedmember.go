package mqtt

import (
	"slices"
	"time"
)

// sharing is the part of an outbox that is in shares. Guarded by outbox.mu.
type sharing struct {
	memberships []*shareMember // while connected
	unready     int            // of them
}

// A shareMember is the shared subscription of a connected device.
type shareMember struct {
	outbox *outbox
	filter string
	share  *Share  // set by Shares.join
	begins []Place // where the session was in its streams; nil: it subscribes now

	sub  subscription // guarded by outbox.mu
	idle bool         // had no room when it was asked, so it is not in Share.ready; guarded by outbox.mu
	gone bool         // guarded by outbox.mu
	out  bool         // the same, guarded by Share.mu
}

// join makes a connected session a member for a shared subscription that it has, or takes the new options. begins says where
// the session was when it had the subscription before. mu is held.
func (o *outbox) join(r filterRequest, begins []Place) {
	if o.conn == nil {
		return
	}
	if i := o.membership(r.filter); i >= 0 {
		o.memberships[i].sub = r.subscription
		return
	}
	m := &shareMember{outbox: o, filter: r.filter, begins: begins, sub: r.subscription, idle: true}
	o.memberships = append(o.memberships, m)
	o.unready++
	o.srv.cfg.Shares.join(m)
}

func (o *outbox) membership(filter string) int {
	return slices.IndexFunc(o.memberships, func(m *shareMember) bool { return m.filter == filter })
}

// joinShares makes the session a member for all of its shared subscriptions. mu is held.
func (o *outbox) joinShares() {
	if o.srv.cfg.Shares == nil {
		return
	}
	for _, s := range o.subs {
		if isShared(s.filter) {
			o.join(s, o.sharedFrom(s.origin))
		}
	}
}

// sharedFrom says from where on a shared subscription takes commands that nobody else has taken, in the streams in which
// that is before what comes next. mu is held.
func (o *outbox) sharedFrom(origin *Origin) (begins []Place) {
	for stream, l := range o.behind {
		at := Place{stream, l.from}
		if origin != nil {
			for _, p := range origin.Places {
				if p.Stream == stream {
					at.Offset = max(at.Offset, p.Offset)
				}
			}
		}
		begins = append(begins, at)
	}
	return begins
}

// refusesShare says that filter is of a share for which there is no room. A session that comes from the Store has its
// subscriptions already.
func (o *outbox) refusesShare(filter string) bool {
	return isShared(filter) && o.conn != nil && !o.srv.cfg.Shares.hasRoom(o.session.clientID, filter)
}

// takePart has new memberships take what there is, after SUBACK.
func (o *outbox) takePart() {
	o.mu.Lock()
	if o.unready == 0 {
		o.mu.Unlock()
		return
	}
	o.unlock(nil)
}

// leaveShare ends the membership for a filter. What the session was given stays with it. mu is held.
func (o *outbox) leaveShare(filter string) {
	i := o.membership(filter)
	if i < 0 {
		return
	}
	m := o.memberships[i]
	o.memberships = slices.Delete(o.memberships, i, i+1)
	if m.gone = true; m.idle {
		o.unready--
	}
	o.srv.cfg.Shares.leave(m)
}

// leaveShares ends all memberships when the connection ends, and takes what was sent with QoS 1 out of flight: others
// get it now, since the device may stay away for long. With QoS 2 only what was not sent yet may go to others. The
// queue is left to who ends what is for connected devices. mu is held.
func (o *outbox) leaveShares() (back []settlement) {
	for len(o.memberships) > 0 {
		o.leaveShare(o.memberships[0].filter)
	}
	for i := 0; i < len(o.flight); {
		f := &o.flight[i]
		reason := reasonNotSent
		if f.sent {
			reason = reasonNotAnswered
		}
		if !isTurn(f.cmd) || f.qos == 2 && f.sent {
			i++
			continue
		}
		back = append(back, settlement{delivery: f.delivery, fate: Offline, reason: reason})
		o.land(i)
	}
	return back
}

// isTurn says whether c came by a share, in this process.
func isTurn(c *Command) bool {
	_, is := c.Owner.(*turn)
	return is
}

// isForeign says whether what a stored session has in flight came by a share: it is not among what the session has
// still to get of its own streams. mu is held.
func (o *outbox) isForeign(p Place) bool {
	l, own := o.behind[p.Stream]
	return !own || p.Offset < l.from
}

// take gives the member c, the command of a turn; false: it has no room, and will say when it has.
func (m *shareMember) take(t *turn, c *Command, now time.Time) bool {
	o := m.outbox
	o.mu.Lock()
	d := delivery{cmd: c, qos: min(m.sub.qos, c.QoS), retain: c.Retain && m.sub.retainAsPublished}
	switch {
	case m.gone:
		o.mu.Unlock()
		return false
	case !o.hasRoom(d.qos):
		m.idle = true
		o.unready++
		o.mu.Unlock()
		return false
	}
	if m.sub.id != 0 {
		d.ids = []int{m.sub.id}
	}
	t.qos = d.qos
	o.srv.forceHold(&d)
	o.push(d)
	o.unlock(o.pump(now))
	return true
}

// hasRoom says whether a command of a share could be sent at once. If not because of the network, pump is called when
// it has taken more. mu is held.
func (o *outbox) hasRoom(qos byte) bool {
	c := o.conn
	if c == nil || o.ended || len(o.acks) > 0 || len(o.queue) > 0 || qos > 0 && o.flying() >= o.window {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.takes(0)
}

// roomy gives the memberships that had no room and have it now. mu is held.
func (o *outbox) roomy() (found []*shareMember) {
	if o.unready == 0 {
		return nil
	}
	for _, m := range o.memberships {
		if m.idle && o.hasRoom(m.sub.qos) {
			m.idle = false
			o.unready--
			found = append(found, m)
		}
	}
	return found
}
