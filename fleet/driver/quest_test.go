package driver

import (
	"context"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/fleet"
	"sluice/kafka"
)

// TestCommandThatIsReadBeforeThePartitionsAreDividedIsDoubtful: perhaps this instance is about to look after its client's,
// and nobody else does. A partition that it is given later was another's until then.
func TestCommandThatIsReadBeforeThePartitionsAreDividedIsDoubtful(t *testing.T) {
	d := New(Config{Host: new(begun)})
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
	records []*kafka.Record // that Kafka has not taken
	next    int64           // offset
	read1   int64           // how far stream 1 was read; 0: it is not known
	ended   []*fleet.Session
	endedAt []Ends
}

func (b *begun) Produce(r *kafka.Record)         { b.records = append(b.records, r) }
func (*begun) Connected(*Conn)                   {}
func (*begun) Disconnected(*Conn, string, int64) {}
func (*begun) Ahead(*fleet.Progress) Ends        { return nil }
func (*begun) Positions(ends Ends) *fleet.Progress {
	p := new(fleet.Progress)
	p.Start("t", 0, ends[1])
	return p
}

// Mark is in the only partition of t.
func (*begun) Mark(_ int32, offset int64) fleet.Mark { return fleet.Mark{Topic: "t", Offset: offset} }

// Ends is how far stream 1 was read.
func (b *begun) Ends() Ends {
	if b.read1 == 0 {
		return Ends{}
	}
	return Ends{1: b.read1}
}

// Ended notes a session that has ended.
func (b *begun) Ended(_ string, state *fleet.Session, at Ends) {
	b.ended, b.endedAt = append(b.ended, state), append(b.endedAt, at)
}

// land has Kafka take the next record, and the driver read it.
func (b *begun) land(d *Driver) {
	r := b.records[0]
	b.records, r.Offset = b.records[1:], b.next
	r.Owner.RecordDone(r, nil)
	b.read(d, r.Key, r.Value)
}

// read has the driver read a record of the sessions, and do what that calls for.
func (b *begun) read(d *Driver, key, value []byte) {
	b.hand(d, key, value)
	d.work.Wait()
}

// hand gives the driver a record of the sessions.
func (b *begun) hand(d *Driver, key, value []byte) {
	d.HandleSession(&kafka.Fetched{Key: key, Value: value, Offset: b.next})
	b.next++
}

// settled has all records land until something is so, which may take goroutines.
func (b *begun) settled(d *Driver, so func() bool) {
	for !so() {
		d.parts[0].lock()
		write := len(b.records) > 0
		d.parts[0].unlock()
		if write {
			b.land(d)
		}
		runtime.Gosched()
	}
}

// opens opens a connection of d1, whose instance has read commands up to an offset.
func (b *begun) opens(t *testing.T, d *Driver, req fleet.ConnectRequest, read int64) *Conn {
	t.Helper()
	p := d.parts[0]
	at, err := p.begin(t.Context(), "d1", req, &Conn{p: p, dev: &reader{next: read}})
	require.NoError(t, err)
	b.settled(d, func() bool { return len(at.answer) > 0 })
	require.Equal(t, fleet.ActOpened, (<-at.answer).Kind)
	return at.conn
}

// beginning makes a driver that looks after no partition.
func beginning() (*begun, *Driver) {
	b, records := new(begun), new(count)
	d := New(Config{Sessions: "sessions", State: b, Host: b, Table: empty{}, Metrics: Metrics{Records: records}})
	d.Lay(1)
	d.ctx = context.Background()
	d.joined.Store(true)
	inc := &incarnation{name: "me"}
	for range shardCount {
		inc.shards, inc.txids = append(inc.shards, &shard{d: d, writer: fleet.Writer{Inc: inc.name, TxID: "tx"}}), append(inc.txids, "tx")
	}
	d.me.Store(inc)
	return b, d
}

// TestCommandThatIsReadWhileASessionIsOpened is told of once: by who looks after the partition if it came before the record that
// begins the session was written, and else here.
func TestCommandThatIsReadWhileASessionIsOpened(t *testing.T) {
	b, d := beginning()
	at := int64(4)
	read := func() Finding {
		at++
		return d.Seek(&Quest{ClientID: "d1", Stream: 1, Offset: at, Subscribed: func(*fleet.Session) bool { return false }})
	}
	require.Equal(t, Elsewhere, read())
	p := d.parts[0]
	a, err := p.begin(t.Context(), "d1", fleet.ConnectRequest{Expiry: 3600}, &Conn{p: p})
	require.NoError(t, err)
	require.Equal(t, Elsewhere, read())
	b.land(d)
	opening, err := fleet.DecodeSession(b.records[0].Value)
	require.NoError(t, err)
	require.True(t, opening.StateEpoch > 0)
	require.Equal(t, at+1, opening.Begins.Pos["t"][0], "what was read until then")
	require.Equal(t, NotConnected, read())
	b.land(d)
	require.Equal(t, fleet.ActOpened, (<-a.answer).Kind)
}

