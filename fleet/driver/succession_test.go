package driver

import (
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/fleet"
)

func unwantedQuest() *Quest {
	return &Quest{
		ClientID: "d1", Stream: 1, Offset: 5, Written: 2,
		Subscribed: func(*fleet.Session) bool { return false }, Told: func(*fleet.Session, Ends) bool { return false },
	}
}

// TestCommandInDoubtIsNotLostInASessionThatHasComeAndGone here before the doubt is resolved, also if another one has begun elsewhere.
func TestCommandInDoubtIsNotLostInASessionThatHasComeAndGone(t *testing.T) {
	for _, other := range []bool{false, true} {
		host, d, write := owning(t)
		host.level = true
		q := unwantedQuest()
		require.Equal(t, Doubtful, d.Seek(q))
		host.read1 = 6
		c := host.opens(t, d, fleet.ConnectRequest{Expiry: 3600}, 6)
		c.Told()
		c.Leave(Leaving{Expiry: 0, State: &fleet.Session{}, Met: Ends{}})
		if other { // its records come before that of the end here
			epoch := host.next + 1
			write("other", fleet.Session{Claim: epoch, Clean: true})
			s := fleet.Session{Claim: epoch, StateEpoch: epoch, Began: epoch, Clean: true, Begins: new(fleet.Progress)}
			s.Begins.Start("t", 0, 6)
			write("other", s)
		}
		found := d.Resolve(q)
		for len(host.records) > 0 {
			host.land(d)
		}
		require.Equal(t, 1, len(host.unwanted)+map[bool]int{true: 1}[found != Elsewhere], "other %v", other)
	}
}

// TestCommandInDoubtWasOfferedToASessionThatAnotherHasTakenThePlaceOf: that one was there when the command was written, though its
// record was not read here yet.
func TestCommandInDoubtWasOfferedToASessionThatAnotherHasTakenThePlaceOf(t *testing.T) {
	host, d, write := owning(t)
	host.level = true
	q := unwantedQuest()
	require.Equal(t, Doubtful, d.Seek(q))
	before := fleet.Session{Claim: 1, StateEpoch: 1, Began: 1}
	write("other", before)
	host.opens(t, d, fleet.ConnectRequest{}, 6)
	require.Equal(t, Elsewhere, d.Resolve(q), "it is open whether the session elsewhere was offered it")
	before.Ended, before.Released, before.OfflineSince, before.Ends = true, true, 1, new(fleet.Progress)
	before.Ends.Start("t", 0, 6)
	write("other", before)
	require.Empty(t, host.unwanted)
}

// TestCommandThatWasLeftToAClaimIsLeftToTheSessionThatItOpens, where there was no session before.
func TestCommandThatWasLeftToAClaimIsLeftToTheSessionThatItOpens(t *testing.T) {
	host, d, write := owning(t)
	host.level = true
	write("other", fleet.Session{})
	q := unwantedQuest()
	require.Equal(t, Elsewhere, func() Finding {
		if f := d.Seek(q); f != Doubtful {
			return f
		}
		return d.Resolve(q)
	}())
	before := fleet.Session{Claim: 1, StateEpoch: 1, Began: 1}
	write("other", before)
	host.opens(t, d, fleet.ConnectRequest{}, 6)
	require.Empty(t, host.unwanted, "who has the session before may be offered it")
	before.Ended, before.Released, before.OfflineSince, before.Ends = true, true, 1, new(fleet.Progress)
	before.Ends.Start("t", 0, 6)
	write("other", before)
	require.Empty(t, host.unwanted)
}

// TestCommandFromBeforeASessionThatIsNotTheLastIsToldOf by who has the last one, if it had not read it when that began: the owner,
// which reads it then, leaves it to that one.
func TestCommandFromBeforeASessionThatIsNotTheLastIsToldOf(t *testing.T) {
	_, d := beginning()
	host := &lagging{level: true}
	d.host, d.cfg.State = host, host
	p := d.parts[0]
	write := func(s fleet.Session) {
		value, err := s.Encode()
		require.NoError(t, err)
		host.read(d, fleet.SessionKey("d1", "other"), value)
	}
	write(fleet.Session{Clean: true})
	at, err := p.begin(t.Context(), "d1", fleet.ConnectRequest{Clean: true, Expiry: 3600}, &Conn{p: p, dev: &reader{next: 5}})
	require.NoError(t, err)
	host.land(d) // its claim
	require.Equal(t, Elsewhere, d.Seek(unwantedQuest()), "it may be for who has claimed")
	before := fleet.Session{Claim: 1, StateEpoch: 1, Began: 1, Clean: true, Begins: new(fleet.Progress)}
	before.Begins.Start("t", 0, 6)
	write(before)
	host.settled(d, func() bool { return len(at.answer) > 0 })
	require.Equal(t, fleet.ActOpened, (<-at.answer).Kind)
	before.Ended, before.Released, before.OfflineSince, before.Ends = true, true, 1, new(fleet.Progress)
	write(before)
	require.Len(t, host.unwanted, 1)
	require.EqualValues(t, 6, at.conn.told[1])
}

// TestCommandInDoubtWasNotOfferedByWhatItsReaderSays: the record of a session that ends here lies behind all that was read here, also
// behind what is in doubt, and the next one is about to be opened.
func TestCommandInDoubtWasNotOfferedByWhatItsReaderSays(t *testing.T) {
	for _, landed := range []bool{false, true} {
		host, d, _ := owning(t)
		host.level = true
		p := d.parts[0]
		c := host.opens(t, d, fleet.ConnectRequest{}, 5)
		q := unwantedQuest()
		require.Equal(t, Doubtful, d.Seek(q), "its connection is about to end")
		c.Told()
		c.Leave(Leaving{State: &fleet.Session{}, Met: Ends{1: 9}})
		at, err := p.begin(t.Context(), "d1", fleet.ConnectRequest{Expiry: 3600}, &Conn{p: p, dev: &reader{next: 9}})
		require.NoError(t, err)
		host.land(d) // the end, which is read back
		if landed {
			host.settled(d, func() bool { return len(at.answer) > 0 })
		}
		require.Equal(t, NotConnected, d.Resolve(q))
		require.Empty(t, host.unwanted)
	}
}
