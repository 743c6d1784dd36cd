package proxy

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"sluice/fleet"
	"sluice/fleet/driver"
	"sluice/mqtt"
)

// A forfeit is a session that has ended with commands that may have waited for it.
type forfeit struct {
	client string
	state  *fleet.Session
	ends   driver.Ends // where it ended: what comes after is for the client's next session, or for nobody
	absent bool        // it has ended before, at another instance, and what is behind that was for an absent device
}

// forfeits are worked off one after the other.
type forfeits struct {
	c       *commander
	streams *streams
	chunks  *chunks
	queue   chan forfeit
	open    atomic.Int64 // that are not worked off
}

// forfeitsQueued bounds how many wait. What is more has no receipts.
const forfeitsQueued = 10_000

func (f *forfeits) add(e forfeit) {
	f.open.Add(1)
	select {
	case f.queue <- e:
	default:
		f.open.Add(-1)
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
			f.open.Add(-1)
		}
	}
}

// await waits until all are worked off. False: ctx has ended.
func (f *forfeits) await(ctx context.Context) bool {
	for f != nil && f.open.Load() > 0 {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(5 * time.Millisecond):
		}
	}
	return true
}

// stream goes over one stream, from where the session was to where the devices here are.
func (f *forfeits) stream(ctx context.Context, e *forfeit, st *stream) {
	at, end := e.span(st)
	for at < end && ctx.Err() == nil {
		c, err := f.chunks.read(ctx, st, at, replayChunk)
		if err != nil || c.next <= at {
			pause(ctx, replayRetry)
			continue
		}
		if !f.settle(ctx, e, st, &c, at, end) {
			return
		}
		at = c.next
	}
}

// span gives the offsets of a stream from which on and up to which there is something to tell of.
func (e *forfeit) span(st *stream) (from, end int64) {
	end, known := e.ends[st.id]
	if !known {
		return 0, 0 // it began later
	}
	p := &e.state.Progress
	if e.absent {
		p = e.state.Ends
	}
	if _, known = p.Pos[st.topic]; !known {
		return 0, 0
	}
	if !st.means(p) {
		return 0, end
	}
	return p.Resume(st.topic, st.partition, end), end
}

// settle ends the commands of a chunk from an offset to another that were for the session. False: ctx has ended.
func (f *forfeits) settle(ctx context.Context, e *forfeit, st *stream, c *chunk, from, end int64) bool {
	for i := range c.records {
		rec := &c.records[i]
		if _, cancels := cancellation(rec); cancels || rec.Offset < from || rec.Offset >= end {
			continue
		}
		cmd, err := f.c.translate(rec)
		if err != nil || cmd.settings.Receipts == "" || !e.has(st, cmd) {
			continue
		}
		if !f.c.awaitRoom(cmd, ctx.Done()) {
			return false
		}
		switch sent, received := e.sent(st, rec.Offset); {
		case e.absent:
			cmd.notConnected()
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
	return true
}

// reasonSessionEnded is the reason of commands that waited for a session until that ended.
const reasonSessionEnded = "session_ended"

// reasonNotAcknowledged is the reason of those that were sent before.
const reasonNotAcknowledged = "not_acknowledged"

// has says whether it is for the session, or for what comes after it, to tell of a command.
func (e *forfeit) has(st *stream, cmd *command) bool {
	if e.absent {
		return cmd.To == e.client
	}
	sent, _ := e.sent(st, cmd.offset)
	return !cmd.Connected && !e.settled(st, cmd.offset) && (sent || e.awaited(st, cmd)) && !e.over(cmd)
}

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
