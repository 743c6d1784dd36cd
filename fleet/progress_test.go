package fleet

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestProgressNeverPassesAnUnsettledOffset: the position and the ranges say of each offset what was said to them,
// also after a round trip through a record.
func TestProgressNeverPassesAnUnsettledOffset(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const end = 40
		start := rapid.Int64Range(0, 10).Draw(t, "start")
		var p Progress
		p.Start("t", 1, start)
		settled := make(map[int64]bool)
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			from := rapid.Int64Range(0, end-1).Draw(t, "from")
			to := min(end, from+rapid.Int64Range(1, 4).Draw(t, "length"))
			p.SettleRange("t", 1, from, to)
			for o := from; o < to; o++ {
				settled[o] = true
			}
			if rapid.IntRange(0, 5).Draw(t, "store") == 0 {
				p = stored(t, p)
			}
		}
		var open []int64
		above := int64(0)
		for o := start; o < end; o++ {
			if !settled[o] {
				open = append(open, o)
			} else if len(open) > 0 {
				above++
			}
			if p.IsSettled("t", 1, o) != settled[o] {
				t.Fatalf("offset %d: settled %t", o, settled[o])
			}
		}
		var got []int64
		for o := range p.Open("t", 1, 0, end) {
			got = append(got, o)
		}
		require.Equal(t, open, got)
		require.Equal(t, above, p.Above("t", 1))
		if len(open) > 0 {
			require.Equal(t, open[0], p.Pos["t"][1], "the position is the first unsettled offset")
		}
	})
}

func stored(t *rapid.T, p Progress) Progress {
	value, err := json.Marshal(p)
	require.NoError(t, err)
	var again Progress
	require.NoError(t, json.Unmarshal(value, &again))
	return again
}

func TestResumeInTopicsAndPartitionsThatAreNew(t *testing.T) {
	var p Progress
	p.Start("known", 0, 7)
	require.EqualValues(t, 7, p.Resume("known", 0, 100))
	require.EqualValues(t, 0, p.Resume("known", 1, 100), "added since: all of it is new")
	require.EqualValues(t, 100, p.Resume("new", 0, 100))
	p.Meet("known", 0, 9)
	p.Keep(func(topic string) bool { return topic != "known" })
	require.Empty(t, p.Pos)
	require.Empty(t, p.Met)
}

func TestReachIsBehindAllThatTheSessionHasMet(t *testing.T) {
	var p Progress
	require.Zero(t, p.Reach("t", 0))
	p.Start("t", 0, 3)
	require.EqualValues(t, 3, p.Reach("t", 0))
	p.Settle("t", 0, 5)
	p.Settle("t", 0, 7)
	require.EqualValues(t, 8, p.Reach("t", 0), "records from before there was Met have this much")
	p.Meet("t", 0, 12)
	require.EqualValues(t, 12, p.Reach("t", 0))
	require.Zero(t, p.Reach("t", 1))
	value, err := (&Session{Progress: p}).Encode()
	require.NoError(t, err)
	again, err := DecodeSession(value)
	require.NoError(t, err)
	require.EqualValues(t, 12, again.Reach("t", 0))
}

func TestSnapshotSharesNothing(t *testing.T) {
	var p Progress
	p.Start("t", 0, 1)
	p.Settle("t", 0, 5)
	p.Meet("t", 0, 6)
	snapshot := p.Clone()
	p.Settle("t", 0, 6)
	p.Meet("t", 0, 7)
	p.Settle("t", 0, 1)
	require.EqualValues(t, 1, snapshot.Pos["t"][0])
	require.Equal(t, [][2]int64{{5, 6}}, snapshot.Settled["t"][0])
	require.EqualValues(t, 6, snapshot.Met["t"][0])
}

// TestPositionsAreThoseOfOneTopic: another one of the same name has another ID. Records from before there were IDs, and
// Kafka without them, leave it open.
func TestPositionsAreThoseOfOneTopic(t *testing.T) {
	var p Progress
	p.Start("t", 0, 5)
	require.True(t, p.Means("t", "one"), "a record from before")
	p.Bind("t", "")
	require.True(t, p.Means("t", "one"))
	p.Bind("t", "one")
	c := p.Clone()
	for _, q := range []*Progress{&p, &c} {
		require.True(t, q.Means("t", "one"))
		require.False(t, q.Means("t", "two"))
		require.True(t, q.Means("t", ""))
		require.True(t, q.Means("other", "two"))
	}
	value, err := (&Session{Progress: p}).Encode()
	require.NoError(t, err)
	require.JSONEq(t, `{"v": 1, "pos": {"t": {"0": 5}}, "ids": {"t": "one"}}`, string(value))
	again, err := DecodeSession(value)
	require.NoError(t, err)
	require.False(t, again.Means("t", "two"))
	p.Keep(func(string) bool { return false })
	require.Empty(t, p.IDs)
}
