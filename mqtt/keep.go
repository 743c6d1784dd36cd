package mqtt

import (
	"slices"
	"time"
)

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

// lock gives the session's outbox with its mutex held, nil if it has none.
func (s *Session) lock() *outbox {
	o := s.session.outbox.Load()
	if o != nil {
		o.mu.Lock()
	}
	return o
}

// Snapshot gives the session's state to be stored. streams are those to tell the Next of, next says up to which offset
// the commands of one went by; it is called with a lock held and must not block.
func (s *Session) Snapshot(streams []int32, next func(stream int32) (int64, bool)) Snapshot {
	o := s.lock()
	if o == nil {
		return Snapshot{}
	}
	defer o.mu.Unlock()
	return o.snapshot(streams, next)
}

// Saved says that a snapshot of this version is stored.
func (s *Session) Saved(version uint64) {
	if o := s.session.outbox.Load(); o != nil {
		o.stored(version)
	}
}

// HasProgressed says whether there is something to write down since the last snapshot: commands were settled, or many retained
// messages, or it has come past State.Given. A SUBSCRIBE that few are handed out for is not worth a record more: after a crash
// they come again.
func (s *Session) HasProgressed() bool {
	o := s.lock()
	if o == nil {
		return false
	}
	defer o.mu.Unlock()
	return o.hasPassed() || o.settled > 0 || o.handed >= progressEvery
}

// Behind gives the streams of which commands wait in the store, with the offset from which on.
func (s *Session) Behind() (behind []Place) {
	o := s.lock()
	if o == nil {
		return nil
	}
	defer o.mu.Unlock()
	for stream, l := range o.behind {
		behind = append(behind, Place{stream, l.from})
	}
	return behind
}

// At gives the offset from which on the commands of a stream wait in the store; ok is false if none do.
func (s *Session) At(stream int32) (from int64, ok bool) {
	o := s.lock()
	if o == nil {
		return 0, false
	}
	defer o.mu.Unlock()
	l, ok := o.behind[stream]
	return l.from, ok && o.conn != nil
}

// Found gives a delivery that was Unread when the session was resumed: it is sent on this connection as soon as there is room
// [MQTT-4.4.0-1], or completed if there is no Command any more. It has no effect if the device has completed it.
func (s *Session) Found(u Unfinished) {
	if o := s.session.outbox.Load(); o != nil {
		o.found(u)
	}
}

// Join gives the offset from which on the session is to get the commands of a stream by Server.Replay: every one that
// there is, in order, until it leaves because it has no room for one. ok is false if there is nothing to replay.
func (s *Session) Join(stream int32) (from int64, ok bool) {
	o := s.lock()
	if o == nil {
		return 0, false
	}
	defer o.mu.Unlock()
	l, ok := o.behind[stream]
	if ok = ok && o.conn != nil; ok {
		o.behind[stream] = lag{l.from, true}
	}
	return l.from, ok
}

// Passed says that everything of the stream below next was replayed. False: the session has left the replay; it is to
// join again when Keeper.Lagging was called.
func (s *Session) Passed(stream int32, next int64) bool {
	o := s.lock()
	if o == nil {
		return false
	}
	defer o.mu.Unlock()
	l := o.behind[stream]
	if !l.joined || o.ended {
		return false
	}
	o.behind[stream] = lag{max(l.from, next), true}
	return true
}

// GoLive ends the replay of a stream if the session has got everything below next, the offset of the next command that
// Send will be called with, and all of which something may be in flight or settled, unless over: the stream ends at next. No
// such call may be under way. False: go on with the replay.
func (s *Session) GoLive(stream int32, next int64, over bool) bool {
	o := s.lock()
	if o == nil {
		return true
	}
	defer o.mu.Unlock()
	l, behind := o.behind[stream]
	if !behind || o.ended {
		return true
	}
	if l.from < next || !over && l.from < o.past[stream] {
		return false // Send does not ask what is in flight or settled
	}
	delete(o.behind, stream)
	o.saw(stream, l.from) // Send may come to what the replay has passed already
	return true
}

// Attached gives what the Handler keeps of the connection (Message.Attached); only Keeper.Left may ask.
func (s *Session) Attached() any { return s.conn.attached }

