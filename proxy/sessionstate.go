package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"sluice/fleet"
	"sluice/kafka"
	"sluice/mqtt"
)

// requestOf makes the request of a CONNECT.
func requestOf(k *keeper) fleet.ConnectRequest {
	o := k.opening
	return fleet.ConnectRequest{
		Clean: o.Clean, Expiry: o.Expiry, Principal: o.Username, Now: millis(), Will: k.will,
		Remote: o.Remote.String(), Version: o.Version,
	}
}

// subscriptionsOf gives the subscriptions of a stored session.
func subscriptionsOf(s *fleet.Session) (subs []mqtt.Subscription) {
	for _, sub := range s.Subs {
		subs = append(subs, mqtt.Subscription{Filter: sub.Filter, ID: int(sub.ID), QoS: sub.QoS, NoLocal: sub.NoLocal,
			RetainAsPublished: sub.RetainAsPublished, RetainHandling: sub.RetainHandling})
	}
	return subs
}

// stateOf makes the record of a snapshot: streams become Kafka's topics and partitions, since each instance numbers
// them as it meets them.
func stateOf(snap *mqtt.Snapshot, all *streams) *fleet.Session {
	s := &fleet.Session{}
	for _, sub := range snap.Subscriptions {
		s.Subs = append(s.Subs, fleet.Sub{Filter: sub.Filter, ID: uint32(sub.ID), QoS: sub.QoS, NoLocal: sub.NoLocal,
			RetainAsPublished: sub.RetainAsPublished, RetainHandling: sub.RetainHandling})
	}
	if len(s.Subs) > 0 || len(snap.Flight) > 0 {
		for _, p := range snap.Next {
			st := all.get(p.Stream)
			s.Start(st.topic, st.partition, p.Offset)
		}
	}
	for _, p := range snap.Done {
		st := all.get(p.Stream)
		s.Settle(st.topic, st.partition, p.Offset)
	}
	for _, f := range snap.Flight {
		out := fleet.Out{ID: f.ID, QoS: f.QoS, Received: f.Received}
		if f.Place.Stream != 0 {
			st := all.get(f.Place.Stream)
			out.Topic, out.Partition, out.Offset = st.topic, st.partition, f.Place.Offset
		}
		s.Out = append(s.Out, out)
	}
	return s
}

// resume says from where on the streams are to be replayed for a stored session, and what is settled there.
func (s *streams) resume(state *fleet.Session) (behind, done []mqtt.Place) {
	for _, st := range s.all() {
		tail := st.next.Load()
		if _, known := state.Pos[st.topic]; !known || tail < 0 {
			continue // new to the session: it begins where the devices here are
		}
		behind = append(behind, mqtt.Place{Stream: st.id, Offset: state.Resume(st.topic, st.partition, tail)})
		for _, r := range state.Settled[st.topic][st.partition] {
			for offset := r[0]; offset < min(r[1], tail) && len(done) < mostSettled; offset++ {
				done = append(done, mqtt.Place{Stream: st.id, Offset: offset})
			}
		}
	}
	return behind, done
}

// mostSettled bounds what is taken of a record's settled offsets. Of our own there are a few thousand at most; who writes
// others into the topic must not cost us all memory.
const mostSettled = 1 << 16

// A finder fetches the commands of unfinished deliveries.
type finder struct {
	chunks *chunks
	c      *commander // nil: there are no command rules
}

// flight gives the unfinished deliveries of a stored session with their commands, as far as Kafka has them still.
// An error: that can't be known before ctx ends. To take a command for gone then would lose it.
func (f *finder) flight(ctx context.Context, all *streams, state *fleet.Session) (flight []mqtt.Unfinished, err error) {
	for _, out := range state.Out {
		u := mqtt.Unfinished{ID: out.ID, QoS: out.QoS, Received: out.Received}
		if out.Topic != "" && f.c != nil {
			st := all.of(out.Topic, out.Partition)
			u.Place = mqtt.Place{Stream: st.id, Offset: out.Offset}
			if u.Command, err = f.find(ctx, u.Place, st); err != nil {
				return nil, err
			}
		}
		flight = append(flight, u)
	}
	return flight, nil
}

// find fetches one command; nil if there is none, or if its topic is none that is read here.
func (f *finder) find(ctx context.Context, at mqtt.Place, st *stream) (*mqtt.Command, error) {
	for misses := 0; ; {
		found, err := f.command(ctx, at, st)
		if errors.Is(err, kafka.ErrTopicMissing) {
			misses++
		} else {
			misses = 0
		}
		switch {
		case misses >= topicGone:
			return nil, nil
		case ctx.Err() != nil:
			return nil, fmt.Errorf("cannot read a command that was sent and not completed: %w", ctx.Err())
		case err == nil, errors.Is(err, kafka.ErrOffsetGone):
			return found, nil
		}
		f.c.log.Warn().Err(err).Str("kafka_topic", st.topic).Int32("partition", st.partition).Int64("offset", at.Offset).
			Msg("cannot read a command that was sent and not completed")
		if st.next.Load() < 0 {
			return nil, nil
		}
		pause(ctx, replayRetry)
	}
}

// topicGone is how many times in a row a topic has to be missing until its commands are gone with it.
const topicGone = 8

// flightChunk is about how much is read for one command. It is little, because those of a device may lie far apart; what
// lies together comes with it, since Kafka gives whole batches.
const flightChunk = 16 << 10

// command asks for one command once.
func (f *finder) command(ctx context.Context, at mqtt.Place, st *stream) (*mqtt.Command, error) {
	ch, err := f.chunks.read(ctx, st, at.Offset, flightChunk)
	i, there := slices.BinarySearchFunc(ch.records, at.Offset, func(r kafka.Fetched, offset int64) int { return cmp.Compare(r.Offset, offset) })
	if !there {
		return nil, err
	}
	cmd, err := f.c.translate(&ch.records[i])
	if err != nil {
		return nil, nil
	}
	cmd.Place = at
	cmd.open.expect(1)
	return &cmd.Command, nil
}
