package test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/test/load"
)

// A storm is one client ID that connects everywhere at once.
type storm struct {
	connect rawConnect
	stop    chan struct{} // closed when it is over

	mu      sync.Mutex
	left    int          // connects that are still to be made
	devices []*rawDevice // those that were accepted
	errs    []error      // of the others
}

// blow connects to addr, waits until the connection is taken over, and connects again, until the storm has made all of
// its connects. As any device, it waits when it was not accepted, longer each time: who comes again at once takes over
// from those that are still waiting for their CONNACK, and nobody ever gets one.
func (s *storm) blow(ctx context.Context, addr string) {
	for wait := shortestWait; s.another(); {
		d, err := rawDial(ctx, addr, s.connect)
		s.mu.Lock()
		ended := (<-chan struct{})(nil)
		pause := (<-chan time.Time)(nil)
		if err != nil {
			s.errs = append(s.errs, err)
			pause = time.After(rand.N(wait))
			wait = min(2*wait, longestWait)
		} else {
			wait = shortestWait
			s.devices = append(s.devices, d)
			ended = d.ended
		}
		s.mu.Unlock()
		select {
		case <-ended:
		case <-pause:
		case <-s.stop: // the last one is not taken over
		case <-ctx.Done():
		}
	}
}

// The waits of a device that was not accepted, each a random part of it.
const shortestWait, longestWait = 50 * time.Millisecond, 3 * time.Second

// another says whether there is one more connect to make.
func (s *storm) another() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left--; s.left == 0 {
		close(s.stop)
	}
	return s.left >= 0
}

// living counts connections that have not ended.
func (s *storm) living() (n int) {
	for _, d := range s.devices {
		if d.alive() {
			n++
		}
	}
	return n
}

// overlaps gives for how long two of the connections were there at once, as their device saw it: from CONNACK to the end.
func (s *storm) overlaps() (all load.Latencies) {
	for i, a := range s.devices {
		var worst time.Duration
		for _, b := range s.devices[:i] {
			begin, end := a.since, a.until
			if b.since.After(begin) {
				begin = b.since
			}
			if b.until.Before(end) {
				end = b.until
			}
			worst = max(worst, end.Sub(begin))
		}
		all = append(all, worst)
	}
	return all.Sorted()
}

// TestAStormOfOneClientID: two devices with one client ID at each of three instances, each of which connects again when
// it is taken over. Every CONNECT has an answer, one connection is left in the end, the session is never lost, and who
// connects last wins.
func TestAStormOfOneClientID(t *testing.T) {
	besideOthers(t)
	b := serveFleet(t, fleetOptions{})
	n := either(150, 1000)
	s := &storm{connect: rawConnect{id: runID(), expiry: 3600}, stop: make(chan struct{}), left: n}
	connectRaw(t, b.instances[0].address, s.connect) // the session is there before
	ctx, cancel := context.WithTimeout(t.Context(), either(2*patience, 10*patience))
	defer cancel()
	begin := time.Now()
	var blowing sync.WaitGroup
	for _, i := range b.instances {
		for range 2 {
			blowing.Go(func() { s.blow(ctx, i.address) })
		}
	}
	blowing.Wait()
	took := time.Since(begin)
	require.NoError(t, ctx.Err(), "a deadlock: %d connects are left, %d were accepted", s.left, len(s.devices))
	for _, err := range s.errs {
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "a CONNECT without an answer")
	}
	await(t, func() bool { return s.living() <= 1 }, func() string { return fmt.Sprintf("%d connections are left", s.living()) })

	last := connectRaw(t, b.instances[1].address, s.connect)
	require.True(t, last.present)
	await(t, func() bool { return s.living() == 0 }, func() string { return "the last one wins" })
	require.True(t, last.alive())
	kicked := 0
	for _, d := range s.devices {
		require.True(t, d.present, "the session is never lost")
		if d.reason == 0x8E {
			kicked++
		}
	}
	refusals := map[string]int{}
	for _, err := range s.errs {
		refusals[err.Error()]++
	}
	t.Logf("%d connects in %v: %d accepted, %d of them ended with DISCONNECT 0x8E; the others: %v", n, took.Round(time.Millisecond), len(s.devices), kicked, refusals)
	t.Logf("two connections at once for %v; CONNECT to CONNACK of the last one %v", s.overlaps(), last.took.Round(time.Millisecond))
	b.healthy()
}
