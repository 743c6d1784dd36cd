package test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/test/load"
)

// TestWhatAConnectCosts reports the time from CONNECT to CONNACK, one device after the other: with a new session, with
// none, with a session left at the same instance or at another, and with one that is taken over from another instance.
// It requires only that Session Present is true where it must be.
func TestWhatAConnectCosts(t *testing.T) {
	b := serveFleet(t, fleetOptions{})
	run, n := runID(), either(30, 500)
	here, there := b.instances[0].address, b.instances[1].address
	measure := func(what string, present bool, connect func(id string) *rawDevice) {
		var took load.Latencies
		for i := range n {
			d := connect(fmt.Sprintf("%s-%d", run, i))
			require.Equal(t, present, d.present, what)
			took = append(took, d.took)
			d.leave()
		}
		t.Logf("%-40s %v", what, took.Sorted())
	}
	stored := func(addr string) func(id string) *rawDevice {
		return func(id string) *rawDevice { return b.raw(addr, rawConnect{id: id, expiry: 3600}) }
	}
	measure("new session", false, stored(here))
	measure("session left at this instance", true, stored(here))
	measure("session left at another instance", true, stored(there))
	measure("taken over within the instance", true, func(id string) *rawDevice { return b.takeOver(id, there, there) })
	measure("taken over from another instance", true, func(id string) *rawDevice { return b.takeOver(id, there, here) })
	measure("clean start over a stored session", false, func(id string) *rawDevice {
		return b.raw(there, rawConnect{id: id, clean: true})
	})
	measure("clean start without any session", false, func(id string) *rawDevice {
		return b.raw(there, rawConnect{id: id, clean: true})
	})
	b.healthy()
}

// raw connects without a cleanup: the caller ends it.
func (b *fleetBench) raw(addr string, r rawConnect) *rawDevice {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	d, err := rawDial(ctx, addr, r)
	require.NoError(b.t, err)
	return d
}

// takeOver connects at one address while the same client ID is connected at another, and checks that the older
// connection hears why it ends.
func (b *fleetBench) takeOver(id, from, to string) *rawDevice {
	b.t.Helper()
	r := rawConnect{id: id, expiry: 3600}
	older := b.raw(from, r)
	d := b.raw(to, r)
	<-older.ended
	require.Equal(b.t, byte(0x8E), older.reason)
	return d
}
