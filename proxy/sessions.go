package proxy

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"sluice/fleet"
	"sluice/kafka"
	"sluice/mqtt"
	"sluice/proxy/config"
)

// sessions keep the sessions of this instance's devices in Kafka, as package fleet says. It is the mqtt.Store.
type sessions struct {
	cfg       *config.Config
	clients   *kafkaClients
	log       zerolog.Logger
	lines     zerolog.Logger // sampled: a fleet can trigger these
	refusals  zerolog.Logger // sampled: what Kafka says to records that are tried again
	m         *sessionMetrics
	reg       prometheus.Registerer
	producer  *kafka.Producer
	state     *kafka.Producer // of the sessions topic
	publisher *publisher
	streams   *streams
	replayer  *replayer       // nil: there are no command rules
	consumer  *kafka.Consumer // of the command topics; nil: likewise
	finder    *finder
	presence  *presence

	table    *kafka.Consumer // of the sessions topic
	journal  *kafka.Consumer // of the ledger
	fencer   *kafka.Fencer
	fences   fences
	reader   *kafka.Reader
	group    *kafka.Group
	forfeits *forfeits // nil: there are no command rules

	layout  *layout
	parts   []*part
	ledgers []*ledgerPart
	pulse   pulse
	me      atomic.Pointer[incarnation]
	failed  chan error // what ends the process
	ctx     context.Context
	work    sync.WaitGroup // of errands: goroutines that end by themselves or with ctx
	leaving atomic.Int64   // connections whose end is not stored
	lasting atomic.Int64   // sessions that outlive their connection, of all instances, as far as was read
	held    atomic.Int64   // bytes of all sessions' records
	rebirth sync.Mutex
	stopped atomic.Bool
}

// An incarnation is this process under one name. One that was declared dead is followed by another.
type incarnation struct {
	name   string
	began  int64
	shards []*shard
	dead   atomic.Bool
	stop   context.CancelFunc // of its heart and shards

	beating []atomic.Bool // by partition: a heartbeat is under way
	beaten  chan error    // has the outcome of the first one
}

// shardCount is how many transactional ids an incarnation has. Who fences one of them, to take over a device, stops
// the transactions of the devices of that one for a moment.
const shardCount = 4

// The times of the protocol; package fleet tells why.
const (
	heartbeat          = 2 * time.Second
	takeoverWait       = 2 * time.Second
	transactionTimeout = 15 * time.Second
)

// newName gives the name of an incarnation.
func newName() string {
	random := make([]byte, 8)
	_, _ = rand.Read(random) // never fails
	return hex.EncodeToString(random)
}

func (i *incarnation) txid(shard int) string { return "sluice-" + i.name + "-" + strconv.Itoa(shard) }

func (i *incarnation) txids() (ids []string) {
	for n := range i.shards {
		ids = append(ids, i.txid(n))
	}
	return ids
}

func (i *incarnation) shard(clientID string) *shard {
	return i.shards[int(kafka.PartitionOf([]byte(clientID), shardCount))]
}

// spread is how many partitions of the sessions topic, and of the ledger, client IDs are divided among.
func (s *sessions) spread() int32 { return int32(len(s.parts)) }

// part gives the part of the sessions topic that has a client ID.
func (s *sessions) part(clientID string) *part {
	return s.parts[kafka.PartitionOf([]byte(clientID), s.spread())]
}

func (s *sessions) ledger(clientID string) *ledgerPart {
	return s.ledgers[kafka.PartitionOf([]byte(clientID), s.spread())]
}

// lostPause, to five times of it, is how long a CONNECT that lost against a later one elsewhere waits for its answer.
// Devices that share a client ID connect again at once when they are refused, and would never let one another through.
const lostPause = 100 * time.Millisecond

// errMoved answers a CONNECT whose client ID was taken by a later one meanwhile.
var errMoved = &mqtt.ProtocolFault{Code: mqtt.ServerBusy, Detail: "the client ID connected again meanwhile"}

// errTooMany answers a CONNECT that would begin one session too many.
var errTooMany = &mqtt.ProtocolFault{Code: mqtt.QuotaExceeded, Detail: "too many sessions"}

