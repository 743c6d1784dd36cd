package fleet

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func request(clean bool) ConnectRequest {
	return ConnectRequest{Clean: clean, Expiry: NeverExpires, Principal: "p", Now: 1000}
}

// open lets inc hold an open session of client c.
func (k *kafka) open(inc string) (*Claimer, *Session) {
	k.t.Helper()
	c := NewClaimer(&Writer{inc, "tx-" + inc})
	acts := k.run(c, c.Connect(request(false), k.view("c")))
	require.Equal(k.t, []ActionKind{ActOpened}, kinds(acts))
	return c, acts[0].State
}

func TestNewSessionIsAnsweredAfterItsOpeningRecord(t *testing.T) {
	k := newKafka(t)
	c := NewClaimer(&Writer{"A", "tx"})
	acts := c.Connect(request(false), k.view("c"))
	require.Equal(t, []ActionKind{ActWrite}, kinds(acts))
	require.Zero(t, acts[0].Value.Claim, "the claim's epoch is its own offset")
	offset := k.append(SessionKey("c", "A"), encode(t, acts[0].Value))
	require.Empty(t, c.Wrote(offset, k.view("c")), "the claim is not read back yet")
	require.Equal(t, offset+1, c.Awaits())
	k.read()
	acts = c.Read(k.view("c"))
	require.Equal(t, []ActionKind{ActWrite}, kinds(acts))
	require.True(t, acts[0].Value.Opened())
	acts = k.run(c, acts)
	require.Equal(t, []ActionKind{ActOpened}, kinds(acts))
	require.False(t, acts[0].Present)
	require.Equal(t, offset+1, acts[0].Epoch)
	require.Equal(t, offset+1, acts[0].State.Began)
}

func TestReturningSessionIsPresentWithItsState(t *testing.T) {
	k := newKafka(t)
	a, state := k.open("A")
	final := *state
	final.Subs = []Sub{{Filter: "x"}}
	require.Equal(t, []ActionKind{ActIdle}, kinds(k.run(a, a.Gone(&final, 2000, k.view("c")))))

	b := NewClaimer(&Writer{"B", "tx-B"})
	acts := k.run(b, b.Connect(request(false), k.view("c")))
	require.Equal(t, []ActionKind{ActLedger}, kinds(acts), "a resumed session needs the ledger to its end")
	acts = k.run(b, b.LedgerRead(k.view("c")))
	require.Equal(t, []ActionKind{ActOpened}, kinds(acts))
	require.True(t, acts[0].Present)
	require.Equal(t, final.Subs, acts[0].State.Subs)
	require.Equal(t, state.Began, acts[0].State.Began)

	require.Equal(t, []ActionKind{ActIdle}, kinds(k.run(a, a.Read(k.view("c")))))
	require.Nil(t, k.view("c").Session("A"), "superseded, so removed by its writer")
}

func TestTakeoverWaitsForTheReleaseOfALivingHolder(t *testing.T) {
	k := newKafka(t)
	a, state := k.open("A")
	b := NewClaimer(&Writer{"B", "tx-B"})
	require.Equal(t, []ActionKind{ActWait}, kinds(k.run(b, b.Connect(request(false), k.view("c")))))
	require.Equal(t, []ActionKind{ActLost}, kinds(a.Read(k.view("c"))))
	require.Empty(t, a.Read(k.view("c")), "told once")
	k.run(a, a.Gone(state, 2000, k.view("c")))
	require.Equal(t, []ActionKind{ActLedger}, kinds(k.run(b, b.Read(k.view("c")))))
	acts := k.run(b, b.LedgerRead(k.view("c")))
	require.True(t, acts[0].Present)
}

