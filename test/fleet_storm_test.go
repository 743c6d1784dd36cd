package test

import (
	"context"
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
	devices []*rawDevice // those that were accepted
	errs    []error      // of the others
	over    bool
}

// blow connects to addr, waits until the connection is taken over, and connects again, until n were accepted in all.
func (s *storm) blow(ctx context.Context, addr string, n int) {
	for ctx.Err() == nil {
		d, err := rawDial(ctx, addr, s.connect)
		s.mu.Lock()
		if err != nil {
			s.errs = append(s.errs, err)
		} else {
			s.devices = append(s.devices, d)
		}
		if len(s.devices) >= n && !s.over {
			s.over = true
			close(s.stop)
		}
		s.mu.Unlock()
		if err == nil {
			select {
			case <-d.ended:
			case <-s.stop: // the last one is not taken over
			case <-ctx.Done():
			}
		}
		select {
		case <-s.stop:
			return
		default:
		}
	}
}

func (s *storm) accepted() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.devices)
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

// TestAStormOfOneClientID: two connections of one client ID at each of three instances, each of which connects again
// when it is taken over. There is no deadlock, one is left in the end, the session is never lost, and who connects
// last wins.
func TestAStormOfOneClientID(t *testing.T) {
	b := serveFleet(t, fleetOptions{})
	s := &storm{connect: rawConnect{id: runID(), expiry: 3600}, stop: make(chan struct{})}
	n := either(150, 1000)
	connectRaw(t, b.instances[0].address, s.connect) // the session is there before
	ctx, cancel := context.WithTimeout(t.Context(), either(2*patience, 10*patience))
	defer cancel()
	begin := time.Now()
	var blowing sync.WaitGroup
	for _, i := range b.instances {
		for range 2 {
			blowing.Go(func() { s.blow(ctx, i.address, n) })
		}
	}
	blowing.Wait()
	took := time.Since(begin)
	require.GreaterOrEqual(t, s.accepted(), n, "not enough in %v; %d were refused, such as %v", took, len(s.errs), s.errs[max(0, len(s.errs)-5):])
	await(t, func() bool { return s.living() <= 1 }, func() string { return "one connection is left" })

	last := connectRaw(t, b.instances[1].address, s.connect)
	await(t, func() bool { return s.living() == 0 }, func() string { return "the last one wins" })
	require.True(t, last.alive())
	kicked := 0
	for _, d := range s.devices {
		require.True(t, d.present, "the session is never lost")
		if d.reason == 0x8E {
			kicked++
		}
	}
	overlaps := s.overlaps()
	t.Logf("%d connects in %v, %d not accepted; %d of %d ended with DISCONNECT 0x8E; two connections at once for %v",
		len(s.devices), took.Round(time.Millisecond), len(s.errs), kicked, len(s.devices), overlaps)
	b.healthy()
}
