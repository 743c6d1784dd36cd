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
	ends Ends // the answer
}

func (a *asked) LogEnds(context.Context) Ends {
	a.Inc()
	return a.ends
}

// Fence takes any transactional id away.
func (*asked) Fence(context.Context, string) error { return nil }

// TestVerdictIsWrittenBeforeItIsAskedHowFarTheDeadHasCome: what is written to the command topics while that is asked, one that
// is alive all the same gives out until it reads the verdict.
func TestVerdictIsWrittenBeforeItIsAskedHowFarTheDeadHasCome(t *testing.T) {
	judged(t, Ends{1: 7}, func(verdict fleet.Instance) {
		require.EqualValues(t, 7, verdict.Ends.Pos["t"][0])
	})
}

// TestVerdictSaysNotHowFarTheDeadHasComeWhenKafkaDoesNot: where this instance is may be below what the dead one has given, and
// whoever opens one of its sessions is to find out.
func TestVerdictSaysNotHowFarTheDeadHasComeWhenKafkaDoesNot(t *testing.T) {
	judged(t, nil, func(verdict fleet.Instance) {
		require.Nil(t, verdict.Ends)
	})
}

// judged has an instance judged, and gives the verdict once it was asked how far that can have come.
func judged(t *testing.T, ends Ends, check func(verdict fleet.Instance)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b, d := beginning()
		host, others := &asked{begun: b, ends: ends}, new(count)
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
		if ends != nil {
			require.Len(t, b.records, 1)
			b.land(d)
		}
		verdict, _ := p.table.Instance("A")
		check(verdict)
		synctest.Wait()
		require.Empty(t, b.records)
		p.lock()
		p.disown()
		p.unlock()
		d.Wait()
	})
}