func TestTakeoverFencesAHolderThatDoesNotRelease(t *testing.T) {
	f := func(name string, wait bool, get func(k *kafka, b *Claimer) []Action) {
		t.Helper()
		k := newKafka(t)
		k.open("A")
		b := NewClaimer(&Writer{"B", "tx-B"})
		if !wait {
			k.verdict("A")
		}
		acts := k.run(b, b.Connect(request(false), k.view("c")))
		if wait {
			require.Equal(t, []ActionKind{ActWait}, kinds(acts), name)
			acts = b.Waited(b.waits, k.view("c"))
		}
		require.Equal(t, []Action{{Kind: ActFence, Inc: "A", TxIDs: []string{"tx-A"}}}, acts, name)
		require.Equal(t, []ActionKind{ActLedger}, kinds(b.Fenced("A", k.view("c"))), name)
		acts = k.run(b, get(k, b))
		require.Equal(t, []ActionKind{ActOpened}, kinds(acts), name)
		require.True(t, acts[0].Present, name)
	}
	read := func(k *kafka, b *Claimer) []Action { return b.LedgerRead(k.view("c")) }
	f("alive, but silent", true, read)
	f("judged", false, read)
}

func TestReleaseOfOneThatNeverOpenedSaysNothingOfThoseBefore(t *testing.T) {
	k := newKafka(t)
	k.open("A")
	b := NewClaimer(&Writer{"B", "tx-B"})
	k.run(b, b.Connect(request(false), k.view("c")))
	k.run(b, b.Gone(nil, 1500, k.view("c")))
	d := NewClaimer(&Writer{"D", "tx-D"})
	require.Equal(t, []ActionKind{ActWait}, kinds(k.run(d, d.Connect(request(false), k.view("c")))))
	require.Equal(t, "A", d.Waited(d.waits, k.view("c"))[0].Inc)
}

func TestCleanStartWaitsForNobody(t *testing.T) {
	k := newKafka(t)
	_, state := k.open("A")
	b := NewClaimer(&Writer{"B", "tx-B"})
	acts := k.run(b, b.Connect(request(true), k.view("c")))
	require.Equal(t, []ActionKind{ActOpened}, kinds(acts))
	require.False(t, acts[0].Present)
	require.Greater(t, acts[0].State.Began, state.Began)
}

func TestCleanStartThatWasGivenUpLeavesTheSession(t *testing.T) {
	k := newKafka(t)
	a, state := k.open("A")
	k.run(a, a.Gone(state, 1500, k.view("c")))
	b := NewClaimer(&Writer{"B", "tx-B"})
	acts := b.Connect(request(true), k.view("c"))
	require.Empty(t, b.Gone(nil, 1600, k.view("c")), "its claim is under way")
	require.Equal(t, []ActionKind{ActIdle}, kinds(k.run(b, acts)))
	inc, s, ok := k.view("c").Base(2000)
	require.True(t, ok)
	require.Equal(t, []any{"A", state.Began}, []any{inc, s.Began})
}

// TestAttemptThatWasGivenUpLeavesNoSessionOfItsOwn: the device was told of none, and would get Session Present 1 for
// one that it knows nothing of [MQTT-3.2.2-4].
func TestAttemptThatWasGivenUpLeavesNoSessionOfItsOwn(t *testing.T) {
	f := func(name string, giveUp func(k *kafka, b *Claimer)) {
		t.Helper()
		k := newKafka(t)
		b := NewClaimer(&Writer{"B", "tx-B"})
		giveUp(k, b)
		_, s, ok := k.view("c").Base(2000)
		require.False(t, ok, "%s: %+v", name, s)
		acts := k.run(b, b.Connect(request(false), k.view("c")))
		require.Equal(t, []ActionKind{ActOpened}, kinds(acts), name)
		require.False(t, acts[0].Present, name)
	}
	f("while its opening record is under way", func(k *kafka, b *Claimer) {
		claim := k.session("c", "B", b.Connect(request(false), k.view("c"))[0].Value)
		acts := b.Wrote(claim, k.view("c"))
		require.True(t, acts[0].Value.Opened())
		require.Empty(t, b.Gone(nil, 1600, k.view("c")))
		k.run(b, acts)
	})
	f("when it was open", func(k *kafka, b *Claimer) {
		k.run(b, b.Connect(request(false), k.view("c")))
		k.run(b, b.Gone(nil, 1600, k.view("c")))
	})
	f("with a clean start", func(k *kafka, b *Claimer) {
		a, state := k.open("A")
		k.run(a, a.Gone(state, 1500, k.view("c")))
		k.run(b, b.Connect(request(true), k.view("c")))
		k.run(b, b.Gone(nil, 1600, k.view("c")))
	})
}

