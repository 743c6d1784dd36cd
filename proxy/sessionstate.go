package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"sluice/fleet"
	"sluice/fleet/driver"
	"sluice/kafka"
	"sluice/mqtt"
)

// requestOf makes the request of a CONNECT.
func requestOf(o *mqtt.Opening) fleet.ConnectRequest {
	return fleet.ConnectRequest{
		Clean: o.Clean, Expiry: o.Expiry, Principal: o.Username, Will: willOf(o),
		Remote: o.Remote.String(), Version: o.Version,
	}
}

// subscriptions gives those of a stored session.
func (s *sessions) subscriptions(ctx context.Context, state *fleet.Session) (subs []mqtt.Subscription) {
	origins := map[*fleet.Origin]*mqtt.Origin{}
	for i := range state.Subs {
		sub := &state.Subs[i]
		from := state.OriginOf(sub)
		if from != nil && origins[from] == nil {
			origins[from] = &mqtt.Origin{At: from.At, Places: s.places(ctx, state, from)}
		}
		subs = append(subs, mqtt.Subscription{Filter: sub.Filter, ID: int(sub.ID), QoS: sub.QoS, NoLocal: sub.NoLocal,
			RetainAsPublished: sub.RetainAsPublished, RetainHandling: sub.RetainHandling, Origin: origins[from], Owed: sub.Owed})
	}
	return subs
}

// places gives the positions of an origin. None is above the end of its log: if that was cut, what comes there is new.
func (s *sessions) places(ctx context.Context, state *fleet.Session, from *fleet.Origin) (places []mqtt.Place) {
	if s.finder.c == nil || len(from.Pos) == 0 {
		return nil
	}
	for _, st := range s.streams.all() {
		at, tail := from.Pos[st.topic][st.partition], st.next.Load()
		if at == 0 || tail < 0 || !st.means(&state.Progress) {
			continue
		}
		if at > tail {
			at = min(at, s.logEnd(ctx, st, at))
		}
		places = append(places, mqtt.Place{Stream: st.id, Offset: at})
	}
	return places
}

// stateOf makes the record of a snapshot: streams become Kafka's topics and partitions, since each instance numbers
// them as it meets them.
func stateOf(snap *mqtt.Snapshot, all *streams) *fleet.Session {
	s := &fleet.Session{}
	var from *mqtt.Origin
	for _, sub := range snap.Subscriptions {
		origin := 0
		if sub.Origin != nil {
			if sub.Origin != from {
				from = sub.Origin
				s.Origins = append(s.Origins, originOf(from, all))
			}
			origin = len(s.Origins)
		}
		s.Subs = append(s.Subs, fleet.Sub{Filter: sub.Filter, ID: uint32(sub.ID), QoS: sub.QoS, NoLocal: sub.NoLocal,
			RetainAsPublished: sub.RetainAsPublished, RetainHandling: sub.RetainHandling, Origin: origin, Owed: sub.Owed})
	}
	if len(s.Subs) > 0 || len(snap.Flight) > 0 {
		for _, p := range snap.Next {
			st := all.get(p.Stream)
			// Of a stream that has ended only what is still there counts, beside what the one in its place says.
			at, other := s.Pos[st.topic][st.partition]
			if st.has(p.Offset) && (!other || p.Offset < at) {
				s.Start(st.topic, st.partition, p.Offset)
				s.Bind(st.topic, st.topicID)
			}
		}
	}
	for _, p := range snap.Met {
		if st := all.get(p.Stream); !st.ended() {
			s.Meet(st.topic, st.partition, p.Offset)
			s.Bind(st.topic, st.topicID)
		}
	}
	for _, p := range snap.Given {
		if st := all.get(p.Stream); !st.ended() {
			s.Give(st.topic, st.partition, p.Offset)
			s.Bind(st.topic, st.topicID)
		}
	}
	for _, p := range snap.Done {
		if st := all.get(p.Stream); st.has(p.Offset) {
			s.Settle(st.topic, st.partition, p.Offset)
		}
	}
	for _, f := range snap.Flight {
		out := fleet.Out{ID: f.ID, QoS: f.QoS, Received: f.Received}
		switch {
		case f.Place.Stream < 0:
			out.Topic, out.Partition, out.Offset = all.retained, -1-f.Place.Stream, f.Place.Offset
		case f.Place.Stream != 0 && all.get(f.Place.Stream).has(f.Place.Offset):
			st := all.get(f.Place.Stream)
			out.Topic, out.Partition, out.Offset = st.topic, st.partition, f.Place.Offset
			s.Bind(st.topic, st.topicID)
		case f.QoS < 2:
			continue // nobody can send it again
		}
		s.Out = append(s.Out, out)
	}
	return s
}

