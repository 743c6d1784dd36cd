package driver

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/fleet"
	"sluice/kafka"
)

// empty are topics in which nothing was written.
type empty struct{ Host }

func (empty) End(context.Context, string, int32) (int64, error) { return 0, nil }

// A willCounter commits at once, and the ledger ends behind the note of each commit.
type willCounter struct {
	Host
	groups []*kafka.TxGroup
}

func (w *willCounter) right() (int, bool) { return 1, true }

func (w *willCounter) write(g *kafka.TxGroup) {
	w.groups = append(w.groups, g)
	g.Owner.GroupDone(g, nil)
}

func (w *willCounter) End(context.Context, string, int32) (int64, error) {
	return int64(len(w.groups)), nil
}

func (*willCounter) WillRecords(string, *fleet.Will) ([]*kafka.TxRecord, fleet.WillEnd, func(error)) {
	return []*kafka.TxRecord{{Topic: "wills"}}, fleet.WillPublished, func(error) {}
}

// TestWillIsPublishedOnceThoughItsNoteCanBeReadLaterOnly: Kafka acknowledges a commit before those who read see it, and the
// record of the session that asks for the will can be read back in between, and asks again.
func TestWillIsPublishedOnceThoughItsNoteCanBeReadLaterOnly(t *testing.T) {
	var published count
	var w willCounter
	d := New(Config{Ledger: "ledger", Host: &w, Journal: &w, Metrics: Metrics{WillsPublished: &published}})
	d.Lay(1)
	d.ctx = t.Context()
	publish := func(epoch int64) error {
		return (&willing{d: d, client: "c", epoch: epoch, will: &fleet.Will{}, by: &w}).publish(t.Context())
	}
	require.NoError(t, publish(7))
	again := make(chan error, 1)
	go func() { again <- publish(7) }() // ends when the note is read
	note := w.groups[0].Records[1]
	d.HandleLedger(&kafka.Fetched{Key: note.Key, Value: note.Value, Offset: 0})
	require.NoError(t, <-again)
	require.Len(t, w.groups, 1)
	require.NoError(t, publish(9))
	require.Len(t, w.groups, 2, "that of another connection")
	require.EqualValues(t, 2, published.Load())
	d.Wait()
}

// TestWhoIsJudgedTakesNoRightAgain, not even while it stops: whoever has judged it publishes its wills.
func TestWhoIsJudgedTakesNoRightAgain(t *testing.T) {
	b, d := beginning()
	d.ctx, d.cfg.Table, d.cfg.Journal, d.cfg.Ledger = t.Context(), empty{}, empty{}, "ledger"
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