func TestClaimCarriesTheStateFromOwnBooksWhileTheTailLags(t *testing.T) {
	k := newKafka(t)
	a, state := k.open("A")
	final := *state
	final.Subs = []Sub{{Filter: "x"}}
	acts := a.Gone(&final, 1500, k.view("c"))
	lagging := k.view("c")
	a.Wrote(k.append(SessionKey("c", "A"), encode(t, acts[0].Value)), lagging)
	acts = a.Connect(request(false), lagging)
	require.Equal(t, final.Subs, acts[0].Value.Subs)
	require.Equal(t, state.StateEpoch, acts[0].Value.StateEpoch)
}

// TestOpeningLeavesOutTimesThatAreFarAhead of its clock, in the record too: what the device publishes from then on has
// earlier ones.
func TestOpeningLeavesOutTimesThatAreFarAhead(t *testing.T) {
	k := newKafka(t)
	a, state := k.open("A")
	now := request(false).Now
	state.Subs = []Sub{{Filter: "x", Origin: 1}, {Filter: "y", Origin: 2}}
	state.Origins = []Origin{{At: now + clockSlack}, {At: now + clockSlack + 1}}
	state.Origins[1].Begins("t", 0, 7)
	_, acts := a.Save(state, k.view("c"))
	k.run(a, acts)
	k.run(a, a.Gone(state, now, k.view("c")))
	b := NewClaimer(&Writer{"B", "tx-B"})
	acts = k.run(b, b.Connect(request(false), k.view("c")))
	for len(acts) > 0 && acts[0].Kind == ActLedger {
		acts = k.run(b, b.LedgerRead(k.view("c")))
	}
	require.Equal(t, []ActionKind{ActOpened}, kinds(acts))
	want := []Origin{state.Origins[0], {Pos: state.Origins[1].Pos}}
	require.Equal(t, want, acts[0].State.Origins)
	require.Equal(t, want, k.view("c").Session("B").Origins)
	require.Equal(t, state.Origins, k.view("c").Session("A").Origins)
}

func TestSavesJoinWhileOneIsUnderWay(t *testing.T) {
	k := newKafka(t)
	a, state := k.open("A")
	save := func(filter string) (int64, []Action) {
		s := *state
		s.Subs = []Sub{{Filter: filter}}
		return a.Save(&s, k.view("c"))
	}
	_, first := save("1")
	_, acts := save("2")
	require.Empty(t, acts)
	n, acts := save("3")
	require.Empty(t, acts)
	require.EqualValues(t, 3, n)
	acts = a.Wrote(k.session("c", "A", first[0].Value), k.view("c"))
	require.Equal(t, []ActionKind{ActSaved, ActWrite}, kinds(acts))
	require.EqualValues(t, 1, acts[0].N)
	require.Equal(t, "3", acts[1].Value.Subs[0].Filter)
	acts = k.run(a, acts[1:])
	require.EqualValues(t, 3, acts[0].N)
}

func TestAnotherPrincipalNeitherReadsNorDestroysASession(t *testing.T) {
	k := newKafka(t)
	a, state := k.open("A")
	other := request(true)
	other.Principal = "q"

	b := NewClaimer(&Writer{"B", "tx-B"})
	acts := b.Connect(other, k.view("c"))
	require.Equal(t, []Action{{Kind: ActRefused, Principal: "p"}}, acts, "known before it claims")

	lagging := View{client: "c", table: new(Table)}
	acts = k.run(b, b.Connect(other, lagging))
	require.Equal(t, []Action{{Kind: ActRefused, Principal: "p"}}, acts, "seen in the read-back")
	require.Empty(t, a.Read(k.view("c")), "the holder ignores the claim")
	k.run(b, b.Gone(nil, 1500, k.view("c")))
	require.Nil(t, k.view("c").Session("B"))

	k.run(a, a.Gone(state, 1600, k.view("c")))
	d := NewClaimer(&Writer{"D", "tx-D"})
	require.Equal(t, []ActionKind{ActRefused}, kinds(d.Connect(other, k.view("c"))), "offline it is still p's")
}