// originOf is for a record what an origin is here. In a stream that has ended it is at the end at most.
func originOf(from *mqtt.Origin, all *streams) fleet.Origin {
	o := fleet.Origin{At: from.At}
	for _, p := range from.Places {
		st := all.get(p.Stream)
		if at := min(p.Offset, st.until.Load()); at > 0 {
			o.Begins(st.topic, st.partition, at)
		}
	}
	return o
}

// replays says from where on the streams are to be replayed for a stored session, what is settled there, and where it had
// come to elsewhere.
func (s *sessions) replays(ctx context.Context, state *fleet.Session, to *mqtt.State) error {
	if err := s.agree(ctx, state); err != nil {
		return err
	}
	var ends driver.Ends
	if state.Unheard {
		ends, _ = s.logEnds(ctx) // as far as they are known
	}
	for _, st := range s.streams.all() {
		tail := st.next.Load()
		_, known := state.Pos[st.topic]
		// Below the tail it matters only to what is replayed.
		if at := max(s.given(ctx, st, state), ends[st.id]); at > 0 && (at > tail || known && (at > state.Pos[st.topic][st.partition] || !st.means(&state.Progress))) {
			to.Given = append(to.Given, mqtt.Place{Stream: st.id, Offset: at})
		}
		_, met := state.Met[st.topic]
		if !known && !met || tail < 0 {
			continue // new to the session: it begins where the devices here are
		}
		if !st.means(&state.Progress) {
			if !known {
				continue
			}
			s.finder.c.lost(st, lostAnew, 1)
			to.Behind = append(to.Behind, mqtt.Place{Stream: st.id})
			continue
		}
		from, reach := state.Resume(st.topic, st.partition, tail), state.Reach(st.topic, st.partition)
		if reach > tail { // another instance was farther, or the log was cut
			if end := s.logEnd(ctx, st, reach); end < reach {
				s.finder.c.lost(st, lostCut, 1)
				from, reach = min(from, end), end
			}
			to.Past = append(to.Past, mqtt.Place{Stream: st.id, Offset: reach})
		}
		if !known {
			continue // it had no subscription, and nothing waits for it
		}
		to.Behind = append(to.Behind, mqtt.Place{Stream: st.id, Offset: from})
		for _, r := range state.Settled[st.topic][st.partition] {
			for offset := r[0]; offset < min(r[1], reach) && len(to.Done) < mostSettled; offset++ {
				to.Done = append(to.Done, mqtt.Place{Stream: st.id, Offset: offset})
			}
		}
	}
	return nil
}

// given says below which offset of a stream a holder that left no last word may have given commands, as far as the record says.
func (s *sessions) given(ctx context.Context, st *stream, state *fleet.Session) int64 {
	at := state.Given[st.topic][st.partition]
	switch tail := st.next.Load(); {
	case tail < 0 || !st.means(&state.Progress):
		return 0
	case at > tail: // if the log was cut, what comes there is new
		return min(at, s.logEnd(ctx, st, at))
	}
	return at
}

// agree waits until this instance knows the topics that a session has its positions in, if those are newer than what is
// known here. It does not wait for those that are no more.
func (s *sessions) agree(ctx context.Context, state *fleet.Session) error {
	for topic, id := range state.IDs {
		for !s.knows(topic, &state.Progress) {
			now, err := s.reader.TopicID(ctx, topic)
			if err == nil && now != id || errors.Is(err, kafka.ErrTopicMissing) {
				break // a topic that is no more
			}
			s.consumer.Look()
			if pause(ctx, agreePause); ctx.Err() != nil {
				return fmt.Errorf("the Kafka topic %s is another one than the session's: %w", topic, cmp.Or(err, ctx.Err()))
			}
		}
	}
	return nil
}

