package fleet

import (
	"testing"

	"github.com/stretchr/testify/require"
)

type testLedger struct {
	Ledger
	t *testing.T
}

func (l *testLedger) ids(inc string, epoch int64, ids ...uint16) {
	l.t.Helper()
	value, err := LedgerIDs{Epoch: epoch, IDs: ids}.Encode()
	require.NoError(l.t, err)
	l.put(LedgerIDsKey("c", inc), value)
}

func (l *testLedger) will(epoch int64) {
	l.t.Helper()
	value, err := LedgerWill{Will: WillPublished}.Encode()
	require.NoError(l.t, err)
	l.put(LedgerWillKey("c", epoch), value)
}

func (l *testLedger) put(key, value []byte) {
	l.t.Helper()
	client, err := l.Apply(Record{Key: key, Value: value, Offset: l.Next()})
	require.NoError(l.t, err)
	require.Equal(l.t, "c", client)
}

func TestIDsOfTheHighestEpochHold(t *testing.T) {
	l := &testLedger{t: t}
	require.Empty(t, l.IDs("c", 0))
	l.ids("x", 5, 1, 2)
	l.ids("y", 9, 3)
	l.ids("x", 5, 1, 2, 4) // a former holder's, read late
	require.Equal(t, []uint16{3}, l.IDs("c", 0))
	l.ids("y", 9)
	require.Empty(t, l.IDs("c", 0))
}

func TestIDsOfAnEarlierSessionAreNotTakenOver(t *testing.T) {
	l := &testLedger{t: t}
	l.ids("x", 5, 1)
	require.Equal(t, []uint16{1}, l.IDs("c", 5))
	require.Empty(t, l.IDs("c", 6), "a PUBLISH of the new session would be taken for a repeated one, and lost")
}

func TestWillIsDoneOnceTheLedgerSaysSo(t *testing.T) {
	l := &testLedger{t: t}
	require.False(t, l.WillDone("c", 5))
	l.will(5)
	l.will(5)
	require.True(t, l.WillDone("c", 5))
	require.False(t, l.WillDone("c", 6))
	l.put(LedgerWillKey("c", 5), nil)
	require.False(t, l.WillDone("c", 5))
	require.Empty(t, l.wills)
}

func TestStaleLedgerKeysLeaveTheAnswersAsTheyWere(t *testing.T) {
	l := &testLedger{t: t}
	l.ids("x", 5, 1)
	l.ids("y", 9, 3)
	l.will(5)
	l.will(9)
	stale := l.Stale("c", 3, 9)
	require.ElementsMatch(t, [][]byte{LedgerIDsKey("c", "x"), LedgerWillKey("c", 5)}, stale)
	for _, key := range stale {
		l.put(key, nil)
	}
	require.Equal(t, []uint16{3}, l.IDs("c", 3))
	require.True(t, l.WillDone("c", 9))
	require.Len(t, l.Stale("c", 10, 10), 2)
}

func TestLedgerRefusesWhatItDoesNotKnow(t *testing.T) {
	l := new(Ledger)
	_, err := l.Apply(Record{Key: []byte("x"), Offset: 3})
	require.ErrorIs(t, err, ErrMalformed)
	_, err = l.Apply(Record{Key: LedgerIDsKey("c", "x"), Value: []byte(`{"v":3}`), Offset: 4})
	require.ErrorIs(t, err, ErrNewerVersion)
	require.EqualValues(t, 5, l.Next())
}