func TestClaimOfAnotherPrincipalWaitsForTheOneBefore(t *testing.T) {
	k := newKafka(t)
	a := NewClaimer(&Writer{"A", "tx-A"})
	acts := a.Connect(request(false), k.view("c"))
	claim := k.append(SessionKey("c", "A"), encode(t, acts[0].Value))
	other := request(true)
	other.Principal = "q"
	b := NewClaimer(&Writer{"B", "tx-B"})
	acts = b.Connect(other, k.view("c"))
	require.Equal(t, []ActionKind{ActWait}, kinds(k.run(b, acts)))
	require.Equal(t, []ActionKind{ActOpened}, kinds(k.run(a, a.Wrote(claim, k.view("c")))))
	require.Equal(t, []ActionKind{ActRefused}, kinds(b.Read(k.view("c"))))
}

func TestEndedSessionIsKeptUntilNoOtherKeyIsLeft(t *testing.T) {
	k := newKafka(t)
	a, _ := k.open("A")
	b := NewClaimer(&Writer{"B", "tx-B"})
	acts := k.run(b, b.Connect(request(true), k.view("c")))
	final := *acts[0].State
	final.Expiry = 0
	require.Equal(t, []ActionKind{ActIdle}, kinds(k.run(b, b.Gone(&final, 1500, k.view("c")))))
	require.True(t, k.view("c").Session("B").Ended)
	_, _, ok := k.view("c").Base(1500)
	require.False(t, ok)

	a.Read(k.view("c"))
	k.run(a, a.Gone(nil, 1600, k.view("c")))
	require.Nil(t, k.view("c").Session("A"))
	duty, _ := k.view("c").Duty("B", 1700)
	require.Equal(t, DutyRead, duty)
	k.run(b, b.Read(k.view("c")))
	require.Empty(t, k.view("c").Entries())
}

func TestExpiredSessionIsEndedByWhoLeftIt(t *testing.T) {
	k := newKafka(t)
	a, state := k.open("A")
	final := *state
	final.Expiry = 10
	k.run(a, a.Gone(&final, 1500, k.view("c")))
	duty, _ := k.view("c").Duty("A", 11_499)
	require.Equal(t, DutyNone, duty)
	duty, _ = k.view("c").Duty("A", 11_500)
	require.Equal(t, DutyEnd, duty)
	again := NewClaimer(&Writer{"A", "tx-A"})
	k.run(again, again.End(k.view("c")))
	require.Empty(t, k.view("c").Entries())
}

func TestDelayedWillIsPublishedWhenDueUnlessTheDeviceIsBack(t *testing.T) {
	leave := func(k *kafka) *Claimer {
		a, state := k.open("A")
		final := *state
		final.Will = &Will{Topic: "w", Delay: 5, Due: 6500}
		require.Empty(t, k.run(a, a.Gone(&final, 1500, k.view("c"))), "not idle: a Will waits")
		return a
	}
	k := newKafka(t)
	a := leave(k)
	require.Empty(t, a.Due(6499, k.view("c")))
	acts := a.Due(6500, k.view("c"))
	require.Equal(t, []ActionKind{ActWill}, kinds(acts))
	require.Equal(t, k.view("c").Session("A").StateEpoch, acts[0].Epoch)
	require.Equal(t, []ActionKind{ActIdle}, kinds(k.run(a, a.WillDone(a.epoch, k.view("c")))))
	require.Nil(t, k.view("c").Session("A").Will)

	k = newKafka(t)
	a = leave(k)
	b := NewClaimer(&Writer{"B", "tx-B"})
	k.run(b, b.Connect(request(false), k.view("c")))
	require.Empty(t, a.Due(6500, k.view("c")), "a claim is undecided")
	k.run(b, b.LedgerRead(k.view("c")))
	require.Equal(t, []ActionKind{ActIdle}, kinds(k.run(a, a.Read(k.view("c")))), "back in time")

	k = newKafka(t)
	a = leave(k)
	k.run(b, NewClaimer(&Writer{"B", "tx-B"}).Connect(request(true), k.view("c")))
	d := NewClaimer(&Writer{"D", "tx-D"})
	k.run(d, d.Connect(request(true), k.view("c")))
	require.Equal(t, []ActionKind{ActWill}, kinds(a.Read(k.view("c"))), "a clean start ends the session, and the wait")
}

