package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"sluice/kafka/produce"
)

const (
	// askAgain to askAgainMax is between tries of a request to a coordinator, and no more than askAgainSoon while a
	// transaction is being ended, a matter of milliseconds: who fences and waits for longer finds that the other has
	// renewed and begun another, which it ends again.
	askAgain     = 2 * time.Millisecond
	askAgainSoon = 25 * time.Millisecond
	askAgainMax  = 300 * time.Millisecond
	// undecidedMost is how long a coordinator may give no decision before the log says so. The usual move of one is over by
	// then; what is not is a cluster that can't hold its own topics of transactions or groups.
	undecidedMost = 3 * time.Second
)

// errNoLink: the request was certainly not sent.
var errNoLink = errors.New("cannot connect")

// links are one client's connections to brokers, one for each address. Requests on a connection are served one after
// the other; who must not wait for others has links of its own.
type links struct {
	cfg   Config
	read  time.Duration // how long an answer may take
	admin *Admin        // says where coordinators and leaders are

	mu           sync.Mutex // guards what follows
	byAddr       map[string]*link
	coordinators map[string]string // addresses by the kind and name of what they coordinate
	closed       bool
}

// A link is one connection.
type link struct {
	opening sync.Mutex
	dial    *dialer
	conf    *sarama.Config
	broker  *sarama.Broker
}

func newLinks(cfg Config, read time.Duration) *links {
	return &links{cfg: cfg, read: read, admin: newAdmin(cfg.forListings()), byAddr: map[string]*link{}, coordinators: map[string]string{}}
}

// close cuts all connections, and lets none be made again.
func (l *links) close() {
	l.mu.Lock()
	open := l.byAddr
	l.byAddr, l.closed = map[string]*link{}, true
	l.mu.Unlock()
	for _, k := range open {
		k.close()
	}
	_ = l.admin.Close() // it always gives nil
}

func (k *link) close() {
	k.dial.close()
	_ = k.broker.Close() // it is left
}

// get gives the connection to addr, which may have to be made yet.
func (l *links) get(addr string) (*link, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, fmt.Errorf("%w: %w", errNoLink, ErrClosed)
	}
	k := l.byAddr[addr]
	if k == nil {
		d := newDialer(min(l.cfg.DialTimeout, fetchDial))
		k = &link{dial: d, conf: l.cfg.base(d), broker: sarama.NewBroker(addr)}
		k.conf.Net.ReadTimeout, k.conf.Net.WriteTimeout = l.read, l.read
		l.byAddr[addr] = k
	}
	return k, nil
}

// drop leaves a connection that failed.
func (l *links) drop(addr string, k *link) {
	l.mu.Lock()
	if l.byAddr[addr] == k {
		delete(l.byAddr, addr)
	}
	l.mu.Unlock()
	k.close()
}

// call has f ask the broker at addr. An error is one of the connection, which is then made anew for the next call. It
// is errNoLink if f was not called. When ctx ends the connection is cut.
func (l *links) call(ctx context.Context, addr string, f func(*sarama.Broker) error) error {
	k, err := l.get(addr)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, k.dial.cut)
	defer stop()
	if err = k.connect(); err == nil {
		err = f(k.broker)
	}
	if err != nil {
		l.drop(addr, k)
		return l.cfg.Security.explain("no answer from", addr, err)
	}
	return nil
}

func (k *link) connect() error {
	k.opening.Lock() // Open says at once that it was called before, and is not done then
	defer k.opening.Unlock()
	if err := k.dial.open(k.broker, k.conf); err != nil {
		return fmt.Errorf("%w: %w", errNoLink, err)
	}
	return nil
}

// A coordinated is what has a coordinator: a transactional id or a consumer group.
type coordinated struct {
	kind sarama.CoordinatorType
	name string
}

func (c coordinated) key() string { return fmt.Sprint(c.kind, c.name) }

// coordinator gives the address of the coordinator, as it was known last. refused is what is said to who may not know.
func (l *links) coordinator(ctx context.Context, of coordinated) (addr string, refused sarama.KError, err error) {
	l.mu.Lock()
	addr = l.coordinators[of.key()]
	l.mu.Unlock()
	if addr != "" {
		return addr, sarama.ErrNoError, nil
	}
	err = l.admin.ask(ctx, func(b *sarama.Broker) error {
		resp, err := b.FindCoordinator(&sarama.FindCoordinatorRequest{Version: 3, CoordinatorKey: of.name, CoordinatorType: of.kind})
		if err != nil {
			return err
		}
		if errors.Is(denied("", resp.Err), ErrNotAuthorized) {
			refused = resp.Err
			return nil
		}
		if resp.Err != sarama.ErrNoError || resp.Coordinator == nil {
			return fmt.Errorf("it knows no coordinator: %w", resp.Err)
		}
		addr = resp.Coordinator.Addr()
		return nil
	})
	if err != nil {
		return "", 0, fmt.Errorf("cannot find the coordinator of %q: %w: %w", of.name, errNoLink, err)
	}
	if refused == sarama.ErrNoError {
		l.mu.Lock()
		l.coordinators[of.key()] = addr
		l.mu.Unlock()
	}
	return addr, refused, nil
}

