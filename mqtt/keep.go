package mqtt

import "time"

// A Session is the session of a connection that is kept in a Store. Its methods may be called from any goroutine that
// holds no lock which a Keeper takes; after Keeper.Left they do nothing.
type Session struct {
	conn    *Conn
	session *session
}

// ClientID gives the client ID, chosen or assigned.
func (s *Session) ClientID() string { return s.session.clientID }

// Disconnect ends the connection: DISCONNECT with the code on MQTT 5, then close. Keeper.Left follows.
func (s *Session) Disconnect(code Code, detail string) {
	s.conn.shutdown(&ProtocolFault{code, detail})
}

// TakeOver ends the connection because another one has the client ID now.
func (s *Session) TakeOver() { s.Disconnect(SessionTakenOver, "the client ID connected elsewhere") }

// Snapshot gives the session's state to be stored. streams are those to tell the Next of, next says up to which offset
// the commands of one went by; it is called with a lock held and must not block.
func (s *Session) Snapshot(streams []int32, next func(stream int32) (int64, bool)) Snapshot {
	o := s.session.outbox.Load()
	if o == nil {
		return Snapshot{}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.snapshot(streams, next)
}

// Saved says that a snapshot of this version is stored.
func (s *Session) Saved(version uint64) {
	if o := s.session.outbox.Load(); o != nil {
		o.stored(version)
	}
}

// Behind gives the streams of which commands wait in the store, with the offset from which on, or none while there
// is no room for more of them. Keeper.Lagging tells when there is.
func (s *Session) Behind() (behind []Place) {
	o := s.session.outbox.Load()
	if o == nil {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.conn == nil || o.lagging {
		return nil
	}
	for stream, from := range o.behind {
		behind = append(behind, Place{stream, from})
	}
	return behind
}

// A Replayed is what Replay did with a command.
type Replayed int

// The answers of Replay.
const (
	ReplayNotForIt Replayed = iota // no subscription, or it had it
	ReplayTaken                    // one call of the command's owner will settle it
	ReplayFull                     // there is no room: go on from this command when Keeper.Lagging was called
)

// Replay gives the session a command from the store, of a stream that it is behind on. Those of one stream come in
// order, and Flush must follow.
func (s *Session) Replay(c *Command) Replayed {
	o := s.session.outbox.Load()
	if o == nil || c.To != "" && c.To != s.session.clientID {
		return ReplayNotForIt
	}
	found := gather(o.match(c.Topic), c)
	o.mu.Lock()
	if o.ended || !o.awaits(c.Place) {
		o.mu.Unlock()
		return ReplayNotForIt
	}
	if len(found) == 0 || o.has(c.Place) || c.Connected {
		o.behind[c.Place.Stream] = c.Place.Offset + 1
		o.mu.Unlock()
		return ReplayNotForIt
	}
	d := found[0].delivery
	if o.full(&d) != "" {
		o.lagging = true
		o.mu.Unlock()
		return ReplayFull
	}
	o.behind[c.Place.Stream] = c.Place.Offset + 1
	o.push(d)
	o.unlock(o.pump(time.Now()))
	return ReplayTaken
}

// Passed says that the stream holds nothing for the session below next.
func (s *Session) Passed(stream int32, next int64) {
	if o := s.session.outbox.Load(); o != nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.awaits(Place{stream, next}) {
			o.behind[stream] = next
		}
	}
}

// GoLive ends the replay of a stream if the session has got everything below next, the offset of the next command that
// Send will be called with. No such call may be under way. False: go on with the replay.
func (s *Session) GoLive(stream int32, next int64) bool {
	o := s.session.outbox.Load()
	if o == nil {
		return true
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	at, behind := o.behind[stream]
	if !behind || o.ended {
		return true
	}
	if at < next {
		return false
	}
	delete(o.behind, stream)
	o.saw(stream, at) // Send may come to what the replay has passed already
	return true
}

// Received calls done with the QoS 2 packet ids that were received and not released, once it is known of each whether
// its message is stored; done may be called before Received returns.
func (s *Session) Received(done func(ids []uint16)) {
	ss := s.session
	ss.mu.Lock()
	if ss.pending > 0 {
		ss.quiet = done
		ss.mu.Unlock()
		return
	}
	ids := ss.receivedIDs()
	ss.mu.Unlock()
	done(ids)
}

// awaits says whether p is still to be replayed. mu is held.
func (o *outbox) awaits(p Place) bool {
	from, behind := o.behind[p.Stream]
	return behind && p.Offset >= from
}

// has says whether a replayed command is settled or in flight already. mu is held.
func (o *outbox) has(p Place) bool {
	for _, d := range o.done {
		if d == p {
			return true
		}
	}
	for i := range o.flight {
		if o.flight[i].cmd.Place == p {
			return true
		}
	}
	return false
}
