package kafka

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
)

func TestEndIsThatOfTheMomentItIsAskedFor(t *testing.T) {
	k := fake(t, kfake.NumBrokers(3), kfake.SeedTopics(6, "t"))
	cl := client(t, k)
	c := follow(t, following(k.ListenAddrs(), newTape(), "t"))
	positioned(t, c)
	for n := range int64(20) {
		put(t, cl, "t", 4, "v")
		end, err := c.End(t.Context(), "t", 4)
		require.NoError(t, err)
		require.Equal(t, n+1, end, "what was acknowledged before is below it")
	}
	put(t, cl, "t", 5, "v")
	ends, err := c.Ends(t.Context(), "t")
	require.NoError(t, err)
	require.Equal(t, map[int32]int64{0: 0, 1: 0, 2: 0, 3: 0, 4: 20, 5: 1}, ends)
}

// TestEndDoesNotWaitBehindAFetch: the consumer's own fetch stays in the broker until there is something.
func TestEndDoesNotWaitBehindAFetch(t *testing.T) {
	k := fake(t, kfake.SeedTopics(1, "t"))
	c := follow(t, following(k.ListenAddrs(), newTape(), "t"))
	positioned(t, c)
	_, err := c.End(t.Context(), "t", 0) // connects
	require.NoError(t, err)
	begun := time.Now()
	for range 20 {
		_, err := c.End(t.Context(), "t", 0)
		require.NoError(t, err)
	}
	require.Less(t, time.Since(begun), 20*fetchWait/2, "each would wait for half a fetch")
}

func TestEndIsAskedForUntilTheLeaderAnswers(t *testing.T) {
	k, g := gated(t, kfake.NumBrokers(2), kfake.SeedTopics(1, "t"))
	cl := client(t, k)
	put(t, cl, "t", 0, "v")
	c := follow(t, following(k.ListenAddrs(), newTape(), "t"))
	positioned(t, c)
	ask := func() chan int64 {
		got := make(chan int64, 1)
		go func() { // ends with the answer or the test
			end, err := c.End(t.Context(), "t", 0)
			if err != nil {
				end = -1
			}
			got <- end
		}()
		return got
	}
	answer := func(got chan int64) {
		t.Helper()
		select {
		case end := <-got:
			require.EqualValues(t, 1, end)
		case <-time.After(patience):
			require.Fail(t, "no answer")
		}
	}
	g.set(down)
	got := ask()
	_, err := c.End(expired(t), "t", 0)
	require.ErrorIs(t, err, context.Canceled)
	g.set(passing)
	answer(got)
	require.NoError(t, k.MoveTopicPartition("t", 0, (k.LeaderFor("t", 0)+1)%2))
	answer(ask())
}

// expired is a context that has ended.
func expired(t testing.TB) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// TestWhoLeavesTakesNobodysAnswer: the connection is shared.
func TestWhoLeavesTakesNobodysAnswer(t *testing.T) {
	k, g := gated(t, kfake.SeedTopics(1, "t"))
	c := follow(t, following(k.ListenAddrs(), newTape(), "t"))
	positioned(t, c)
	_, err := c.End(t.Context(), "t", 0)
	require.NoError(t, err)
	link := linkOf(c.asking.net)
	g.set(swallows)
	var stays, leaves sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for range 5 {
		leaves.Go(func() { // ends with cancel
			_, err := c.End(ctx, "t", 0)
			if err == nil {
				t.Error("an answer that was swallowed")
			}
		})
		stays.Go(func() { // ends with the answer
			if _, err := c.End(t.Context(), "t", 0); err != nil {
				t.Error(err)
			}
		})
	}
	cancel()
	leaves.Wait()
	g.set(passing)
	stays.Wait()
	require.Same(t, link, linkOf(c.asking.net), "it was not cut")
}

// linkOf gives the only connection.
func linkOf(l *links) *link {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range l.byAddr {
		return k
	}
	return nil
}

func TestEndAndEndsEndWithTheirContextAndWithRun(t *testing.T) {
	k := fake(t, kfake.SeedTopics(1, "t"))
	c, err := NewConsumer(following(k.ListenAddrs(), newTape(), "t"))
	require.NoError(t, err)
	_, err = c.End(expired(t), "t", 0)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, err, errNoLeader, "and why it was not answered before")
	_, err = c.Ends(expired(t), "t")
	require.ErrorIs(t, err, context.Canceled)
	end := begin(t, c)
	positioned(t, c)
	for _, partition := range []int32{-1, 1} {
		_, err = c.End(expired(t), "t", partition)
		require.ErrorIs(t, err, errNoLeader)
	}
	end()
	_, err = c.End(t.Context(), "t", 0)
	require.ErrorIs(t, err, ErrClosed)
}
