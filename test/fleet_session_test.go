package test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/test/load"
)

// TestAStoredSessionGoesOnWhenItsInstanceIsKilled: a device subscribes at one instance, which is killed while commands
// are under way; a thousand more are written; at another instance the device finds its session and gets all of them in
// order, with QoS 2 once.
func TestAStoredSessionGoesOnWhenItsInstanceIsKilled(t *testing.T) {
	besideOthers(t)
	for _, version := range []byte{4, 5} {
		for qos := byte(1); qos <= 2; qos++ {
			t.Run(fmt.Sprintf("v%d qos%d", version, qos), func(t *testing.T) {
				b := serveFleet(t, fleetOptions{qos: int(qos)})
				var at switchboard
				at.lead(b.instances[0].address)
				f := &load.CommandFleet{QoS: qos, Version: version, Dialer: at.dial}
				w := b.devices(f)
				b.write(w, f, 20)
				delivered(t, f, w.Written(nil))
				f.Hold(0) // some are sent and not acknowledged, or half
				b.write(w, f, 100)
				b.instances[0].kill()
				await(t, func() bool { return f.Reconnects() > 0 }, func() string { return "the end of the connection" })
				require.NoError(t, f.Release(0))
				b.write(w, f, 1000)
				begin := time.Now()
				at.lead(b.instances[1].address)
				report := delivered(t, f, w.Written(nil))
				t.Logf("%s; all there %v after the return", report, time.Since(begin).Round(time.Millisecond))
				require.Zero(t, f.NewSessions(), "Session Present 1")
				b.healthy()
			})
		}
	}
}

// TestAnotherUsersSessionIsOutOfReach: whoever has another user name can neither read nor end a session of the same
// client ID, whichever instance he asks and whether its device is there or not.
func TestAnotherUsersSessionIsOutOfReach(t *testing.T) {
	besideOthers(t)
	b := serveFleet(t, fleetOptions{})
	for _, version := range []byte{4, 5} {
		id := fmt.Sprintf("%s-v%d", runID(), version)
		mine := rawConnect{version: version, id: id, expiry: 3600, username: "alice"}
		d := connectRaw(t, b.instances[0].address, mine)
		require.False(t, d.present)
		for _, there := range []bool{true, false} {
			if !there {
				d.leave()
			}
			for i, s := range slices.Backward(b.instances) { // the device's own comes last
				for _, clean := range []bool{true, false} {
					b.refused(t, s, rawConnect{version: version, id: id, clean: clean, expiry: 3600, username: "mallory"})
				}
				require.Equal(t, there, d.alive(), "the stranger does not take the connection over, at instance %d", i)
			}
		}
		d = connectRaw(t, b.instances[2].address, mine)
		require.True(t, d.present, "and does not end the session")
		d.leave()
	}
	b.healthy()
}

// refused requires that the server says that the user may not have the session.
func (b *fleetBench) refused(t *testing.T, s *instance, r rawConnect) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	d, err := rawDial(ctx, s.address, r)
	if err == nil {
		d.vanish()
	}
	var no refusal
	require.True(t, errors.As(err, &no), "CONNACK must say no: %v", err)
	want := map[byte]refusal{4: 0x05, 5: 0x87}
	require.Equal(t, want[r.version], no)
}
