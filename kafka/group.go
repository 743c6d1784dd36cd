package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/rs/zerolog"
)

// A GroupConfig says which group to be a member of. Of Config it uses Brokers, ClientID, the time-outs and Logger.
type GroupConfig struct {
	Config
	// Name of the consumer group.
	Name string
	// Topics whose partitions are shared among the members. All members must name the same.
	Topics []string
	// SessionTimeout is after what time without a heartbeat Kafka gives a member's partitions to others, and after what
	// time without an answer to one a member gives them up by itself. Default 10 s.
	SessionTimeout time.Duration
	// Heartbeat is the time between heartbeats. Default 3 s.
	Heartbeat time.Duration
	// Assigned and Revoked are called when a partition becomes ours and when it is not any more, in turn for each
	// partition, from one goroutine; heartbeats wait while they run, so they must not block for long. Revoked is
	// called before the partition can be given to another member; if Kafka is away, before the session has expired, as
	// measured here. May be nil.
	Assigned, Revoked func(topic string, partition int32)
	// Joined is called when all partitions of a round were Assigned, which may be none. May be nil.
	Joined func()
	// Handle gets the committed records of the partitions that are ours, in the order of offsets within a partition,
	// from the group's offset on, or from where Begin says if there is none. False: there is no room for it now; it is
	// offered again when others of its partition are settled, and after a moment in any case, before those behind it.
	// It calls done, at any time and from any goroutine, when the record is settled; the group's offset follows the
	// first record that is not. done with false has the partition read again from this record on, once all of it that
	// was handed out before is done. Calls for different partitions may come at once; it must not block. ctx ends when
	// the partition is not ours any more; done is without effect then, and the record comes again, to its next owner. r
	// is the caller's. nil: no records are read, only Assigned and Revoked tell what is ours.
	Handle func(ctx context.Context, r *Fetched, done func(settled bool)) bool
	// Apart says that each record is settled for itself: one that is settled comes to nobody again though one before it does,
	// as far as that is committed. done with false is not for such records. Without it all behind one that is not settled come
	// again with it, in their order.
	Apart bool
	// Begin says where the group begins in a partition that it has no offset of; nil, or false: at its end. topicID is the ID
	// of the topic, as the group's offsets have it: "" if Kafka has none. Where the topic of an offset was deleted and made
	// anew, the group begins at the beginning and nobody is asked.
	Begin func(topic, topicID string, partition int32) (offset int64, ok bool)
	// Window is how many records of a partition may be unsettled. Default 256.
	Window int
	// Drained is called once, when Run's context has ended and no more is handed out and waited for: the records that were are
	// settled, or RevokeWait is over. What is left is to commit offsets and to tell the coordinator, of which there may be none
	// for some seconds. It may wait for what settles more of them, until ctx ends: two seconds later, or at once if there are
	// none. May be nil.
	Drained func(ctx context.Context)
	// RevokeWait is how long records may still be settled before a partition goes to another member. Default 2 s.
	RevokeWait time.Duration
}

// A Partition is one partition of a topic.
type Partition struct {
	Topic string
	ID    int32
}

// A Group is a member of a consumer group. When members come and go, only the partitions that have to move do. The
// section on groups in DESIGN.md tells how.
type Group struct {
	cfg   GroupConfig
	log   zerolog.Logger
	told  zerolog.Logger // sampled: what comes again and again while Kafka is away
	net   *links         // for requests that are answered at once
	joins *links         // for those that wait for other members

	mu    sync.Mutex // guards owned; nothing is called out under it
	owned map[spot]*holding

	moving  sync.Mutex // held while partitions come and go as members are assembled, by Run's goroutine or one that ends with it
	leaving bool       // guarded by moving: none is taken any more

	// Of Run's goroutine, and of beats while that waits for other members.
	member
	reader   *groupReader
	strategy sarama.BalanceStrategy
	counts   map[string][]int32 // the leader's: partitions of the topics, as they were divided
}

