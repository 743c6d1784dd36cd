package kafka

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/IBM/sarama"
)

// An Admin asks a cluster about its topics and creates them. It holds one connection, made by the first
// request, and moves to the next broker when one fails. Its methods may be called from any goroutine and are
// served one after the other.
type Admin struct {
	cfg  Config
	conf *sarama.Config
	dial *dialer

	mu         sync.Mutex
	broker     *sarama.Broker // nil: none connected
	addrs      []string       // cfg.Brokers and those the cluster told us of
	next       int            // index in addrs of the one to connect to
	controller string         // address, as of the last metadata
}

// NewAdmin checks cfg; it connects with the first request.
func NewAdmin(cfg Config) (*Admin, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("cannot make an admin client: %w", err)
	}
	return newAdmin(cfg), nil
}

func newAdmin(cfg Config) *Admin {
	d := newDialer(cfg.DialTimeout)
	return &Admin{cfg: cfg, dial: d, conf: cfg.base(d), addrs: slices.Clone(cfg.Brokers)}
}

// Close ends its connection and any request under way. It must not be used afterwards.
func (a *Admin) Close() error {
	a.dial.close()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.disconnect()
	return nil
}

// Ping gives nil when a broker answers.
func (a *Admin) Ping(ctx context.Context) error {
	return a.ask(ctx, func(b *sarama.Broker) error {
		resp, err := b.DescribeCluster(sarama.NewDescribeClusterRequest(a.conf.Version))
		if errors.Is(err, sarama.ErrUnsupportedVersion) { // before Kafka 2.8
			_, err = b.ApiVersions(&sarama.ApiVersionsRequest{})
			return err
		}
		if err == nil {
			a.learn(brokerAddrs(resp))
		}
		return err
	})
}

func brokerAddrs(resp *sarama.DescribeClusterResponse) (addrs []string) {
	for _, b := range resp.Brokers {
		addrs = append(addrs, net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port))))
	}
	return addrs
}

// learn remembers where the brokers are, so that the configured ones may all be away. The caller holds mu.
func (a *Admin) learn(addrs []string) {
	if len(addrs) == 0 {
		return
	}
	a.addrs = append(a.addrs[:len(a.cfg.Brokers)], sorted(addrs)...)
}

// Ensure makes sure that every topic exists, and gives the names of those it created. Without
// Config.CreateTopics the error for missing ones is a *MissingTopicsError with all of them. An error that is
// not Final comes from the network or a cluster that is not complete: try again.
func (a *Admin) Ensure(ctx context.Context, topics []string) (created []string, err error) {
	if a.cfg.CreateTopics == nil {
		return a.ensure(ctx, topics, nil)
	}
	return a.ensure(ctx, topics, a.detail)
}

// ensure creates what is missing, as detail says; nil: it must not.
func (a *Admin) ensure(ctx context.Context, topics []string, detail func(topic string) *sarama.TopicDetail) (created []string, err error) {
	left := make(map[string]int, len(topics)) // how often each was missing
	for _, topic := range topics {
		if !legalTopic(topic) {
			return nil, fmt.Errorf("topic %q: %w: not a legal name", topic, ErrInvalidRecord)
		}
		left[topic] = 0
	}
	for len(left) > 0 {
		missing, err := a.inspectMissing(ctx, left, detail != nil)
		if err != nil {
			return created, err
		}
		made, err := a.createMissing(ctx, missing, detail)
		created = append(created, made...)
		if err != nil || len(left) == 0 {
			return created, err
		}
		if err := sleep(ctx, missingAgain); err != nil {
			return created, err
		}
	}
	return created, nil
}

// inspectMissing takes from left what exists, and gives what has to be created.
func (a *Admin) inspectMissing(ctx context.Context, left map[string]int, create bool) (missing []string, err error) {
	states, err := a.inspect(ctx, keys(left))
	if err != nil {
		return nil, err
	}
	var gone []string
	for _, s := range states {
		switch {
		case s.exists:
			delete(left, s.name)
		case s.verdict != nil:
			return nil, fmt.Errorf("topic %q: %w", s.name, s.verdict)
		case s.missing:
			if left[s.name]++; create {
				missing = append(missing, s.name)
			} else if left[s.name] >= missesToBelieve {
				gone = append(gone, s.name)
			}
		}
	}
	if len(gone) > 0 {
		return nil, &MissingTopicsError{sorted(gone)}
	}
	return sorted(missing), nil
}

// createMissing creates topics and gives those it made; that others made them meanwhile is no error.
func (a *Admin) createMissing(ctx context.Context, missing []string, detail func(topic string) *sarama.TopicDetail) (made []string, err error) {
	if len(missing) == 0 {
		return nil, nil
	}
	results, err := a.create(ctx, missing, detail)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, topic := range missing {
		err := results[topic]
		if err == nil {
			made = append(made, topic)
		} else if verdict := topicVerdict("Create", err); verdict != nil {
			errs = append(errs, fmt.Errorf("cannot create topic %q: %w", topic, verdict))
		} else if !errors.Is(err, sarama.ErrTopicAlreadyExists) {
			errs = append(errs, fmt.Errorf("cannot create topic %q: %w", topic, err))
		}
	}
	return made, errors.Join(errs...)
}

// ask calls f with a connected broker, and with the next one as long as brokers fail, each once.
func (a *Admin) ask(ctx context.Context, f func(*sarama.Broker) error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	stop := context.AfterFunc(ctx, a.dial.cut)
	defer stop()
	var errs []error
	for tries := 0; tries <= len(a.addrs); tries++ {
		if ctx.Err() != nil {
			return fmt.Errorf("no answer from Kafka: %w", ctx.Err())
		}
		b, err := a.connect()
		if err == nil {
			if err = f(b); err == nil {
				return nil
			}
			err = a.cfg.Security.explain("no answer from", b.Addr(), err)
		}
		errs = appendNew(errs, err)
		a.disconnect()
	}
	err := errors.Join(errs...)
	if errors.Is(err, ErrAuthentication) {
		return err // that no broker answers would not be true
	}
	return fmt.Errorf("no Kafka broker answers: %w", err)
}

// appendNew appends err unless the list ends with the same: a broker may be asked twice.
func appendNew(errs []error, err error) []error {
	if n := len(errs); n > 0 && errs[n-1].Error() == err.Error() {
		return errs
	}
	return append(errs, err)
}

// connect gives the broker it is connected to. The caller holds mu.
func (a *Admin) connect() (*sarama.Broker, error) {
	if a.broker == nil {
		a.broker = sarama.NewBroker(a.addrs[a.next%len(a.addrs)])
	}
	if err := a.dial.open(a.broker, a.conf); err != nil {
		return nil, a.cfg.Security.explain("cannot connect to", a.broker.Addr(), err)
	}
	return a.broker, nil
}

// disconnect leaves the broker for the next one. The caller holds mu.
func (a *Admin) disconnect() {
	if a.broker != nil {
		_ = a.broker.Close() // it is left because it failed
		a.broker = nil
		a.next = (a.next + 1) % len(a.addrs)
	}
}

// sleep waits, or gives the error of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
