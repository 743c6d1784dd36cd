package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"sluice/bench"
	"sluice/kafka"
)

type benchPublish struct {
	benchTarget
	benchKafka
	Connections int           `default:"50" placeholder:"N" help:"How many devices (${default})."`
	QoS         byte          `name:"qos" default:"1" enum:"0,1,2" help:"The QoS."`
	Window      int           `default:"20" placeholder:"N" help:"Unacknowledged messages of a device (${default}); less where the server's Receive Maximum says so."`
	Size        int           `default:"256" placeholder:"N" help:"Bytes of a payload (${default})."`
	Rate        int           `default:"0" placeholder:"N" help:"Messages a second, all devices together; 0: flat out (${default})."`
	Topic       string        `default:"devices/{client_id}/telemetry/bench" help:"The MQTT topic; {client_id}, {run} and {device} are filled in."`
	KafkaTopic  []string      `placeholder:"TOPIC" help:"With --kafka or --config: read these Kafka topics back, and count what is lost, doubled, out of order."`
	ReadAlong   bool          `help:"Read back during the load and not only after it; for topics with a short retention."`
	Wait        time.Duration `default:"30s" help:"How long to wait for acknowledgements after the end."`
}

// Run publishes, reads back, and prints.
func (c *benchPublish) Run(std streams) error {
	p, cfg, err := c.plan()
	if err != nil {
		return usageError{err}
	}
	ctx, stop := untilInterrupted()
	defer stop()
	var back *bench.Readbacker
	if p.Keep {
		if back, err = p.NewReadback(cfg, c.KafkaTopic...); err != nil {
			return usageError{err}
		}
		defer back.Close()
		if err := beginReading(ctx, back.Begin); err != nil {
			return err
		}
	}
	result, err := c.publish(ctx, std, p.New(), back)
	if err != nil {
		return err
	}
	if back != nil {
		err = c.readBack(std, back, result)
	}
	return errors.Join(c.print(std, result), err)
}

// plan checks what was said.
func (c *benchPublish) plan() (p bench.Publish, cfg kafka.Config, err error) {
	t, err := c.target()
	errs := []error{err, devices(c.Connections), between("--size", c.Size, bench.MinSize, bench.MaxSize), between("--window", c.Window, 1, 65535),
		atLeast("--rate", c.Rate, 0), positive("--wait", c.Wait)}
	if c.Topic == "" || strings.ContainsAny(c.Topic, "+#\x00") || !utf8.ValidString(c.Topic) {
		errs = append(errs, fmt.Errorf("--topic %q is not a topic a device can publish to", c.Topic))
	}
	cfg, said, err := c.kafka()
	errs = append(errs, err)
	if err == nil && !said && c.ReadAlong {
		errs = append(errs, errors.New("--read-along needs --kafka or --config"))
	}
	if said && len(c.KafkaTopic) == 0 {
		errs = append(errs, errors.New("say which Kafka topics are to be read back: --kafka-topic"))
	}
	if err == nil && !said && len(c.KafkaTopic) > 0 {
		errs = append(errs, errors.New("say where Kafka is: --kafka or --config"))
	}
	p = bench.Publish{Target: t, Run: newRun(), Connections: c.Connections, QoS: c.QoS, Window: c.Window, Size: c.Size, Rate: c.Rate,
		Topic: c.Topic, Duration: c.Duration, Wait: c.Wait, Keep: said}
	return p, cfg, errors.Join(errs...)
}

// publish connects and publishes, with a bar where there is a terminal, and reads along if it was told to.
func (c *benchPublish) publish(ctx context.Context, std streams, run *bench.PublishRun, back *bench.Readbacker) (*bench.PublishResult, error) {
	if err := connecting(ctx, std, c.Connections, run.Connected, run.Connect); err != nil {
		return nil, err
	}
	along, stop := context.WithCancel(context.Background())
	defer stop()
	var reading sync.WaitGroup
	if c.ReadAlong {
		reading.Go(func() { back.Along(along) }) // ends with along
	}
	begin, before, at := time.Now(), 0, time.Now()
	bar := show(std, "publishing", func() bench.State {
		sent, acked := run.Counts()
		if c.QoS > 0 {
			sent = acked
		}
		rate := float64(sent-before) / max(time.Since(at).Seconds(), .001)
		before, at = sent, time.Now()
		text := fmt.Sprintf("%s, %s/s", bench.Thousands(sent), bench.Thousands(int(rate)))
		if c.QoS > 0 {
			text += fmt.Sprintf(", p99 %v", run.Quantile(.99).Round(100*time.Microsecond))
		}
		return bench.State{Done: time.Since(begin).Seconds() / c.Duration.Seconds(), Text: text}
	})
	result := run.Publish(ctx)
	bar.Close()
	stop()
	reading.Wait()
	return result, nil
}

// readBack compares with Kafka. An interrupt ends it; the result is then without.
func (c *benchPublish) readBack(std streams, back *bench.Readbacker, result *bench.PublishResult) (err error) {
	ctx, stop := untilInterrupted()
	defer stop()
	bar := show(std, "reading", func() bench.State {
		read, total := back.Progress()
		return bench.State{Done: float64(read) / max(1, float64(total)), Text: bench.Thousands(read) + " of " + bench.Thousands(total) + " records"}
	})
	defer bar.Close()
	result.Readback, err = back.Finish(ctx, result)
	return err
}
