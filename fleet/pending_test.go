package fleet

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// opens carries out what a machine asks for until it is open, and returns ActOpened.
func (k *kafka) opens(c *Claimer, acts []Action) Action {
	k.t.Helper()
	for acts = k.run(c, acts); len(acts) > 0; acts = acts[1:] {
		switch a := acts[0]; a.Kind {
		case ActOpened:
			return a
		case ActLedger:
			acts = append(acts, k.run(c, c.LedgerRead(k.view("c")))...)
		case ActFence:
			acts = append(acts, k.run(c, c.Fenced(a.Inc, k.view("c")))...)
		case ActWait:
			acts = append(acts, k.run(c, c.Waited(a.N, k.view("c")))...)
		}
	}
	require.Fail(k.t, "it does not open")
	return Action{}
}

// hears returns what a machine asks for when it reads what was written, besides saying that it has written that down.
func (k *kafka) hears(c *Claimer) []Action {
	k.t.Helper()
	return slices.DeleteFunc(k.run(c, c.Read(k.view("c"))), func(a Action) bool { return a.Kind == ActSaved })
}

// leavePending ends the connection at c with the outcome of one id unknown.
func (k *kafka) leavePending(c *Claimer, received []uint16, id uint16) {
	k.t.Helper()
	final := *c.own(k.view("c"))
	final.Received, final.Pending = received, []Pending{{ID: id, Inc: c.by.Inc}}
	require.Empty(k.t, k.run(c, c.Gone(&final, 2000, k.view("c"))), "not idle: it has still to tell")
}

// TestPendingIdIsToldToWhoeverHasTheSession: where the session is when its outcome is known, and how it got there, makes
// no difference.
func TestPendingIdIsToldToWhoeverHasTheSession(t *testing.T) {
	f := func(name string, stored bool, move func(k *kafka, a *Claimer, outcome func()) Action) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			k := newKafka(t)
			a, state := k.open("A")
			k.leavePending(a, []uint16{7}, 8)
			require.False(t, a.Settled(k.view("c")))
			told := move(k, a, func() { k.run(a, a.Outcome(state.Began, 8, stored, k.view("c"))) })
			require.Empty(t, told.Pending)
			if stored {
				require.Contains(t, told.Received, uint16(8))
			} else {
				require.NotContains(t, told.Received, uint16(8))
			}
		})
	}
	for _, stored := range []bool{true, false} {
		f("before it opens elsewhere", stored, func(k *kafka, a *Claimer, outcome func()) Action {
			outcome()
			b := NewClaimer(&Writer{"B", "tx-B"})
			opened := k.opens(b, b.Connect(request(false), k.view("c")))
			require.Contains(t, opened.State.Received, uint16(7))
			return Action{Received: opened.State.Received, Pending: opened.State.Pending}
		})
		f("when it is open elsewhere", stored, func(k *kafka, a *Claimer, outcome func()) Action {
			b := NewClaimer(&Writer{"B", "tx-B"})
			opened := k.opens(b, b.Connect(request(false), k.view("c")))
			require.Equal(t, []uint16{7}, opened.State.Received)
			require.Equal(t, []Pending{{8, "A"}}, opened.State.Pending)
			k.hears(a)
			require.NotNil(t, k.view("c").Session("A"), "superseded, but it has still to tell")
			outcome()
			told := k.hears(b)
			require.Equal(t, []ActionKind{ActReceived}, kinds(told))
			k.hears(a)
			require.Nil(t, k.view("c").Session("A"), "it has been heard")
			return told[0]
		})
		f("when it is open elsewhere, of which the device is never told", stored, func(k *kafka, a *Claimer, outcome func()) Action {
			b := NewClaimer(&Writer{"B", "tx-B"})
			k.opens(b, b.Connect(request(false), k.view("c")))
			outcome()
			k.hears(b)
			k.run(b, b.Gone(nil, 3000, k.view("c")))
			left := k.view("c").Session("B")
			require.True(t, left.Released)
			d := NewClaimer(&Writer{"D", "tx-D"})
			opened := k.opens(d, d.Connect(request(false), k.view("c")))
			return Action{Received: opened.State.Received, Pending: opened.State.Pending}
		})
		f("when it is open here again", stored, func(k *kafka, a *Claimer, outcome func()) Action {
			opened := k.opens(a, a.Connect(request(false), k.view("c")))
			require.Equal(t, []Pending{{8, "A"}}, opened.State.Pending)
			acts := k.run(a, a.Outcome(opened.State.Began, 8, stored, k.view("c")))
			require.Equal(t, ActReceived, acts[0].Kind)
			return acts[0]
		})
		f("after it was left elsewhere, and its writer has stopped", stored, func(k *kafka, a *Claimer, outcome func()) Action {
			b := NewClaimer(&Writer{"B", "tx-B"})
			opened := k.opens(b, b.Connect(request(false), k.view("c")))
			final := *opened.State
			final.Pending = nil
			k.run(b, b.Gone(&final, 3000, k.view("c")))
			require.Equal(t, []Pending{{8, "A"}}, k.view("c").Session("B").Pending)
			outcome()
			k.verdict("A")
			k.hears(b)
			d := NewClaimer(&Writer{"D", "tx-D"})
			opened = k.opens(d, d.Connect(request(false), k.view("c")))
			return Action{Received: opened.State.Received, Pending: opened.State.Pending}
		})
	}
	f("never, because its writer has died", false, func(k *kafka, a *Claimer, outcome func()) Action {
		b := NewClaimer(&Writer{"B", "tx-B"})
		k.opens(b, b.Connect(request(false), k.view("c")))
		k.verdict("A")
		return k.hears(b)[0]
	})
}

