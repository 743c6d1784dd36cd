package proxy

import (
	"context"
	"errors"
	"time"

	"sluice/kafka"
)

// A shareCleaner removes the consumer groups of shares that nobody has used for long: who subscribes under ever new
// names would fill Kafka with them.
type shareCleaner struct {
	s      *sharer
	groups *kafka.Groups
	empty  map[string]time.Time // since when a group was seen without members
}

// clean looks for such groups until ctx ends, while mine says that it is for this instance to do so.
func (s *sharer) clean(ctx context.Context, mine func() bool) {
	groups, err := kafka.NewGroups(s.cfg)
	if err != nil {
		s.log.Error().Err(err).Msg("cannot look for consumer groups of shares")
		return
	}
	defer groups.Close()
	c := &shareCleaner{s: s, groups: groups}
	for ctx.Err() == nil {
		if !mine() {
			c.empty = nil // somebody else counts
		} else if err := c.look(ctx, time.Now()); err != nil && ctx.Err() == nil {
			s.log.Warn().Err(err).Msg("cannot remove consumer groups of shares that nobody uses, trying again later")
		}
		pause(ctx, cleanEvery)
	}
}

// cleanEvery is between looks.
const cleanEvery = time.Minute

// look notes which groups have no members, and removes those that have had none for long.
func (c *shareCleaner) look(ctx context.Context, now time.Time) error {
	names, err := c.groups.Empty(ctx, c.s.prefix)
	if err != nil {
		return err
	}
	seen := make(map[string]time.Time, len(names))
	var errs []error
	for _, name := range names {
		since, known := c.empty[name]
		if !known {
			since = now
		}
		if now.Sub(since) < c.s.kept {
			seen[name] = since
			continue
		}
		removed, err := c.groups.Remove(ctx, name)
		if err != nil {
			errs = append(errs, err)
			seen[name] = since
		}
		if removed {
			c.s.removed.Inc()
			c.s.log.Info().Str("group", name).Msg("removed the consumer group of a share that nobody has used for long")
		}
	}
	c.empty = seen
	return errors.Join(errs...)
}
