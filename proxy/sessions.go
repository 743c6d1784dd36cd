package proxy

import (
	"context"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"sluice/fleet"
	"sluice/fleet/driver"
	"sluice/kafka"
	"sluice/mqtt"
	"sluice/proxy/config"
)

// sessions keep the sessions of this instance's devices in Kafka: the driver does, and this is what is around it. It is the
// mqtt.Store.
type sessions struct {
	cfg       *config.Config
	clients   *kafkaClients
	log       zerolog.Logger
	lines     zerolog.Logger // sampled: a fleet can trigger these
	m         *sessionMetrics
	reg       prometheus.Registerer
	producer  *kafka.Producer
	state     *kafka.Producer // of the sessions topic
	publisher *publisher
	streams   *streams
	replayer  *replayer       // nil: there are no command rules
	consumer  *kafka.Consumer // of the command topics; nil: likewise
	finder    *finder
	late      *late
	presence  *presence

	table    *kafka.Consumer // of the sessions topic
	journal  *kafka.Consumer // of the ledger
	fencer   *kafka.Fencer
	reader   *kafka.Reader
	group    *kafka.Group
	forfeits *forfeits // nil: there are no command rules

	layout *layout
	driver *driver.Driver
	ends   driver.Joined[driver.Ends]
	doubts []*doubts  // by partition
	failed chan error // what ends the process
	ctx    context.Context
	work   sync.WaitGroup // of goroutines that end with ctx
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

// Open takes the client ID of a CONNECT.
func (s *sessions) Open(ctx context.Context, o *mqtt.Opening) (*mqtt.Opened, error) {
	began := time.Now()
	if s.spared(o) {
		return &mqtt.Opened{State: mqtt.State{Past: s.past(ctx, o.ClientID)}}, nil
	}
	if s.full(o) {
		s.m.connects.WithLabelValues("too_many").Inc()
		return nil, errTooMany
	}
	k := &keeper{s: s, session: o.Session}
	var a fleet.Action
	var err error
	if k.conn, a, err = s.driver.Open(ctx, o.ClientID, requestOf(o), k); err != nil {
		if ctx.Err() != nil {
			s.m.connects.WithLabelValues("given_up").Inc()
		}
		return nil, err
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
		k.conn.Quit(reasonNotResumed)
		return nil, fmt.Errorf("cannot go on with the session: %w", err)
	}
	k.conn.Told()
	return opened, nil
}

// Admits says whether a user may have a client ID that is connected here.
func (s *sessions) Admits(clientID, username string) bool { return s.driver.Admits(clientID, username) }

// spared says that a connection needs no claim: the configuration says so, it keeps no session, and none is stored
// that it would end.
func (s *sessions) spared(o *mqtt.Opening) bool {
	return s.cfg.Sessions.Claim == config.ClaimStored && o.Expiry == 0 && o.Clean && !s.driver.Knows(o.ClientID)
}

// full says that a connection would begin one more session that outlives it, and that there are as many as there may be.
// A session counts once the record that opens it was read, so there can be a few more.
func (s *sessions) full(o *mqtt.Opening) bool {
	most := s.cfg.Limits.Sessions
	if o.Expiry == 0 {
		return false
	}
	if !s.Full() && (most == 0 || s.driver.Lasting() < int64(most)) {
		return false
	}
	return !s.driver.Lasts(o.ClientID)
}

// Full says that the sessions take all the memory they may.
func (s *sessions) Full() bool {
	most := int64(s.cfg.Limits.SessionsMemory)
	return most > 0 && s.driver.Held() >= most
}

// resume makes of an opened session what mqtt goes on with.
func (s *sessions) resume(ctx context.Context, k *keeper, a fleet.Action) (opened *mqtt.Opened, err error) {
	opened = &mqtt.Opened{Present: a.Present, Keeper: k}
	st := &opened.State
	if !a.Present {
		st.Past = s.past(ctx, k.conn.ClientID())
		if k.conn.Unheard {
			before, _ := s.logEnds(ctx) // as far as they are known
			maps.DeleteFunc(before, func(stream int32, end int64) bool { return end <= s.streams.get(stream).next.Load() })
			st.Before = placesOf(before)
		}
		return opened, nil
	}
	st.Subscriptions = s.subscriptions(ctx, a.State)
	if s.finder.c != nil {
		if err = s.replays(ctx, a.State, st); err != nil {
			return nil, err
		}
	}
	st.Received = k.conn.Received(a.State.Received)
	st.Flight, err = s.flight(ctx, a.State)
	for _, u := range st.Flight {
		if u.Unread {
			k.unread = append(k.unread, u)
		}
	}
	return opened, err
}

// past gives how far the session before a new one had come, where that is farther than the devices here. If a log was cut, what
// comes there is new.
func (s *sessions) past(ctx context.Context, client string) []mqtt.Place {
	ahead := s.driver.Ahead(client)
	for stream, at := range ahead {
		ahead[stream] = min(at, s.logEnd(ctx, s.streams.get(stream), at))
	}
	return placesOf(ahead)
}

// placesOf gives ends as mqtt has them.
func placesOf(ends driver.Ends) (places []mqtt.Place) {
	for stream, at := range ends {
		places = append(places, mqtt.Place{Stream: stream, Offset: at})
	}
	return places
}

// Fail ends the process with an error.
func (s *sessions) Fail(err error) {
	select {
	case s.failed <- err:
	default:
	}
}

// Ends says where the devices here are in the command topics.
func (s *sessions) Ends() driver.Ends { return s.streams.ends() }

// LogEnds says where the logs of the command topics end; nil: that can't be known of all of them now.
func (s *sessions) LogEnds(ctx context.Context) driver.Ends {
	ends, err := s.logEnds(ctx)
	if err != nil {
		return nil
	}
	return ends
}

// Positions gives ends in the command topics as a session's record has them.
func (s *sessions) Positions(ends driver.Ends) *fleet.Progress { return s.streams.positions(ends) }

// Ahead says how far a session has got in the command topics where that is farther than the devices here.
func (s *sessions) Ahead(p *fleet.Progress) driver.Ends { return s.streams.ahead(p) }

// Ended tells the receipts of the commands that waited for a session which has ended: nobody will get them.
func (s *sessions) Ended(client string, state *fleet.Session, ends driver.Ends) {
	if s.replayer != nil && len(state.Subs) > 0 {
		s.forfeits.add(&forfeit{client: client, state: state, ends: ends})
	}
}

// Unwanted tells the receipt of a command that no session was offered.
func (s *sessions) Unwanted(client string, stream int32, offset int64, state *fleet.Session) {
	if s.replayer != nil {
		s.forfeits.add(&forfeit{client: client, state: state, unwanted: mqtt.Place{Stream: stream, Offset: offset}})
	}
}

// Mark is the place of a command as records have it.
func (s *sessions) Mark(stream int32, offset int64) fleet.Mark { return s.streams.mark(stream, offset) }

// WillRecords makes the records of a will by the rules.
func (s *sessions) WillRecords(client string, w *fleet.Will) ([]*kafka.TxRecord, fleet.WillEnd, func(error)) {
	return s.publisher.willRecords(willMessage(w, client), w.CommonName)
}

// millis is the wall clock of records.
func millis() int64 { return time.Now().UnixMilli() }

// transactionTimeout is for how long Kafka lets a transaction be open.
const transactionTimeout = 15 * time.Second

// transactor makes what writes under a transactional id.
func (s *sessions) transactor(id string, fenced func(error)) (driver.Transactor, error) {
	cfg := s.clients.config(s.reg)
	cfg.Budget = s.publisher.budget
	return kafka.NewTransactor(kafka.TransactorConfig{
		Config: cfg, TransactionalID: id, Timeout: transactionTimeout, OnFenced: fenced,
	})
}

// A stateProducer takes the memory of the records that it writes from the budget.
type stateProducer struct{ *kafka.Producer }

// stateOverhead is the memory of such a record in flight beside its key and value, in bytes.
const stateOverhead = 1024

// Produce writes a record.
func (p stateProducer) Produce(r *kafka.Record) {
	r.Reserved = stateOverhead + len(r.Key) + len(r.Value)
	r.ReservedFor = kafka.Destination{Topic: r.Topic, Partition: r.To}
	p.Budget().Take(r.ReservedFor, r.Reserved)
	p.Producer.Produce(r)
}

// stop ends what is shared in order, when all connections have ended.
func (s *sessions) stop(ctx context.Context) {
	s.driver.Stop(ctx, func() bool {
		for _, d := range s.doubts {
			if d.any() {
				return false
			}
		}
		return true
	})
	// The producer that is to store the receipts needs a part of the time too.
	telling, cancel := context.WithCancel(ctx)
	if end, ok := ctx.Deadline(); ok {
		telling, cancel = context.WithDeadline(ctx, end.Add(-time.Until(end)/4))
	}
	defer cancel()
	if !s.forfeits.await(telling) {
		s.log.Warn().Int64("sessions", s.forfeits.open.Load()).Msg("stopped before it was told what became of the commands that waited for sessions which have ended; they have no receipts")
	}
}

// tableConfig and journalConfig give the records of a topic to the driver.
func (s *sessions) tableConfig(cfg kafka.Config) kafka.ConsumerConfig {
	return kafka.ConsumerConfig{
		Config: cfg, Topics: []string{s.cfg.Sessions.Topic}, From: kafka.FromBeginning, Begin: s.layout.begin,
		Handle:   s.driver.HandleSession,
		Progress: func(_ string, partition int32, next int64) { s.driver.SessionsRead(partition, next) },
	}
}

func (s *sessions) journalConfig(cfg kafka.Config) kafka.ConsumerConfig {
	return kafka.ConsumerConfig{
		Config: cfg, Topics: []string{s.cfg.Sessions.Ledger}, From: kafka.FromBeginning, Begin: s.layout.begin,
		Handle:   s.driver.HandleLedger,
		Progress: func(_ string, partition int32, next int64) { s.driver.LedgerRead(partition, next) },
	}
}
