package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"sluice/kafka"
	"sluice/mqtt"
	"sluice/proxy/config"
)

// A Proxy is one instance: its listeners, its producer and what lies between.
type Proxy struct {
	cfg    *config.Config
	log    zerolog.Logger
	topics []string // Kafka topics that must exist before the first message
	setup
	producer *kafka.Producer // of producers, the one that everything but messages goes through
	writers  *producers
	server   *mqtt.Server
	sessions *sessions
	keeping  *retainedPart
	sharer   *sharer         // nil: there are no command rules
	retainer *retainer       // nil: likewise
	consumer *kafka.Consumer // nil: there are no command rules
	commands *commander
	admin    *admin // nil: turned off
	serving  atomic.Bool
	ready    chan struct{}
	bound    []net.Addr
}

// A Registry takes the metrics and shows them, as *prometheus.Registry does.
type Registry interface {
	prometheus.Registerer
	prometheus.Gatherer
}

// New puts an instance together for a configuration that was loaded without faults. It binds the admin
// address and starts nothing. Metrics go to registry.
func New(cfg *config.Config, log zerolog.Logger, registry Registry) (*Proxy, error) {
	rules, err := cfg.Rules()
	if err != nil {
		return nil, err
	}
	p := &Proxy{cfg: cfg, log: log, topics: requiredTopics(cfg, rules), ready: make(chan struct{})}
	m, err := newMetrics(registry, rules.Rules())
	if err != nil {
		return nil, err
	}
	if p.setup, err = newSetup(cfg, log, registry); err != nil {
		return nil, err
	}
	// Flush is called only while producers run, when server is set.
	if p.writers, err = newProducers(p.clients, registry, func() { p.server.Flush() }); err != nil {
		return nil, err
	}
	p.producer = p.writers.main
	publisher := newPublisher(rules, p.writers, cfg, m, log)
	publisher.flush = func() { p.server.Flush() }
	if p.sessions, err = newSessions(p.clients, p.producer, publisher, log, registry); err != nil {
		return nil, err
	}
	if p.keeping, err = newRetainedPart(p.clients, p.producer, p.sessions.layout, log, registry); err != nil {
		return nil, err
	}
	publisher.retained, p.sessions.finder.index = p.keeping.writer, p.keeping.index
	if err := p.face(publisher, log, registry); err != nil {
		return nil, err
	}
	if err := p.command(log, registry); err != nil {
		return nil, err
	}
	if cfg.Admin.Address != "" {
		p.admin, err = newAdmin(cfg.Admin.Address, registry, p.Ready)
	}
	return p, err
}

// face puts together what devices meet: who they are, what they may, the doors, and the server behind them.
func (p *Proxy) face(publisher *publisher, log zerolog.Logger, registry Registry) error {
	mcfg := mqttConfig(p.cfg, log, registry)
	mcfg.Store, mcfg.Retained = p.sessions, p.keeping.index
	mcfg.Away = func() bool { return !p.producer.Up() }
	if p.gate != nil {
		mcfg.Authenticator, publisher.access = p.gate, p.gate.rules
	}
	var err error
	if len(p.cfg.Commands) > 0 {
		if p.sharer, err = newSharer(p.clients.config(nil), p.cfg, registry); err != nil {
			return err
		}
		mcfg.Shares = p.sharer.shares
	}
	p.server, err = mqtt.New(mcfg, publisher)
	return err
}

// command puts together what brings commands to devices, if there are rules for them.
func (p *Proxy) command(log zerolog.Logger, registry Registry) error {
	rules, err := p.cfg.CommandRules()
	if err != nil || rules.Len() == 0 {
		return err
	}
	p.commands, err = newCommander(rules, p.cfg.Commands, p.server, p.producer, p.sessions.streams, log, registry)
	if err != nil {
		return err
	}
	p.sessions.serveCommands(p.commands)
	p.sharer.c = p.commands
	p.retainer = newRetainer(p.clients.config(nil), p.cfg.Sessions.Topic, p.commands, p.keeping.writer)
	p.consumer, err = kafka.NewConsumer(kafka.ConsumerConfig{
		Config:   p.clients.config(registry),
		Topics:   rules.Topics(),
		Patterns: rules.Patterns(),
		Begin:    p.commands.begin,
		Handle:   p.commands.handle,
		Progress: p.commands.progress,
		Burst:    p.server.Flush,
	})
	p.sessions.consumer = p.consumer
	return err
}

