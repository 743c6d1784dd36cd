package kafka

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
)

// movesLeader has partition 0 of t led by other brokers, one after the other, with records written at each.
func movesLeader(t *testing.T, k *kfake.Cluster, from, to int) {
	t.Helper()
	cl := client(t, k)
	for i := from; i < to; i++ {
		if i%4 == 0 {
			require.NoError(t, k.MoveTopicPartition("t", 0, (k.LeaderFor("t", 0)+1)%3))
		}
		put(t, cl, "t", 0, strconv.Itoa(i))
	}
}

// TestGroupGoesOnWithAPartitionThatWasPausedWhileItsLeaderWasReplaced: nobody asked for it meanwhile, and so nobody was told.
func TestGroupGoesOnWithAPartitionThatWasPausedWhileItsLeaderWasReplaced(t *testing.T) {
	k := fake(t, kfake.NumBrokers(3), kfake.SeedTopics(2, "t"), fastSessions)
	d := newDesk()
	cfg := groupConfig(k.ListenAddrs(), "t")
	var room atomic.Bool
	var refused atomic.Int32
	cfg.Handle = func(ctx context.Context, r *Fetched, done func(bool)) bool {
		if r.Partition == 0 && !room.Load() {
			refused.Add(1)
			return false
		}
		return d.handle(ctx, r, done)
	}
	cfg.Begin = func(string, string, int32) (int64, bool) { return 0, true }
	s := newRoom().join(t, cfg)
	const n = 40
	movesLeader(t, k, 0, 4)
	eventually(t, func() bool { return refused.Load() > 1 }, "it is paused")
	movesLeader(t, k, 4, n)
	put(t, client(t, k), "t", 1, "other")
	eventually(t, func() bool { return d.count() == 1 }, "the other partition goes on")
	room.Store(true)
	eventually(t, func() bool { return d.count() == n+1 }, "all are given")
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, offset := range d.got[0] {
		require.EqualValues(t, i, offset)
	}
	require.Len(t, s.g.Owned(), 2)
}

// TestConsumerGoesOnWithAPartitionThatWasHeldBackWhileItsLeaderWasReplaced is the same of the Consumer.
func TestConsumerGoesOnWithAPartitionThatWasHeldBackWhileItsLeaderWasReplaced(t *testing.T) {
	k := fake(t, kfake.NumBrokers(3), kfake.SeedTopics(1, "t"))
	cfg := following(k.ListenAddrs(), newTape(), "t")
	leave, got := make(chan struct{}), make(chan int64, 100)
	cfg.Handle = func(r *Fetched) { <-leave; got <- r.Offset }
	c := follow(t, cfg)
	positioned(t, c)
	large := string(make([]byte, 200<<10))
	for range 20 {
		put(t, client(t, k), "t", 0, large)
	}
	p := only(c, "t")
	eventually(t, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(p.queue) == maxQueued
	}, "it is held back")
	movesLeader(t, k, 0, 20)
	close(leave)
	for i := range int64(40) {
		require.Equal(t, i, <-got)
	}
}