// errForeign answers a CONNECT for the session of another user.
var errForeign = &mqtt.ProtocolFault{Code: mqtt.NotAuthorized, Detail: "the client ID has a session of another user"}

var errNotNow = errors.New("the sessions in Kafka can't be reached now")

// Open takes the client ID of a CONNECT.
func (s *sessions) Open(ctx context.Context, o *mqtt.Opening) (*mqtt.Opened, error) {
	began := time.Now()
	p := s.part(o.ClientID)
	if s.spared(p, o) {
		return &mqtt.Opened{}, nil
	}
	if s.full(p, o) {
		s.m.connects.WithLabelValues("too_many").Inc()
		return nil, errTooMany
	}
	k := &keeper{s: s, p: p, opening: o, will: willOf(o)}
	at, err := p.begin(ctx, k)
	if err != nil {
		return nil, err
	}
	var a fleet.Action
	select {
	case a = <-at.answer:
	case <-ctx.Done():
		if p.abandon(at) {
			s.m.connects.WithLabelValues("given_up").Inc()
			return nil, errNotNow
		}
		a = <-at.answer
	}
	switch a.Kind {
	case fleet.ActOpened:
	case fleet.ActRefused:
		s.m.connects.WithLabelValues("refused").Inc()
		return nil, errForeign
	default:
		s.m.connects.WithLabelValues("lost").Inc()
		pause(ctx, lostPause+time.Duration(mathrand.Int64N(int64(lostPause)*4)))
		return nil, errMoved
	}
	s.m.opened(a.Present, time.Since(began))
	opened, err := s.resume(ctx, k, a)
	if err != nil {
		s.lines.Warn().Err(err).Str("client_id", o.ClientID).Msg("cannot go on with a session")
		k.quit()
		return nil, errNotNow
	}
	return opened, nil
}

// Admits says whether a user may have a client ID that is connected here.
func (s *sessions) Admits(clientID, username string) bool {
	p := s.part(clientID)
	p.lock()
	defer p.unlock()
	h := p.clients[clientID]
	if h == nil {
		return true
	}
	_, refused := h.m.Refuses(fleet.ConnectRequest{Principal: username, Now: millis()}, p.view(clientID))
	return !refused
}

// spared says that a connection needs no claim: the configuration says so, it keeps no session, and none is stored
// that it would end.
func (s *sessions) spared(p *part, o *mqtt.Opening) bool {
	if s.cfg.Sessions.Claim != config.ClaimStored || o.Expiry > 0 || !o.Clean {
		return false
	}
	p.lock()
	defer p.unlock()
	_, stored := p.table.Client(o.ClientID)
	return !stored && p.clients[o.ClientID] == nil
}

// full says that a connection would begin one more session that outlives it, and that there are as many as there may be.
// A session counts once the record that opens it was read, so there can be a few more.
func (s *sessions) full(p *part, o *mqtt.Opening) bool {
	most := s.cfg.Limits.Sessions
	if o.Expiry == 0 {
		return false
	}
	if !s.Full() && (most == 0 || s.lasting.Load() < int64(most)) {
		return false
	}
	p.lock()
	defer p.unlock()
	return !p.view(o.ClientID).Lasting()
}

// Full says that the sessions take all the memory they may.
func (s *sessions) Full() bool {
	most := int64(s.cfg.Limits.SessionsMemory)
	return most > 0 && s.held.Load() >= most
}

// resume makes of an opened session what mqtt goes on with.
func (s *sessions) resume(ctx context.Context, k *keeper, a fleet.Action) (opened *mqtt.Opened, err error) {
	opened = &mqtt.Opened{Present: a.Present, Keeper: k}
	if !a.Present {
		return opened, nil
	}
	st := &opened.State
	st.Subscriptions = subscriptionsOf(a.State)
	if s.finder.c != nil {
		if st.Behind, st.Done, err = s.replays(ctx, a.State); err != nil {
			return nil, err
		}
	}
	st.Received = k.received
	st.Flight, err = s.finder.flight(ctx, s.streams, a.State)
	return opened, err
}

// start takes a name and begins to beat. Everything that was ever written must have been read.
func (s *sessions) start(ctx context.Context) error {
	s.rebirth.Lock()
	defer s.rebirth.Unlock()
	return s.incarnate(ctx)
}

