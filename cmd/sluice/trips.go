//go:build trips

package main

import (
	"fmt"
	"os"
	"os/signal"
	"runtime/coverage"
	"syscall"
)

// With the tag trips SIGUSR2 has the process write into $GOCOVERDIR how often each block of it has run, and say so: test/trips_test.go.
func init() {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR2)
	go func() { // ends with the process
		for range asked {
			fmt.Fprintln(os.Stderr, "counters:", coverage.WriteCountersDir(os.Getenv("GOCOVERDIR")))
		}
	}()
}