func TestRefusedRecordsEndTheConnection(t *testing.T) {
	k := newKafka(t)
	c := NewClaimer(&Writer{"A", "tx-A"})
	c.Connect(request(false), k.view("c"))
	require.Equal(t, []ActionKind{ActLost}, kinds(c.Failed(k.view("c"))))
	require.Equal(t, []ActionKind{ActIdle}, kinds(c.Gone(nil, 1200, k.view("c"))))

	a, state := k.open("A")
	big := *state
	big.Remote = strings.Repeat("x", 100)
	a.Save(&big, k.view("c"))
	require.Equal(t, []ActionKind{ActLost}, kinds(a.Failed(k.view("c"))))
	a.Gone(&big, 1500, k.view("c"))
	acts := a.Failed(k.view("c"))
	require.Equal(t, []ActionKind{ActWrite}, kinds(acts), "then what was durable is released")
	require.True(t, acts[0].Value.Released)
	require.Equal(t, []ActionKind{ActIdle}, kinds(a.Failed(k.view("c"))), "and not for ever")
}

func TestJudgedIncarnationWritesNothingMore(t *testing.T) {
	k := newKafka(t)
	a, state := k.open("A")
	k.verdict("A")
	require.Equal(t, []ActionKind{ActLost}, kinds(a.Read(k.view("c"))))
	require.Empty(t, a.Gone(state, 1500, k.view("c")))
	require.Equal(t, []ActionKind{ActLost}, kinds(a.Connect(request(false), k.view("c"))))
}