// NewGroup checks cfg. It starts nothing and connects to nothing.
func NewGroup(cfg GroupConfig) (*Group, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("cannot make a member of a consumer group: %w", err)
	}
	g := &Group{cfg: cfg, log: cfg.Logger.With().Str("group", cfg.Name).Logger(), owned: map[spot]*holding{},
		net: newLinks(cfg.Config, cfg.Heartbeat), joins: newLinks(cfg.Config, 2*cfg.SessionTimeout+cfg.RevokeWait)}
	g.told = g.log.Sample(&zerolog.BurstSampler{Burst: 6, Period: 10 * time.Second})
	g.reader = newGroupReader(g)
	return g, nil
}

func (cfg GroupConfig) withDefaults() (GroupConfig, error) {
	var errs []error
	var err error
	cfg.Config, err = cfg.Config.withDefaults()
	errs = append(errs, err)
	cfg.SessionTimeout, cfg.Heartbeat = or(cfg.SessionTimeout, 10*time.Second), or(cfg.Heartbeat, 3*time.Second)
	cfg.Window, cfg.RevokeWait = or(cfg.Window, 256), or(cfg.RevokeWait, 2*time.Second)
	cfg.Topics = slices.Compact(sorted(slices.Clone(cfg.Topics)))
	if cfg.Name == "" || len(cfg.Topics) == 0 {
		errs = append(errs, errors.New("no name or no topics"))
	}
	if cfg.Heartbeat < 0 || cfg.SessionTimeout < 3*cfg.Heartbeat || cfg.Window < 0 || cfg.RevokeWait < 0 {
		errs = append(errs, errors.New("a duration or size is negative, or the session's time-out is less than three heartbeats"))
	}
	nothing := func(string, int32) {}
	if cfg.Begin == nil {
		cfg.Begin = func(string, string, int32) (int64, bool) { return 0, false }
	}
	if cfg.Joined == nil {
		cfg.Joined = func() {}
	}
	if cfg.Drained == nil {
		cfg.Drained = func(context.Context) {}
	}
	var once sync.Once
	drained := cfg.Drained
	cfg.Drained = func(ctx context.Context) { once.Do(func() { drained(ctx) }) }
	if cfg.Assigned == nil {
		cfg.Assigned = nothing
	}
	if cfg.Revoked == nil {
		cfg.Revoked = nothing
	}
	return cfg, errors.Join(errs...)
}

// Owned gives the partitions that are ours, sorted.
func (g *Group) Owned() []Partition {
	g.mu.Lock()
	defer g.mu.Unlock()
	owned := make([]Partition, 0, len(g.owned))
	for at := range g.owned {
		owned = append(owned, Partition{at.topic, at.id})
	}
	slices.SortFunc(owned, func(a, b Partition) int {
		if a.Topic != b.Topic {
			return cmp.Compare(a.Topic, b.Topic)
		}
		return int(a.ID - b.ID)
	})
	return owned
}

// Run is a member until ctx ends, through every outage of Kafka. It then gives its partitions back, waits RevokeWait
// for records to be settled, leaves the group and returns nil. It is called once.
func (g *Group) Run(ctx context.Context) error {
	defer g.net.close()
	defer g.joins.close()
	defer g.reader.close()
	founded := g.cfg.Handle == nil
	for ctx.Err() == nil {
		founded = founded || g.found(ctx)
		err := g.stay(ctx)
		if ctx.Err() != nil {
			break
		}
		g.log.Warn().Err(err).Int("partitions", len(g.Owned())).Msg("the membership in the consumer group is lost")
		g.lose()
		if errors.Is(err, ErrNotAuthorized) {
			_ = sleep(ctx, deniedAgain)
		} else {
			_ = sleep(ctx, memberAgain)
		}
	}
	g.leave()
	return nil
}

const (
	// memberAgain is before another try to be a member.
	memberAgain = 200 * time.Millisecond
	// deniedAgain is before that of a principal that may not be one.
	deniedAgain = 5 * time.Second
)