// TestSessionSaysThatACommandWasReadBeforeThePartitionsWereDivided, which are another instance's now: that one may read the
// command once the session is there.
func TestSessionSaysThatACommandWasReadBeforeThePartitionsWereDivided(t *testing.T) {
	b, d := beginning()
	d.joined.Store(false)
	p := d.parts[0]
	q := &Quest{ClientID: "d1", Stream: 1, Offset: 5, Subscribed: func(*fleet.Session) bool { return false }}
	require.Equal(t, Doubtful, d.Seek(q))
	d.Joined()
	require.Equal(t, Elsewhere, d.Resolve(q))
	_, err := p.begin(t.Context(), "d1", fleet.ConnectRequest{Expiry: 3600}, &Conn{p: p})
	require.NoError(t, err)
	b.land(d)
	opening, err := fleet.DecodeSession(b.records[0].Value)
	require.NoError(t, err)
	require.EqualValues(t, 6, opening.Begins.Pos["t"][0])
}

// TestConnectThatIsGivenUpSaysWhatItWaitedFor, wherever it stood.
func TestConnectThatIsGivenUpSaysWhatItWaitedFor(t *testing.T) {
	b, d := beginning()
	p := d.parts[0]
	over, cancel := context.WithCancel(t.Context())
	cancel()
	givenUp := func(why string) {
		t.Helper()
		_, _, err := d.Open(over, "d1", fleet.ConnectRequest{Expiry: 3600}, nil)
		require.ErrorIs(t, err, ErrNotNow)
		require.ErrorContains(t, err, why)
	}
	givenUp("acknowledgement of the claim")
	givenUp("as it was left") // the claim is still on its way
	for len(b.records) > 0 {
		b.land(d)
	}
	at, err := p.begin(t.Context(), "d1", fleet.ConnectRequest{Expiry: 3600}, &Conn{p: p})
	require.NoError(t, err)
	b.land(d)
	b.land(d)
	require.Equal(t, fleet.ActOpened, (<-at.answer).Kind)
	givenUp("the connection before to end")
	at.conn.Quit("")
	for len(b.records) > 0 {
		b.land(d)
	}
	at, err = p.begin(t.Context(), "d1", fleet.ConnectRequest{Clean: true, Expiry: 3600}, &Conn{p: p})
	require.NoError(t, err)
	b.land(d)
	require.ErrorContains(t, p.abandon(at), "the record that opens the session")
	for len(b.records) > 0 {
		b.land(d)
	}
	held := fleet.Session{Claim: b.next + 1, StateEpoch: b.next + 1, Began: b.next + 1, Expiry: fleet.NeverExpires, TxID: "tx"}
	value, err := held.Encode()
	require.NoError(t, err)
	b.read(d, fleet.SessionKey("d1", "other"), value)
	at, err = p.begin(t.Context(), "d1", fleet.ConnectRequest{Expiry: 3600}, &Conn{p: p})
	require.NoError(t, err)
	b.land(d)
	require.ErrorContains(t, p.abandon(at), "the instance that has the session")
}

// TestCleanStartThatIsGivenUpTellsOfTheSessionBefore if the record is on its way that ends it, also when the device comes again at
// once, and else leaves it.
func TestCleanStartThatIsGivenUpTellsOfTheSessionBefore(t *testing.T) {
	f := func(landed int, again bool) {
		t.Logf("%d landed, again at once %v", landed, again)
		b, d := beginning()
		before := fleet.Session{Claim: 1, StateEpoch: 1, Began: 1, Released: true, Expiry: fleet.NeverExpires, OfflineSince: 1, Subs: []fleet.Sub{{Filter: "t"}}}
		value, err := before.Encode()
		require.NoError(t, err)
		b.read(d, fleet.SessionKey("d1", "other"), value)
		p := d.parts[0]
		a, err := p.begin(t.Context(), "d1", fleet.ConnectRequest{Clean: true, Expiry: 3600}, &Conn{p: p})
		require.NoError(t, err)
		for range landed {
			b.land(d)
		}
		if p.abandon(a) == nil {
			a.conn.Quit("")
		}
		if again {
			_, err = p.begin(t.Context(), "d1", fleet.ConnectRequest{Clean: true, Expiry: 3600}, &Conn{p: p})
			require.NoError(t, err)
		}
		for len(b.records) > 0 {
			b.land(d)
		}
		if landed == 0 && !again {
			require.Empty(t, b.ended)
		} else {
			require.Len(t, b.ended, 1)
			require.Equal(t, before.Began, b.ended[0].Began)
		}
	}
	for landed := range 3 {
		f(landed, false)
		f(landed, true)
	}
}

