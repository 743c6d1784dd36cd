package fleet

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// received opens the session of c at inc, again if it is there, and returns the QoS 2 ids that it has.
func (k *kafka) received(c *Claimer) []uint16 {
	k.t.Helper()
	acts := k.run(c, c.Connect(request(false), k.view("c")))
	for len(acts) > 0 && acts[0].Kind != ActOpened {
		a := acts[0]
		acts = acts[1:]
		switch a.Kind {
		case ActLedger:
			acts = append(acts, k.run(c, c.LedgerRead(k.view("c")))...)
		case ActFence:
			acts = append(acts, k.run(c, c.Fenced(a.Inc, k.view("c")))...)
		}
	}
	require.NotEmpty(k.t, acts, "it does not open")
	require.True(k.t, acts[0].Present)
	return acts[0].State.Received
}

// leave ends the connection at c with these ids.
func (k *kafka) leave(c *Claimer, ids ...uint16) []Action {
	k.t.Helper()
	final := *c.own(k.view("c"))
	final.Received = ids
	return k.run(c, c.Gone(&final, 2000, k.view("c")))
}

// TestReceivedIdsAreFoundAtEachReturn: a claim by the incarnation that left them carries them on, whoever reads it.
func TestReceivedIdsAreFoundAtEachReturn(t *testing.T) {
	ids := []uint16{7, 9}
	f := func(name string, find func(k *kafka, a, b *Claimer) []uint16) {
		t.Helper()
		k := newKafka(t)
		a, _ := k.open("A")
		k.leave(a, ids...)
		require.Equal(t, ids, find(k, a, NewClaimer(&Writer{"B", "tx-B"})), name)
	}
	f("elsewhere", func(k *kafka, a, b *Claimer) []uint16 { return k.received(b) })
	f("here", func(k *kafka, a, b *Claimer) []uint16 { return k.received(a) })
	f("here, by a machine that was made anew", func(k *kafka, _, _ *Claimer) []uint16 { return k.received(NewClaimer(&Writer{"A", "tx"})) })
	f("here, twice", func(k *kafka, a, b *Claimer) []uint16 { k.leave(a, k.received(a)...); return k.received(a) })
	f("elsewhere, after an attempt here that was given up", func(k *kafka, a, b *Claimer) []uint16 {
		a.Connect(request(false), k.view("c"))
		k.run(a, append(a.Gone(nil, 2500, k.view("c")), Action{Kind: ActWrite, Value: a.value}))
		require.True(t, k.view("c").Session("A").Withdrawn)
		return k.received(b)
	})
	f("elsewhere, after an attempt here that was cut off by death", func(k *kafka, a, b *Claimer) []uint16 {
		k.session("c", "A", a.Connect(request(false), k.view("c"))[0].Value)
		k.verdict("A")
		return k.received(b)
	})
	f("elsewhere, after an opening that the device was not told of", func(k *kafka, a, b *Claimer) []uint16 {
		k.received(a)
		k.run(a, a.Gone(nil, 2500, k.view("c")))
		return k.received(b)
	})
}

// TestReceivedIdsOfAnOpenConnectionAreNotTrusted: one may have been released since they were read.
func TestReceivedIdsOfAnOpenConnectionAreNotTrusted(t *testing.T) {
	k := newKafka(t)
	a, _ := k.open("A")
	k.leave(a, 7)
	k.received(a)
	k.verdict("A")
	require.Empty(t, k.received(NewClaimer(&Writer{"B", "tx-B"})))
}

// TestReceivedIdsAreLeftThoughTheStateIsTooLarge for Kafka.
func TestReceivedIdsAreLeftThoughTheStateIsTooLarge(t *testing.T) {
	k := newKafka(t)
	a, state := k.open("A")
	final := *state
	final.Received, final.Subs = []uint16{3}, []Sub{{Filter: "x"}}
	require.Equal(t, []ActionKind{ActWrite}, kinds(a.Gone(&final, 2000, k.view("c"))))
	k.run(a, a.Failed(k.view("c")))
	require.Empty(t, k.view("c").Session("A").Subs)
	require.Equal(t, []uint16{3}, k.received(a))
}