// TestSilentHolderIsHeardLater: one that lives and did not release in time is fenced, and what it had received is not
// known until it says so, or is dead.
func TestSilentHolderIsHeardLater(t *testing.T) {
	k := newKafka(t)
	a, state := k.open("A")
	b := NewClaimer(&Writer{"B", "tx-B"})
	opened := k.opens(b, b.Connect(request(false), k.view("c")))
	require.Equal(t, []Pending{{Inc: "A"}}, opened.State.Pending)
	require.Equal(t, []ActionKind{ActLost}, kinds(k.hears(a)))
	final := *state
	final.Received, final.Pending = []uint16{7}, []Pending{{8, "A"}}
	k.run(a, a.Gone(&final, 3000, k.view("c")))
	told := k.hears(b)
	require.Equal(t, []Action{{Kind: ActReceived, Received: []uint16{7}, Pending: []Pending{{8, "A"}}}}, told)
	k.run(a, a.Outcome(state.Began, 8, true, k.view("c")))
	require.Equal(t, []Action{{Kind: ActReceived, Received: []uint16{8}}}, k.hears(b))

	k = newKafka(t)
	k.open("A")
	b = NewClaimer(&Writer{"B", "tx-B"})
	k.opens(b, b.Connect(request(false), k.view("c")))
	k.verdict("A")
	require.Equal(t, []Action{{Kind: ActReceived}}, k.hears(b), "nobody will tell")
}

// TestOutcomeOfAnotherSessionChangesNothing: the same id was another message then.
func TestOutcomeOfAnotherSessionChangesNothing(t *testing.T) {
	k := newKafka(t)
	a, state := k.open("A")
	k.leavePending(a, nil, 8)
	opened := k.opens(a, a.Connect(request(true), k.view("c")))
	require.Empty(t, opened.State.Pending)
	k.leavePending(a, nil, 8)
	k.run(a, a.Outcome(state.Began, 8, true, k.view("c")))
	require.Equal(t, []Pending{{8, "A"}}, k.view("c").Session("A").Pending)
}
