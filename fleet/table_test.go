package fleet

import (
	"cmp"
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// drawLog makes a log in which every key has one writer, claims have their own offset, and a state never goes back.
func drawLog(t *rapid.T) []Record {
	type key struct{ claim, state int64 }
	keys := make(map[string]*key)
	var log []Record
	for range rapid.IntRange(1, 40).Draw(t, "records") {
		inc := rapid.SampledFrom([]string{"A", "B", "C"}).Draw(t, "inc")
		k := keys[inc]
		if k == nil {
			k = &key{}
			keys[inc] = k
		}
		epoch := int64(len(log)) + 1
		rec := Record{Key: SessionKey("c", inc), Offset: epoch - 1, Time: epoch}
		s := Session{Claim: k.claim, StateEpoch: k.state, Expiry: NeverExpires}
		switch rapid.IntRange(0, 5).Draw(t, "kind") {
		case 0:
			*k = key{}
			log = append(log, rec)
			continue
		case 1, 2:
			k.claim, s.Claim = epoch, 0
		case 3:
			if k.claim == 0 {
				continue
			}
			k.state, s.StateEpoch = k.claim, k.claim
		case 4:
			rec = Record{Key: VerdictKey(inc), Offset: epoch - 1, Time: epoch}
		default:
			s.Released, s.Ended = s.Opened(), rapid.Bool().Draw(t, "ended")
		}
		if s.Claim == 0 && s.StateEpoch == 0 && k.claim != epoch {
			continue
		}
		rec.Value = drawValue(rec, s)
		log = append(log, rec)
	}
	return log
}

func drawValue(rec Record, s Session) []byte {
	if kind, _, _, err := ParseKey(rec.Key); err == nil && kind == KeyVerdict {
		value, _ := (&Instance{Dead: true}).Encode()
		return value
	}
	value, _ := s.Encode()
	return value
}

// compact keeps the last record of each key and any of the others; the tombstones may go too.
func compact(t *rapid.T, log []Record) []Record {
	last := make(map[string]int)
	for i, rec := range log {
		last[string(rec.Key)] = i
	}
	var left []Record
	for i, rec := range log {
		if last[string(rec.Key)] == i && (rec.Value != nil || rapid.Bool().Draw(t, "tombstone")) || rapid.Bool().Draw(t, "keep") {
			left = append(left, rec)
		}
	}
	return left
}

func fold(t require.TestingT, log []Record) *Table {
	table := new(Table)
	for _, rec := range log {
		_, _, err := table.Apply(rec)
		require.NoError(t, err)
	}
	return table
}

// TestCompactedTopicReadsAsTheFullOne: whatever compaction has left, the fold is the same.
func TestCompactedTopicReadsAsTheFullOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		log := drawLog(t)
		full := fold(t, log)
		// A tombstone that is gone must not leave an older record of its key: compaction drops those first.
		compacted := fold(t, dropRevived(log, compact(t, log)))
		a, _ := full.Client("c")
		b, _ := compacted.Client("c")
		require.Equal(t, a.Entries(), b.Entries())
		incA, baseA, okA := a.Base(1)
		incB, baseB, okB := b.Base(1)
		require.Equal(t, []any{incA, baseA, okA}, []any{incB, baseB, okB})
		holderA, epochA := a.Holder(1)
		holderB, epochB := b.Holder(1)
		require.Equal(t, []any{holderA, epochA}, []any{holderB, epochB})
	})
}

// dropRevived removes records of keys whose last record, a tombstone, is not among those left.
func dropRevived(log, left []Record) []Record {
	last := make(map[string]Record)
	for _, rec := range log {
		last[string(rec.Key)] = rec
	}
	kept := make(map[string]bool)
	for _, rec := range left {
		kept[string(rec.Key)] = kept[string(rec.Key)] || rec.Offset == last[string(rec.Key)].Offset
	}
	var legal []Record
	for _, rec := range left {
		if kept[string(rec.Key)] {
			legal = append(legal, rec)
		}
	}
	return legal
}

// TestRemovalNeverBringsAStateBack: whatever may be removed is removed, in any order, and the base stays or goes, but
// never becomes an older one.
func TestRemovalNeverBringsAStateBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		log := drawLog(t)
		table := fold(t, log)
		next := int64(len(log))
		for range 6 {
			v, _ := table.Client("c")
			_, before, ok := v.Base(1)
			var removable []string
			for i := range v.entries {
				if v.removable(&v.entries[i], 1) {
					removable = append(removable, v.entries[i].inc.name)
				}
			}
			if len(removable) == 0 {
				return
			}
			inc := rapid.SampledFrom(removable).Draw(t, "remove")
			_, _, err := table.Apply(Record{Key: SessionKey("c", inc), Offset: next})
			require.NoError(t, err)
			next++
			v, _ = table.Client("c")
			_, after, still := v.Base(1)
			require.Equal(t, ok, still)
			require.Equal(t, before, after)
		}
	})
}

