package driver

import (
	"context"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/fleet"
)

// A held Ender answers when it is told where the partition ends.
type held chan int64

func (h held) End(ctx context.Context, _ string, _ int32) (int64, error) {
	select {
	case end := <-h:
		return end, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// TestSuspendedCommandIsToldOfByWhoOwned when its connection's end was read, also if that does not own any more or another command has
// come to wait, and not if a session of another instance has begun that was offered it.
func TestSuspendedCommandIsToldOfByWhoOwned(t *testing.T) {
	for name, c := range map[string]struct {
		meanwhile func(t *testing.T, d *Driver, read func(inc string, s fleet.Session))
		want      int
	}{
		"nothing": {func(*testing.T, *Driver, func(string, fleet.Session)) {}, 1},
		"another owner": {func(_ *testing.T, d *Driver, _ func(string, fleet.Session)) {
			d.parts[0].lock()
			defer d.parts[0].unlock()
			d.parts[0].owner = fleet.NewOwner("me")
		}, 1},
		"a session here": {func(t *testing.T, d *Driver, _ func(string, fleet.Session)) {
			p := d.parts[0]
			_, err := p.begin(t.Context(), "d1", fleet.ConnectRequest{Clean: true}, &Conn{p: p, dev: &reader{next: 6}})
			require.NoError(t, err)
		}, 1},
		"another owner, and a claim that is given up": {func(t *testing.T, d *Driver, read func(string, fleet.Session)) {
			d.parts[0].lock()
			d.parts[0].owner = fleet.NewOwner("me")
			d.parts[0].unlock()
			read("third", fleet.Session{})
			require.True(t, d.busy(), "a stop waits for what the claim becomes")
			read("third", fleet.Session{Withdrawn: true})
		}, 1},
		"the next session": {func(_ *testing.T, _ *Driver, read func(string, fleet.Session)) {
			next := fleet.Session{Claim: 3, StateEpoch: 3, Began: 3}
			read("third", next)
			next.Ended, next.Released, next.OfflineSince, next.Ends = true, true, 1, new(fleet.Progress)
			next.Ends.Start("t", 0, 6)
			read("third", next)
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			host, d, _ := owning(t)
			host.level = true
			ends := make(held)
			d.cfg.Table = ends
			read := func(inc string, s fleet.Session) {
				value, err := s.Encode()
				require.NoError(t, err)
				host.hand(d, fleet.SessionKey("d1", inc), value)
			}
			before := fleet.Session{Claim: 1, StateEpoch: 1, Began: 1}
			read("other", before)
			require.Equal(t, Elsewhere, d.Seek(unwantedQuest()))
			before.Ended, before.Released, before.OfflineSince, before.Ends = true, true, 1, new(fleet.Progress)
			read("other", before)
			require.True(t, d.busy(), "a stop waits for it")
			c.meanwhile(t, d, read)
			require.Empty(t, host.unwanted)
			for over := false; !over; { // it may be suspended again
				d.parts[0].lock()
				over = !d.parts[0].reading
				d.parts[0].unlock()
				select {
				case ends <- host.next:
				default:
					runtime.Gosched()
				}
			}
			d.work.Wait()
			require.Len(t, host.unwanted, c.want)
		})
	}
}
