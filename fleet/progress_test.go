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
			for o := from; o < to; o++ {
				p.Settle("t", 1, o)
				settled[o] = true
			}
			if rapid.IntRange(0, 5).Draw(t, "store") == 0 {
				p = stored(t, p)
			}
		}
		low := start // the first that is not settled
		for low < end && settled[low] {
			low++
		}
		require.Equal(t, low, p.Pos["t"][1])
		at := low
		for _, r := range p.Settled["t"][1] {
			require.Greater(t, r[0], at, "ranges are apart, and above the position")
			for ; at < r[1]; at++ {
				require.Equal(t, at >= r[0], settled[at], "offset %d", at)
			}
		}
		for ; at < end; at++ {
			require.False(t, settled[at], "offset %d", at)
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

// TestPositionsAreThoseOfOneTopic: another one of the same name has another ID. Records from before there were IDs, and
// Kafka without them, leave it open.
func TestPositionsAreThoseOfOneTopic(t *testing.T) {
	var p Progress
	p.Start("t", 0, 5)
	require.True(t, p.Means("t", "one"), "a record from before")
	p.Bind("t", "")
	require.True(t, p.Means("t", "one"))
	p.Bind("t", "one")
	require.True(t, p.Means("t", "one"))
	require.False(t, p.Means("t", "two"))
	require.True(t, p.Means("t", ""))
	require.True(t, p.Means("other", "two"))
	value, err := (&Session{Progress: p}).Encode()
	require.NoError(t, err)
	require.JSONEq(t, `{"v": 1, "pos": {"t": {"0": 5}}, "ids": {"t": "one"}}`, string(value))
	again, err := DecodeSession(value)
	require.NoError(t, err)
	require.False(t, again.Means("t", "two"))
}