// knows says whether the topic that is followed is the one which a session has its positions in.
func (s *sessions) knows(topic string, p *fleet.Progress) bool {
	return !slices.ContainsFunc(s.streams.all(), func(st *stream) bool { return st.topic == topic && !st.means(p) })
}

// agreePause is between looks whether a topic that was made anew is followed.
const agreePause = 50 * time.Millisecond

// logEnd gives where the log of a stream ends; otherwise, if that can't be known soon.
func (s *sessions) logEnd(ctx context.Context, st *stream, otherwise int64) int64 {
	ctx, cancel := context.WithTimeout(ctx, logEndWait)
	defer cancel()
	end, err := st.ends.Ask(ctx, s.work.Go, func() (int64, error) {
		ctx, cancel := context.WithTimeout(s.ctx, logEndWait)
		defer cancel()
		return s.consumer.End(ctx, st.topic, st.partition)
	})
	if err != nil {
		return otherwise
	}
	return end
}

// logEnds gives where the logs of all streams end; of one of which that can't be known soon, where the devices here are, and
// the error says so. Below that an instance which is gone may have given commands with QoS 0, and they are given again.
func (s *sessions) logEnds(ctx context.Context) (driver.Ends, error) {
	ctx, cancel := context.WithTimeout(ctx, logEndWait)
	defer cancel()
	here := s.Ends()
	ends, err := s.ends.Ask(ctx, s.work.Go, func() (driver.Ends, error) {
		ctx, cancel := context.WithTimeout(s.ctx, logEndWait/2) // who waits for the one before too has an answer in time
		defer cancel()
		var mu sync.Mutex // guards ends and unknown
		ends := s.Ends()
		var unknown error
		var asked sync.WaitGroup
		for _, st := range s.streams.all() {
			if st.next.Load() < 0 {
				continue
			}
			asked.Go(func() { // ends with ctx at the latest
				end, err := s.consumer.End(ctx, st.topic, st.partition)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					unknown = fmt.Errorf("partition %d of %s: %w", st.partition, st.topic, err)
					return
				}
				ends[st.id] = end
			})
		}
		asked.Wait()
		return ends, unknown
	})
	if err != nil {
		s.lines.Warn().Err(err).Msg("cannot learn how far an instance which is gone may have given commands: one with QoS 0 may come to its device again")
	}
	if ends == nil {
		return here, err
	}
	return maps.Clone(ends), err // others have it too
}

// logEndWait is how long a CONNECT waits for the end of a log. Without it a position counts as it is.
const logEndWait = 2 * time.Second

// mostSettled bounds what is taken of a record's settled offsets. Of our own there are a few thousand at most; who writes
// others into the topic must not cost us all memory.
const mostSettled = 1 << 16

// A finder fetches the commands of unfinished deliveries.
type finder struct {
	chunks *chunks
	log    zerolog.Logger // sampled
	index  *mqtt.Retained
	c      *commander // nil: there are no command rules
}

// flight gives the unfinished deliveries of a stored session with their commands, as far as Kafka has them still.
// An error: that can't be known before ctx ends. To take a command for gone then would lose it.
func (s *sessions) flight(ctx context.Context, state *fleet.Session) (flight []mqtt.Unfinished, err error) {
	f, all := s.finder, s.streams
	patience := retainedPatience{until: time.Now().Add(retainedWait)}
	var gone []string // topics
	for _, out := range state.Out {
		u := mqtt.Unfinished{ID: out.ID, QoS: out.QoS, Received: out.Received}
		st := all.of(out.Topic, out.Partition)
		there := !slices.Contains(gone, out.Topic)
		switch {
		case out.Topic == "":
		case out.Topic == all.retained:
			u.Place = mqtt.Place{Stream: -1 - out.Partition, Offset: out.Offset}
			if there && !out.Received { // PUBREL needs no message
				u.Command, u.Unread, err = f.findRetained(ctx, u.Place, st, &patience)
			}
		case f.c != nil && st.means(&state.Progress) && !s.isBeyond(ctx, st, out.Offset):
			u.Place = mqtt.Place{Stream: st.id, Offset: out.Offset}
			if there {
				u.Command, err = f.find(ctx, u.Place, st, f.command)
			}
		}
		if errors.Is(err, kafka.ErrTopicMissing) {
			gone, err = append(gone, out.Topic), nil
		}
		if err != nil {
			return nil, err
		}
		flight = append(flight, u)
	}
	return flight, nil
}

