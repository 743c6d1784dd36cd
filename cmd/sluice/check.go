package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"time"

	"sluice/proxy"
	"sluice/proxy/config"
)

type checkCommand struct{ configFlag }

// Run does everything serve does before it touches the network.
func (c *checkCommand) Run(std streams) error {
	cfg, err := c.load()
	if err != nil {
		return err
	}
	if err := proxy.Check(cfg); err != nil {
		return usageError{err}
	}
	topics, err := proxy.RequiredTopics(cfg)
	if err != nil {
		return usageError{err}
	}
	fmt.Fprintf(std.out, "%s: ok, %d publish rules, %d command rules, %d listeners\n", c.Config, len(cfg.Publish), len(cfg.Commands), len(cfg.Listeners))
	if len(topics) > 0 {
		fmt.Fprintln(std.out, "Kafka topics that must exist or can be created:", topics)
	}
	return nil
}

type schemaCommand struct{}

// Run prints the JSON Schema of the configuration, for editors.
func (schemaCommand) Run(std streams) error {
	schema, err := config.Schema()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(std.out, string(schema))
	return err
}

type topicsCommand struct {
	configFlag
	Timeout time.Duration `default:"30s" help:"How long to wait for Kafka."`
}

// Run creates what is missing, or says what it would need.
func (c *topicsCommand) Run(std streams) error {
	cfg, err := c.load()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	created, existing, err := proxy.EnsureTopics(ctx, cfg)
	if err != nil {
		return err
	}
	for _, t := range created {
		fmt.Fprintln(std.out, "created", t)
	}
	for _, t := range existing {
		fmt.Fprintln(std.out, "exists ", t)
	}
	return nil
}
