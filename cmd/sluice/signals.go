package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/rs/zerolog"
)

// catchHangups has SIGHUP, of a terminal that closes or out of habit, not end the process without a word to its devices. It
// comes before anything that takes time, such as reading the configuration.
func catchHangups() <-chan os.Signal {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	return hangups
}

// untilStopped gives a context that ends with SIGTERM or SIGINT; a second one ends the process at once. Nothing is read
// again by SIGHUP: it is ignored, with a line in the log.
func untilStopped(log zerolog.Logger, hangups <-chan os.Signal) context.Context {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	context.AfterFunc(ctx, stop)
	go func() { // ends with the process
		for range hangups {
			log.Warn().Msg("SIGHUP is ignored: the configuration is read at start alone; SIGTERM stops in good order")
		}
	}()
	return ctx
}