// stay joins and does what a member does. It returns when what is owned has to be given up, and why.
func (g *Group) stay(ctx context.Context) error {
	if err := g.assemble(ctx); err != nil {
		return err
	}
	beat, commit := time.NewTicker(g.cfg.Heartbeat), time.NewTicker(commitEvery)
	defer beat.Stop()
	defer commit.Stop()
	for {
		var again bool
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-commit.C:
			g.commitAll(ctx)
			continue // whether the session lasts, the next heartbeat says
		case <-beat.C:
			again, err = g.heartbeat(ctx)
		}
		if err == nil && !again {
			again = g.look(ctx)
		}
		if err == nil && again {
			err = g.assemble(ctx)
		}
		if err != nil {
			return err
		}
	}
}

// assemble is rejoin, until ctx ends. Who leaves then gives its partitions back first, while it still joins: from when all
// have joined until the partitions are divided Kafka takes no commit, and after that only of those who have joined.
func (g *Group) assemble(ctx context.Context) error {
	joining, cancel := context.WithCancel(g.cfg.Patience)
	defer cancel()
	left := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(left)
		defer cancel()
		g.moving.Lock()
		defer g.moving.Unlock()
		g.leaving = true
		session, enough := g.session(joining) // until it may have expired, if Kafka is away
		defer enough()
		g.release(session, g.all(), g.cfg.RevokeWait+2*leaveWait, g.cfg.Drained)
		for _, h := range g.drop(nil) { // until now they are ours to whoever divides
			h.stop()
		}
	})
	err := g.rejoin(joining)
	if !stop() {
		<-left
	}
	return err
}

// commitEvery is between commits of offsets.
const commitEvery = time.Second

// lose gives up all partitions at once: they may already be somebody else's.
func (g *Group) lose() {
	for _, h := range g.drop(nil) {
		h.stop()
		g.cfg.Revoked(h.at.topic, h.at.id)
	}
}

// all gives what is owned.
func (g *Group) all() []*holding {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Collect(maps.Values(g.owned))
}

// drop takes all partitions that are not to be kept from what is owned.
func (g *Group) drop(keep map[spot]bool) (dropped []*holding) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for at, h := range g.owned {
		if !keep[at] {
			dropped = append(dropped, h)
			delete(g.owned, at)
		}
	}
	return dropped
}

// release gives partitions back in good order: no more records, a while to settle those there are, the offsets, for which
// it tries as long as it is told, and then Revoked. drained is called in between.
func (g *Group) release(ctx context.Context, hs []*holding, committing time.Duration, drained func(context.Context)) {
	if len(hs) == 0 {
		nothing, end := context.WithCancel(ctx)
		end()
		drained(nothing) // there is nothing that could be settled
		return
	}
	waiting, cancel := context.WithTimeout(ctx, g.cfg.RevokeWait)
	defer cancel()
	for _, h := range hs {
		h.drain()
	}
	for _, h := range hs {
		h.settled(waiting)
	}
	more, end := context.WithTimeout(ctx, leaveWait)
	drained(more)
	end()
	ctx, enough := context.WithTimeout(ctx, committing)
	defer enough()
	for !g.commit(ctx, hs) && sleep(ctx, memberAgain) == nil {
	}
	for _, h := range hs {
		h.stop()
		g.cfg.Revoked(h.at.topic, h.at.id)
	}
}

// leave gives everything back, after Run's context has ended.
func (g *Group) leave() {
	ctx, cancel := context.WithTimeout(g.cfg.Patience, min(g.cfg.RevokeWait+3*leaveWait, g.cfg.SessionTimeout))
	defer cancel()
	g.release(ctx, g.drop(nil), leaveWait, g.cfg.Drained)
	g.leaveGroup(ctx)
}

// leaveWait is how long leaving may take besides the wait for records.
const leaveWait = 2 * time.Second
