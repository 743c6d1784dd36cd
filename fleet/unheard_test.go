package fleet

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// takes has inc take the session of client c over, or come back to it, and gives what it finds.
func (k *kafka) takes(c *Claimer) *Session {
	k.t.Helper()
	acts := k.run(c, c.Connect(request(false), k.view("c")))
	for {
		require.Len(k.t, acts, 1)
		switch a := acts[0]; a.Kind {
		case ActWait:
			acts = k.run(c, c.Waited(c.waits, k.view("c")))
		case ActFence:
			acts = k.run(c, c.Fenced(a.Inc, k.view("c")))
		case ActLedger:
			acts = k.run(c, c.LedgerRead(k.view("c")))
		default:
			require.Equal(k.t, ActOpened, a.Kind)
			require.True(k.t, a.Present)
			return a.State
		}
	}
}

// reads gives the positions of a topic with one partition.
func reads(id string, offset int64) *Progress {
	p := &Progress{}
	p.Start("t", 0, offset)
	p.Bind("t", id)
	return p
}

// judgedAt has a verdict on inc, by who has read that far.
func (k *kafka) judgedAt(inc string, ends *Progress) {
	k.t.Helper()
	value, err := (&Instance{Dead: true, TxIDs: []string{"tx-" + inc}, Ends: ends}).Encode()
	require.NoError(k.t, err)
	k.put(VerdictKey(inc), value)
}

// TestSessionOfAHolderWithoutALastWord says so, or up to where that one may have given commands at most.
func TestSessionOfAHolderWithoutALastWord(t *testing.T) {
	f := func(name string, before func(k *kafka, a *Claimer, state *Session), unheard bool, given map[string]map[int32]int64) {
		t.Helper()
		k := newKafka(t)
		a, state := k.open("A")
		_, acts := a.Save(&Session{Expiry: NeverExpires, Progress: *reads("1", 5)}, k.view("c"))
		k.run(a, acts)
		before(k, a, state)
		b := NewClaimer(&Writer{"B", "tx-B"})
		s := k.takes(b)
		require.Equal(t, []any{unheard, given}, []any{s.Unheard, s.Given}, name)

		// Who leaves it as it was found knows no more, also by a claim that is never opened; and who comes after neither.
		k.run(b, b.Gone(nil, 1500, k.view("c")))
		k.run(b, b.Connect(request(false), k.view("c")))
		k.run(b, b.Gone(nil, 1500, k.view("c")))
		s = k.takes(NewClaimer(&Writer{"C", "tx-C"}))
		require.Equal(t, []any{unheard, given}, []any{s.Unheard, s.Given}, "%s, at a third one", name)
	}
	f("released", func(k *kafka, a *Claimer, state *Session) {
		final := *state
		final.Progress = *reads("1", 6)
		k.run(a, a.Gone(&final, 1500, k.view("c")))
	}, false, nil)
	f("released, and claimed again", func(k *kafka, a *Claimer, state *Session) {
		k.run(a, a.Gone(state, 1500, k.view("c")))
		k.run(a, a.Connect(request(false), k.view("c"))[:1])
	}, false, nil)
	f("back at the same", func(k *kafka, a *Claimer, state *Session) {
		k.run(a, a.Gone(state, 1500, k.view("c")))
		require.False(t, k.takes(a).Unheard)
		k.run(a, a.Gone(state, 1500, k.view("c")))
	}, false, nil)
	f("silent", func(*kafka, *Claimer, *Session) {}, true, nil)
	f("judged", func(k *kafka, _ *Claimer, _ *Session) { k.judgedAt("A", reads("1", 9)) }, false, map[string]map[int32]int64{"t": {0: 9}})
	f("judged by who had read less", func(k *kafka, _ *Claimer, _ *Session) { k.judgedAt("A", reads("1", 4)) }, false, nil)
	f("judged, and the topic is another one since", func(k *kafka, _ *Claimer, _ *Session) { k.judgedAt("A", reads("2", 9)) }, true, nil)
	f("judged by an earlier release", func(k *kafka, _ *Claimer, _ *Session) { k.judgedAt("A", nil) }, true, nil)
	f("its last state is too large", func(k *kafka, a *Claimer, state *Session) {
		final := *state
		final.Progress = *reads("1", 9)
		acts := a.Gone(&final, 1500, k.view("c"))
		require.Equal(t, []ActionKind{ActWrite}, kinds(acts))
		k.run(a, a.Failed(k.view("c")))
	}, true, nil)
}

// TestThirdHolderKnowsWhatTheSecondWasTold of the first: the second has written what it knows with the session's state.
func TestThirdHolderKnowsWhatTheSecondWasTold(t *testing.T) {
	k := newKafka(t)
	k.open("A")
	b := NewClaimer(&Writer{"B", "tx-B"})
	s := *k.takes(b)
	require.True(t, s.Unheard)
	s.Unheard, s.Progress = false, *reads("1", 5)
	s.Give("t", 0, 9)
	k.run(b, b.Gone(&s, 1500, k.view("c")))
	s = *k.takes(NewClaimer(&Writer{"C", "tx-C"}))
	require.False(t, s.Unheard)
	require.EqualValues(t, 9, s.Given["t"][0])
}
