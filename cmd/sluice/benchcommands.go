package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sluice/bench"
	"sluice/kafka"
)

type benchCommands struct {
	benchTarget
	benchKafka
	Connections int           `default:"50" placeholder:"N" help:"How many devices (${default})."`
	QoS         byte          `name:"qos" default:"1" enum:"0,1,2" help:"The QoS of the subscriptions."`
	Filter      string        `default:"devices/{client_id}/commands/#" help:"What a device subscribes to; {client_id}, {run} and {device} are filled in."`
	KafkaTopic  string        `required:"" placeholder:"TOPIC" help:"The Kafka topic that commands are written to."`
	CommandKey  string        `default:"{client_id}" help:"The key of the records; {client_id}, {run} and {device} are filled in."`
	Header      []string      `default:"name=bench" placeholder:"NAME=VALUE" sep:"none" help:"A header of the records; may be repeated (${default})."`
	Rate        int           `default:"100" placeholder:"N" help:"Records a second, for the devices in turn (${default})."`
	Size        int           `default:"256" placeholder:"N" help:"Bytes of a record's value (${default})."`
	Receipts    string        `placeholder:"TOPIC" help:"Read the receipts in this Kafka topic, and count them."`
	Wait        time.Duration `default:"10s" help:"How long to wait for what is on its way at the end."`
}

// Run writes commands, compares with what came, and prints.
func (c *benchCommands) Run(std streams) error {
	plan, cfg, err := c.plan()
	if err != nil {
		return usageError{err}
	}
	ctx, stop := untilInterrupted()
	defer stop()
	run, err := plan.New(cfg)
	if err != nil {
		return usageError{err}
	}
	var receipts *bench.ReceiptReader
	if c.Receipts != "" {
		if receipts, err = plan.NewReceiptReader(cfg, c.Receipts); err != nil {
			return usageError{err}
		}
		defer receipts.Close()
		if err := beginReading(ctx, receipts.Begin); err != nil {
			return err
		}
	}
	if err := connecting(ctx, std, c.Connections, run.Connected, run.Connect); err != nil {
		return err
	}
	result := c.write(ctx, std, run)
	if receipts != nil {
		reading, stop := untilInterrupted()
		defer stop()
		result.Receipts, err = receipts.Finish(reading, result.Written)
	}
	return errors.Join(c.print(std, result), err)
}

// plan checks what was said.
func (c *benchCommands) plan() (p bench.Commands, cfg kafka.Config, err error) {
	t, err := c.target()
	errs := []error{err, devices(c.Connections), between("--size", c.Size, bench.MinCommand, bench.MaxSize), atLeast("--rate", c.Rate, 1), positive("--wait", c.Wait)}
	headers, err := pairs[kafka.Header]("--header", c.Header)
	errs = append(errs, err)
	cfg, said, err := c.kafka()
	errs = append(errs, err)
	if err == nil && !said {
		errs = append(errs, errors.New("say where Kafka is: --kafka or --config"))
	}
	p = bench.Commands{Target: t, Run: newRun(), Connections: c.Connections, QoS: c.QoS, Filter: c.Filter, KafkaTopic: c.KafkaTopic, Key: c.CommandKey,
		Headers: headers, Rate: c.Rate, Size: c.Size, Duration: c.Duration, Wait: c.Wait}
	return p, cfg, errors.Join(errs...)
}

// write writes with a bar where there is a terminal.
func (c *benchCommands) write(ctx context.Context, std streams, run *bench.CommandsRun) *bench.CommandsResult {
	begin := time.Now()
	bar := show(std, "commands", func() bench.State {
		written, received := run.Counts()
		text := fmt.Sprintf("%s written, %s received, p99 %v", bench.Thousands(written), bench.Thousands(received), run.Quantile(.99).Round(100*time.Microsecond))
		return bench.State{Done: time.Since(begin).Seconds() / c.Duration.Seconds(), Text: text}
	})
	defer bar.Close()
	return run.Write(ctx)
}
