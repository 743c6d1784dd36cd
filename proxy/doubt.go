package proxy

import (
	"context"
	"sync"
)

// doubts are commands for one client ID each whose device seems to be nowhere, of one partition of the sessions topic. What
// was read of the sessions may lag behind what a device was told, so the partition is read to its end before anybody is
// told that the device is absent: one read for all that have come meanwhile.
type doubts struct {
	s *sessions

	mu      sync.Mutex
	waiting []*command
	reading bool
}

// doubtsKept bounds how many wait. What is more is told by what is known.
const doubtsKept = 1000

// absent ends a command for one client ID that has no session here. Of the instances, the owner of the client's
// partition tells, unless the session is elsewhere or waits.
func (s *sessions) absent(cmd *command) {
	if !s.driver.Owns(cmd.To) || s.verdict(cmd) == nil {
		return
	}
	d := s.doubts[s.driver.PartitionOf(cmd.To)]
	d.mu.Lock()
	full := len(d.waiting) >= doubtsKept
	if !full {
		d.waiting = append(d.waiting, cmd)
		d.resolve()
	}
	d.mu.Unlock()
	if full {
		s.tell([]*command{cmd})
	}
}

// told says that a command for a client ID which has a session here has its outcome by the instance that had the session
// before: it had read more than this one.
func (s *sessions) told(cmd *command) bool {
	return cmd.Place.Offset < s.driver.Ahead(cmd.To)[cmd.Place.Stream]
}

// any says that there are commands in doubt.
func (d *doubts) any() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.waiting) > 0
}

// resolve reads the partition to its end and then tells, if nobody does. mu is held.
func (d *doubts) resolve() {
	if d.reading || len(d.waiting) == 0 {
		return
	}
	d.reading = true
	d.s.driver.Errand(d.read)
}

func (d *doubts) read(ctx context.Context) error {
	d.mu.Lock()
	cmds := d.waiting[:len(d.waiting):len(d.waiting)]
	d.mu.Unlock()
	if err := d.s.driver.ReadEnd(ctx, cmds[0].To); err != nil {
		return err
	}
	d.s.tell(cmds)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waiting, d.reading = append([]*command(nil), d.waiting[len(cmds):]...), false
	d.resolve()
	return nil
}

// tell ends the commands whose device is absent indeed.
func (s *sessions) tell(cmds []*command) {
	for _, cmd := range cmds {
		if end := s.verdict(cmd); end != nil {
			end(cmd)
		}
	}
}

// verdict says how to end a command that no session here takes; nil: by nobody, or by somebody else.
func (s *sessions) verdict(cmd *command) func(cmd *command) {
	// A session whose time is over when the command is written is none, and one whose time is not over then tells of it
	// itself, whenever the command is read.
	switch state, connected := s.driver.Whereabouts(cmd.To, min(millis(), cmd.written.UnixMilli())); {
	case connected:
		return nil
	case state == nil, cmd.Connected:
		return (*command).notConnected
	case !(&forfeit{client: cmd.To, state: state}).subscribed(cmd):
		return (*command).notSubscribed
	}
	return nil
}