// drawFor makes a log of one client, whose sessions do not all last.
func drawFor(t *rapid.T, client string) []Record {
	log := drawLog(t)
	for i, rec := range log {
		kind, _, inc, err := ParseKey(rec.Key)
		require.NoError(t, err)
		if kind != KeySession {
			continue
		}
		log[i].Key = SessionKey(client, inc)
		if rec.Value == nil {
			continue
		}
		s, err := DecodeSession(rec.Value)
		require.NoError(t, err)
		s.Expiry = rapid.SampledFrom([]uint32{NeverExpires, 1, 0}).Draw(t, "expiry")
		log[i].Value = drawValue(rec, *s)
	}
	return log
}

// recount counts the sessions that outlive their connection from the records themselves.
func recount(table *Table) (n int) {
	for id := range table.Clients() {
		v, _ := table.Client(id)
		top := new(Session)
		for _, head := range v.Entries() {
			if s := v.Session(head.Inc); s.StateEpoch > top.StateEpoch {
				top = s
			}
		}
		if top.Expiry > 0 && !top.Ended {
			n++
		}
	}
	return n
}

// TestLastingSessionsAreCountedAsARecountWould, after each record.
func TestLastingSessionsAreCountedAsARecountWould(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		logs := [][]Record{drawFor(t, "c"), drawFor(t, "d"), drawFor(t, "e")}
		table := new(Table)
		apply := func(rec Record) {
			_, _, _ = table.Apply(rec)
			require.Equal(t, recount(table), table.Lasting())
		}
		for len(logs) > 0 {
			i := rapid.IntRange(0, len(logs)-1).Draw(t, "next")
			if len(logs[i]) == 0 {
				logs = append(logs[:i], logs[i+1:]...)
				continue
			}
			apply(logs[i][0])
			apply(Record{Key: logs[i][0].Key, Value: []byte("{"), Offset: logs[i][0].Offset}) // is left out
			logs[i] = logs[i][1:]
		}
		for id := range table.Clients() {
			for _, inc := range []string{"A", "B", "C"} {
				apply(Record{Key: SessionKey(id, inc), Offset: 100})
			}
		}
		require.Zero(t, table.Lasting())
	})
}

// TestAnExpiryThatIsNoneIsNotCounted, and costs no record.
func TestAnExpiryThatIsNoneIsNotCounted(t *testing.T) {
	f := func(expiry string, want int) {
		t.Helper()
		table := new(Table)
		_, _, err := table.Apply(Record{Key: SessionKey("c", "A"), Value: []byte(`{"v":1,"claim":1,"state":1,"expiry":` + expiry + `}`)})
		require.NoError(t, err)
		require.Equal(t, want, table.Lasting())
		require.Equal(t, want, recount(table))
	}
	f(`1`, 1)
	f(`4294967295`, 1)
	for _, none := range []string{`0`, `-1`, `null`, `"7"`, `4294967296`, `1.5`, `{}`, `[1]`} {
		f(none, 0)
	}
}

func TestForeignClaimIsNoHolderWhileTheSessionExists(t *testing.T) {
	k := newKafka(t)
	k.session("c", "A", &Session{Claim: 0, Principal: "p"})
	k.session("c", "A", &Session{Claim: 1, StateEpoch: 1, Principal: "p", Released: true, OfflineSince: 1000, Expiry: 60})
	k.session("c", "B", &Session{Principal: "q"})
	inc, epoch := k.view("c").Holder(2000)
	require.Equal(t, []any{"A", int64(1)}, []any{inc, epoch})
	inc, epoch = k.view("c").Holder(61_000)
	require.Equal(t, []any{"B", int64(3)}, []any{inc, epoch}, "expired, so nobody's")
}

func TestExpiryRunsFromTheVerdictForWhoDiedConnected(t *testing.T) {
	k := newKafka(t)
	k.session("c", "A", &Session{Expiry: 10})
	k.session("c", "A", &Session{Claim: 1, StateEpoch: 1, Expiry: 10})
	base := func(now int64) bool {
		_, _, ok := k.view("c").Base(now)
		return ok
	}
	require.True(t, base(k.now*2), "its connection may live")
	k.verdict("A")
	require.True(t, base(k.now+9_999))
	require.False(t, base(k.now+10_000))
}

func TestClaimOfTheFutureIsMalformed(t *testing.T) {
	for _, s := range []*Session{{Claim: 9}, {Claim: 2, StateEpoch: 3}} {
		_, _, err := new(Table).Apply(Record{Key: SessionKey("c", "A"), Value: encode(t, s), Offset: 4})
		require.ErrorIs(t, err, ErrMalformed)
	}
}

func TestTableForgetsWhatWasRemoved(t *testing.T) {
	k := newKafka(t)
	for i := range 10 {
		k.session(fmt.Sprint("c", i), "A", &Session{})
	}
	k.verdict("A")
	require.Equal(t, 10, k.table.Keys("A"))
	for i := range 10 {
		k.put(SessionKey(fmt.Sprint("c", i), "A"), nil)
	}
	k.put(VerdictKey("A"), nil)
	records, bytes := k.table.Stored()
	require.Zero(t, records+bytes+len(k.table.clients)+len(k.table.instances))
}

