package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/rs/zerolog"
)

// untilStopped gives a context that ends with SIGTERM or SIGINT; a second one ends the process at once. SIGHUP, of a
// terminal that closes or out of habit, would end it without a word to its devices, and nothing is read again by it: it
// is ignored, with a line in the log.
func untilStopped(log zerolog.Logger) context.Context {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	context.AfterFunc(ctx, stop)
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	go func() { // ends with the process
		for range hangups {
			log.Warn().Msg("SIGHUP is ignored: the configuration is read at start alone; SIGTERM stops in good order")
		}
	}()
	return ctx
}