// Received returns the QoS 2 packet ids that were received and not released: those whose messages are stored, and those
// of messages that this server has on their way. changed is called whenever the outcome of one of these is known, from
// any goroutine and with no lock of this package held.
func (s *Session) Received(changed func(id uint16, stored bool)) (stored, pending []uint16) {
	s.session.mu.Lock()
	defer s.session.mu.Unlock()
	s.session.changed = changed
	return s.session.receivedIDs()
}

// Settle says what is known now of messages with QoS 2 that other servers took in for the session. Those in stored are
// stored. pending is the list of those of which it is not known yet: a PUBLISH that comes again waits for its PUBREC, and
// a PUBREL waits unread. If unsure, there may be others, and all PUBREL, and PUBLISH packets with QoS 2, wait unread. What
// was pending and is in neither list is not stored, or nobody knows: who has sent it again loses its connection, and sends
// it once more. The call that it returns passes that on; it is to be made when no lock is held.
func (s *Session) Settle(stored, pending []uint16, unsure bool) (pass func()) {
	settle := s.session.settleElsewhere(s.conn.srv, stored, pending, unsure)
	return func() {
		settle()
		s.conn.srv.Flush()
	}
}

// Replay gives a command from the store to the sessions that joined its stream and have a matching subscription. ahead: Send is
// still to be called with it, and no such call is under way. unwanted: it is for one that has not subscribed to it, and Send will
// say that somebody was told of it. Flush must follow. It does not block.
func (s *Server) Replay(c *Command, ahead bool) (devices int, unwanted bool) {
	var found []addressed
	if c.To == "" {
		found = gather(s.index.match(c.Topic, nil), c)
	} else if ss, _ := s.sessions.find(c.To); ss != nil {
		if o := ss.outbox.Load(); o != nil {
			found, unwanted = o.remeet(c, ahead)
		}
	}
	now := time.Now()
	for _, d := range found {
		if d.session.replay(d.delivery, now) {
			devices++
		}
	}
	return devices, unwanted
}

// remeet is meet for a command from the store. If it is for nobody, it is for nobody who subscribes from now on. Who calls Send
// with it tells of it, unless that is still to come: the session may have left by then, past it.
func (o *outbox) remeet(c *Command, ahead bool) (found []addressed, unwanted bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p := c.Place
	found = gather(o.match(c), c)
	if l := o.behind[p.Stream]; len(found) == 0 && l.joined && l.from <= p.Offset && !o.ended {
		o.behind[p.Stream] = lag{p.Offset + 1, true}
		if unwanted = ahead && p.Offset >= o.past[p.Stream]; unwanted {
			o.goPast(Place{p.Stream, p.Offset + 1})
		}
	}
	return found, unwanted
}

// replay is offer for a command from the store.
func (ss *session) replay(d delivery, now time.Time) bool {
	o := ss.outbox.Load()
	if o == nil {
		return false
	}
	p := d.cmd.Place
	o.mu.Lock()
	l := o.behind[p.Stream]
	if !l.joined || p.Offset < l.from || o.ended || o.has(p) {
		o.mu.Unlock()
		return false
	}
	forgone := o.forgoes(&d)
	if o.crowded() || !forgone && o.full(&d) != "" {
		o.fallBehind(p)
		o.mu.Unlock()
		return false
	}
	o.behind[p.Stream] = lag{p.Offset + 1, true}
	o.met(d.cmd)
	if forgone {
		o.unlock(o.forgo(d))
		return true
	}
	o.push(d)
	o.unlock(o.pump(now))
	return true
}

// has says whether a command is settled or in flight already. mu is held.
func (o *outbox) has(p Place) bool {
	return slices.Contains(o.done, p) || slices.ContainsFunc(o.flight, func(f flying) bool { return f.cmd.Place == p && !isTurn(f.cmd) })
}

// setFreeing notes that the Store is about to free id, or has.
func (s *session) setFreeing(id uint16, freeing bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !freeing {
		delete(s.freeing, id)
		return
	}
	if s.freeing == nil {
		s.freeing = make(map[uint16]struct{})
	}
	s.freeing[id] = struct{}{}
}

func (s *session) isFreeing(id uint16) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, freeing := s.freeing[id]
	return freeing
}
