package kafka

import (
	"context"
	"errors"
	"fmt"

	"github.com/IBM/sarama"

	"sluice/kafka/produce"
)

// An openEnd is a transaction that Kafka was asked to commit, and the right was lost before it said whether it has.
// Once somebody has a later epoch that is decided, and the log says how.
type openEnd struct {
	groups []*TxGroup
	id     produce.Ident
	shares []*share
}

// settleOpen ends the groups of a transaction that was lost without an answer. They keep waiting if ctx ends first.
func (t *Transactor) settleOpen(ctx context.Context) error {
	if t.open == nil {
		return nil
	}
	asking, cancel := context.WithTimeout(ctx, t.cfg.Timeout)
	defer cancel()
	err := t.ending(asking, t.open)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	groups := t.open.groups
	t.open = nil
	t.log.Info().AnErr("outcome", err).Int("groups", len(groups)).Msg("the log was asked how a transaction has ended whose commit was not answered")
	t.finish(groups, err)
	return nil
}

// ending gives nil for a transaction that is committed and ErrFenced for one that is not. Any one of its partitions can
// say so, if we may read it and it still has the records; it is ErrTransactionUnknown if none does while ctx lasts.
func (t *Transactor) ending(ctx context.Context, o *openEnd) error {
	reader := &Reader{asker: asker{net: t.net}, leaders: map[string]leaders{}}
	why := errors.New("Kafka did not say where its records are")
	for again := true; again; again = again && sleep(ctx, storeAgain) == nil {
		again = false
		for _, s := range o.shares {
			if !s.placed {
				continue
			}
			switch committed, err := reader.ended(ctx, s.at, s.first, o.id); {
			case err == nil && committed:
				return nil
			case err == nil:
				return fmt.Errorf("%w: it was aborted", ErrFenced)
			default:
				why, again = err, again || !Final(err) && !errors.Is(err, ErrOffsetGone)
			}
		}
	}
	return fmt.Errorf("%w: %w", ErrTransactionUnknown, why)
}

// errNotMarked: the transaction has no marker yet.
var errNotMarked = errors.New("the end of the transaction is not written yet")

// endedBytes is about how much of a partition is read at a time on the way to a marker.
const endedBytes = 1 << 20

// ended says whether the transaction was committed that a producer's batch is of, by the marker that follows it.
// ErrOffsetGone: the batch is not there.
func (r *Reader) ended(ctx context.Context, at spot, offset int64, id produce.Ident) (committed bool, err error) {
	for from, found := offset, false; ; {
		block, err := r.fetch(ctx, at.topic, at.id, from, endedBytes, sarama.ReadUncommitted)
		switch {
		case errors.Is(err, sarama.ErrOffsetOutOfRange):
			return false, ErrOffsetGone
		case err != nil:
			return false, err
		}
		next := after(block, from)
		if next == from {
			return false, errNotMarked
		}
		for b := range batches(block) {
			switch {
			case b.FirstOffset == offset:
				found = b.ProducerID == id.ID && b.ProducerEpoch == id.Epoch && !b.Control
			case found && b.ProducerID == id.ID && b.Control:
				return !isAbort(b), nil
			}
		}
		if !found {
			return false, ErrOffsetGone
		}
		from = next
	}
}
