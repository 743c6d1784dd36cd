package proxy

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluice/fleet"
	"sluice/fleet/driver"
	"sluice/kafka"
	"sluice/mqtt"
)

// A forfeit is a session that has ended with commands that may have waited for it.
type forfeit struct {
	client string
	state  *fleet.Session
	ends   driver.Ends // where it ended: what comes after is for the client's next session, or for nobody

	// Of a command that no session was offered, and state is that of the one which it may wait for, nil for none.
	unwanted mqtt.Place

	left atomic.Int32 // streams, and one while it is added
}

// forfeits are worked off by stream, each by one goroutine as long as something waits for it: one whose partition has no
// leader, or whose receipts have no room, has those of others wait for nothing.
type forfeits struct {
	c       *commander
	streams *streams
	chunks  *chunks
	ctx     context.Context // of the goroutines; set by run
	open    atomic.Int64    // that are not worked off

	mu      sync.Mutex // guards what follows
	waiting map[*stream][]*forfeit
	work    sync.WaitGroup
	stopped bool
}

// forfeitsQueued bounds how many wait for a stream. What is more has no receipts of it.
const forfeitsQueued = 10_000

func newForfeits(c *commander, streams *streams, chunks *chunks) *forfeits {
	return &forfeits{c: c, streams: streams, chunks: chunks, waiting: map[*stream][]*forfeit{}}
}

// add has e told of. It does not block.
func (f *forfeits) add(e *forfeit) {
	var of []*stream
	if e.unwanted.Stream != 0 {
		of = append(of, f.streams.get(e.unwanted.Stream))
	} else {
		for _, st := range f.streams.all() {
			if from, end := e.span(st); from < end {
				of = append(of, st)
			}
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stopped {
		return
	}
	f.open.Add(1)
	e.left.Store(int32(len(of)) + 1)
	for _, st := range of {
		waiting, worked := f.waiting[st]
		if len(waiting) >= forfeitsQueued {
			what := "too many sessions end at once; the commands that waited for this one have no receipts"
			if e.unwanted.Stream != 0 {
				what = "too many commands are for no device at once; this one has no receipt"
			}
			f.c.log.Warn().Str("client_id", e.client).Str("kafka_topic", st.topic).Int32("partition", st.partition).Msg(what)
			f.worked(e)
			continue
		}
		if f.waiting[st] = append(waiting, e); !worked {
			f.work.Go(func() { f.tell(st) }) // ends when nothing waits for st, or with ctx
		}
	}
	f.worked(e)
}

// worked counts that e is worked off in one stream more.
func (f *forfeits) worked(e *forfeit) {
	if e.left.Add(-1) == 0 {
		f.open.Add(-1)
	}
}

// run lets the receipts be told until ctx ends, and waits for those that are under way.
func (f *forfeits) run() {
	<-f.ctx.Done()
	f.mu.Lock()
	f.stopped = true
	f.mu.Unlock()
	f.work.Wait()
}

// tell works off what waits for a stream.
func (f *forfeits) tell(st *stream) {
	for gone := false; ; {
		e := f.first(st)
		switch {
		case e == nil:
			return
		case gone: // nothing is left of all the others either
		case e.unwanted.Stream != 0:
			gone = f.one(f.ctx, e, st)
		default:
			gone = f.stream(f.ctx, e, st)
		}
		if f.ctx.Err() != nil {
			return
		}
		f.worked(e)
	}
}

// first takes out what has waited longest for a stream; nil: nothing does.
func (f *forfeits) first(st *stream) *forfeit {
	f.mu.Lock()
	defer f.mu.Unlock()
	waiting := f.waiting[st]
	if len(waiting) == 0 {
		delete(f.waiting, st)
		return nil
	}
	e := waiting[0]
	waiting[0] = nil // the slice is kept
	f.waiting[st] = waiting[1:]
	return e
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

// stream goes over one stream, from where the session was to where the devices here were. gone: its topic is no more, and
// there is nothing left to tell of.
func (f *forfeits) stream(ctx context.Context, e *forfeit, st *stream) (gone bool) {
	at, end := e.span(st)
	for at < end {
		c, found, err := f.chunks.await(ctx, st, at, replayChunk)
		if err != nil {
			return errors.Is(err, kafka.ErrTopicMissing)
		}
		if !f.settle(ctx, e, st, &c, &found, at, min(end, st.until.Load())) {
			return false
		}
		at = c.next
	}
	return false
}

// span gives the offsets of a stream from which on and up to which there is something to tell of.
func (e *forfeit) span(st *stream) (from, end int64) {
	end, known := e.ends[st.id]
	if !known {
		return 0, 0 // it began later
	}
	p := &e.state.Progress
	if _, known = p.Pos[st.topic]; !known {
		return 0, 0
	}
	if !st.means(p) {
		return 0, end
	}
	return p.Resume(st.topic, st.partition, end), end
}

// settle ends the commands of a chunk from an offset to another that were for the session. False: ctx has ended.
func (f *forfeits) settle(ctx context.Context, e *forfeit, st *stream, c *chunk, found *cancels, from, end int64) bool {
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
		case received: // the device has it and answers for it
			cmd.settle(e.client, mqtt.Delivered, 0, "")
		case sent:
			cmd.settle(e.client, mqtt.Offline, 0, reasonNotAcknowledged)
		case found.has(cmd), f.c.withdrawn.has(cmd):
			cmd.settle(e.client, mqtt.Cancelled, 0, "")
		case cmd.over():
			cmd.settle(e.client, mqtt.Expired, 0, "")
		default:
			cmd.settle(e.client, mqtt.Offline, 0, reasonSessionEnded)
		}
	}
	return true
}

// one ends a command that no session was offered, unless it waits for the one that there is. gone is as of stream.
func (f *forfeits) one(ctx context.Context, e *forfeit, st *stream) (gone bool) {
	at := e.unwanted.Offset
	c, found, err := f.chunks.await(ctx, st, at, flightChunk)
	if err != nil {
		return errors.Is(err, kafka.ErrTopicMissing)
	}
	rec := c.record(at)
	if rec == nil {
		return false // it is no more
	}
	cmd, err := f.c.translate(rec)
	if err != nil || cmd.To != e.client || cmd.settings.Receipts != "" && !f.c.awaitRoom(cmd, ctx.Done()) {
		return false
	}
	if found.has(cmd) {
		cmd.Cancel()
	}
	cmd.Place = e.unwanted
	switch none := e.state == nil || cmd.Connected || e.over(cmd); {
	case none:
		cmd.notConnected()
	case !e.awaited(st, cmd): // else it waits for the session
		cmd.notSubscribed()
	}
	return false
}

// reasonSessionEnded is the reason of commands that waited for a session until that ended.
const reasonSessionEnded = "session_ended"

// reasonNotAcknowledged is the reason of those that were sent before.
const reasonNotAcknowledged = "not_acknowledged"

// has says whether it is for the session, or for what comes after it, to tell of a command.
func (e *forfeit) has(st *stream, cmd *command) bool {
	sent, _ := e.sent(st, cmd.offset)
	return !cmd.Connected && !e.state.Progress.Has(st.mark(cmd.offset)) && (sent || e.awaited(st, cmd)) && !e.over(cmd)
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

// awaited says whether a subscription of the session that was made before a command came matches it. The others tell nobody
// anything of it: it is told of as if they were not there.
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
