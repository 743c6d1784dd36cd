package fleet

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// owned makes an owner that has the partition.
func (k *kafka) owned() *Owner {
	k.t.Helper()
	o := NewOwner("O")
	require.Equal(k.t, []ActionKind{ActTake}, kinds(o.Assigned()))
	require.False(k.t, o.Owns())
	for _, a := range o.Taken(k.table) {
		require.Equal(k.t, ActFence, a.Kind)
		o.Fenced(a.Inc)
	}
	require.True(k.t, o.Owns())
	return o
}

func (k *kafka) heartbeat(inc string) {
	k.t.Helper()
	value, err := (&Instance{TxIDs: []string{"tx-" + inc}}).Encode()
	require.NoError(k.t, err)
	k.put(InstanceKey(inc), value)
}

// judge lets o judge A and fence it.
func (k *kafka) judge(o *Owner) []Action {
	k.t.Helper()
	p := NewPulse("O", 2000, 10_000, 1)
	p.Condemned("A")
	acts := o.Tick(0, k.now, p, k.table)
	require.Equal(k.t, []ActionKind{ActVerdict}, kinds(acts))
	require.Empty(k.t, o.Tick(0, k.now, p, k.table), "one verdict")
	value, err := acts[0].Verdict.Encode()
	require.NoError(k.t, err)
	k.put(acts[0].Key, value)
	acts = o.Judged("A", k.table)
	require.Equal(k.t, []Action{{Kind: ActFence, Inc: "A", TxIDs: []string{"tx-A"}}}, acts)
	return o.Fenced("A")
}

// reached has the owner's verdict on A written once more, with how far the command topics go, and gives what else it asks for.
func (k *kafka) reached(acts []Action) []Action {
	k.t.Helper()
	require.Equal(k.t, ActReach, acts[0].Kind)
	acts[0].Verdict.Ends = reads("1", 9)
	value, err := acts[0].Verdict.Encode()
	require.NoError(k.t, err)
	k.put(acts[0].Key, value)
	return acts[1:]
}

func withWill(expiry uint32, will *Will) *Session {
	return &Session{Claim: 2, StateEpoch: 2, Began: 2, Principal: "p", TxID: "tx-A", Expiry: expiry, Will: will}
}

func TestVerdictThenFenceThenReadThenWill(t *testing.T) {
	k := newKafka(t)
	k.heartbeat("A")
	k.session("c", "A", &Session{Principal: "p"})
	k.session("c", "A", withWill(NeverExpires, &Will{Topic: "w"}))
	o := k.owned()
	require.Equal(t, []ActionKind{ActReadEnds}, kinds(k.judge(o)))
	acts := k.reached(o.EndsRead(k.now, k.table, new(Ledger)))
	require.Equal(t, []ActionKind{ActWill}, kinds(acts))
	require.Equal(t, []any{"c", int64(2), "w"}, []any{acts[0].Client, acts[0].Epoch, acts[0].Will.Topic})

	// A read whose end was fetched before the Will was committed must not publish it again.
	o.Read("c", k.table)
	p := NewPulse("O", 2000, 10_000, 1)
	require.Equal(t, []ActionKind{ActReadEnds}, kinds(o.Tick(0, k.now, p, k.table)))
	o.WillDone("c", 2)
	require.Equal(t, []ActionKind{ActReadEnds}, kinds(o.EndsRead(k.now, k.table, new(Ledger))))
	l := &testLedger{t: t}
	l.will(2)
	require.Empty(t, o.EndsRead(k.now, k.table, &l.Ledger), "the session has not expired")
}

