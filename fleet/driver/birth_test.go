package driver

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/fleet"
)

// A lagging is a Host that has read no commands yet, unless it is level, and notes what it is to tell of.
type lagging struct {
	begun
	level    bool
	unwanted []*fleet.Session
}

func (l *lagging) Ahead(p *fleet.Progress) Ends {
	if l.level || p == nil || p.Reach("t", 0) == 0 {
		return nil
	}
	return Ends{1: p.Reach("t", 0)}
}

func (l *lagging) Unwanted(_ string, _ int32, _ int64, s *fleet.Session) {
	l.unwanted = append(l.unwanted, s)
}

// owning makes a driver that owns the only partition, and what reads a record of another instance there.
func owning(t *testing.T) (*lagging, *Driver, func(inc string, s fleet.Session)) {
	_, d := beginning()
	host := new(lagging)
	d.ctx, d.host, d.cfg.State, d.cfg.Journal = t.Context(), host, host, empty{}
	p := d.parts[0]
	p.owner.Assigned()
	p.owner.Taken(&p.table)
	return host, d, func(inc string, s fleet.Session) {
		value, err := s.Encode()
		require.NoError(t, err)
		host.read(d, fleet.SessionKey("d1", inc), value)
	}
}

// TestCommandFromBeforeASessionWaitsForTheLastWordOnTheOneBefore: until that it is open whether it was offered there.
func TestCommandFromBeforeASessionWaitsForTheLastWordOnTheOneBefore(t *testing.T) {
	subs := []fleet.Sub{{Filter: "t"}}
	for name, c := range map[string]struct {
		read int64 // what the holder of the session before has come to
		want []string
	}{
		"offered":     {6, nil},
		"not offered": {3, []string{"before"}},
	} {
		t.Run(name, func(t *testing.T) {
			host, d, write := owning(t)
			before := fleet.Session{Claim: 1, StateEpoch: 1, Began: 1, Expiry: fleet.NeverExpires, Subs: subs}
			before.Start("t", 0, 3)
			write("before", before)
			write("after", fleet.Session{Claim: 2, Clean: true})
			opening := fleet.Session{Claim: 2, StateEpoch: 2, Began: 2, Clean: true, Expiry: fleet.NeverExpires, Begins: new(fleet.Progress)}
			opening.Begins.Start("t", 0, 6)
			write("after", opening)
			q := &Quest{ClientID: "d1", Stream: 1, Offset: 5, Subscribed: func(*fleet.Session) bool { return false }}
			require.Equal(t, Elsewhere, d.Seek(q))
			require.Empty(t, host.unwanted, "the holder of the session before has not said how far it had come")
			before.Released, before.OfflineSince = true, 1
			before.Start("t", 0, c.read)
			write("before", before)
			var told []string
			for _, s := range host.unwanted {
				require.Equal(t, before.Began, s.Began)
				told = append(told, "before")
			}
			require.Equal(t, c.want, told)
		})
	}
}

// TestCommandThatIsReadWhileASessionTakesThePlaceOfOneElsewhere is told of once, when the holder of the one before has said that it
// was not offered there: by who looks after the partition if it came before the record that begins the session was written, and
// else here.
func TestCommandThatIsReadWhileASessionTakesThePlaceOfOneElsewhere(t *testing.T) {
	for landed, here := range []bool{false, true} {
		for _, offered := range []bool{false, true} {
			t.Run(fmt.Sprint("claim read ", here, ", offered ", offered), func(t *testing.T) {
				_, d := beginning()
				host := new(lagging)
				d.host, d.cfg.State = host, host
				p := d.parts[0]
				before := fleet.Session{Claim: 1, StateEpoch: 1, Began: 1, TxID: "tx"}
				write := func() {
					value, err := before.Encode()
					require.NoError(t, err)
					host.read(d, fleet.SessionKey("d1", "other"), value)
				}
				write()
				at, err := p.begin(t.Context(), "d1", fleet.ConnectRequest{Clean: true, Expiry: 3600}, &Conn{p: p, dev: &reader{next: 6}})
				require.NoError(t, err)
				for range landed {
					host.land(d)
				}
				q := &Quest{ClientID: "d1", Stream: 1, Offset: 5, Subscribed: func(*fleet.Session) bool { return false }}
				require.Equal(t, Elsewhere, d.Seek(q), "the session elsewhere may have it")
				for len(at.answer) == 0 {
					host.land(d)
				}
				a := <-at.answer
				require.Equal(t, fleet.ActOpened, a.Kind)
				require.Equal(t, !here, a.State.Begins.Passes(host.Mark(1, 5)))
				require.Empty(t, host.unwanted)
				before.Ended, before.Released, before.OfflineSince, before.Ends = true, true, 1, new(fleet.Progress)
				if offered {
					before.Ends.Start("t", 0, 6)
				}
				write()
				require.Len(t, host.unwanted, map[bool]int{true: 1}[here && !offered])
				at.conn.Quit("")
				require.Equal(t, here, at.conn.told[1] == 6, "the session's last word says that it is not for others to tell")
			})
		}
	}
}

