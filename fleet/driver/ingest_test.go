package driver

import (
	"context"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/fleet"
	"sluice/kafka"
)

// A waitingTx is a Transactor whose groups wait.
type waitingTx struct{ groups []*kafka.TxGroup }

func (*waitingTx) Run(context.Context) error              { return nil }
func (*waitingTx) Renew(context.Context) error            { return nil }
func (w *waitingTx) Write(g *kafka.TxGroup)               { w.groups = append(w.groups, g) }
func (w *waitingTx) TryWrite(g *kafka.TxGroup) error      { w.Write(g); return nil }
func (w *waitingTx) Withdraw(m func(*kafka.TxGroup) bool) { w.groups = slices.DeleteFunc(w.groups, m) }

// TestMessageWithQoS0IsStoredThoughItsConnectionWasTakenOver: nobody sends it again, as the others are to whoever has the
// client ID by now.
func TestMessageWithQoS0IsStoredThoughItsConnectionWasTakenOver(t *testing.T) {
	d := New(Config{Ledger: "ledger"})
	d.Lay(1)
	tx, inc := new(waitingTx), &incarnation{name: "me"}
	for range shardCount {
		inc.shards = append(inc.shards, &shard{d: d, tx: tx, held: true})
	}
	h := &holder{p: d.parts[0], id: "d1", inc: inc, m: fleet.NewClaimer(&fleet.Writer{Inc: "me", TxID: "tx"})}
	c := &Conn{p: h.p, h: h}
	h.conn = c
	for qos := range byte(3) {
		c.Ingest(qos, uint16(qos), nil, nil)
	}
	for _, g := range tx.groups {
		require.NoError(t, g.Prepare(), "its connection lives")
	}
	c.dev = closing{}
	h.lost(fleet.Action{Kind: fleet.ActLost})
	require.NoError(t, tx.groups[0].Prepare())
	require.ErrorIs(t, tx.groups[1].Prepare(), kafka.ErrAborted)
	require.ErrorIs(t, tx.groups[2].Prepare(), kafka.ErrAborted)
	qos0 := tx.groups[0]
	c.withdraw()
	require.Equal(t, []*kafka.TxGroup{qos0}, tx.groups)
}

// TestConnectionThatWasTakenOverIsToldSoFirst: what it has under way can't be written any more, and that is no reason of its own.
func TestConnectionThatWasTakenOverIsToldSoFirst(t *testing.T) {
	d := New(Config{Ledger: "ledger"})
	d.Lay(1)
	inc := &incarnation{name: "me"}
	for range shardCount {
		inc.shards = append(inc.shards, &shard{d: d, tx: new(waitingTx), held: true})
	}
	h := &holder{p: d.parts[0], id: "d1", inc: inc, m: fleet.NewClaimer(&fleet.Writer{Inc: "me", TxID: "tx"})}
	var told []any
	c := &Conn{p: h.p, h: h, dev: closing{told: &told}}
	h.conn = c
	c.Ingest(1, 1, nil, func(err error) { told = append(told, err) })
	g := inc.shard("d1").tx.(*waitingTx).groups[0]
	h.p.lock()
	h.lost(fleet.Action{Kind: fleet.ActLost})
	after := h.p.after
	h.p.after = nil
	h.p.unlock()
	g.Owner.GroupDone(g, g.Prepare()) // in another goroutine, before this one comes to what is to be done after
	for _, f := range after {
		f()
	}
	require.Equal(t, []any{TakenOver, kafka.ErrAborted, TakenOver}, told)
}

// closing is a Device that notes why it was closed.
type closing struct {
	Device
	told *[]any
}

func (c closing) Close(why Why) {
	if c.told != nil {
		*c.told = append(*c.told, why)
	}
}