// Ready gives nil when this instance takes devices and Kafka answers it, else why not.
func (p *Proxy) Ready() error {
	switch {
	case !p.serving.Load():
		return errors.New("not serving")
	case !p.producer.Up():
		return errors.New("Kafka does not answer")
	}
	return p.sessions.driver.Ready()
}

// Serving is closed when all listeners accept devices.
func (p *Proxy) Serving() <-chan struct{} { return p.ready }

// Addresses gives what the listeners and the admin side are bound to; valid once Serving is closed.
func (p *Proxy) Addresses() (listeners []net.Addr, admin net.Addr) {
	if p.admin != nil {
		admin = p.admin.listener.Addr()
	}
	return p.bound, admin
}

// Run serves until ctx ends and then stops in order: no new connections, acknowledgements for what was
// received, the records that remain, all within the shutdown time-out. It returns nil if everything that
// was taken was settled.
func (p *Proxy) Run(ctx context.Context) error {
	warn(p.cfg, p.log)
	defer p.sessions.close() // after all that uses it
	parts, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	g, failed := errgroup.WithContext(parts)
	if p.admin != nil {
		g.Go(func() error { return p.admin.run(failed) })
	}
	p.writers.run(failed, g)
	p.runSecurity(failed, g)
	g.Go(func() error { return p.server.Run(failed) })
	g.Go(func() error { return runMemory(failed, p.producer.Budget(), p.server.Connections) })
	sharing, stopSharing := context.WithCancel(failed)
	defer stopSharing()
	g.Go(func() error { return p.keeping.index.Run(failed) })
	consuming, stopConsuming := context.WithCancel(failed)
	defer stopConsuming()
	var consumed, handing sync.WaitGroup
	opening, stopOpening := context.WithCancel(ctx)
	defer stopOpening()
	defer context.AfterFunc(failed, stopOpening)()
	consume := func() {
		handing.Add(1)
		consumed.Go(func() { p.consume(consuming, handing.Done) })
	}
	err := p.open(opening, g, consume, func(ready func()) {
		g.Go(func() error { return p.keeping.table.Run(sharing) })
		g.Go(func() error { return p.sessions.run(sharing, ready) })
	})
	if err == nil {
		select {
		case <-ctx.Done():
		case <-failed.Done():
		}
	}
	p.serving.Store(false)
	p.log.Info().Msg("stopping")
	bounded, done := context.WithTimeout(context.WithoutCancel(ctx), p.cfg.Limits.ShutdownTimeout)
	defer done()
	defer context.AfterFunc(bounded, p.clients.hurry)()
	stopConsuming() // before the devices leave: what is read after that would be lost for those who come elsewhere
	defer consumed.Wait()
	p.awaitHanded(bounded, &handing)
	err = errors.Join(err, p.stop(bounded, stopSharing))
	cancel()
	err = errors.Join(err, g.Wait())
	if p.commands != nil {
		err = errors.Join(err, p.commands.receipts.atEnd())
	}
	return err
}

// awaitHanded waits until no commands are given to devices any more. That the instance leaves the consumer groups in which it
// reads them goes on meanwhile: with a Kafka node that has just died that takes seconds, and the devices would hear of the
// stop as much later.
func (p *Proxy) awaitHanded(ctx context.Context, handing *sync.WaitGroup) {
	handed := make(chan struct{})
	go func() { // ends with ctx at the latest, which ends the leaving
		defer close(handed)
		handing.Wait()
	}()
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Limits.ShutdownTimeout/4)
	defer cancel()
	select {
	case <-handed:
	case <-ctx.Done():
		p.log.Warn().Msg("commands are still given to devices; going on with the stop")
	}
}

// consume brings commands to devices until ctx ends. handed is called when they get nothing more.
func (p *Proxy) consume(ctx context.Context, handed func()) {
	p.commands.stop = ctx.Done()
	p.log.Info().Str("instance", p.commands.receipts.instance).Msg("receipts name this process")
	var groups sync.WaitGroup
	groups.Go(func() { _ = p.sharer.run(ctx) }) // gives nil
	groups.Go(func() { p.sharer.clean(ctx, p.sessions.driver.OwnsFirst) })
	groups.Go(func() {
		if p.awaitPosition(ctx); ctx.Err() == nil {
			p.retainer.run(ctx)
		}
	})
	_ = p.consumer.Run(ctx) // gives nil
	p.sharer.awaitDrained()
	handed()
	groups.Wait()
}

// awaitPosition waits until every command that is written from now on will be read.
func (p *Proxy) awaitPosition(ctx context.Context) {
	select {
	case <-p.consumer.Positioned():
	case <-ctx.Done():
	}
}

