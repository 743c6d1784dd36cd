package kafka

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func toTopic(name string) Destination { return Destination{name, AnyPartition} }

var here = toTopic("here")

func TestBudgetServesInTheOrderOfWaiting(t *testing.T) {
	b := newBudget(100)
	b.Take(here, 100)
	var order []int
	for i := range 5 {
		b.Wait(here, 10, func() { order = append(order, i) })
	}
	require.False(t, b.TryTake(here, 1))
	b.Give(here, 55)
	require.Equal(t, []int{0, 1}, order, "there is room for two")
	b.Give(here, 45)
	require.Equal(t, []int{0, 1, 2, 3, 4}, order)
	require.Equal(t, int64(50), b.InUse(), "what they waited for is theirs")
}

func TestBudgetLetsNobodyPastWhoWaits(t *testing.T) {
	b := newBudget(100)
	b.Take(here, 60)
	w := b.Wait(here, 30, func() {})
	require.False(t, b.TryTake(here, 10), "someone waits")
	b.Give(here, 40)
	require.True(t, w.Take())
	require.False(t, w.Take(), "once")
	require.Equal(t, int64(50), b.InUse())
}

func TestBudgetKeepsWhatIsFreeForALargeWaiter(t *testing.T) {
	b := newBudget(100)
	b.Take(toTopic("a"), 30)
	b.Take(toTopic("b"), 30)
	w := b.Wait(here, 60, func() {})
	require.False(t, b.TryTake(toTopic("c"), 10), "40 are free, and someone waits for 60")
	b.Give(toTopic("a"), 30)
	require.True(t, w.Take())
	require.True(t, b.TryTake(toTopic("c"), 10))
}

func TestBudgetDoesNotKeepForALargeWaiterWhatStuckDestinationsHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(100)
		b.Take(toTopic("stuck"), 60)
		w := b.Wait(here, 50, func() {})
		woken := make(chan struct{})
		small := b.Wait(toTopic("healthy"), 10, func() { close(woken) })
		require.False(t, small.Take())
		<-woken // or all goroutines of the bubble are blocked
		require.True(t, small.Take())
		require.True(t, b.TryTake(toTopic("healthy"), 5))
		b.Give(toTopic("stuck"), 60)
		require.True(t, w.Take())
	})
}

func TestBudgetForgetsAWaiterThatLeaves(t *testing.T) {
	b := newBudget(100)
	b.Take(here, 100)
	first, woken := b.Wait(here, 10, func() {}), false
	var gone []*Waiter
	for range 1000 {
		gone = append(gone, b.Wait(here, 10, func() { t.Error("woken though it is gone") }))
	}
	last := b.Wait(here, 10, func() { woken = true })
	for _, w := range gone {
		w.Leave()
	}
	require.Equal(t, 2, b.waiting())
	b.Give(here, 100)
	require.True(t, woken)
	require.True(t, first.Take())
	last.Leave() // it was served, and had not come yet
	last.Leave()
	require.Equal(t, int64(10), b.InUse())
	b.Give(here, 10)
	require.Empty(t, b.accounts)
}

func TestBudgetServesTheNextWhenOneLeaves(t *testing.T) {
	b := newBudget(100)
	b.Take(here, 70)
	large := b.Wait(here, 80, func() {})
	small := b.Wait(here, 5, func() {})
	other := b.Wait(toTopic("other"), 5, func() {})
	require.False(t, small.Take())
	b.Give(here, 65)
	large.Leave()
	require.True(t, small.Take())
	require.True(t, other.Take())
	require.Zero(t, b.waiting())
}

func TestBudgetLeavesRoomBesideStuckDestinations(t *testing.T) {
	const max, most = 9_000, 8
	fill := func(b *Budget, names ...string) (n int) {
		for took := true; took; {
			took = false
			for _, name := range names {
				if b.TryTake(toTopic(name), 10) {
					took, n = true, n+10
				}
			}
		}
		return n
	}
	names := strings.Split("abcdefgh", "")
	for stuck := range most { // all at once
		b := newBudget(max)
		fill(b, names[:stuck]...)
		free := max - b.InUse()
		require.InDelta(t, max/(1+shareOfFree*stuck), free, 10+10*most, "%d are stuck", stuck)
		require.InDelta(t, float64(free)*shareOfFree/(1+shareOfFree), fill(b, "healthy"), 20, "%d are stuck", stuck)
	}
	synctest.Test(t, func(t *testing.T) { // one after the other
		b := newBudget(max)
		for _, name := range names {
			require.True(t, b.TryTake(toTopic(name), 10))
		}
		time.Sleep(2 * stuckAfter)
		for _, name := range names {
			fill(b, name)
		}
		require.InDelta(t, max/stuckShare, b.InUse(), 10)
		require.InDelta(t, max/2*shareOfFree/(1+shareOfFree), fill(b, "healthy"), 20)
		w := b.Wait(toTopic("h"), 10, func() {})
		require.False(t, w.Take())
		b.Give(toTopic("g"), 10)
		require.True(t, w.Take(), "as soon as there is room for it again")
	})
}

