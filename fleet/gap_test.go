package fleet

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// behind is a session that has come to an offset of a topic, of which its next holder has read more before it went on with it.
func (k *kafka) behind(topic, id string, pos, heard int64) (*Claimer, *Session) {
	k.t.Helper()
	a, state := k.open("A")
	left := *state
	left.Subs = []Sub{{Filter: "x"}}
	left.Start(topic, 0, pos)
	left.Bind(topic, id)
	k.run(a, a.Gone(&left, 2000, k.view("c")))
	b := NewClaimer(&Writer{"B", "tx-B"})
	acts := b.Connect(request(false), k.view("c"))
	to := new(Progress)
	to.Start(topic, 0, heard)
	to.Bind(topic, id)
	b.Heard(to)
	k.run(b, acts)
	acts = k.run(b, b.LedgerRead(k.view("c")))
	require.Equal(k.t, []ActionKind{ActOpened}, kinds(acts))
	return b, acts[0].State
}

// TestGapIsNotOfATopicThatTookTheNameOfAnother: the same offsets are other commands there.
func TestGapIsNotOfATopicThatTookTheNameOfAnother(t *testing.T) {
	k := newKafka(t)
	b, state := k.behind("t", "first", 3, 6)
	check := func(s *Session) {
		t.Helper()
		for offset := range int64(7) {
			in := 3 <= offset && offset < 6
			require.Equal(t, in, s.Skips(Mark{Topic: "t", ID: "first", Offset: offset}), offset)
			require.Equal(t, in, s.Skips(Mark{Topic: "t", Offset: offset}), offset)
			require.False(t, s.Skips(Mark{Topic: "t", ID: "second", Offset: offset}), offset)
		}
	}
	check(state)
	now := Session{Subs: state.Subs, Expiry: NeverExpires}
	now.Start("t", 0, 7)
	now.Bind("t", "second")
	_, acts := b.Save(&now, k.view("c"))
	k.run(b, acts)
	check(k.view("c").Session("B"))

	over := now
	over.Expiry, over.Ends = 0, &now.Progress
	k.run(b, b.Gone(&over, 3000, k.view("c")))
	ended := k.view("c").Session("B")
	require.True(t, ended.Ended)
	check(ended)
	require.True(t, ended.Offered(Mark{Topic: "t", ID: "second", Offset: 4}))
}

// TestGapsAreTheLatestOfAPartition, where there are many, and of the topic as it is now.
func TestGapsAreTheLatestOfAPartition(t *testing.T) {
	s := new(Session)
	heard := func(id string, to int64) {
		p := new(Progress)
		p.Start("t", 0, to)
		p.Bind("t", id)
		s.Gaps = gapsBehind(s, p)
	}
	s.Bind("t", "first")
	for at := range int64(6) {
		s.Start("t", 0, 10*at)
		heard("first", 10*at+2)
		heard("first", 10*at+3) // joined with the one that it touches
		heard("first", 10*at)   // nothing
	}
	require.Equal(t, [][2]int64{{20, 23}, {30, 33}, {40, 43}, {50, 53}}, s.Gaps.Settled["t"][0])
	s.Start("t", 0, 1)
	heard("second", 3)
	require.Len(t, s.Gaps.Settled["t"][0], mostGaps, "not the session's topic, or not yet")
	s.Bind("t", "second")
	heard("second", 3)
	require.Equal(t, [][2]int64{{1, 3}}, s.Gaps.Settled["t"][0])
	require.Nil(t, gapsBehind(new(Session), new(Progress)), "the record has no field for it then")
}