// TestVerdictSaysHowFarTheCommandTopicsGoOnceItIsThere: what was written before it the dead one may have given, also while its
// judge asked. Times and epochs are those of the verdict that came first, also for who never read that. An owner that goes on
// for another one says it too, once, and only where the dead one has sessions.
func TestVerdictSaysHowFarTheCommandTopicsGoOnceItIsThere(t *testing.T) {
	k := newKafka(t)
	k.heartbeat("A")
	k.session("c", "A", &Session{Principal: "p"})
	k.session("c", "A", withWill(NeverExpires, nil))
	o := k.owned()
	k.judge(o)
	verdict, _ := k.table.Instance("A")
	require.Nil(t, verdict.Ends)
	at, _ := k.table.Dead("A")
	from := k.table.instances["A"].from

	k.now += 1000
	o = NewOwner("P")
	o.Assigned()
	require.Equal(t, []ActionKind{ActFence}, kinds(o.Taken(k.table)))
	require.Equal(t, []ActionKind{ActReadEnds}, kinds(o.Fenced("A")))
	require.Empty(t, k.reached(o.EndsRead(k.now, k.table, new(Ledger))))
	late := new(Table)
	for _, r := range []Record{k.log[2], k.log[len(k.log)-1]} {
		_, _, err := late.Apply(r)
		require.NoError(t, err)
	}
	for _, table := range []*Table{k.table, late} {
		verdict, _ = table.Instance("A")
		require.Equal(t, reads("1", 9), verdict.Ends)
		require.Equal(t, []int64{at, from}, []int64{table.instances["A"].at, table.instances["A"].from})
	}
	o.Assigned()
	o.Taken(k.table)
	o.Fenced("A")
	require.Empty(t, o.EndsRead(k.now, k.table, new(Ledger)), "it was said")

	k.verdict("B")
	o.Assigned()
	o.Taken(k.table)
	o.Fenced("A")
	o.EndsRead(k.now, k.table, new(Ledger))
	o.Fenced("B")
	require.Empty(t, o.EndsRead(k.now, k.table, new(Ledger)), "it has no session")
}

func TestOwnerEndsExpiredSessionsOfTheDead(t *testing.T) {
	k := newKafka(t)
	k.heartbeat("A")
	k.session("c", "A", &Session{Principal: "p"})
	k.session("c", "A", withWill(60, nil))
	o := k.owned()
	k.judge(o)
	require.Empty(t, k.reached(o.EndsRead(k.now, k.table, new(Ledger))))
	p := NewPulse("O", 2000, 10_000, 1)
	require.Empty(t, o.Tick(0, k.now+59_999, p, k.table))
	require.Equal(t, []ActionKind{ActReadEnds}, kinds(o.Tick(0, k.now+60_000, p, k.table)))
	acts := o.EndsRead(k.now+60_000, k.table, new(Ledger))
	require.Equal(t, []ActionKind{ActEnded, ActTombstone}, kinds(acts))
	require.Equal(t, SessionKey("c", "A"), acts[1].Key)
	k.put(acts[1].Key, nil)

	k.session("c", "A", withWill(60, nil))
	o.Read("c", k.table)
	o.Tick(0, k.now+61_000, p, k.table)
	acts = o.EndsRead(k.now+61_000, k.table, new(Ledger))
	require.Equal(t, []ActionKind{ActTombstone}, kinds(acts), "a zombie's late record goes again")
}

func TestClaimOfADeadOneThatMayStillOpenIsKept(t *testing.T) {
	k := newKafka(t)
	k.heartbeat("A")
	k.session("c", "A", &Session{Principal: "p"})
	o := k.owned()
	k.judge(o)
	require.Empty(t, k.reached(o.EndsRead(k.now, k.table, new(Ledger))), "its opening record may be on its way")
	p := NewPulse("O", 2000, 10_000, 1)
	o.Tick(0, k.now+retainVerdicts, p, k.table)
	require.Equal(t, []ActionKind{ActTombstone}, kinds(o.EndsRead(k.now+retainVerdicts, k.table, new(Ledger))))

	k.session("d", "A", &Session{Principal: "p"})
	o.Read("d", k.table)
	o.Tick(0, k.now, p, k.table)
	require.Equal(t, []ActionKind{ActTombstone}, kinds(o.EndsRead(k.now, k.table, new(Ledger))), "after the verdict no claim opens")
}

