package proxy

import (
	"context"
	"errors"

	"sluice/kafka"
)

// A retainer stores the retained messages of commands. Every instance reads every command, so they are divided by a
// consumer group of the fleet: each is stored by one instance.
type retainer struct {
	feed groupFeed
	c    *commander
	w    *retainedWriter
	t    translator
}

// newRetainer makes a retainer. Fleets on one cluster are told apart by their topic of sessions.
func newRetainer(cfg kafka.Config, sessionsTopic string, c *commander, w *retainedWriter) *retainer {
	cfg.Registerer = nil
	r := &retainer{c: c, w: w, t: c.unseen()}
	r.feed = groupFeed{cfg: cfg, name: sessionsTopic + "-retainer", c: c, window: retainWindow, take: r.take, log: sampled(cfg.Logger)}
	return r
}

// retainWindow is how many records of a partition may be under way.
const retainWindow = 256

// run stores retained messages until ctx ends.
func (r *retainer) run(ctx context.Context) { r.feed.run(ctx) }

// take stores what a record says is to be retained. If it is left open whether Kafka has it, the whole partition is
// read again from there: to repeat that one alone would put it behind later ones of its topic.
func (r *retainer) take(_ context.Context, rec *kafka.Fetched, done func(settled bool)) bool {
	if _, cancels := cancellation(rec); cancels {
		done(true)
		return true
	}
	cmd, err := r.t.translate(rec)
	if err != nil || !cmd.Retain {
		done(true)
		return true
	}
	if !r.hasRoom(cmd) {
		return false
	}
	r.w.writeCommand(rec, cmd, func(err error) {
		done(err == nil || errors.Is(err, errRetainedFull) || kafka.Final(err))
	})
	return true
}

// hasRoom says whether the memory budget has room for the record that cmd makes.
func (r *retainer) hasRoom(cmd *command) bool {
	size := retainedOverhead + len(cmd.Topic) + len(cmd.Payload)
	ok := r.c.budget.TryTake(r.w.room(), size)
	if ok {
		r.c.budget.Give(r.w.room(), size) // taken again by the record itself
	}
	return ok
}
