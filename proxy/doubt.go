package proxy

import (
	"context"

	"sluice/fleet"
)

// doubts are commands for one client ID each whose device seems to be nowhere. What was read of the sessions may lag
// behind what a device was told, so the partition is read to its end before anybody is told that the device is absent:
// one read for all that have come meanwhile. Guarded by part.mu.
type doubts struct {
	waiting []*command
	reading bool
}

// doubtsKept bounds how many wait. What is more is told by what is known.
const doubtsKept = 1000

// absent ends a command for one client ID that has no session here. Of the instances, the owner of the client's
// partition tells, unless the session is elsewhere or waits.
func (s *sessions) absent(cmd *command) {
	p := s.part(cmd.To)
	p.lock()
	defer p.unlock()
	if !p.owner.Owns() || p.verdict(cmd) == nil {
		return
	}
	if len(p.doubts.waiting) >= doubtsKept {
		p.later(func() { p.tell([]*command{cmd}) })
		return
	}
	p.doubts.waiting = append(p.doubts.waiting, cmd)
	p.resolve()
}

// told says that a command for a client ID which has a session here has its outcome by the instance that had the session
// before: it had read more than this one.
func (s *sessions) told(cmd *command) bool {
	p := s.part(cmd.To)
	p.lock()
	defer p.unlock()
	h := p.clients[cmd.To]
	return h != nil && cmd.Place.Offset < h.ahead[cmd.Place.Stream]
}

// resolve reads the partition to its end and then tells, if nobody does. mu is held.
func (p *part) resolve() {
	if p.doubts.reading || len(p.doubts.waiting) == 0 {
		return
	}
	p.doubts.reading = true
	p.s.errand(p.readDoubts)
}

func (p *part) readDoubts(ctx context.Context) error {
	p.lock()
	n := len(p.doubts.waiting)
	p.unlock()
	if err := p.s.readEnd(ctx, p); err != nil {
		return err
	}
	p.lock()
	cmds := p.doubts.waiting[:n:n]
	p.unlock()
	p.tell(cmds)
	p.lock()
	defer p.unlock()
	p.doubts.waiting, p.doubts.reading = append([]*command(nil), p.doubts.waiting[n:]...), false
	p.resolve()
	return nil
}

// tell ends the commands whose device is absent indeed.
func (p *part) tell(cmds []*command) {
	for _, cmd := range cmds {
		p.lock()
		end := p.verdict(cmd)
		p.unlock()
		if end != nil {
			end(cmd)
		}
	}
}

// verdict says how to end a command that no session here takes; nil: by nobody, or by somebody else. mu is held.
func (p *part) verdict(cmd *command) func(cmd *command) {
	// A session whose time is over when the command is written is none, and one whose time is not over then tells of it
	// itself, whenever the command is read.
	switch state, connected := p.session(cmd.To, min(millis(), cmd.written.UnixMilli())); {
	case connected:
		return nil
	case state == nil, cmd.Connected:
		return (*command).notConnected
	case !(&forfeit{client: cmd.To, state: state}).subscribed(cmd):
		return (*command).notSubscribed
	}
	return nil
}

// session gives the session that a client ID without a connection here has anywhere at a time, and whether it is, as far
// as is known, connected. mu is held.
func (p *part) session(clientID string, at int64) (state *fleet.Session, connected bool) {
	v := p.view(clientID)
	inc, state, ok := v.Base(at)
	if !ok {
		inc, _ = v.Holder(at)
		s := v.Session(inc)
		return nil, s != nil && !s.Released && !s.Withdrawn && p.elsewhere(inc)
	}
	connected = !state.Released && state.OfflineSince == 0 && p.elsewhere(inc)
	if !connected && state.Expiry == 0 {
		return nil, false
	}
	return state, connected
}

// elsewhere says that an incarnation is another one than this and lives. mu is held.
func (p *part) elsewhere(inc string) bool {
	_, dead := p.table.Dead(inc)
	me := p.s.me.Load()
	return !dead && (me == nil || inc != me.name)
}
