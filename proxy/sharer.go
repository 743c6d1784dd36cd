package proxy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"sluice/kafka"
	"sluice/mqtt"
	"sluice/proxy/acl"
	"sluice/proxy/config"
)

// A sharer brings shared subscriptions their commands. Each ShareName with each topic filter is one consumer group of
// the fleet: the instances that have members are in it, and Kafka divides the partitions of the command topics among
// them.
type sharer struct {
	cfg     kafka.Config
	prefix  string // of the groups' names
	shares  *mqtt.Shares
	c       *commander    // set before run
	kept    time.Duration // how long a group without members is
	removed prometheus.Counter
	log     zerolog.Logger
	feeding atomic.Int32    // feeds that may give commands to members
	ctx     context.Context // of run
	left    chan struct{}   // closed when the members have left at a stop
}

// newSharer makes a sharer. Fleets on one cluster are told apart by their topic of sessions.
func newSharer(cfg kafka.Config, settings *config.Config, reg prometheus.Registerer) (*sharer, error) {
	cfg.Registerer = nil
	s := &sharer{cfg: cfg, prefix: settings.Sessions.Topic + "-share-", kept: max(settings.Sessions.MaxExpiry, sharesKept), log: sampled(cfg.Logger), left: make(chan struct{})}
	s.removed = prometheus.NewCounter(prometheus.CounterOpts{Namespace: "sluice", Subsystem: "share", Name: "removed_groups_total",
		Help: "Consumer groups of shared subscriptions that this instance removed from Kafka because nobody had used them for long."})
	if err := reg.Register(s.removed); err != nil {
		return nil, err
	}
	limits := &settings.Limits
	shares := mqtt.SharesConfig{Most: limits.SharedSubscriptions, PerDevice: limits.SharesPerDevice, Linger: s.kept, Feed: s.feed, Registerer: reg}
	if settings.Shares != nil {
		shares.Allowed = func(name string) bool {
			return slices.ContainsFunc(settings.Shares, func(pattern string) bool { return acl.MatchShare(pattern, name) })
		}
	}
	var err error
	s.shares, err = mqtt.NewShares(shares)
	return s, err
}

// sharesKept is how long the group of a share without members is kept at least.
const sharesKept = time.Hour

// run has the shares fed until ctx ends.
func (s *sharer) run(ctx context.Context) error {
	s.ctx = ctx
	return s.shares.Run(ctx)
}

// awaitDrained waits, when run's context has ended, until the members get nothing more and what they have is settled, as far
// as that is waited for.
func (s *sharer) awaitDrained() {
	for s.feeding.Load() > 0 {
		time.Sleep(5 * time.Millisecond)
	}
}

// shareWindow is how many records of a partition may be under way in a share: enough for the windows of some devices,
// and few enough that what is in memory when the partition moves is little.
const shareWindow = 128

// feed brings a share its commands until ctx ends.
func (s *sharer) feed(ctx context.Context, share *mqtt.Share) {
	f := &shareFeed{c: s.c, t: s.c.unseen(), share: share, ctx: ctx, looks: map[*stream]*shareLook{}}
	defer f.work.Wait()
	s.feeding.Add(1)
	fed := sync.OnceFunc(func() { s.feeding.Add(-1) })
	defer fed()
	drained := func(ctx context.Context) { // what a member leaves with QoS 2 in flight stays its session's, and is to be committed
		if fed(); s.ctx.Err() == nil {
			return // it has left: the feed ends with the last member
		}
		select {
		case <-s.left:
		case <-ctx.Done():
		}
	}
	g := &groupFeed{cfg: s.cfg, name: s.groupName(share.Group, share.Filter), c: s.c, apart: true, window: shareWindow, take: f.take, begins: share.Begins, drained: drained, log: s.log}
	g.run(ctx)
}