// await waits for what an instance needs before it serves, and says now and then what that is; whoever reads it says what
// Kafka answers. False: ctx has ended.
func (p *Proxy) await(ctx context.Context, what string, read <-chan struct{}) bool {
	again := time.NewTicker(10 * time.Second)
	defer again.Stop()
	for {
		select {
		case <-read:
			return true
		case <-ctx.Done():
			return false
		case <-again.C:
			p.log.Warn().Str("for", what).Msg("waiting for Kafka")
		}
	}
}

// open makes sure of the topics, begins to follow the command topics and opens the listeners. It returns nil
// without them when ctx ends first.
func (p *Proxy) open(ctx context.Context, g *errgroup.Group, consume func(), share func(ready func())) error {
	if err := p.awaitTopics(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	shared := make(chan struct{})
	share(func() { close(shared) })
	if !p.await(ctx, "the sessions", shared) || !p.await(ctx, "the retained messages", p.keeping.table.Positioned()) {
		return nil
	}
	if p.consumer != nil {
		consume()
		if !p.await(ctx, "the ends of the command topics", p.consumer.Positioned()) {
			return nil
		}
	}
	listeners, err := bind(p.doors)
	if err != nil {
		return err
	}
	for _, l := range listeners {
		p.bound = append(p.bound, l.Addr())
	}
	p.serve(listeners, g)
	p.serving.Store(true)
	close(p.ready)
	return nil
}

// awaitTopics verifies or creates the topics that the rules name, and waits for Kafka as long as it is
// away: an instance that starts during an outage is not ready, and not broken.
func (p *Proxy) awaitTopics(ctx context.Context) error {
	created, err := ensureTopics(ctx, p.clients.config(nil), p.topics, stateTopics(p.cfg), p.sessions.lay)
	if len(created) > 0 {
		p.log.Info().Strs("kafka_topics", created).Msg("created topics")
	}
	if err == nil {
		err = p.writers.admit(ctx, p.log)
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// ensureTopics verifies or creates topics, and asks until Kafka answers or ctx ends. It gives the last error.
func ensureTopics(ctx context.Context, cfg kafka.Config, topics []string, state []kafka.StateTopic, then func(context.Context, *kafka.Admin) error) (created []string, err error) {
	admin, err := kafka.NewAdmin(cfg)
	if err != nil {
		return nil, err
	}
	defer func() { _ = admin.Close() }()
	err = awaitKafka(ctx, cfg.Logger, func() error {
		made, err := admin.Ensure(ctx, topics)
		if created = append(created, made...); err != nil {
			return err
		}
		made, err = admin.EnsureState(ctx, state)
		if created = append(created, made...); err != nil {
			return err
		}
		return then(ctx, admin)
	})
	return created, err
}

// kafkaAgain is the longest between two questions whether Kafka is there. A leader that died has a successor after some
// seconds, and whoever waits for it is to notice.
const kafkaAgain = 2 * time.Second

// awaitKafka asks until Kafka answers or ctx ends. It gives the last error: one that to wait does not help against, such
// as a wrong password, ends it at once.
func awaitKafka(ctx context.Context, log zerolog.Logger, ask func() error) error {
	log = log.Sample(&zerolog.BurstSampler{Burst: 3, Period: 10 * time.Second})
	for wait := kafkaAgain / 8; ; wait = min(2*wait, kafkaAgain) {
		err := ask()
		if err == nil || kafka.Final(err) || errors.Is(err, kafka.ErrUnfitTopic) || errors.Is(err, kafka.ErrAuthentication) || ctx.Err() != nil {
			return err
		}
		log.Warn().Err(err).Stringer("retry_in", wait).Msg("waiting for Kafka")
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
	}
}

// stop ends the parts in the order in which they need each other, until bounded ends.
func (p *Proxy) stop(bounded context.Context, stopSharing func()) error {
	// A part of the time is left for what the end of the connections makes: wills, whose Kafka topics may be
	// well although another one is stuck.
	end, _ := bounded.Deadline()
	devices, done := context.WithTimeout(bounded, time.Until(end)*2/3)
	defer done()
	p.server.Shutdown(devices)
	if p.sharer != nil {
		close(p.sharer.left)
	}
	p.sessions.stop(bounded)
	stopSharing()
	p.keeping.writer.wait(bounded) // what follows a retained message would be late for its producer
	if err := p.writers.close(bounded); err != nil {
		return fmt.Errorf("stopped with records that Kafka has not acknowledged: %w", err)
	}
	return nil
}
