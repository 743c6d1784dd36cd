package driver

import "sluice/fleet"

// What is known of the sessions, for who asks from outside.

// Owns says whether this instance looks after the partition of a client ID.
func (d *Driver) Owns(clientID string) Owning {
	p := d.part(clientID)
	p.lock()
	defer p.unlock()
	return p.owns()
}

// Turned says what became of an Owning that was Undecided.
func (d *Driver) Turned(clientID string) Owning {
	p := d.part(clientID)
	p.lock()
	defer p.unlock()
	return p.turned()
}

// An Owning says whether this instance looks after a partition.
type Owning uint8

// The owners.
const (
	Other Owning = iota
	Mine
	Undecided // this process has just begun: the group has not divided the partitions yet, or its work has not begun
)

// owns is told at Driver.Owns. mu is held.
func (p *part) owns() Owning {
	switch {
	case p.owner.Owns():
		return Mine
	case !p.d.joined.Load() || p.initial:
		return Undecided
	}
	return Other
}

// turned is told at Driver.Turned: of what was read before this process joined, nobody else tells if a partition was given to
// it then. One that it gets later was another instance's. mu is held.
func (p *part) turned() Owning {
	if p.initial {
		return p.owns()
	}
	return Other
}

// OwnsFirst says that it looks after the first partition: what one instance of all is to do, it does.
func (d *Driver) OwnsFirst() bool { return d.parts[0].mine() }

func (p *part) mine() bool {
	p.lock()
	defer p.unlock()
	return p.owner.Owns()
}

// Admits says whether a principal may have a client ID that is connected here.
func (d *Driver) Admits(clientID, principal string) bool {
	p := d.part(clientID)
	p.lock()
	defer p.unlock()
	h := p.clients[clientID]
	if h == nil {
		return true
	}
	_, refused := h.m.Refuses(fleet.ConnectRequest{Principal: principal, Now: millis()}, p.view(clientID))
	return !refused
}

// Knows says that anything is stored of a client ID, or that something is to be done for it here.
func (d *Driver) Knows(clientID string) bool {
	p := d.part(clientID)
	p.lock()
	defer p.unlock()
	_, stored := p.table.Client(clientID)
	return stored || p.clients[clientID] != nil
}

// Lasts says that a client has a session that outlives its connection.
func (d *Driver) Lasts(clientID string) bool {
	p := d.part(clientID)
	p.lock()
	defer p.unlock()
	return p.view(clientID).Lasting()
}

// elsewhere says that an incarnation is another one than this and lives. mu is held.
func (p *part) elsewhere(inc string) bool {
	_, dead := p.table.Dead(inc)
	me := p.d.me.Load()
	return !dead && (me == nil || inc != me.name)
}

// Lasting is how many sessions outlive their connection, of all instances, as far as was read.
func (d *Driver) Lasting() int64 { return d.lasting.Load() }

// Held is how many bytes the records of all sessions have.
func (d *Driver) Held() int64 { return d.held.Load() }

// Stored says how many records of sessions are held, and how many bytes their values have.
func (d *Driver) Stored() (records, bytes int) {
	for _, p := range d.parts {
		p.lock()
		n, b := p.table.Stored()
		p.unlock()
		records, bytes = records+n, bytes+b
	}
	return records, bytes
}

// Given counts the partitions that are this process's to look after, Owned those of which it does.
func (d *Driver) Given() (n int) {
	for _, p := range d.parts {
		p.lock()
		if p.assigned {
			n++
		}
		p.unlock()
	}
	return n
}

// Owned is told at Given.
func (d *Driver) Owned() (n int) {
	for _, p := range d.parts {
		if p.mine() {
			n++
		}
	}
	return n
}