// isBeyond says that a stream which is followed does not go so far: its log was cut, and what comes there is new.
func (s *sessions) isBeyond(ctx context.Context, st *stream, offset int64) bool {
	tail := st.next.Load()
	return tail >= 0 && offset >= tail && s.logEnd(ctx, st, offset+1) <= offset
}

// retainedPatience is what one CONNECT has for partitions of retained messages that can't be read.
type retainedPatience struct {
	until time.Time
	stuck []*stream
}

// The time that a CONNECT waits for retained messages in flight, altogether, and at least for each partition. In the first
// one topicGone is found out too.
const (
	retainedWait    = 2 * time.Second
	retainedLeastOf = 100 * time.Millisecond
)

// findRetained is find for a retained message. Nothing behind it waits for it, as commands of a stream do, so a partition
// without a leader must not keep the device from all else. The message is unread then: with QoS 2 a PUBREL in its place
// would end the exchange, and the device, which may not have got it, never would.
func (f *finder) findRetained(ctx context.Context, at mqtt.Place, st *stream, p *retainedPatience) (_ *mqtt.Command, unread bool, err error) {
	if slices.Contains(p.stuck, st) {
		return nil, true, nil
	}
	bounded, cancel := context.WithTimeout(ctx, max(time.Until(p.until), retainedLeastOf))
	defer cancel()
	cmd, err := f.find(bounded, at, st, f.retained)
	if err != nil && ctx.Err() == nil && !errors.Is(err, kafka.ErrTopicMissing) {
		p.stuck = append(p.stuck, st)
		return nil, true, nil
	}
	return cmd, false, err
}

// find fetches one command; nil if there is none, or if its topic is none that is read here. kafka.ErrTopicMissing: there
// is no such topic.
func (f *finder) find(ctx context.Context, at mqtt.Place, st *stream, of func(*kafka.Fetched) *mqtt.Command) (*mqtt.Command, error) {
	for misses := 0; ; {
		r, err := f.record(ctx, at, st)
		if errors.Is(err, kafka.ErrTopicMissing) {
			misses++
		} else {
			misses = 0
		}
		switch {
		case misses >= topicGone:
			return nil, kafka.ErrTopicMissing
		case ctx.Err() != nil:
			return nil, fmt.Errorf("cannot read a command that was sent and not completed: %w", ctx.Err())
		case r != nil:
			found := of(r)
			if found != nil {
				found.Place = at
			}
			return found, nil
		case err == nil, errors.Is(err, kafka.ErrOffsetGone):
			return nil, nil
		}
		f.log.Warn().Err(err).Str("kafka_topic", st.topic).Int32("partition", st.partition).Int64("offset", at.Offset).
			Msg("cannot read a command that was sent and not completed")
		if st.next.Load() < 0 && at.Stream > 0 { // commands of this topic are not followed
			return nil, nil
		}
		pause(ctx, replayRetry)
	}
}

// flightChunk is about how much is read for one command. It is little, because those of a device may lie far apart; what
// lies together comes with it, since Kafka gives whole batches.
const flightChunk = 16 << 10

// record asks for one record once; nil: there is none.
func (f *finder) record(ctx context.Context, at mqtt.Place, st *stream) (*kafka.Fetched, error) {
	ch, err := f.chunks.read(ctx, st, at.Offset, flightChunk)
	if r := ch.record(at.Offset); r != nil {
		return r, nil
	}
	return nil, err
}

// command makes the command of a record for one device, nil if it is none.
func (f *finder) command(r *kafka.Fetched) *mqtt.Command {
	cmd, err := f.c.translate(r)
	if err != nil {
		return nil
	}
	cmd.open.expect(1)
	return &cmd.Command
}

// retained makes the command that brings the retained message of a record, nil if it is none.
func (f *finder) retained(r *kafka.Fetched) *mqtt.Command {
	if r.Value == nil {
		return nil
	}
	tr := translations.Get().(*translation)
	defer tr.free()
	m, err := retainedFrom(r, tr)
	if err != nil {
		return nil
	}
	return f.index.Command(&m)
}