// A reader is a Device that has read commands up to an offset.
type reader struct {
	Device
	next int64
}

func (r *reader) Snapshot() (*fleet.Session, uint64) {
	s := &fleet.Session{Subs: []fleet.Sub{{Filter: "other"}}}
	s.Start("t", 0, r.next)
	return s, 1
}
func (*reader) Settle([]uint16, []uint16, bool) func() { return func() {} }
func (*reader) Saved(uint64)                           {}
func (*reader) Received(func(uint16, bool)) (stored, pending []uint16) {
	return nil, nil
}

// TestCommandInDoubtIsNotOfferedByPositionsOfItsReader: a session is resumed while it is in doubt who tells of a command, and its
// positions soon lie behind that. Those of another instance count.
func TestCommandInDoubtIsNotOfferedByPositionsOfItsReader(t *testing.T) {
	f := func(doubt, elsewhere bool) (told int) {
		b, d, writes := owning(t)
		p := d.parts[0]
		stored := fleet.Session{Claim: 1, StateEpoch: 1, Began: 1, Released: true, Expiry: fleet.NeverExpires, OfflineSince: 1, Subs: []fleet.Sub{{Filter: "other"}}}
		stored.Start("t", 0, 3)
		write := func(s fleet.Session) { writes("other", s) }
		write(stored)
		q := &Quest{ClientID: "d1", Stream: 1, Offset: 5, Written: 2, Subscribed: func(*fleet.Session) bool { return false }}
		if doubt {
			require.Equal(t, Doubtful, d.Seek(q))
		}
		at, err := p.begin(t.Context(), "d1", fleet.ConnectRequest{Expiry: 3600}, &Conn{p: p, dev: &reader{next: 6}})
		require.NoError(t, err)
		if !doubt {
			require.Equal(t, Doubtful, d.Seek(q))
		}
		if elsewhere {
			stored.Start("t", 0, 6)
			write(stored)
		}
		b.settled(d, func() bool { return len(at.answer) > 0 })
		require.Equal(t, fleet.ActOpened, (<-at.answer).Kind)
		at.conn.Save()
		for len(b.records) > 0 {
			b.land(d)
		}
		if d.Resolve(q) != Elsewhere {
			told++
		}
		return told + len(b.unwanted)
	}
	for _, doubt := range []bool{true, false} {
		require.Equal(t, 1, f(doubt, false), "in doubt before CONNECT: %v", doubt)
		require.Equal(t, 0, f(doubt, true), "in doubt before CONNECT: %v", doubt)
	}
}

// TestConnectThatIsGivenUpSaysWhatItsInstanceHasToldOf, so that nobody tells of it again: whether
// the record that opens the session is on its way, or the connection is open.
func TestConnectThatIsGivenUpSaysWhatItsInstanceHasToldOf(t *testing.T) {
	for _, landed := range []int{1, 2} {
		b, d := beginning()
		p := d.parts[0]
		at, err := p.begin(t.Context(), "d1", fleet.ConnectRequest{Expiry: 3600}, &Conn{p: p})
		require.NoError(t, err)
		for range landed {
			b.land(d)
		}
		q := &Quest{ClientID: "d1", Stream: 1, Offset: 5, Subscribed: func(*fleet.Session) bool { return false }}
		require.NotEqual(t, Elsewhere, d.Seek(q), "it is told of here")
		if p.abandon(at) == nil {
			at.conn.Quit("")
		}
		var last *fleet.Session
		for len(b.records) > 0 {
			if value := b.records[0].Value; value != nil && last == nil {
				s, err := fleet.DecodeSession(value)
				require.NoError(t, err)
				if s.Released {
					last = s
				}
			}
			b.land(d)
		}
		require.NotNil(t, last)
		require.True(t, last.Offered(b.Mark(1, 5)), "landed: %d", landed)
		require.False(t, last.Offered(b.Mark(1, 6)))
	}
}