func TestNewOwnerFencesTheDeadAgainBeforeItActs(t *testing.T) {
	k := newKafka(t)
	k.session("c", "A", &Session{Principal: "p"})
	k.session("c", "A", &Session{Claim: 1, StateEpoch: 1, Began: 1, Expiry: NeverExpires, Will: &Will{Topic: "w"}})
	k.verdict("A")
	o := NewOwner("O")
	o.Assigned()
	require.Equal(t, []Action{{Kind: ActFence, Inc: "A", TxIDs: []string{"tx-A"}}}, o.Taken(k.table))
	require.Equal(t, []ActionKind{ActReadEnds}, kinds(o.Fenced("A")))
	o.Revoked()
	require.Empty(t, o.EndsRead(k.now, k.table, new(Ledger)), "no longer its business")
}

func TestOldVerdictsAreRemovedWhenNothingIsLeft(t *testing.T) {
	k := newKafka(t)
	k.heartbeat("A")
	k.verdict("A")
	o := k.owned()
	p := NewPulse("O", 2000, 10_000, 1)
	require.Empty(t, o.Tick(0, k.now+retainVerdicts-1, p, k.table))
	acts := o.Tick(0, k.now+retainVerdicts, p, k.table)
	require.Equal(t, []ActionKind{ActTombstone, ActTombstone}, kinds(acts))
	require.Equal(t, [][]byte{InstanceKey("A"), VerdictKey("A")}, [][]byte{acts[0].Key, acts[1].Key})
}

// TestOwnerForgetsTheWillsThatAreDone, those that were owed too: a mark for each of them would stay for ever.
func TestOwnerForgetsTheWillsThatAreDone(t *testing.T) {
	k := newKafka(t)
	k.heartbeat("A")
	k.session("c", "A", &Session{Principal: "p"})
	s := withWill(NeverExpires, &Will{Topic: "w"})
	s.Owed = []Owed{{1, &Will{Topic: "owed"}}}
	k.session("c", "A", s)
	o := k.owned()
	k.judge(o)
	require.Equal(t, []ActionKind{ActWill, ActWill}, kinds(k.reached(o.EndsRead(k.now, k.table, new(Ledger)))))
	require.Len(t, o.wills, 2)
	l := &testLedger{t: t}
	for epoch := range int64(2) {
		l.will(1 + epoch)
		o.WillDone("c", 1+epoch)
	}
	o.Tick(0, k.now, NewPulse("O", 2000, 10_000, 1), k.table)
	require.Empty(t, o.EndsRead(k.now, k.table, &l.Ledger))
	require.Empty(t, o.wills)
}

// TestALateRecordOfADeadOneOwesNoWillThatItsRemovedKeyOwed: the ledger knows of a Will only as long as a record asks for it.
func TestALateRecordOfADeadOneOwesNoWillThatItsRemovedKeyOwed(t *testing.T) {
	k := newKafka(t)
	k.heartbeat("A")
	k.session("c", "A", &Session{Principal: "p"})
	s := withWill(0, nil)
	s.Owed = []Owed{{1, &Will{Topic: "owed"}}}
	k.session("c", "A", s)
	o := k.owned()
	k.judge(o)
	acts := k.reached(o.EndsRead(k.now, k.table, new(Ledger)))
	require.Contains(t, kinds(acts), ActWill)
	o.WillDone("c", 1)
	l := &testLedger{t: t}
	l.will(1)
	p := NewPulse("O", 2000, 10_000, 1)
	o.Tick(0, k.now, p, k.table)
	acts = o.EndsRead(k.now, k.table, &l.Ledger)
	require.Contains(t, kinds(acts), ActTombstone)
	k.put(SessionKey("c", "A"), nil)

	late := *s
	late.Claim, late.StateEpoch = 3, 3
	late.Owed = append(late.Owed, Owed{3, &Will{Topic: "newer"}})
	k.session("c", "A", &late)
	o.Read("c", k.table)
	o.Tick(0, k.now, p, k.table)
	var wills []int64
	for _, a := range o.EndsRead(k.now, k.table, new(Ledger)) {
		if a.Kind == ActWill {
			wills = append(wills, a.Epoch)
		}
	}
	require.Equal(t, []int64{3}, wills, "the older one was published")
}
