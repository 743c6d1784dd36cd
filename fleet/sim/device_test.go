package sim

import "sluice/fleet"

// A device connects with the one client ID, changes its session, leaves.
type device struct {
	name, principal string
	connects        int
	cur             *conn
	pub             publisher
}

func (d *device) enabled(w *world, all []step) []step {
	patient := d.cur != nil && !d.cur.live && !d.cur.over_ && !w.chance(10) // most wait for their CONNACK
	if d.connects > 0 && !patient && w.chance(3) {
		up := w.alive()
		n := up[w.rng.IntN(len(up))]
		all = append(all, step{d.name + " connects to " + n.name, func() { d.connect(w, n) }})
	}
	if d.cur == nil {
		return all
	}
	c := d.cur
	if c.live && !c.over_ {
		all = append(all, step{d.name + " changes", func() {
			if c.ver < 8 {
				c.n.do("change", nil, c.change)
			}
		}})
	}
	if c.live && !c.over_ && d == &w.dev && !d.pub.sent {
		all = append(all, step{d.name + " publishes", d.publish})
	}
	if !patient && w.chance(6) {
		all = append(all, step{d.name + " breaks", func() { d.leave(w, false) }})
		if c.live {
			all = append(all, step{d.name + " disconnects", func() { d.leave(w, true) }})
		}
	}
	return all
}

func (d *device) connect(w *world, n *node) {
	d.connects--
	if d.cur != nil {
		d.leave(w, false)
	}
	c := &conn{n: n, dev: d, waiting: make(map[int64]uint32)}
	c.req = fleet.ConnectRequest{
		Clean: w.chance(3), Principal: d.principal,
		Expiry: []uint32{fleet.NeverExpires, fleet.NeverExpires, 0, 2}[w.rng.IntN(4)],
	}
	if w.chance(2) {
		c.delay = uint32(w.rng.IntN(2)) * uint32(w.rng.IntN(3))
		c.req.Will = &fleet.Will{Topic: "will", Delay: c.delay}
	}
	w.trace("%s: connects to %s, clean %t, expiry %d, will %t, delay %d", d.name, n.name, c.req.Clean, c.req.Expiry, c.req.Will != nil, c.delay)
	d.cur = c
	if c.req.Clean {
		w.ghost.cleanStart()
	}
	w.ghost.tried = w.ghost.tried || d == &w.eve
	n.accept(c)
}

// leave ends the device's side. An instance opens nothing for a device that has left; of a connection that lives it
// may learn late.
func (d *device) leave(w *world, disconnect bool) {
	c := d.cur
	d.cur = nil
	w.ghost.left(w, c)
	switch {
	case !c.n.up:
	case !c.live:
		c.n.fin(c)
	default:
		c.n.do("socket of "+d.name, nil, func() { c.close(disconnect) })
	}
}

// lostNode says that the instance is gone with its sockets.
func (d *device) lostNode(w *world, n *node) {
	if d.cur != nil && d.cur.n == n {
		w.ghost.left(w, d.cur)
		d.cur = nil
	}
}