func (l *links) forgetCoordinator(of coordinated) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.coordinators, of.key())
}

// coordinate has f ask the coordinator until it gives an answer that decides something, or ctx ends. f gives the error
// of the connection and the one in the answer.
func (l *links) coordinate(ctx context.Context, of coordinated, f func(*sarama.Broker) (sarama.KError, error)) (sarama.KError, error) {
	said := time.Now()
	for wait := askAgain; ; wait = min(2*wait, askAgainMax) {
		code, err := l.coordinateOnce(ctx, of, f)
		if err == nil && !undecided[code] {
			return code, nil
		}
		if err == nil {
			err = code
		}
		if errors.Is(err, sarama.ErrConcurrentTransactions) {
			wait = min(wait, askAgainSoon)
		}
		if time.Since(said) > undecidedMost {
			said = said.Add(10 * undecidedMost) // until the next line
			l.cfg.Logger.Warn().Err(err).Str("of", of.name).Msg("the Kafka coordinator decides nothing yet")
		}
		if sleep(ctx, wait) != nil {
			return 0, fmt.Errorf("no decision about %q from its coordinator: %w: %w", of.name, ctx.Err(), err)
		}
	}
}

func (l *links) coordinateOnce(ctx context.Context, of coordinated, f func(*sarama.Broker) (sarama.KError, error)) (code sarama.KError, err error) {
	addr, refused, err := l.coordinator(ctx, of)
	if err != nil || refused != sarama.ErrNoError {
		return refused, err
	}
	err = l.call(ctx, addr, func(b *sarama.Broker) error {
		var err error
		code, err = f(b)
		return err
	})
	if err != nil || moved[code] {
		l.forgetCoordinator(of)
	}
	return code, err
}

// moved are the answers of a broker that does not coordinate any more, or not yet.
var moved = map[sarama.KError]bool{sarama.ErrNotCoordinatorForConsumer: true, sarama.ErrConsumerCoordinatorNotAvailable: true}

// undecided are the answers after which to ask again.
var undecided = map[sarama.KError]bool{
	sarama.ErrNotCoordinatorForConsumer: true, sarama.ErrConsumerCoordinatorNotAvailable: true, sarama.ErrOffsetsLoadInProgress: true,
	sarama.ErrConcurrentTransactions: true, sarama.ErrOperationNotAttempted: true, sarama.ErrRequestTimedOut: true,
	sarama.ErrNetworkException: true, sarama.ErrUnknown: true, sarama.ErrNotEnoughReplicas: true, sarama.ErrNotEnoughReplicasAfterAppend: true,
}

// errOldKafka: KIP-360 came with Kafka 2.5.
var errOldKafka = errors.New("transactions need Kafka 2.5 or newer")

// initProducer takes a new epoch, the right to write for a transactional id as long as no later one is given out, after
// whatever transaction is under way was ended. With a current one that is not Nobody it is given only if that is still the last: nobody else took the right in between.
func (l *links) initProducer(ctx context.Context, transactionalID string, timeout time.Duration, current produce.Ident) (next produce.Ident, err error) {
	req := &sarama.InitProducerIDRequest{Version: 4, TransactionalID: &transactionalID, TransactionTimeout: timeout,
		ProducerID: current.ID, ProducerEpoch: current.Epoch}
	code, err := l.coordinate(ctx, coordinated{sarama.CoordinatorTransaction, transactionalID}, func(b *sarama.Broker) (sarama.KError, error) {
		resp, err := b.InitProducerID(req)
		if err != nil {
			return 0, err
		}
		next = produce.Ident{ID: resp.ProducerID, Epoch: resp.ProducerEpoch}
		if current == produce.Nobody && taken[resp.Err] { // somebody else took the right at the same time
			return sarama.ErrConcurrentTransactions, nil
		}
		return resp.Err, nil
	})
	switch {
	case err != nil:
		return produce.Ident{}, err
	case code == sarama.ErrNoError && current != produce.Nobody && req.Version < 3:
		return produce.Ident{}, errOldKafka
	case code == sarama.ErrNoError:
		return next, nil
	case taken[code]:
		return produce.Ident{}, fmt.Errorf("%w: %w", ErrFenced, code)
	}
	return produce.Ident{}, denied("Write", code)
}

// taken are the answers to a producer that has lost its right.
var taken = map[sarama.KError]bool{sarama.ErrInvalidProducerEpoch: true, sarama.ErrProducerFenced: true, sarama.ErrInvalidProducerIDMapping: true}
