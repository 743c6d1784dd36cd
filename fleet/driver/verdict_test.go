package driver

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"sluice/fleet"
)

// An asked is a Host that counts how often it is asked where the command topics end.
type asked struct {
	*begun
	count
}

func (a *asked) LogEnds(context.Context) Ends {
	a.Inc()
	return Ends{1: 7}
}

// Fence takes any transactional id away.
func (*asked) Fence(context.Context, string) error { return nil }

// TestVerdictIsWrittenBeforeItIsAskedHowFarTheDeadHasCome: what is written to the command topics while that is asked, one that
// is alive all the same gives out until it reads the verdict.
func TestVerdictIsWrittenBeforeItIsAskedHowFarTheDeadHasCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, d := beginning()
		host, others := &asked{begun: b}, new(count)
		d.host, d.ctx = host, t.Context()
		d.m.VerdictsOther, d.m.Fences = others, others
		d.cfg.Log, d.cfg.Table, d.cfg.Journal, d.cfg.Ledger, d.cfg.Fencer = zerolog.Nop(), empty{}, empty{}, "ledger", host
		d.cfg.Transactor = func(string, func(error)) (Transactor, error) { return new(waitingTx), nil }
		p := d.parts[0]
		p.owner = fleet.NewOwner("me")
		d.pulse.begin("me", 10*time.Second, 1)
		d.Assigned(0)
		synctest.Wait()
		state := &fleet.Session{Claim: 1, StateEpoch: 1, Began: 1, TxID: "tx-A", Expiry: fleet.NeverExpires}
		value, err := state.Encode()
		require.NoError(t, err)
		b.read(d, fleet.SessionKey("d1", "A"), value)
		d.pulse.condemned("A") // as the owner of another partition has found
		p.sweep(time.Now())
		require.Len(t, b.records, 1)
		require.Zero(t, host.Load())
		b.land(d)
		synctest.Wait()
		require.EqualValues(t, 1, host.Load())
		require.Len(t, b.records, 1)
		b.land(d)
		verdict, _ := p.table.Instance("A")
		require.EqualValues(t, 7, verdict.Ends.Pos["t"][0])
		synctest.Wait()
		require.Empty(t, b.records)
		p.lock()
		p.disown()
		p.unlock()
		d.Wait()
	})
}