// groupName gives the name of the consumer group of a share. Beside a hash, which alone tells shares apart, it has the
// ShareName if that is short and plain, for those who look at the cluster.
func (s *sharer) groupName(group, filter string) string {
	sum := sha256.Sum256([]byte(group + "\x00" + filter)) // no topic filter has a null character
	name := s.prefix
	if len(group) <= 64 && strings.Trim(group, plainCharacters) == "" {
		name += group + "-"
	}
	return name + hex.EncodeToString(sum[:8])
}

const plainCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"

// A shareFeed takes the records of a share's consumer group to its members.
type shareFeed struct {
	c     *commander
	t     translator
	share *mqtt.Share
	ctx   context.Context
	work  sync.WaitGroup // of looks, which end with ctx

	mu    sync.Mutex // guards looks
	looks map[*stream]*shareLook
}

// A shareLook is what was last read to find the cancellations of a stream that this process may not know.
type shareLook struct {
	cancels
	reading bool
}

// look says whether a command was cancelled, as far as that is to be seen in Kafka alone. It does not block: known is false
// until that is read.
func (f *shareFeed) look(cmd *command, st *stream) (cancelled, known bool) {
	if cmd.CorrelationData == nil || cmd.offset >= st.recalls() || f.c.chunks == nil {
		return false, true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.looks[st]
	if l == nil {
		l = &shareLook{}
		f.looks[st] = l
	}
	switch {
	case l.reading:
		return false, false
	case l.from <= cmd.offset && cmd.offset < l.next && st.recalls() <= l.upTo:
		return l.has(cmd), true
	}
	l.reading = true
	f.work.Go(func() { // ends with ctx
		ch, err := f.c.chunks.read(f.ctx, st, cmd.offset, replayChunk)
		var found cancels
		if err == nil {
			found, err = f.c.chunks.cancels(f.ctx, st, ch)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if l.reading = false; err == nil {
			l.cancels = found
		}
	})
	return false, false
}

// take gives a record to the share if it is a command for it. Those for one client ID are not: whose they are is said
// already. What makes no command is refused where all records are read, and commands are withdrawn there.
func (f *shareFeed) take(ctx context.Context, r *kafka.Fetched, done func(bool)) bool {
	if _, cancels := cancellation(r); cancels {
		done(true)
		return true
	}
	cmd, err := f.t.translate(r)
	if err != nil || cmd.To != "" || !f.share.Matches(cmd.Topic) {
		done(true)
		return true
	}
	st := f.c.streams.of(r.Topic, r.Partition)
	cancelled, known := f.look(cmd, st)
	if !known || !f.share.HasRoom() || cmd.settings.Receipts != "" && !f.c.hasRoom(cmd) {
		return false
	}
	cmd.Place = mqtt.Place{Stream: st.id, Offset: r.Offset}
	cmd.Owner = &sharedCommand{command: cmd, done: done}
	f.c.enter(cmd)
	f.c.await(cmd, 1)
	if cancelled {
		cmd.Cancel()
	}
	f.share.Send(ctx, &cmd.Command)
	f.c.server.Flush()
	return true
}

// hasRoom says whether a receipt of cmd has room in the memory budget.
func (c *commander) hasRoom(cmd *command) bool {
	ok := c.budget.TryTake(cmd.receiptRoom(), receiptBytes)
	if ok {
		c.budget.Give(cmd.receiptRoom(), receiptBytes) // taken again by the receipt itself
	}
	return ok
}

// A sharedCommand is a command on its way to one member of a share.
type sharedCommand struct {
	*command
	done func(settled bool)
}

// CommandSettled takes the outcome, and lets the group go on. If no member of this instance took the command it stays
// where it is in the group, and comes to another instance.
func (s *sharedCommand) CommandSettled(c *mqtt.Command, clientID string, fate mqtt.Fate, code mqtt.Code, reason string) {
	s.command.CommandSettled(c, clientID, fate, code, reason)
	if fate != mqtt.Kept || clientID != "" {
		s.done(true)
	}
}
