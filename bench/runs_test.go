package bench

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestRunsAreTheSetsTheyStandFor: against maps.
func TestRunsAreTheSetsTheyStandFor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		numbers := rapid.SliceOf(rapid.Uint64Range(1, 40))
		set := func(name string) (runs, map[uint64]bool) {
			var r runs
			m := map[uint64]bool{}
			for _, n := range numbers.Draw(t, name) {
				if r.add(n) == m[n] {
					t.Fatalf("add(%d) to %v", n, r)
				}
				m[n] = true
			}
			return r, m
		}
		a, inA := set("a")
		b, inB := set("b")
		left := a.without(b)
		want := 0
		for n := range uint64(42) {
			if a.has(n) != inA[n] || left.has(n) != (inA[n] && !inB[n]) {
				t.Fatalf("%d: %v without %v is %v", n, a, b, left)
			}
			if inA[n] && !inB[n] {
				want++
			}
		}
		if a.count() != len(inA) || left.count() != want {
			t.Fatalf("%v has %d, %v has %d", a, a.count(), left, left.count())
		}
		for i := 1; i < len(a); i++ {
			if a[i].first <= a[i-1].last+1 {
				t.Fatalf("%v is not as short as it can be", a)
			}
		}
	})
}

func TestAnHourInOrderIsOneRun(t *testing.T) {
	var r runs
	for n := range uint64(1_000_000) {
		r.add(n + 1)
	}
	require.Equal(t, runs{{1, 1_000_000}}, r)
}