// TestMemoryOfAStoredSession reports what a session costs beside the bytes of its record, and bounds it.
func TestMemoryOfAStoredSession(t *testing.T) {
	const sessions = 20_000
	value := encode(t, &Session{
		Claim: 1, StateEpoch: 1, Began: 1, TxID: "sluice-0123456789abcdef-1", Principal: "device-000001", Connected: 1_700_000_000_000,
		Released: true, Expiry: 86400, OfflineSince: 1_700_000_000_000, Subs: []Sub{{Filter: "devices/device-000001/commands/+", QoS: 1}},
	})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	table := new(Table)
	for i := range sessions {
		_, _, err := table.Apply(Record{Key: SessionKey(fmt.Sprintf("device-%06d", i), "0123456789abcdef"), Value: value, Offset: int64(i)})
		require.NoError(t, err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	_, bytes := table.Stored()
	per := int(after.HeapAlloc-before.HeapAlloc) / sessions
	t.Logf("%d bytes per stored session, of which its record is %d", per, bytes/sessions)
	require.Less(t, per-bytes/sessions, 256)
}

func BenchmarkTableApply(b *testing.B) {
	s := fullSession()
	s.Claim, s.StateEpoch = 0, 0
	value, err := s.Encode()
	require.NoError(b, err)
	keys := make([][]byte, 1000)
	for i := range keys {
		keys[i] = SessionKey(fmt.Sprint("device-", i), "0123456789abcdef")
	}
	table := new(Table)
	b.ReportAllocs()
	for i := range b.N {
		if _, _, err := table.Apply(Record{Key: keys[i%len(keys)], Value: value, Offset: int64(i)}); err != nil {
			b.Fatal(err)
		}
	}
}

// TestVerdictKeepsHowFarTheTopicsWentAsLongAsThereIsASession of the dead one: it stays itself for seven days, and has a position
// in each partition of commands.
func TestVerdictKeepsHowFarTheTopicsWentAsLongAsThereIsASession(t *testing.T) {
	k := newKafka(t)
	ends := func() *Progress {
		verdict, dead := k.table.Instance("A")
		require.True(t, dead && verdict.Dead)
		return verdict.Ends
	}
	k.heartbeat("A")
	k.session("c", "A", &Session{Principal: "p"})
	k.session("d", "A", &Session{Principal: "p"})
	k.judgedAt("A", reads("1", 9))
	require.NotNil(t, ends())
	k.put(SessionKey("c", "A"), nil)
	require.NotNil(t, ends())
	k.put(SessionKey("d", "A"), nil)
	require.Nil(t, ends())
	k.judgedAt("A", reads("1", 9))
	require.Nil(t, ends(), "as who starts later reads it")
}

// TestRecordIsKeptWithoutWhatItsEntrySays, and read as it was written, also if it was written otherwise.
func TestRecordIsKeptWithoutWhatItsEntrySays(t *testing.T) {
	k := newKafka(t)
	k.session("c", "A", &Session{Principal: "p"})
	for _, c := range []struct {
		value string
		kept  int // bytes
	}{
		{`{"v":1,"claim":1,"state":1,"began":1,"tx":"sluice-1","principal":"p"}`, len(`"principal":"p"}`)},
		{`{"v":1,"claim":1,"state":1,"began":1,"tx":"a \"b\" <é>","x":0}`, len(`"x":0}`)},
		{`{"v":1,"claim":1,"state":1,"began":0,"tx":"sluice-1","principal":"p"}`, 0},
		{`{"v":1,"claim":1,"state":1,"began":1,"principal":"p"}`, 0},
		{`{"v":1,"claim":1,"state":1,"began":1,"tx":5,"principal":"p"}`, 0},
		{`{"v":1, "claim":1,"state":1,"began":1,"tx":"sluice-1","principal":"p"}`, 0},
		{`{"v":1,"claim":1,"state":1,"began":1,"tx":"sluice-1"}`, 0},
		{`{"v":1,"state":0,"began":0,"tx":"sluice-1","principal":"p"}`, 0},
	} {
		k.put(SessionKey("c", "A"), []byte(c.value))
		e := k.view("c").entry("A")
		require.Equal(t, c.value, string(e.value()))
		require.Len(t, e.raw, cmp.Or(c.kept, len(c.value)), c.value)
		_, bytes := k.table.Stored()
		require.Equal(t, len(e.raw), bytes)
	}
	require.Equal(t, []string{`a "b" <é>`, "sluice-1"}, k.table.txIDs("A"))
	for i := range 300 {
		value := fmt.Sprintf(`{"v":1,"claim":1,"state":1,"began":1,"tx":"%d","x":0}`, i)
		k.put(SessionKey("c", "A"), []byte(value))
		require.Equal(t, value, string(k.view("c").entry("A").value()))
	}
}
