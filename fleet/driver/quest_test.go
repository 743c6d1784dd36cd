package driver

import (
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/fleet"
	"sluice/kafka"
)

// TestCommandThatIsReadBeforeThePartitionsAreDividedIsDoubtful: perhaps this instance is about to look after its client's,
// and nobody else does. A partition that it is given later was another's until then.
func TestCommandThatIsReadBeforeThePartitionsAreDividedIsDoubtful(t *testing.T) {
	d := New(Config{})
	d.Lay(1)
	quest := func() *Quest {
		return &Quest{ClientID: "d1", Subscribed: func(*fleet.Session) bool { return false }}
	}
	q := quest()
	d.company.Store(true)
	require.Equal(t, Doubtful, d.Seek(q))
	require.Equal(t, Undecided, d.Owns("d1"))
	d.Joined()
	require.Equal(t, Elsewhere, d.Resolve(q), "another instance has the partition")
	require.Equal(t, Elsewhere, d.Seek(quest()))
	d.Assigned(0)
	require.Equal(t, Other, d.Owns("d1"), "work has not begun")
	require.Equal(t, Elsewhere, d.Seek(quest()))
	require.NotEqual(t, Mine, d.Turned("d1"))
}

// A begun is a Host in which one session begins, and what writes its records.
type begun struct {
	Host
	records []*kafka.Record
}

func (b *begun) Produce(r *kafka.Record)  { b.records = append(b.records, r) }
func (*begun) Connected(*Conn)            {}
func (*begun) Ends() Ends                 { return nil }
func (*begun) Ahead(*fleet.Progress) Ends { return nil }
func (*begun) Positions(ends Ends) *fleet.Progress {
	p := new(fleet.Progress)
	p.Start("t", 0, ends[1])
	return p
}

// TestCommandThatIsReadWhileASessionIsOpened is told of once: by who looks after the partition if it came before the record that
// begins the session was written, and else here.
func TestCommandThatIsReadWhileASessionIsOpened(t *testing.T) {
	var b begun
	var records count
	d := New(Config{Sessions: "sessions", State: &b, Host: &b, Metrics: Metrics{Records: &records}})
	d.Lay(1)
	d.joined.Store(true)
	inc := &incarnation{name: "me"}
	for n := range shardCount {
		inc.shards, inc.txids = append(inc.shards, &shard{d: d, n: n}), append(inc.txids, "tx")
	}
	d.me.Store(inc)
	at := int64(4)
	read := func() Finding {
		at++
		return d.Seek(&Quest{ClientID: "d1", Stream: 1, Offset: at, Subscribed: func(*fleet.Session) bool { return false }})
	}
	land := func(offset int64) {
		r := b.records[offset]
		r.Offset = offset
		r.Owner.RecordDone(r, nil)
		d.HandleSession(&kafka.Fetched{Key: r.Key, Value: r.Value, Offset: offset})
	}
	require.Equal(t, Elsewhere, read())
	p := d.parts[0]
	a, err := p.begin(t.Context(), "d1", fleet.ConnectRequest{Expiry: 3600}, &Conn{d: d, p: p})
	require.NoError(t, err)
	require.Equal(t, Elsewhere, read())
	land(0)
	opening, err := fleet.DecodeSession(b.records[1].Value)
	require.NoError(t, err)
	require.True(t, opening.StateEpoch > 0)
	require.Equal(t, at+1, opening.Begins.Pos["t"][0], "what was read until then")
	require.Equal(t, NotConnected, read())
	land(1)
	require.Equal(t, fleet.ActOpened, (<-a.answer).Kind)
}
