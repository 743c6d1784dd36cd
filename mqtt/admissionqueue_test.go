package mqtt

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// begin is when the queues of these tests begin; no clock is read.
var begin = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

func addressOf(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
}

func TestAnAddressThatFloodsHoldsUpAnotherByOnePlace(t *testing.T) {
	q := newAdmissionQueue[string](100, begin)
	for range 10_000 {
		q.join(addressOf(1), "flood", begin)
	}
	q.join(addressOf(2), "device", begin)
	var in []string
	for range 3 {
		who, _, ok := q.next(begin)
		require.True(t, ok)
		in = append(in, who)
	}
	require.Equal(t, []string{"flood", "device", "flood"}, in)
}

func TestTheOldestOfAnAddressIsFirst(t *testing.T) {
	q := newAdmissionQueue[int](10_000, begin)
	for i := range 500 {
		q.join(addressOf(1), i, begin)
	}
	for i := range 500 {
		who, s, ok := q.next(begin)
		require.True(t, ok)
		require.Equal(t, i, who)
		q.finish(s)
	}
	require.Empty(t, q.sources)
}

func TestConnectsAreSmoothedToTheRate(t *testing.T) {
	const rate = 2000
	q := newAdmissionQueue[int](rate, begin)
	for i := range 19_000 {
		q.join(addressOf(i), i, begin)
	}
	in := 0
	admit := func(now time.Time) (n int) {
		for {
			_, s, ok := q.next(now)
			if !ok {
				return n
			}
			q.finish(s)
			n++
		}
	}
	in += admit(begin)
	require.Equal(t, rate/10, in, "a tenth of a second's worth at once")
	for tick := 1; tick <= 300; tick++ {
		n := admit(begin.Add(time.Duration(tick) * 10 * time.Millisecond))
		require.InDelta(t, rate/100, n, 1, "at tick %d", tick)
		in += n
	}
	require.InDelta(t, rate/10+3*rate, in, 1)
	require.Equal(t, rate/10, admit(begin.Add(time.Hour)), "an idle hour saves no more than that")
}

func TestSilentConnectionsOfOneAddressLeaveHalfOfThePlaces(t *testing.T) {
	q := newAdmissionQueue[string](1_000_000, begin)
	q.most, q.share = 10, 5
	for range 100 {
		q.join(addressOf(1), "silent", begin)
	}
	for range 5 {
		who, _, ok := q.next(begin)
		require.True(t, ok)
		require.Equal(t, "silent", who)
	}
	_, _, ok := q.next(begin)
	require.False(t, ok, "more than its share")
	for i := range 50 {
		q.join(addressOf(2+i), "device", begin)
		who, s, ok := q.next(begin)
		require.True(t, ok)
		require.Equal(t, "device", who)
		q.finish(s)
	}
	require.Equal(t, 95, q.waiting)
}

// TestSilentConnectionsOfManyAddressesSlowTheOthersByTheirNumber: an attacker with as many addresses as there are
// devices takes half of the places, however many connections it makes.
func TestSilentConnectionsOfManyAddressesSlowTheOthersByTheirNumber(t *testing.T) {
	const addresses, timeout = 1000, 10 * time.Second
	q := newAdmissionQueue[bool](2000, begin) // true: an attacker's
	for i := range addresses {
		for range 20 {
			q.join(addressOf(i), true, begin)
		}
		q.join(addressOf(addresses+i), false, begin)
	}
	type held struct {
		s     *source[bool]
		until time.Time
	}
	var silent []held
	in, inFirst := 0, 0 // devices let in, and attackers until the last of them
	for now := begin; in < addresses; now = now.Add(10 * time.Millisecond) {
		require.Less(t, now.Sub(begin), time.Minute, "%d devices are in", in)
		for len(silent) > 0 && !silent[0].until.After(now) {
			q.finish(silent[0].s)
			silent = silent[1:]
		}
		for {
			bad, s, ok := q.next(now)
			if !ok {
				break
			}
			if bad {
				silent = append(silent, held{s, now.Add(timeout)})
				inFirst++
				continue
			}
			in++
			q.finish(s)
		}
	}
	require.InDelta(t, addresses, inFirst, 1, "attackers let in before the last device")
}

