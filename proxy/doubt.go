package proxy

import (
	"context"
	"sync"
	"time"

	"sluice/fleet"
	"sluice/fleet/driver"
)

// doubts are commands for one client ID each whose device seems to be nowhere, of one partition of the sessions topic. What
// was read of the sessions may lag behind what a device was told, so the partition is read to its end before anybody is
// told that the device is absent: one read for all that have come meanwhile.
type doubts struct {
	s *sessions

	mu      sync.Mutex
	waiting []doubt
	reading bool
}

// A doubt is one of them, or a command that no device gets, as long as it is undecided who tells of those.
type doubt struct {
	of   string // the client ID, or what stands for it
	tell func()
}

// undecidedPause is between looks whether it is decided who looks after a partition.
const undecidedPause = 10 * time.Millisecond

// doubtsKept bounds how many wait. What is more is told by what is known.
const doubtsKept = 1000

// absent ends a command for one client ID that has no session here. Of the instances, the owner of the client's
// partition tells, unless the session is elsewhere or waits. A session that has just left, or is about to be open, is
// here still. It says whether the command is left to a session.
func (s *sessions) absent(cmd *command) bool {
	q := &driver.Quest{
		ClientID: cmd.To, Written: cmd.written.UnixMilli(), Stream: cmd.Place.Stream, Offset: cmd.Place.Offset, Connected: cmd.Connected,
		Subscribed: func(state *fleet.Session) bool {
			return (&forfeit{client: cmd.To, state: state}).awaited(s.streams.get(cmd.Place.Stream), cmd)
		},
		Told: func(state *fleet.Session, ends driver.Ends) bool {
			e, st := forfeit{client: cmd.To, state: state, ends: ends}, s.streams.get(cmd.Place.Stream)
			from, end := e.span(st)
			return from <= cmd.offset && cmd.offset < end && e.has(st, cmd)
		},
	}
	found := s.driver.Seek(q)
	if found != driver.Doubtful {
		cmd.missed(found)
		return found == driver.Elsewhere
	}
	tell := func() { cmd.missed(s.driver.Resolve(q)) }
	if !s.doubts[s.driver.PartitionOf(cmd.To)].add(doubt{cmd.To, tell}) {
		tell()
	}
	return false
}

// add has a doubt wait; false: there are too many.
func (d *doubts) add(w doubt) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.waiting) >= doubtsKept {
		return false
	}
	d.waiting = append(d.waiting, w)
	d.resolve()
	return true
}

// missed ends the command if it is for this instance to do that.
func (c *command) missed(found driver.Finding) {
	switch found {
	case driver.NotConnected:
		c.notConnected()
	case driver.NotSubscribed:
		c.notSubscribed()
	case driver.Elsewhere, driver.Doubtful:
	}
}

// arrived says that the device of a command has a connection here.
func (s *sessions) arrived(cmd *command) bool { return s.driver.Arrived(cmd.To) }

// told says that a command for a client ID which has a session here has its outcome by the instance that had the session
// before: it had read more than this one.
func (s *sessions) told(cmd *command) bool {
	return cmd.Place.Offset < s.driver.Ahead(cmd.To)[cmd.Place.Stream]
}

// early ends a command for a client ID which came before the session that is here, and says whether it did.
func (s *sessions) early(cmd *command) bool {
	early, tells := s.driver.Precedes(&driver.Quest{
		ClientID: cmd.To, Written: cmd.written.UnixMilli(), Stream: cmd.Place.Stream, Offset: cmd.Place.Offset,
	})
	if tells {
		cmd.notConnected()
	}
	return early
}

// skipped says that no holder has offered a command to the session that is here, and whether this instance tells of it.
func (s *sessions) skipped(cmd *command) (skipped, tells bool) {
	return s.driver.Skipped(cmd.To, cmd.Place.Stream, cmd.Place.Offset)
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
	all := d.waiting[:len(d.waiting):len(d.waiting)]
	d.mu.Unlock()
	for d.s.driver.Owns(all[0].of) == driver.Undecided {
		if pause(ctx, undecidedPause); ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if err := d.s.driver.ReadEnd(ctx, all[0].of); err != nil {
		return err
	}
	for _, w := range all {
		w.tell()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waiting, d.reading = append([]doubt(nil), d.waiting[len(all):]...), false
	d.resolve()
	return nil
}
