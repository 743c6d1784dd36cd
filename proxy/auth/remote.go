package auth

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/time/rate"

	"sluice/tls"
)

const (
	keysInterval = 10 * time.Minute // between readings of a key set
	keysRetry    = 30 * time.Second // after one that failed
	keysTimeout  = 10 * time.Second // for one reading
	keysWait     = 5 * time.Second  // that a login waits for one

	// askedInterval is how often tokens with unknown key IDs may make the set be read, after a few at once:
	// otherwise whoever sends such tokens decides how often the server of the set is asked.
	askedInterval = 10 * time.Second
	askedBurst    = 3
)

// A reading is one time that a remote set is read. err is set before done is closed.
type reading struct {
	done chan struct{}
	err  error
}

// A remoteSet is a key set behind a URL. One goroutine, that of run, reads it.
type remoteSet struct {
	url     string
	client  *http.Client
	keys    *atomic.Pointer[keySet]
	asked   *rate.Limiter
	log     zerolog.Logger
	metrics *metrics
	wake    chan struct{} // holds one if somebody began a reading

	mu      sync.Mutex // guards current and last
	current *reading   // under way or about to be
	last    error      // of the latest reading
}

func newRemoteSet(url string, cfg tls.ClientConfig, keys *atomic.Pointer[keySet], s *shared) (*remoteSet, error) {
	client, err := newClient(cfg, 1)
	if err != nil {
		return nil, err
	}
	return &remoteSet{
		url: url, client: client, keys: keys, asked: rate.NewLimiter(rate.Every(askedInterval), askedBurst),
		log: s.log, metrics: s.metrics, wake: make(chan struct{}, 1), last: errNoKeys,
	}, nil
}

// refresh waits until the set was read again, by a reading under way or a new one. If the set is not to be
// read again yet, the result is that of the latest reading.
func (r *remoteSet) refresh(ctx context.Context) error {
	r.mu.Lock()
	if r.current == nil && !r.asked.Allow() {
		defer r.mu.Unlock()
		return r.last
	}
	now := r.begin()
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, keysWait)
	defer cancel()
	select {
	case <-now.done:
		return now.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// begin gives the reading under way, or wakes run to make one. The caller holds mu.
func (r *remoteSet) begin() *reading {
	if r.current == nil {
		r.current = &reading{done: make(chan struct{})}
		r.wake <- struct{}{} // there is room: run took the one of the reading before
	}
	return r.current
}

// run reads the set when it is time or when it is asked for, until ctx ends.
func (r *remoteSet) run(ctx context.Context) error {
	defer r.client.CloseIdleConnections()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
			r.mu.Lock()
			r.begin()
			r.mu.Unlock()
			continue
		case <-r.wake:
		}
		timer.Reset(jitter(r.read(ctx)))
	}
}

// jitter keeps the instances of a fleet from asking all at once.
func jitter(d time.Duration) time.Duration { return d*9/10 + rand.N(d/5) }

// read reads the set and tells all who wait. It gives the time until the next.
func (r *remoteSet) read(ctx context.Context) time.Duration {
	err := r.fetch(ctx)
	r.metrics.reload("key set", err)
	r.mu.Lock()
	now, before := r.current, r.last
	r.current, r.last, now.err = nil, err, err
	r.mu.Unlock()
	close(now.done)
	switch {
	case err == nil && before != nil:
		r.log.Info().Str("url", place(r.url)).Msg("the key set was read")
	case err != nil && ctx.Err() == nil && (before == nil || before == errNoKeys):
		r.log.Error().Err(err).Msg("the key set cannot be read; the keys of before stay")
	}
	if err == nil {
		return keysInterval
	}
	return keysRetry
}

// fetch takes the set from its URL; if it fails the keys stay.
func (r *remoteSet) fetch(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, keysTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url, nil)
	if err != nil {
		return err
	}
	body, err := exchange(r.client, request, maxKeyFile)
	if err != nil {
		return fmt.Errorf("cannot read key set %q: %w", place(r.url), err)
	}
	set, err := parseJWKS(body)
	if err != nil {
		return fmt.Errorf("cannot use key set %q: %w", place(r.url), err)
	}
	r.keys.Store(&set)
	return nil
}