func TestBudgetServesDestinationsInTurn(t *testing.T) {
	b := newBudget(100)
	b.Take(toTopic("all"), 100)
	var order []string
	for _, name := range []string{"a", "a", "a", "b", "b", "c"} {
		b.Wait(toTopic(name), 10, func() { order = append(order, name) })
	}
	b.Give(toTopic("all"), 100)
	require.Equal(t, []string{"a", "b", "c", "a", "b", "a"}, order)
}

func TestBudgetWakesWhoWaitsForHealthyBehindThoseForStuck(t *testing.T) {
	b := newBudget(1000)
	for b.TryTake(toTopic("stuck"), 10) {
	}
	for range 100 {
		b.Wait(toTopic("stuck"), 10, func() { t.Error("there is no room for it") })
	}
	for b.TryTake(toTopic("healthy"), 10) {
	}
	w := b.Wait(toTopic("healthy"), 10, func() {})
	b.Take(toTopic("stuck"), 10) // so that what comes back is not enough for it
	b.Give(toTopic("healthy"), 20)
	require.True(t, w.Take())
}

func TestBudgetWakesAtOnceWhenThereIsRoomButNotFromInside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(10)
		var mu sync.Mutex
		woken := false
		mu.Lock()
		b.Wait(here, 5, func() { // would deadlock from inside
			mu.Lock()
			woken = true
			mu.Unlock()
		})
		mu.Unlock()
		synctest.Wait()
		require.True(t, woken)
	})
}

func TestBudgetTakesOneTooLargeWhenAllIsFree(t *testing.T) {
	b := newBudget(100)
	require.True(t, b.TryTake(here, 1))
	require.False(t, b.TryTake(here, 150))
	w := b.Wait(here, 150, func() {})
	b.Give(here, 1)
	require.True(t, w.Take())
	require.False(t, b.TryTake(here, 1))
	b.Give(here, 150)
	require.Zero(t, b.InUse())
}

func TestBudgetIsNotExceededAndEveryWaiterIsServed(t *testing.T) {
	const max, workers, rounds = 1000, 16, 300
	b := newBudget(max)
	var wg sync.WaitGroup
	for w := range workers {
		to := Destination{"t", int32(w % 3)}
		wg.Go(func() {
			for i := range rounds {
				n := (w*31+i*17)%400 + 1
				if !b.TryTake(to, n) {
					room := make(chan struct{})
					turn := b.Wait(to, n, func() { close(room) })
					if i%7 == 0 { // gone, perhaps just when it is served
						turn.Leave()
						continue
					}
					<-room
					require.True(t, turn.Take())
				}
				require.LessOrEqual(t, b.InUse(), int64(max))
				b.Give(to, n)
			}
		})
	}
	wg.Wait()
	require.Zero(t, b.InUse())
	require.Zero(t, b.waiting())
	require.Empty(t, b.accounts)
}

func TestBudgetAllocatesNothingForWhatHasRoom(t *testing.T) {
	b := newBudget(1000)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		b.TryTake(here, 10)
		b.Give(here, 10)
	}))
}

func TestBudgetProperties(t *testing.T) {
	type piece struct {
		to Destination
		n  int
	}
	rapid.Check(t, func(t *rapid.T) {
		b := newBudget(rapid.Int64Range(1, 1000).Draw(t, "max"))
		var held []piece
		waiting := map[*Waiter]piece{}
		served := func() { // whoever was served is noted
			for w, p := range waiting {
				if w.Take() {
					held = append(held, p)
					delete(waiting, w)
				}
			}
		}
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			p := piece{Destination{"t", rapid.Int32Range(0, 3).Draw(t, "to")}, rapid.IntRange(1, 300).Draw(t, "n")}
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0:
				free := b.Max() - b.InUse()
				if b.TryTake(p.to, p.n) {
					held = append(held, p)
					require.LessOrEqual(t, min(int64(p.n), b.Max()), free)
				}
			case 1:
				b.Take(p.to, p.n)
				held = append(held, p)
			case 2:
				if len(held) > 0 {
					b.Give(held[0].to, held[0].n)
					held = held[1:]
				}
			case 3:
				waiting[b.Wait(p.to, p.n, func() {})] = p
			case 4:
				for w := range waiting {
					w.Leave()
					delete(waiting, w)
					break
				}
			}
			served()
			var sum int64
			for _, p := range held {
				sum += int64(p.n)
			}
			require.Equal(t, sum, b.InUse())
			require.Equal(t, len(waiting), b.waiting())
		}
		for len(held) > 0 {
			b.Give(held[0].to, held[0].n)
			held = held[1:]
			served()
		}
		require.Empty(t, waiting, "all were served")
		require.Empty(t, b.accounts)
	})
}

func TestBudgetLooksAgainOnlyWhileItKeeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(100)
		b.Take(toTopic("stuck"), 60)
		var looked atomic.Bool
		w := b.Wait(here, 50, func() { looked.Store(true) })
		time.Sleep(3 * stuckAfter)
		synctest.Wait()
		b.mu.Lock()
		require.Nil(t, b.look)
		require.False(t, b.kept)
		b.mu.Unlock()
		require.False(t, looked.Load())
		w.Leave()
	})
}
