package kafka

import (
	"context"
	"fmt"
	"time"

	"sluice/kafka/produce"
)

// fenceTimeout is the timeout that a transactional id is given by who takes it away. Nothing is written with it.
const fenceTimeout = 15 * time.Second

// A Fencer takes transactional ids away from whoever has them. It holds one connection to each coordinator that was
// needed. Its methods may be called from any goroutine; calls that need the same coordinator are served in turn.
type Fencer struct{ net *links }

// NewFencer checks cfg, of which it uses Brokers, ClientID and the time-outs. It connects with the first call.
func NewFencer(cfg Config) (*Fencer, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("cannot make a fencer: %w", err)
	}
	return &Fencer{newLinks(cfg, cfg.RequestTimeout)}, nil
}

// Fence takes the transactional id away. When it returns nil the transaction that was under way is committed or aborted,
// a reader that goes on to what is Written now sees it, and the producer that had the id can commit nothing any more.
// An id that was never used is made. It tries until ctx ends; any other error is an ErrNotAuthorized, or says that the
// id is not one.
func (f *Fencer) Fence(ctx context.Context, transactionalID string) error {
	if _, err := f.net.initProducer(ctx, transactionalID, fenceTimeout, produce.Nobody); err != nil {
		return fmt.Errorf("cannot fence the transactional id %q: %w", transactionalID, err)
	}
	return nil
}

// Close ends its connections. It must not be used afterwards.
func (f *Fencer) Close() error {
	f.net.close()
	return nil
}
