package mqtt

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"sync"
	"time"
)

// A Share is one ShareName with one topic filter, and its connected members at this server.
type Share struct {
	// Group is the ShareName, Filter the topic filter.
	Group, Filter string

	shares *Shares
	srv    *Server
	key    string // the filter as it was subscribed to

	// Begins says where the first member was in the streams, if it has come back with its session: before what comes next,
	// in those that are named. A share that nobody has begun with begins there. It is set when the share is fed.
	Begins []Place

	// Guarded by Shares.mu.
	members int
	first   []Place // Begins, of the member that was the first
	fed     bool
	cancel  context.CancelFunc // of the feed; nil: there was none yet

	mu      sync.Mutex      // guards all below; taken after outbox.mu, and nothing is called out under it
	taking  bool            // the feed is under way, and there are members
	ready   []*shareMember  // have room, for all that is known; the first is next
	waiting []*turn         // in the order they came
	given   map[Place]*turn // at a member, which has not answered
	unended int             // commands that came and have not ended
	last    uint64          // number of the last that came
	pumping bool            // a goroutine gives out
}

func newShare(x *Shares, srv *Server, key string) *Share {
	s := &Share{shares: x, srv: srv, key: key, given: map[Place]*turn{}}
	s.Group, s.Filter, _ = splitShare(key)
	return s
}

// Matches says whether a command with this topic is for the share.
func (s *Share) Matches(topic []byte) bool {
	return len(topic) > 0 && filterMatches(s.Filter, string(topic))
}

// Idle says that no command is under way.
func (s *Share) Idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unended == 0
}

// HasRoom says whether the memory for commands allows one more. A share with none under way may always take one.
func (s *Share) HasRoom() bool { return s.srv.held.Load() < s.srv.cfg.CommandMemory || s.Idle() }

// Send gives c to one member with room for it, in turn; it waits until there is one. c belongs to the share from here
// on: its Owner is told once, as for one device, and Connected is set. If the member leaves before it has answered,
// another one gets c, unless c was sent with QoS 2: then the session completes it if it returns, and nobody else gets
// it [MQTT-4.8.2-4] [MQTT-4.8.2-5]. Kept with the client ID of a device means that its session has c and does so.
// Kept without one means that no member took it before ctx or the feed ended, so that it is for somebody else.
//
// A command that comes again, with a ctx after that of the first has ended, while a member has the first, is not sent again: the
// answer to that is the answer to this. The Owner of the first is told Kept. Both are known by Place, Topic and Payload, as long
// as the share has members.
//
// Send is called by the Feed of the share. It does not block, and Flush must follow.
func (s *Share) Send(ctx context.Context, c *Command) {
	if s.goOn(ctx, c) {
		return
	}
	t := &turn{share: s, ctx: ctx, cmd: c, owner: c.Owner, held: delivery{cmd: c}}
	c.Owner, c.Connected = t, true
	s.srv.forceHold(&t.held)
	s.mu.Lock()
	s.unended++
	s.last++
	t.number = s.last
	s.mu.Unlock()
	s.back(t)
}

// goOn has the turn of a member that has the command already be the turn of c; false: no member has it.
func (s *Share) goOn(ctx context.Context, c *Command) bool {
	s.mu.Lock()
	t := s.given[c.Place]
	if t == nil || t.ctx.Err() == nil || !bytes.Equal(t.cmd.Payload, c.Payload) || !bytes.Equal(t.cmd.Topic, c.Topic) {
		s.mu.Unlock()
		return false // the log was cut, or its topic made anew
	}
	before, owner := t.cmd, t.owner
	t.ctx, t.cmd, t.owner = ctx, c, c.Owner
	c.Owner, c.Connected = t, true
	before.again.Store(c)
	s.mu.Unlock()
	owner.CommandSettled(before, "", Kept, Success, "")
	return true
}

// back has t wait for a member, before all that came after it.
func (s *Share) back(t *turn) {
	s.mu.Lock()
	s.gotBack(t)
	taking := s.taking
	if taking {
		s.await(t)
	}
	s.mu.Unlock()
	if !taking {
		t.giveBack()
		return
	}
	s.pump()
}

// await enters t where its turn is. mu is held.
func (s *Share) await(t *turn) {
	i, _ := slices.BinarySearchFunc(s.waiting, t, func(a, b *turn) int { return cmp.Compare(a.number, b.number) })
	s.waiting = slices.Insert(s.waiting, i, t)
}

// pump gives what waits to members with room. One goroutine does so at a time: it sees what others bring meanwhile.
func (s *Share) pump() {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pumping {
		return
	}
	s.pumping = true
	for s.taking && len(s.waiting) > 0 && len(s.ready) > 0 {
		t := s.waiting[0]
		s.waiting[0] = nil
		s.waiting = s.waiting[1:]
		if t.isOver(now) {
			s.unlocked(t.finish)
			continue
		}
		m := s.ready[0]
		s.ready = s.ready[1:]
		took, cmd := false, t.cmd
		if cmd.Place.Stream > 0 {
			s.given[cmd.Place] = t // not later: it may be answered before take returns
		}
		s.unlocked(func() { took = m.take(t, cmd, now) })
		if !took {
			s.gotBack(t)
		}
		switch {
		case !took && !s.taking:
			s.unlocked(t.giveBack)
		case !took:
			s.await(t)
		case !m.out:
			s.ready = append(s.ready, m)
		}
	}
	if len(s.waiting) == 0 {
		s.waiting = nil
	}
	s.pumping = false
}

// unlocked calls f without mu, which is held.
func (s *Share) unlocked(f func()) {
	s.mu.Unlock()
	defer s.mu.Lock()
	f()
}

// welcome notes that m has room.
func (s *Share) welcome(m *shareMember) {
	s.mu.Lock()
	if m.out {
		s.mu.Unlock()
		return
	}
	s.ready = append(s.ready, m)
	more := len(s.waiting) > 0
	s.mu.Unlock()
	if more {
		s.pump()
		s.srv.Flush()
	}
}

// remove takes out a member that leaves.
func (s *Share) remove(m *shareMember) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m.out = true
	s.ready = slices.DeleteFunc(s.ready, func(r *shareMember) bool { return r == m })
}

// open lets commands in.
func (s *Share) open() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taking = true
}

// close gives out nothing more: who becomes a member while the feed ends would be given what comes again with the next one.
func (s *Share) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taking = false
}

// shut gives back what waits. What members still have comes back too if they leave it.
func (s *Share) shut() {
	s.mu.Lock()
	s.taking = false
	waiting := s.waiting
	s.waiting = nil
	s.mu.Unlock()
	for _, t := range waiting {
		t.giveBack()
	}
}

// sweep ends what waits and is over.
func (s *Share) sweep(now time.Time) {
	var over []*turn
	s.mu.Lock()
	s.waiting = slices.DeleteFunc(s.waiting, func(t *turn) bool {
		is := t.isOver(now)
		if is {
			over = append(over, t)
		}
		return is
	})
	s.mu.Unlock()
	for _, t := range over {
		t.finish()
	}
}

// ended lets go of a turn, and gives whose it was.
func (s *Share) ended(t *turn) (owner CommandOwner, c *Command) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unended--
	s.gotBack(t)
	return t.owner, t.cmd
}

// gotBack notes that no member has a turn any more. mu is held.
func (s *Share) gotBack(t *turn) {
	if s.given[t.cmd.Place] == t {
		delete(s.given, t.cmd.Place)
	}
}

// ownerOf gives whose a turn is now.
func (s *Share) ownerOf(t *turn) (owner CommandOwner, c *Command) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return t.owner, t.cmd
}