func TestWhoWaitsTooLongIsTakenOut(t *testing.T) {
	q := newAdmissionQueue[int](1, begin)
	for i := range 10 {
		q.join(addressOf(i%3), i, begin.Add(time.Duration(i)*time.Second))
	}
	gone := q.overdue(begin.Add(4 * time.Second))
	slices.Sort(gone)
	require.Equal(t, []int{0, 1, 2, 3}, gone)
	require.Equal(t, 6, q.waiting)
	require.Len(t, q.overdue(begin.Add(time.Hour)), 6)
	require.Empty(t, q.sources)
	require.Empty(t, q.turns)
	_, _, ok := q.next(begin.Add(time.Hour))
	require.False(t, ok)
}

func TestOneThatHadLeftCostsNoTurn(t *testing.T) {
	q := newAdmissionQueue[int](10, begin) // one at once
	q.join(addressOf(1), 1, begin)
	q.join(addressOf(2), 2, begin)
	_, s, ok := q.next(begin)
	require.True(t, ok)
	q.spare(s)
	who, _, ok := q.next(begin)
	require.True(t, ok)
	require.Equal(t, 2, who)
}

// TestQueueKeepsItsBounds does what may happen in any order.
func TestQueueKeepsItsBounds(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		q := newAdmissionQueue[int](rapid.IntRange(1, 50).Draw(rt, "rate"), begin)
		q.most = rapid.IntRange(2, 8).Draw(rt, "most")
		q.share = q.most / 2
		now, joined := begin, 0
		waiting := map[netip.Addr][]int{}
		var busy []*source[int]
		rt.Repeat(map[string]func(*rapid.T){
			"join": func(rt *rapid.T) {
				from := addressOf(rapid.IntRange(0, 3).Draw(rt, "from"))
				q.join(from, joined, now)
				waiting[from] = append(waiting[from], joined)
				joined++
			},
			"next": func(rt *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 500).Draw(rt, "passed")) * time.Millisecond)
				who, s, ok := q.next(now)
				if !ok {
					return
				}
				require.Equal(rt, waiting[s.from][0], who)
				waiting[s.from] = waiting[s.from][1:]
				busy = append(busy, s)
			},
			"finish": func(rt *rapid.T) {
				if len(busy) == 0 {
					return
				}
				i := rapid.IntRange(0, len(busy)-1).Draw(rt, "which")
				q.finish(busy[i])
				busy = slices.Delete(busy, i, i+1)
			},
			"": func(rt *rapid.T) {
				n, known := 0, 0
				for from, list := range waiting {
					n += len(list)
					at := 0
					for _, s := range busy {
						if s.from == from {
							at++
						}
					}
					require.LessOrEqual(rt, at, q.share)
					if len(list)+at > 0 {
						known++
					}
					if len(list) > 0 && at < q.share {
						require.True(rt, slices.Contains(q.turns, q.sources[from]), "a source that may go on has no turn")
					}
				}
				require.Equal(rt, n, q.waiting)
				require.Equal(rt, len(busy), q.busy)
				require.LessOrEqual(rt, q.busy, q.most)
				require.Len(rt, q.sources, known, "sources that nobody comes from are kept")
			},
		})
	})
}

// TestAFullHouseMakesRoomForOtherSources: those who wait from where many wait go first, and never for one of their own.
func TestAFullHouseMakesRoomForOtherSources(t *testing.T) {
	now := time.Unix(0, 0)
	q := newAdmissionQueue[int](1, now)
	crowd, other := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	for i := range 5 {
		q.join(crowd, i, now)
	}
	_, ok := q.evict(crowd)
	require.False(t, ok)
	for want := 4; want >= 2; want-- {
		who, ok := q.evict(other)
		require.True(t, ok)
		require.Equal(t, want, who, "the newest")
		q.join(other, 100+want, now)
		if want == 3 {
			break
		}
	}
	_, ok = q.evict(other)
	require.False(t, ok, "3 wait there and 2 here")
	require.Equal(t, 5, q.waiting)
}
