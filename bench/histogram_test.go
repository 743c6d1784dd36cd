package bench

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestQuantilesAreNeverTooSmallAndAtMostA64thTooLarge: against the sorted times themselves, from microseconds to hours.
func TestQuantilesAreNeverTooSmallAndAtMostA64thTooLarge(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, top := range []time.Duration{50 * time.Microsecond, time.Millisecond, time.Second, 3 * time.Hour} {
		var h Histogram
		var all []time.Duration
		for range 5000 {
			d := time.Duration(random.Int64N(int64(top)))
			if random.IntN(10) == 0 {
				d /= 1000
			}
			h.Add(d, 1)
			all = append(all, d)
		}
		slices.Sort(all)
		require.EqualValues(t, 5000, h.Count())
		for _, q := range []float64{0, .5, .9, .99, .999, 1} {
			exact := all[min(int(q*5000), 4999)]
			got := h.Quantile(q)
			require.GreaterOrEqual(t, got, exact, "%v of %v", q, top)
			require.LessOrEqual(t, got, exact+exact/64+time.Microsecond, "%v of %v", q, top)
		}
		require.Equal(t, all[4999], h.Quantile(1))
	}
}

func TestAHistogramOfNothingOrOfTooMuch(t *testing.T) {
	var h Histogram
	require.Nil(t, h.Times())
	require.Zero(t, h.Quantile(.5))
	h.Add(-time.Second, 1)
	h.Add(10*365*24*time.Hour, 2)
	require.EqualValues(t, 3, h.Count())
	require.Equal(t, 10*365*24*time.Hour, h.Quantile(1))
	require.Zero(t, h.Quantile(0).Truncate(time.Microsecond*2))
}

func TestCountingATimeAllocatesNothing(t *testing.T) {
	var h Histogram
	require.Zero(t, testing.AllocsPerRun(100, func() { h.Add(time.Millisecond, 1) }))
}