// incarnate takes a new name. rebirth is held.
func (s *sessions) incarnate(ctx context.Context) error {
	inc := &incarnation{name: newName(), began: millis(), beating: make([]atomic.Bool, len(s.parts)), beaten: make(chan error, 1)}
	own, stop := context.WithCancel(s.ctx)
	inc.stop = stop
	for n := range shardCount {
		sh, err := s.newShard(inc, n)
		if err != nil {
			stop()
			return err
		}
		inc.shards = append(inc.shards, sh)
	}
	for _, sh := range inc.shards {
		s.work.Go(func() { sh.run(own) }) // ends with own
	}
	s.pulse.begin(inc.name, s.cfg.Sessions.DeadAfter, len(s.parts))
	s.recallInstances()
	if err := s.firstBeat(ctx, inc); err != nil {
		stop()
		return err
	}
	for _, p := range s.parts {
		p.lock()
		p.owner = fleet.NewOwner(inc.name)
		p.unlock()
	}
	s.me.Store(inc)
	s.work.Go(func() { s.runHeart(own, inc) }) // ends with own
	s.log.Info().Str("incarnation", inc.name).Msg("sessions are shared with the other instances")
	return nil
}

// judged is called when a verdict on an incarnation of ours was read: the others act as if it were dead, so it has to
// be. Its devices come back to a new one.
func (s *sessions) judged(inc *incarnation, by string) {
	if inc.dead.Swap(true) {
		return
	}
	s.log.Error().Str("incarnation", inc.name).Str("by", by).
		Msg("this instance was silent for too long and was declared dead; its devices are disconnected and it goes on under a new name")
	s.m.verdicts.WithLabelValues("own").Inc()
	s.work.Go(func() { // ends with s.ctx at the latest
		inc.stop()
		for _, p := range s.parts {
			p.bury(inc)
		}
		s.rebirth.Lock()
		defer s.rebirth.Unlock()
		for s.ctx.Err() == nil {
			err := s.incarnate(s.ctx)
			if err == nil {
				s.claimOwnership()
				return
			}
			s.log.Warn().Err(err).Msg("cannot go on under a new name, trying again")
			pause(s.ctx, time.Second)
		}
	})
}

// claimOwnership makes the new incarnation the owner of what the group has given to this process.
func (s *sessions) claimOwnership() {
	for _, p := range s.parts {
		p.lock()
		if p.assigned {
			p.own()
		}
		p.unlock()
	}
}

// fail ends the process with an error.
func (s *sessions) fail(err error) {
	select {
	case s.failed <- err:
	default:
	}
}

// first says whether this instance looks after the first partition: what one instance of all is to do, it does.
func (s *sessions) first() bool {
	p := s.parts[0]
	p.lock()
	defer p.unlock()
	return p.owner.Owns()
}

// millis is the wall clock of records.
func millis() int64 { return time.Now().UnixMilli() }

// ready says why no device can be taken now.
func (s *sessions) ready() error {
	inc := s.me.Load()
	switch {
	case inc == nil:
		return errors.New("the sessions are not read yet")
	case inc.dead.Load():
		return errors.New("this instance was declared dead and takes a new name")
	}
	return nil
}

// readEnd waits until a part of the table has been read up to an end that is fetched now.
func (s *sessions) readEnd(ctx context.Context, p *part) error {
	end, err := p.end.ask(ctx, s.work.Go, func() (int64, error) { return s.table.End(s.ctx, s.cfg.Sessions.Topic, p.id) })
	if err != nil {
		return fmt.Errorf("cannot read the sessions to their end: %w", err)
	}
	return p.mark.wait(ctx, end)
}

// readLedger waits until a part of the ledger has been read up to an end that is fetched now.
func (s *sessions) readLedger(ctx context.Context, l *ledgerPart) error {
	end, err := l.end.ask(ctx, s.work.Go, func() (int64, error) { return s.journal.End(s.ctx, s.cfg.Sessions.Ledger, l.id) })
	if err != nil {
		return fmt.Errorf("cannot read the ledger to its end: %w", err)
	}
	return l.mark.wait(ctx, end)
}
