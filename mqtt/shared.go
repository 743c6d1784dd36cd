package mqtt

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// sharePrefix begins the filter of a shared subscription (section 4.8.2).
const sharePrefix = "$share/"

// splitShare gives the ShareName and the topic filter of a shared subscription; shared is false for all others.
func splitShare(filter string) (group, inner string, shared bool) {
	rest, shared := strings.CutPrefix(filter, sharePrefix)
	if !shared {
		return "", filter, false
	}
	group, inner, _ = strings.Cut(rest, "/")
	return group, inner, true
}

func isShared(filter string) bool { return strings.HasPrefix(filter, sharePrefix) }

// A SharesConfig is what a Shares needs.
type SharesConfig struct {
	// Most is how many shares there may be. A SUBSCRIBE for one more is refused; sessions that come from a Store with
	// their subscriptions are not.
	Most int
	// PerDevice is how many of them one device may be in, or may have been in within Linger: what it leaves may go on to
	// cost somebody something. As above.
	PerDevice int
	Linger    time.Duration
	// Allowed says whether there may be a share of this ShareName; nil: of any. A SUBSCRIBE for another one is refused
	// with Not authorized, and a session that has one loses it when it connects.
	Allowed func(group string) bool
	// Feed brings a share its commands, by Share.Send, until ctx ends. It is called on a goroutine of its own when the
	// share has its first connected member, and ctx ends when the last one has left. For one share there is one call
	// at a time. It must not return before ctx ends, and must return soon then.
	Feed       func(ctx context.Context, s *Share)
	Registerer prometheus.Registerer
}

// Shares holds the shared subscriptions of the connected devices. A Server with it in its Config says that they are
// available. Each ShareName with each filter is a Share; its commands come from outside and each goes to one of its
// members.
type Shares struct {
	cfg SharesConfig
	m   *shareMetrics

	mu      sync.Mutex // guards all below; taken after outbox.mu and before Share.mu
	all     map[string]*Share
	dues    shareDues
	ctx     context.Context // of Run
	stopped bool
	work    sync.WaitGroup
}

// NewShares makes a Shares. Run starts it. It belongs to one Server.
func NewShares(cfg SharesConfig) (*Shares, error) {
	if cfg.Most < 1 || cfg.PerDevice < 1 || cfg.Feed == nil {
		return nil, errors.New("cannot share subscriptions: there must be room for one and somebody who feeds it")
	}
	if cfg.Allowed == nil {
		cfg.Allowed = func(string) bool { return true }
	}
	if cfg.Registerer == nil {
		cfg.Registerer = prometheus.NewRegistry()
	}
	x := &Shares{cfg: cfg, all: map[string]*Share{}, dues: newShareDues()}
	var err error
	if x.m, err = newShareMetrics(cfg.Registerer, x); err != nil {
		return nil, fmt.Errorf("cannot register the metrics of shared subscriptions: %w", err)
	}
	return x, nil
}

// Run has the shares fed until ctx ends. It returns when no Feed is under way; what waited for a member is given back
// then, and so is all that a member leaves behind later.
func (x *Shares) Run(ctx context.Context) error {
	x.begin(ctx)
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case now := <-second.C:
			x.sweep(now)
		}
	}
	x.mu.Lock()
	x.stopped = true
	x.mu.Unlock()
	x.work.Wait()
	return nil
}

// begin starts the feeds of the shares that have members already.
func (x *Shares) begin(ctx context.Context) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.ctx = ctx
	for _, s := range x.all {
		x.start(s)
	}
}

// sweep ends the commands that wait and are expired, cancelled or not ours any more.
func (x *Shares) sweep(now time.Time) {
	x.mu.Lock()
	list := make([]*Share, 0, len(x.all))
	for _, s := range x.all {
		list = append(list, s)
	}
	x.mu.Unlock()
	for _, s := range list {
		s.sweep(now)
	}
}

// len is the number of shares.
func (x *Shares) len() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.all)
}

// allows says whether the ShareName of a filter is one that there may be; any filter that is not shared is.
func (x *Shares) allows(filter string) bool {
	group, _, shared := splitShare(filter)
	return !shared || x == nil || x.cfg.Allowed(group)
}

// hasRoom says whether a device may subscribe to this shared filter.
func (x *Shares) hasRoom(clientID, filter string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.dues.forgive(time.Now())
	return (x.all[filter] != nil || len(x.all) < x.cfg.Most) && x.dues.mayTake(clientID, filter, x.cfg.PerDevice)
}

// join makes m a member of the share of its filter. The member's outbox.mu is held.
func (x *Shares) join(m *shareMember) {
	x.mu.Lock()
	defer x.mu.Unlock()
	s := x.all[m.filter]
	if s == nil {
		s = newShare(x, m.outbox.srv, m.filter)
		x.all[m.filter] = s
	}
	m.share = s
	x.dues.take(m.outbox.session.clientID, m.filter)
	if s.members++; s.members == 1 {
		s.first = m.begins
		x.start(s)
	}
}

// start has s fed, unless it is. mu is held.
func (x *Shares) start(s *Share) {
	if s.fed || s.members == 0 || x.ctx == nil || x.stopped {
		return
	}
	s.fed, s.Begins = true, s.first
	s.open()
	ctx, cancel := context.WithCancel(x.ctx)
	s.cancel = cancel
	x.work.Go(func() { // ends when the last member has left, or with Run
		defer cancel()
		x.cfg.Feed(ctx, s)
		x.fed(s)
	})
}

// fed takes the end of a feed. Who came while it ended has the share fed anew: what it had is somebody else's.
func (x *Shares) fed(s *Share) {
	s.shut()
	x.mu.Lock()
	defer x.mu.Unlock()
	s.fed = false
	x.start(s)
	x.forget(s)
}

// leave takes m out of its share. The member's outbox.mu is held.
func (x *Shares) leave(m *shareMember) {
	m.share.remove(m)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.dues.leave(m.outbox.session.clientID, m.filter, time.Now().Add(x.cfg.Linger))
	s := m.share
	if s.members--; s.members == 0 && s.cancel != nil {
		s.close()
		s.cancel()
	}
	x.forget(s)
}

// forget lets go of a share that nobody has any more. mu is held.
func (x *Shares) forget(s *Share) {
	if s.members == 0 && !s.fed {
		delete(x.all, s.key)
	}
}
