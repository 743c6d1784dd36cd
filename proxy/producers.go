package proxy

import (
	"context"
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"sluice/kafka"
)

// producers are the ones that messages go through: one for each identity, with one memory budget for all.
type producers struct {
	main    *kafka.Producer
	others  map[string]*kafka.Producer // by identity
	configs map[string]kafka.Config    // of others
}

// newProducers makes one for each identity that a rule writes as. It starts nothing. burst is called as
// kafka.Config.Burst says.
func newProducers(c *kafkaClients, registry Registry, burst func()) (*producers, error) {
	p := &producers{others: make(map[string]*kafka.Producer), configs: make(map[string]kafka.Config)}
	var reg prometheus.Registerer = registry
	if c.hasIdentities() { // metrics of one name have the same labels
		reg = labelled(registry, "")
	}
	cfg := c.config(reg)
	cfg.Burst = burst
	var err error
	if p.main, err = kafka.NewProducer(cfg); err != nil {
		return nil, err
	}
	for _, r := range c.cfg.Publish {
		if r.Identity == "" || p.others[r.Identity] != nil {
			continue
		}
		cfg := c.as(r.Identity, registry)
		cfg.Burst, cfg.Budget = burst, p.main.Budget()
		p.configs[r.Identity] = cfg
		if p.others[r.Identity], err = kafka.NewProducer(cfg); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// admit asks Kafka whether it takes each identity for what it says it is, until it answers or ctx ends.
func (p *producers) admit(ctx context.Context, log zerolog.Logger) error {
	for name, cfg := range p.configs {
		err := awaitKafka(ctx, log, func() error {
			admin, err := kafka.NewAdmin(cfg)
			if err != nil {
				return err
			}
			defer func() { _ = admin.Close() }()
			return admin.Ping(ctx)
		})
		if err != nil {
			return fmt.Errorf("kafka.identities.%s: %w", name, err)
		}
	}
	return nil
}

// of gives the producer of an identity, "" being that of kafka itself.
func (p *producers) of(identity string) *kafka.Producer {
	if identity == "" {
		return p.main
	}
	return p.others[identity]
}

// run runs them all in g until ctx ends.
func (p *producers) run(ctx context.Context, g *errgroup.Group) {
	g.Go(func() error { return p.main.Run(ctx) })
	for _, o := range p.others {
		g.Go(func() error { return o.Run(ctx) })
	}
}

// close waits for the records that remain, as kafka.Producer.Close does. main is last: what another refuses may become
// a dead letter.
func (p *producers) close(ctx context.Context) error {
	var closing errgroup.Group
	for _, o := range p.others {
		closing.Go(func() error { return o.Close(ctx) })
	}
	return errors.Join(closing.Wait(), p.main.Close(ctx))
}
