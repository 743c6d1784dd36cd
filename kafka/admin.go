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
	cut := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { a.dial.cut(); close(cut) })
	defer func() {
		if !stop() {
			<-cut // or it would cut who asks next
		}
	}()
	var errs []error
	for tries := 0; tries <= len(a.addrs); tries++ {
		if ctx.Err() != nil {
			return fmt.Errorf("no answer from Kafka: %w", ctx.Err())
		}
		b, err := a.connect(ctx)
		if err != nil {
			errs = append(errs, err)
			break // all were tried
		}
		if err = f(b); err == nil {
			return nil
		}
		errs = appendNew(errs, a.cfg.Security.explain("no answer from", b.Addr(), err))
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

// connect gives the broker it is connected to, or connects to the first that can be. The caller holds mu.
func (a *Admin) connect(ctx context.Context) (*sarama.Broker, error) {
	if a.broker != nil {
		if ok, _ := a.broker.Connected(); ok {
			return a.broker, nil
		}
		a.disconnect()
	}
	return a.race(ctx)
}

// openNext is how long one broker is waited for before the next is tried beside it.
const openNext = 500 * time.Millisecond

// race connects to the next broker, and to those behind it as well if that fails or takes for long: a start asks with many
// clients, one after the other, and a broker that stands still must not cost each of them its time-outs. The caller holds mu.
func (a *Admin) race(ctx context.Context) (*sarama.Broker, error) {
	type attempt struct {
		broker *sarama.Broker
		err    error
	}
	var order []string
	for i := range a.addrs {
		if addr := a.addrs[(a.next+i)%len(a.addrs)]; !slices.Contains(order, addr) {
			order = append(order, addr)
		}
	}
	results, open := make(chan attempt, len(order)), map[string]bool{}
	begin := func() {
		b := sarama.NewBroker(order[0])
		open[order[0]], order = true, order[1:]
		go func() { results <- attempt{b, a.dial.open(b, a.conf)} }() // ends with the connection, its time or a cut
	}
	defer func() {
		for addr := range open {
			a.dial.cutTo(addr)
		}
		late := len(open)
		go func() { // ends with the attempts that were cut
			for range late {
				_ = (<-results).broker.Close()
			}
		}()
	}()
	next := time.NewTicker(openNext)
	defer next.Stop()
	var errs []error
	for begin(); len(open) > 0; {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case got := <-results:
			delete(open, got.broker.Addr())
			if got.err == nil {
				a.broker, a.next = got.broker, slices.Index(a.addrs, got.broker.Addr())
				return a.broker, nil
			}
			_ = got.broker.Close() // it may not be open
			errs = append(errs, a.cfg.Security.explain("cannot connect to", got.broker.Addr(), got.err))
			if len(order) > 0 {
				begin()
			}
		case <-next.C:
			if len(order) > 0 {
				begin()
			}
		}
	}
	return nil, errors.Join(errs...)
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