// TestCleanStartMakesADelayedWillDueWhenItHasOpened, and not before: given up, the session and the wait go on. What is due
// then comes before what the new connection publishes, unless Kafka does not take it.
func TestCleanStartMakesADelayedWillDueWhenItHasOpened(t *testing.T) {
	begin := func() (*kafka, *Claimer, int64, []Action) {
		k := newKafka(t)
		a, state := k.open("A")
		final := *state
		final.Will = &Will{Topic: "w", Delay: 5, Due: 6500}
		require.Empty(t, k.run(a, a.Gone(&final, 1500, k.view("c"))))
		acts := a.Connect(request(true), k.view("c"))
		return k, a, state.StateEpoch, a.Wrote(k.session("c", "A", acts[0].Value), k.view("c"))
	}
	k, a, epoch, acts := begin()
	require.Equal(t, []ActionKind{ActWrite}, kinds(acts), "it is not due yet")
	require.Equal(t, []Owed{{epoch, &Will{Topic: "w", Delay: 5, Due: 6500}}}, acts[0].Value.Owed)
	acts = k.run(a, acts)
	require.Equal(t, []ActionKind{ActWill, ActWait}, kinds(acts))
	require.Equal(t, epoch, acts[0].Epoch)
	require.Empty(t, a.Read(k.view("c")), "asked once")
	require.Equal(t, []ActionKind{ActOpened}, kinds(k.run(a, a.WillDone(epoch, k.view("c"))))[:1])
	require.Empty(t, k.view("c").Session("A").Owed)

	k, a, epoch, acts = begin()
	acts = k.run(a, acts)
	require.Equal(t, []ActionKind{ActOpened}, kinds(k.run(a, a.Waited(acts[1].N, k.view("c")))))
	require.NotEmpty(t, k.view("c").Session("A").Owed)
	require.Equal(t, []ActionKind{ActSaved}, kinds(k.run(a, a.WillDone(epoch, k.view("c")))))
	require.Empty(t, k.view("c").Session("A").Owed)

	k, a, epoch, acts = begin() // it is published while a record is under way that still asks for it
	acts = k.run(a, acts)
	k.run(a, a.Waited(acts[1].N, k.view("c")))
	state := *k.view("c").Session("A")
	_, acts = a.Save(&state, k.view("c"))
	require.NotEmpty(t, acts[0].Value.Owed)
	require.Empty(t, a.WillDone(epoch, k.view("c")))
	require.Equal(t, []ActionKind{ActSaved}, kinds(k.run(a, a.Wrote(k.session("c", "A", acts[0].Value), k.view("c")))))
	_, acts = a.Save(&state, k.view("c"))
	require.Empty(t, acts[0].Value.Owed)

	k, a, epoch, acts = begin() // and that record is the last one
	acts = k.run(a, acts)
	k.run(a, a.Waited(acts[1].N, k.view("c")))
	acts = a.Gone(&state, 1700, k.view("c"))
	require.NotEmpty(t, acts[0].Value.Owed)
	require.Empty(t, a.WillDone(epoch, k.view("c")))
	acts = k.run(a, a.Wrote(k.session("c", "A", acts[0].Value), k.view("c")))
	for _, act := range acts {
		if act.Kind == ActWill { // asked again
			k.run(a, a.WillDone(act.Epoch, k.view("c")))
		}
	}
	require.Empty(t, k.view("c").Session("A").Owed)
	a.Read(k.view("c"))
	require.Empty(t, a.wills, "nobody asks any more")

	k, a, epoch, acts = begin() // and Kafka does not take the one without it
	acts = k.run(a, acts)
	k.run(a, a.Waited(acts[1].N, k.view("c")))
	acts = a.Gone(&state, 1700, k.view("c"))
	a.WillDone(epoch, k.view("c"))
	acts = a.Wrote(k.session("c", "A", acts[0].Value), k.view("c"))
	require.Equal(t, []ActionKind{ActWrite}, kinds(acts))
	require.Empty(t, acts[0].Value.Owed)
	for _, act := range a.Failed(k.view("c")) {
		require.True(t, act.Kind == ActWrite && !act.Value.Unheard, "the last word is stored")
	}

	k = newKafka(t)
	a, first := k.open("A")
	final := *first
	final.Will = &Will{Topic: "w", Delay: 5, Due: 6500}
	k.run(a, a.Gone(&final, 1500, k.view("c")))
	acts = a.Connect(request(true), k.view("c"))
	require.Empty(t, a.Gone(nil, 1600, k.view("c")))
	require.Empty(t, k.run(a, acts), "given up")
	fate, at := k.view("c").Will("A", 1700)
	require.Equal(t, []any{WillWait, int64(6500)}, []any{fate, at})
}

// TestAnOpenConnectionKeepsItsRecordOnce: of most connections there is nothing to say until they end, and each of them would
// have the record that opened it a second time.
func TestAnOpenConnectionKeepsItsRecordOnce(t *testing.T) {
	k := newKafka(t)
	a, state := k.open("A")
	require.Nil(t, a.book)
	by, newest := a.Newest(k.view("c"))
	require.Equal(t, "A", by)
	require.Equal(t, state, newest)
	a.Read(k.view("c"))
	require.Nil(t, a.book)

	_, acts := a.Save(&Session{Expiry: 60, Subs: []Sub{{Filter: "f"}}}, k.view("c"))
	require.NotNil(t, a.book, "as long as a record is under way")
	k.run(a, acts)
	require.Nil(t, a.book)

	require.NotEmpty(t, a.Gone(&Session{Expiry: 60, OfflineSince: 2000}, 2000, k.view("c")))
	require.Equal(t, state.Began, a.own(k.view("c")).Began)
}

// TestAJudgedConnectionEndsWithoutARecord: the owner has removed it, and the device leaves.
func TestAJudgedConnectionEndsWithoutARecord(t *testing.T) {
	k := newKafka(t)
	a, _ := k.open("A")
	k.verdict("A")
	k.put(SessionKey("c", "A"), nil)
	require.Equal(t, []ActionKind{ActLost}, kinds(a.Read(k.view("c"))))
	require.Empty(t, a.Gone(&Session{Pending: []Pending{{ID: 7, Inc: "A"}}}, 2000, k.view("c")))
	require.Empty(t, a.Outcome(1, 7, true, k.view("c")))
}
