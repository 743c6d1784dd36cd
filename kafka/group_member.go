package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/IBM/sarama"
)

// A member is what the coordinator knows us by. It is guarded by its own lock, since beats looks at it too.
type member struct {
	lock       sync.Mutex
	id         string
	generation int32
	alive      time.Time // when the last request was sent that told the coordinator we are there
}

var (
	errSilence = errors.New("no answer to heartbeats for as long as a session lasts")
	errGone    = errors.New("the coordinator does not know this member any more")
)

func (m *member) get() (id string, generation int32) {
	m.lock.Lock()
	defer m.lock.Unlock()
	return m.id, m.generation
}

func (m *member) set(id string, generation int32) {
	m.lock.Lock()
	defer m.lock.Unlock()
	m.id, m.generation = id, generation
}

// seen notes that a request which was sent at that time was answered.
func (m *member) seen(sent time.Time) {
	m.lock.Lock()
	defer m.lock.Unlock()
	if sent.After(m.alive) {
		m.alive = sent
	}
}

// session gives a context that ends when the session may have expired. While nothing is owned nothing can be lost.
func (g *Group) session(ctx context.Context) (context.Context, context.CancelFunc) {
	g.lock.Lock()
	defer g.lock.Unlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.owned) == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithDeadlineCause(ctx, g.alive.Add(g.cfg.SessionTimeout*9/10), errSilence)
}

// overdue says that the session may have expired, which the next heartbeat will find.
func (g *Group) overdue() bool {
	g.lock.Lock()
	defer g.lock.Unlock()
	return time.Since(g.alive) > g.cfg.SessionTimeout*9/10
}

func (g *Group) coordinated() coordinated { return coordinated{sarama.CoordinatorGroup, g.cfg.Name} }

// heartbeat tells the coordinator that we are there, and asks until there is an answer or the session may have
// expired. again says that the members are being assembled anew.
func (g *Group) heartbeat(ctx context.Context) (again bool, err error) {
	ctx, cancel := g.session(ctx)
	defer cancel()
	code, err := g.beat(ctx)
	switch {
	case err != nil:
		return false, errors.Join(err, context.Cause(ctx))
	case code == sarama.ErrRebalanceInProgress:
		return true, nil
	case code == sarama.ErrNoError:
		return false, nil
	}
	return false, g.disowned(code)
}

// disowned is the error for a member that the coordinator does not accept.
func (g *Group) disowned(code sarama.KError) error {
	if code == sarama.ErrUnknownMemberId || code == sarama.ErrFencedInstancedId {
		g.set("", noGeneration)
	}
	if err := denied("Read", code); errors.Is(err, ErrNotAuthorized) {
		return err
	}
	return fmt.Errorf("%w: %w", errGone, code)
}

// noGeneration is that of who is no member yet.
const noGeneration = -1

// beat sends one heartbeat, as often as it takes for an answer.
func (g *Group) beat(ctx context.Context) (sarama.KError, error) {
	var sent time.Time
	code, err := g.net.coordinate(ctx, g.coordinated(), func(b *sarama.Broker) (sarama.KError, error) {
		sent = time.Now()
		id, generation := g.get()
		resp, err := b.Heartbeat(&sarama.HeartbeatRequest{Version: 4, GroupId: g.cfg.Name, GenerationId: generation, MemberId: id})
		if err != nil {
			return 0, err
		}
		return resp.Err, nil
	})
	if err == nil && (code == sarama.ErrNoError || code == sarama.ErrRebalanceInProgress) {
		g.seen(sent)
	}
	return code, err
}

// beats sends heartbeats while we wait for other members, and ends the wait when the session may have expired. The
// coordinator takes them as a sign of life and answers that there is a rebalance.
func (g *Group) beats(ctx context.Context, expired context.CancelCauseFunc) {
	for sleep(ctx, g.cfg.Heartbeat) == nil {
		session, cancel := g.session(ctx)
		_, err := g.beat(session)
		if err != nil && ctx.Err() == nil {
			expired(context.Cause(session))
		}
		cancel()
	}
}

// rejoin takes part in assembling the members until it has a share of the partitions for good. It keeps what it owns
// meanwhile, unless that is given to another: then it is given back first, and assigned by one more round.
func (g *Group) rejoin(ctx context.Context) error {
	ctx, expired := context.WithCancelCause(ctx)
	var beats sync.WaitGroup
	beats.Go(func() { g.beats(ctx, expired) }) // ends with ctx
	defer beats.Wait()
	defer expired(nil)
	for {
		assigned, err := g.round(ctx)
		if err != nil {
			return errors.Join(err, context.Cause(ctx))
		}
		if !g.move(ctx, assigned) {
			return nil
		}
	}
}

// move gives back what is owned and not assigned, and takes what is assigned. again says that something was given back.
func (g *Group) move(ctx context.Context, assigned map[spot]bool) (again bool) {
	g.moving.Lock()
	defer g.moving.Unlock()
	if g.leaving {
		return false
	}
	revoked := g.drop(assigned)
	g.release(ctx, revoked, leaveWait, func(context.Context) {})
	g.gain(ctx, assigned)
	return len(revoked) > 0
}

// gain takes what is newly ours.
func (g *Group) gain(ctx context.Context, assigned map[spot]bool) {
	var gained []*holding
	g.mu.Lock()
	for at := range assigned {
		if g.owned[at] == nil {
			h := newHolding(ctx, g, at)
			g.owned[at] = h
			gained = append(gained, h)
		}
	}
	total := len(g.owned)
	g.mu.Unlock()
	slices.SortFunc(gained, func(a, b *holding) int { return int(a.at.id - b.at.id) })
	for _, h := range gained {
		g.cfg.Assigned(h.at.topic, h.at.id)
		h.start()
	}
	g.cfg.Joined()
	g.log.Info().Int("gained", len(gained)).Int("partitions", total).Msg("a share of the consumer group's partitions is assigned")
}

