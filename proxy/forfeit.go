package proxy

import (
	"context"
	"slices"

	"sluice/fleet"
	"sluice/fleet/driver"
	"sluice/mqtt"
)

// A forfeit is a session that has ended with commands that may have waited for it.
type forfeit struct {
	client string
	state  *fleet.Session
	ends   driver.Ends // where it ended: what comes after is for the client's next session, or for nobody
}

// forfeits are worked off one after the other.
type forfeits struct {
	c       *commander
	streams *streams
	chunks  *chunks
	queue   chan forfeit
}

// forfeitsQueued bounds how many wait. What is more has no receipts.
const forfeitsQueued = 10_000

func (f *forfeits) add(e forfeit) {
	select {
	case f.queue <- e:
	default:
		f.c.log.Warn().Str("client_id", e.client).Msg("too many sessions end at once; the commands that waited for this one have no receipts")
	}
}

// run tells the receipts until ctx ends.
func (f *forfeits) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-f.queue:
			for _, st := range f.streams.all() {
				f.stream(ctx, &e, st)
			}
		}
	}
}

// stream goes over one stream, from where the session was to where the devices here are.
func (f *forfeits) stream(ctx context.Context, e *forfeit, st *stream) {
	end, known := e.ends[st.id]
	if !known {
		return // it began later
	}
	if _, known = e.state.Pos[st.topic]; !known {
		return
	}
	at := e.state.Resume(st.topic, st.partition, end)
	if !st.means(&e.state.Progress) {
		at = 0
	}
	for at < end && ctx.Err() == nil {
		c, err := f.chunks.read(ctx, st, at, replayChunk)
		if err != nil || c.next <= at {
			pause(ctx, replayRetry)
			continue
		}
		f.settle(e, st, &c, at, end)
		at = c.next
	}
}

// settle ends the commands of a chunk from an offset to another that were for the session.
func (f *forfeits) settle(e *forfeit, st *stream, c *chunk, from, end int64) {
	for i := range c.records {
		rec := &c.records[i]
		if _, cancels := cancellation(rec); cancels || rec.Offset < from || rec.Offset >= end || e.settled(st, rec.Offset) {
			continue
		}
		cmd, err := f.c.translate(rec)
		sent, received := e.sent(st, rec.Offset)
		if err != nil || cmd.Connected || cmd.settings.Receipts == "" || !sent && !e.awaited(st, cmd) || e.over(cmd) {
			continue
		}
		if !f.c.awaitRoom(cmd) {
			return
		}
		switch {
		case received: // the device has it and answers for it
			cmd.settle(e.client, mqtt.Delivered, 0, "")
		case sent:
			cmd.settle(e.client, mqtt.Offline, 0, reasonNotAcknowledged)
		case f.c.withdrawn.has(cmd):
			cmd.settle(e.client, mqtt.Cancelled, 0, "")
		case cmd.over():
			cmd.settle(e.client, mqtt.Expired, 0, "")
		default:
			cmd.settle(e.client, mqtt.Offline, 0, reasonSessionEnded)
		}
	}
}

// reasonSessionEnded is the reason of commands that waited for a session until that ended.
const reasonSessionEnded = "session_ended"

// reasonNotAcknowledged is the reason of those that were sent before.
const reasonNotAcknowledged = "not_acknowledged"

// sent says whether a command was sent to the device, and with QoS 2 whether PUBREC has come.
func (e *forfeit) sent(st *stream, offset int64) (sent, received bool) {
	for _, o := range e.state.Out {
		if st.means(&e.state.Progress) && o.Topic == st.topic && o.Partition == st.partition && o.Offset == offset {
			return true, o.Received
		}
	}
	return false, false
}

// subscribed says whether a subscription of the session matches a command.
func (e *forfeit) subscribed(cmd *command) bool {
	return slices.ContainsFunc(e.state.Subs, func(s fleet.Sub) bool { return e.matches(&s, cmd) })
}

// awaited says whether one does that was made before the command came. The others tell nobody anything of it: it was told
// of when they were not there.
func (e *forfeit) awaited(st *stream, cmd *command) bool {
	return slices.ContainsFunc(e.state.Subs, func(s fleet.Sub) bool { return e.matches(&s, cmd) && !e.precedes(st, cmd, e.state.OriginOf(&s)) })
}

func (e *forfeit) matches(s *fleet.Sub, cmd *command) bool {
	return (cmd.To == "" || cmd.To == e.client) && mqtt.FilterMatches(s.Filter, string(cmd.Topic)) && !(s.NoLocal && cmd.From == e.client)
}

// precedes says that a command came before the subscriptions of an origin.
func (e *forfeit) precedes(st *stream, cmd *command, from *fleet.Origin) bool {
	return from != nil && (st.means(&e.state.Progress) && cmd.offset < from.Pos[st.topic][st.partition] ||
		cmd.From == e.client && cmd.Published != 0 && cmd.Published < from.At)
}

// over says whether a command was written when the session's time was over: the owner of the client's partition tells of
// that by the same two times, also when it reads the command before anybody has noticed the end. One that ended with its
// connection ended where its ends are, whatever the clocks say.
func (e *forfeit) over(cmd *command) bool {
	s := e.state
	return s.OfflineSince > 0 && s.Expiry > 0 && s.Expiry != fleet.NeverExpires && s.OfflineSince+int64(s.Expiry)*1000 <= cmd.written.UnixMilli()
}

// settled says whether the session had got a command.
func (e *forfeit) settled(st *stream, offset int64) bool {
	return st.means(&e.state.Progress) && slices.ContainsFunc(e.state.Settled[st.topic][st.partition], func(r [2]int64) bool { return r[0] <= offset && offset < r[1] })
}