// TestCommandThatWasLeftToASessionIsLeftToTheNext if that began elsewhere where the command was not read yet. It says in the end
// what it was offered.
func TestCommandThatWasLeftToASessionIsLeftToTheNext(t *testing.T) {
	for _, offered := range []bool{false, true} {
		host, d, write := owning(t)
		before := fleet.Session{Claim: 1, StateEpoch: 1, Began: 1}
		write("before", before)
		q := &Quest{ClientID: "d1", Stream: 1, Offset: 5, Subscribed: func(*fleet.Session) bool { return false }}
		require.Equal(t, Elsewhere, d.Seek(q))
		write("after", fleet.Session{Claim: 2, Clean: true})
		after := fleet.Session{Claim: 2, StateEpoch: 2, Began: 2, Clean: true}
		write("after", after)
		before.Ended, before.Released, before.OfflineSince, before.Ends = true, true, 1, new(fleet.Progress)
		write("before", before)
		require.Empty(t, host.unwanted, "who has the session now reads it, and tells")
		after.Ended, after.Released, after.OfflineSince, after.Ends = true, true, 1, new(fleet.Progress)
		if offered {
			after.Ends.Start("t", 0, 6)
		}
		write("after", after)
		require.Len(t, host.unwanted, map[bool]int{false: 1}[offered])
	}
}

// TestSessionIsResumedBeforeTheLastWordOnTheOneBefore, of another instance: what was left to that one stays open, and what the new
// one was offered at its first connection did not wait for the one before.
func TestSessionIsResumedBeforeTheLastWordOnTheOneBefore(t *testing.T) {
	for _, offered := range []bool{false, true} {
		host, d, writes := owning(t)
		before := fleet.Session{Claim: 1, StateEpoch: 1, Began: 1, Expiry: fleet.NeverExpires, TxID: "tx", Subs: []fleet.Sub{{Filter: "t"}}}
		before.Start("t", 0, 3)
		write := func() { writes("other", before) }
		write()
		open := func(clean bool, read int64) *Conn {
			return host.opens(t, d, fleet.ConnectRequest{Clean: clean, Expiry: 3600}, read)
		}
		q := &Quest{ClientID: "d1", Stream: 1, Offset: 5, Subscribed: func(*fleet.Session) bool { return false }}
		require.Equal(t, Elsewhere, d.Seek(q))
		host.read1 = 6
		c := open(true, 6)
		host.read1 = 9
		c.Told()
		c.Leave(Leaving{Expiry: 3600, State: &fleet.Session{}, Met: Ends{1: 9}})
		c = open(false, 9)
		require.True(t, c.Present)
		require.Empty(t, host.unwanted)
		before.Released, before.OfflineSince = true, 1
		if offered {
			before.Start("t", 0, 6)
		}
		write()
		require.Len(t, host.unwanted, map[bool]int{false: 1}[offered])
		require.Equal(t, []Ends{{1: 6}}, host.endedAt)
	}
}

// TestCommandInAGapOfASessionThatEndedIsToldOf though the next one has begun: no holder has told of it.
func TestCommandInAGapOfASessionThatEndedIsToldOf(t *testing.T) {
	host, d, writes := owning(t)
	write := func(s fleet.Session) { writes("other", s) }
	before := fleet.Session{Claim: 1, StateEpoch: 1, Began: 1, Gaps: &fleet.Progress{Settled: map[string]map[int32][][2]int64{"t": {0: {{4, 6}}}}}}
	write(before)
	before.Ended, before.Released, before.OfflineSince, before.Ends = true, true, 1, new(fleet.Progress)
	before.Ends.Start("t", 0, 8)
	write(before)
	before.Claim = 2
	write(before)
	next := fleet.Session{Claim: 2, StateEpoch: 2, Began: 2, Begins: new(fleet.Progress)}
	next.Begins.Start("t", 0, 6)
	write(next)
	for at := int64(3); at < 8; at++ {
		q := &Quest{ClientID: "d1", Stream: 1, Offset: at, Subscribed: func(*fleet.Session) bool { return false }}
		require.Equal(t, Elsewhere, d.Seek(q))
		d.work.Wait()
		require.Len(t, host.unwanted, int(min(at-3, 2)), "at %d", at)
	}
}
