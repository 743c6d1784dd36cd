package driver

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/fleet"
	"sluice/kafka"
)

// A lagging ledger ends where it ended before the last commit: Kafka answers that one before those who read see it.
type lagging struct{ Host }

func (lagging) End(context.Context, string, int32) (int64, error) { return 0, nil }

func (lagging) WillRecords(string, *fleet.Will) ([]*kafka.TxRecord, fleet.WillEnd, func(error)) {
	return []*kafka.TxRecord{{Topic: "wills"}}, fleet.WillPublished, func(error) {}
}

// A willCounter commits at once.
type willCounter struct{ groups []*kafka.TxGroup }

func (w *willCounter) right() (int, bool) { return 1, true }

func (w *willCounter) write(g *kafka.TxGroup) {
	w.groups = append(w.groups, g)
	g.Owner.GroupDone(g, nil)
}

// TestWillIsPublishedOnceThoughTheLedgerDoesNotShowItYet: the record of the session that asks for the will can be read back
// right after the commit, and asks again. The note that is read later says nothing new, and is removed as any other.
func TestWillIsPublishedOnceThoughTheLedgerDoesNotShowItYet(t *testing.T) {
	var published count
	d := New(Config{Ledger: "ledger", Host: lagging{}, Journal: lagging{}, Metrics: Metrics{WillsPublished: &published}})
	d.Lay(1)
	d.ctx = t.Context()
	var w willCounter
	publish := func(epoch int64) {
		t.Helper()
		require.NoError(t, (&willing{d: d, client: "c", epoch: epoch, will: &fleet.Will{}, by: &w}).publish(t.Context()))
	}
	for range 2 {
		publish(7)
		require.Len(t, w.groups, 1)
	}
	publish(9)
	require.Len(t, w.groups, 2, "that of another connection")
	note := w.groups[0].Records[1]
	d.HandleLedger(&kafka.Fetched{Key: note.Key, Value: note.Value, Offset: 1})
	publish(7)
	require.Len(t, w.groups, 2)
	d.HandleLedger(&kafka.Fetched{Key: note.Key, Offset: 2})
	require.False(t, d.ledger("c").willDone("c", 7))
	require.EqualValues(t, 2, published.Load())
	d.Wait()
}

// TestWhoIsJudgedTakesNoRightAgain, not even while it stops: whoever has judged it publishes its wills.
func TestWhoIsJudgedTakesNoRightAgain(t *testing.T) {
	b, d := beginning()
	d.ctx, d.cfg.Table, d.cfg.Journal, d.cfg.Ledger = t.Context(), lagging{}, lagging{}, "ledger"
	inc := d.me.Load()
	sh := &shard{d: d, inc: inc, tx: new(waitingTx), turn: 1}
	d.stopped.Store(true)
	require.NoError(t, sh.take(t.Context()))
	verdict, err := (&fleet.Instance{Dead: true, By: "another"}).Encode()
	require.NoError(t, err)
	b.read(d, fleet.VerdictKey(inc.name), verdict)
	require.ErrorIs(t, sh.take(t.Context()), errJudged)
	d.Wait()
}
