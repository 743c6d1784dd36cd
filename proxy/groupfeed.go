package proxy

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"sluice/kafka"
	"sluice/mqtt"
)

// A groupFeed reads the command topics as a member of a consumer group, so that each record is taken by one instance
// of the fleet, and by another one if that did not bring it to its end.
type groupFeed struct {
	cfg    kafka.Config
	name   string // of the group
	c      *commander
	apart  bool                                                                      // as kafka.GroupConfig.Apart
	window int                                                                       // records of a partition that may be under way
	take   func(ctx context.Context, r *kafka.Fetched, done func(settled bool)) bool // as kafka.GroupConfig.Handle
	log    zerolog.Logger

	// drained is called once run's context has ended and no record is taken and waited for any more, as kafka.GroupConfig says;
	// nil: nobody asks.
	drained func(ctx context.Context)

	// begins are places that a new group is not to begin behind: an instance that was killed may have been the group, and not
	// have written down yet where it began.
	begins []mqtt.Place

	// from is where the devices here were when the feed was made, or begins: a new group begins there, and not where the
	// topics end when it has come together.
	from map[streamKey]groupPlace
}

// A groupPlace is where the devices here are in a partition of a topic.
type groupPlace struct {
	topicID string
	next    int64
}

// sampled is for lines that records can trigger.
func sampled(log zerolog.Logger) zerolog.Logger {
	return log.Sample(&zerolog.BurstSampler{Burst: 5, Period: time.Second})
}

// feedLook is how often a groupFeed looks whether it has to begin anew.
const feedLook = time.Second

// feedSession is how long a member may be without its coordinator: longer than it takes the group to get another one when a
// Kafka node dies, which is noticed after broker.session.timeout.ms, 9 s. A membership that is lost takes with it what was
// acknowledged and could not be committed any more; it would come again, to another device.
const feedSession = 20 * time.Second

// run is a member until ctx ends. It begins anew with the group's offsets when there are other topics.
func (f *groupFeed) run(ctx context.Context) {
	f.from = f.c.streams.places(f.begins)
	defer f.drain(ctx, ctx)
	for ctx.Err() == nil {
		topics := f.c.topicsNow()
		if len(topics) > 0 {
			f.begin(ctx, topics)
		}
		pause(ctx, feedLook)
	}
}

// begin is a member until there is a reason to begin anew.
func (f *groupFeed) begin(ctx context.Context, topics []string) {
	g, err := kafka.NewGroup(kafka.GroupConfig{Config: f.cfg, Name: f.name, Topics: topics, Handle: f.take, Apart: f.apart, Window: f.window, Begin: f.first, SessionTimeout: feedSession,
		Drained: func(wait context.Context) { f.drain(ctx, wait) }})
	if err != nil {
		f.log.Error().Err(err).Str("group", f.name).Msg("cannot be a member of a consumer group")
		return
	}
	membership, leave := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { // ends with membership
		f.watch(membership, topics)
		leave()
	})
	_ = g.Run(membership) // gives nil
	leave()
	watching.Wait()
}

// drain says that all is drained if that was the last membership.
func (f *groupFeed) drain(ctx, wait context.Context) {
	if f.drained != nil && ctx.Err() != nil {
		f.drained(wait)
	}
}

// first gives where a new group begins in a partition: one that was not known, or is of a topic that was made anew, is newer
// than the feed.
func (f *groupFeed) first(kafkaTopic, topicID string, partition int32) (int64, bool) {
	p := f.from[streamKey{kafkaTopic, partition}]
	if p.topicID != topicID {
		return 0, true
	}
	return p.next, true
}

// places gives where the devices here are in each stream, and no later than limits say.
func (s *streams) places(limits []mqtt.Place) map[streamKey]groupPlace {
	at := make(map[streamKey]groupPlace)
	for _, st := range s.all() {
		if next := st.next.Load(); next >= 0 {
			at[streamKey{st.topic, st.partition}] = groupPlace{st.topicID, next}
			for _, p := range limits {
				if p.Stream == st.id && p.Offset < next {
					at[streamKey{st.topic, st.partition}] = groupPlace{st.topicID, p.Offset}
				}
			}
		}
	}
	return at
}

// watch returns when there is a reason to begin anew.
func (f *groupFeed) watch(ctx context.Context, topics []string) {
	for ctx.Err() == nil {
		pause(ctx, feedLook)
		if !slices.Equal(topics, f.c.topicsNow()) {
			return
		}
	}
}

// topicsNow gives the command topics there are: those the rules name, and those found for their patterns.
func (c *commander) topicsNow() []string {
	topics := slices.Clone(c.rules.Topics())
	for _, st := range c.streams.all() {
		topics = append(topics, st.topic)
	}
	slices.Sort(topics)
	return slices.Compact(topics)
}

// unseen is the commander's translator without its counts: the record was counted when it was new.
func (c *commander) unseen() translator {
	t := c.translator
	t.leftOut = func() {}
	return t
}
