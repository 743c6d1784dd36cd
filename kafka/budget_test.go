package kafka

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestBudgetWakesInTheOrderOfWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // a woken waiter has its room for a time only
		b := newBudget(100)
		require.True(t, b.TryTake(100))
		var order []int
		for i := range 5 {
			b.OnRoom(20, func() { order = append(order, i) })
		}
		require.False(t, b.TryTake(1))
		b.Give(30)
		require.Equal(t, []int{0}, order, "there is room for one")
		require.True(t, b.TryTake(20), "which it was kept for")
		b.Give(70)
		require.Equal(t, []int{0, 1, 2, 3, 4}, order)
		for range 4 {
			require.True(t, b.TryTake(20))
		}
		require.Equal(t, int64(100), b.InUse())
		require.Zero(t, b.pledged)
	})
}

func TestBudgetLetsNoSmallTakerPastALargeWaiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // a woken waiter has its room for a time only
		b := newBudget(100)
		b.Take(60)
		woken := false
		b.OnRoom(50, func() { woken = true })
		require.False(t, b.TryTake(10), "40 are free, and someone waits")
		b.Give(20)
		require.True(t, woken)
		require.True(t, b.TryTake(50))
	})
}

func TestBudgetServesTheNextWhenAWokenWaiterIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(100)
		b.Take(100)
		var second atomic.Bool
		b.OnRoom(100, func() {}) // never comes
		b.OnRoom(100, func() { second.Store(true) })
		b.Give(100)
		synctest.Wait()
		require.False(t, second.Load())
		time.Sleep(2 * pledgeTime)
		synctest.Wait()
		require.True(t, second.Load())
		require.True(t, b.TryTake(100))
	})
}

func TestBudgetWakesAtOnceWhenThereIsRoomButNotFromInside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(10)
		var mu sync.Mutex
		woken := false
		mu.Lock()
		b.OnRoom(5, func() { // would deadlock from inside
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
	require.True(t, b.TryTake(1))
	require.False(t, b.TryTake(150))
	woken := false
	b.OnRoom(150, func() { woken = true })
	b.Give(1)
	require.True(t, woken)
	require.True(t, b.TryTake(150))
	require.False(t, b.TryTake(1))
	b.Give(150)
	require.Zero(t, b.InUse())
}

func TestBudgetIsNotExceededAndEveryWaiterIsServed(t *testing.T) {
	const max, workers, rounds = 1000, 16, 300
	b := newBudget(max)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range rounds {
				n := (w*31+i*17)%400 + 1
				for !b.TryTake(n) {
					room := make(chan struct{})
					b.OnRoom(n, func() { close(room) })
					<-room
				}
				require.LessOrEqual(t, b.InUse(), int64(max))
				b.Give(n)
			}
		})
	}
	wg.Wait()
	require.Zero(t, b.InUse())
	require.Zero(t, b.waiting())
}

func TestBudgetProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := newBudget(rapid.Int64Range(1, 1000).Draw(t, "max"))
		var held []int
		var sum int64
		for range rapid.IntRange(1, 50).Draw(t, "steps") {
			n := rapid.IntRange(0, 300).Draw(t, "n")
			switch rapid.IntRange(0, 2).Draw(t, "what") {
			case 0:
				free := b.Max() - b.InUse()
				if b.TryTake(n) {
					held, sum = append(held, n), sum+int64(n)
					require.LessOrEqual(t, min(int64(n), b.Max()), free)
				} else {
					require.Greater(t, int64(n), free)
				}
			case 1:
				b.Take(n)
				held, sum = append(held, n), sum+int64(n)
			case 2:
				if len(held) > 0 {
					b.Give(held[0])
					sum -= int64(held[0])
					held = held[1:]
				}
			}
			require.Equal(t, sum, b.InUse())
		}
	})
}
