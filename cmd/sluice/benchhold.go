package main

import (
	"errors"
	"fmt"
	"time"

	"sluice/bench"
)

type benchHold struct {
	benchTarget
	Connections int           `default:"1000" placeholder:"N" help:"How many devices (${default})."`
	Wait        time.Duration `default:"10s" help:"How long a device may take to answer at the end."`
}

// Run connects, holds, and prints.
func (c *benchHold) Run(std streams) error {
	t, err := c.target()
	if err = errors.Join(err, devices(c.Connections), positive("--wait", c.Wait)); err != nil {
		return usageError{err}
	}
	ctx, stop := untilInterrupted()
	defer stop()
	run := bench.Hold{Target: t, Run: newRun(), Connections: c.Connections, Duration: c.Duration, Wait: c.Wait}.New()
	if err := connecting(ctx, std, c.Connections, run.Connected, run.Connect); err != nil {
		return err
	}
	begin := time.Now()
	bar := show(std, "holding", func() bench.State {
		online, lost := run.Counts()
		text := bench.Thousands(online) + " connected"
		if lost > 0 {
			text += fmt.Sprintf(", %s lost", bench.Thousands(lost))
		}
		return bench.State{Done: time.Since(begin).Seconds() / c.Duration.Seconds(), Text: text}
	})
	result := run.Hold(ctx)
	bar.Close()
	return c.print(std, result)
}