// round is one round of joining, and gives what is assigned.
func (g *Group) round(ctx context.Context) (map[spot]bool, error) {
	for {
		sent := time.Now()
		resp, err := g.join(ctx)
		if err != nil {
			return nil, err
		}
		g.seen(sent)
		g.set(resp.MemberId, resp.GenerationId)
		assigned, again, err := g.sync(ctx, resp)
		if err != nil || !again {
			return assigned, err
		}
	}
}

// join waits until all members have joined.
func (g *Group) join(ctx context.Context) (resp *sarama.JoinGroupResponse, err error) {
	for {
		code, err := g.joins.coordinate(ctx, g.coordinated(), func(b *sarama.Broker) (sarama.KError, error) {
			req, err := g.joinRequest()
			if err != nil {
				return 0, err
			}
			if resp, err = b.JoinGroup(req); err != nil {
				return 0, err
			}
			return resp.Err, nil
		})
		switch {
		case err != nil:
			return nil, err
		case code == sarama.ErrNoError:
			return resp, nil
		case code == sarama.ErrMemberIdRequired: // KIP-394: this is the id to join with
			g.set(resp.MemberId, noGeneration)
		case code == sarama.ErrRebalanceInProgress:
		default:
			return nil, g.disowned(code)
		}
	}
}

// rebalanceTime is how long Kafka waits for members to join once more. One that died meanwhile holds the others up so long.
const rebalanceTime = 10 * time.Second

func (g *Group) joinRequest() (*sarama.JoinGroupRequest, error) {
	id, generation := g.get()
	if g.strategy == nil {
		g.strategy = sarama.NewBalanceStrategyCooperativeSticky()
	}
	req := sarama.NewJoinGroupRequest(sarama.MaxVersion)
	req.GroupId, req.MemberId, req.ProtocolType = g.cfg.Name, id, "consumer"
	req.SessionTimeout = int32(g.cfg.SessionTimeout.Milliseconds())
	req.RebalanceTimeout = min(req.SessionTimeout, int32(rebalanceTime.Milliseconds()))
	meta := &sarama.ConsumerGroupMemberMetadata{Version: 2, Topics: g.cfg.Topics, OwnedPartitions: g.ownedPartitions(), GenerationID: generation}
	if s, ok := g.strategy.(sarama.SubscriptionUserDataBalanceStrategy); ok {
		data, err := s.SubscriptionUserData(g.cfg.Topics)
		if err != nil {
			return nil, err
		}
		meta.UserData = data
	}
	return req, req.AddGroupProtocolMetadata(g.strategy.Name(), meta)
}

func (g *Group) ownedPartitions() (owned []*sarama.OwnedPartition) {
	byTopic := map[string]*sarama.OwnedPartition{}
	for _, p := range g.Owned() {
		if byTopic[p.Topic] == nil {
			byTopic[p.Topic] = &sarama.OwnedPartition{Topic: p.Topic}
			owned = append(owned, byTopic[p.Topic])
		}
		byTopic[p.Topic].Partitions = append(byTopic[p.Topic].Partitions, p.ID)
	}
	return owned
}

// sync gets our share. The leader of the group divides the partitions and sends the shares of all with it. again says
// that the members have to be assembled once more.
func (g *Group) sync(ctx context.Context, joined *sarama.JoinGroupResponse) (assigned map[spot]bool, again bool, err error) {
	protocol := g.strategy.Name()
	kind := "consumer"
	req := &sarama.SyncGroupRequest{Version: 5, GroupId: g.cfg.Name, MemberId: joined.MemberId, GenerationId: joined.GenerationId,
		ProtocolType: &kind, ProtocolName: &protocol}
	g.counts = nil
	if joined.LeaderId == joined.MemberId {
		if err := g.divide(ctx, joined, req); err != nil {
			return nil, false, err
		}
	}
	var resp *sarama.SyncGroupResponse
	sent := time.Now()
	code, err := g.joins.coordinate(ctx, g.coordinated(), func(b *sarama.Broker) (sarama.KError, error) {
		var err error
		if resp, err = b.SyncGroup(req); err != nil {
			return 0, err
		}
		return resp.Err, nil
	})
	switch {
	case err != nil:
		return nil, false, err
	case code == sarama.ErrRebalanceInProgress:
		return nil, true, nil
	case code != sarama.ErrNoError:
		return nil, false, g.disowned(code)
	}
	g.seen(sent)
	assigned, err = g.shareOf(resp, joined.GenerationId)
	return assigned, false, err
}

// leaveGroup tells the coordinator that we go, so that nobody has to wait for the session to expire.
func (g *Group) leaveGroup(ctx context.Context) {
	id, _ := g.get()
	if id == "" {
		return
	}
	req := &sarama.LeaveGroupRequest{Version: 3, GroupId: g.cfg.Name, MemberId: id, Members: []sarama.MemberIdentity{{MemberId: id}}}
	_, err := g.net.coordinate(ctx, g.coordinated(), func(b *sarama.Broker) (sarama.KError, error) {
		resp, err := b.LeaveGroup(req)
		if err != nil {
			return 0, err
		}
		return resp.Err, nil
	})
	if err != nil {
		g.log.Warn().Err(err).Msg("cannot leave the consumer group")
	}
}
