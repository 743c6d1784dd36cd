package kafka

import (
	"context"
	"testing"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"
)

// unstarted makes a consumer of the topic t whose fetchers end at once, for listings that no fake gives.
func unstarted(t testing.TB) (c *Consumer, list func(number int, topics ...*sarama.TopicMetadata)) {
	t.Helper()
	c, err := NewConsumer(ConsumerConfig{Config: testConfig([]string{"127.0.0.1:1"}), Topics: []string{"t"}, Handle: func(*Fetched) {}})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return c, func(number int, topics ...*sarama.TopicMetadata) {
		resp := &sarama.MetadataResponse{Topics: topics}
		resp.AddBroker("127.0.0.1:1", 1)
		c.mu.Lock()
		c.settle(ctx, resp, number)
		c.unlock()
		c.work.Wait()
	}
}

// described is what a broker tells of the topic t.
func described(id byte, partitions int) *sarama.TopicMetadata {
	md := &sarama.TopicMetadata{Name: "t", Uuid: sarama.Uuid{id}}
	for i := range partitions {
		md.Partitions = append(md.Partitions, &sarama.PartitionMetadata{ID: int32(i), Leader: 1})
	}
	return md
}

// TestTroubleIsSettledByALaterListing: one that was under way already may tell of the time before.
func TestTroubleIsSettledByALaterListing(t *testing.T) {
	c, list := unstarted(t)
	c.listings = 1
	list(1, described(1, 1))
	p := only(c, "t")
	require.True(t, p.settled)
	c.listings = 5
	c.unsettle(p)
	list(5, described(1, 1))
	require.False(t, p.settled)
	list(6, described(1, 1))
	require.True(t, p.settled)
}

// TestTopicThatWasLeftIsNotGoneBackTo: a broker that lags behind tells of it.
func TestTopicThatWasLeftIsNotGoneBackTo(t *testing.T) {
	c, list := unstarted(t)
	list(1, described(1, 1))
	first := only(c, "t")
	require.EqualValues(t, atEnd, first.next)
	list(2, described(2, 1))
	second := only(c, "t")
	require.NotSame(t, first, second)
	require.True(t, first.dropped.Load())
	require.EqualValues(t, 0, second.next)
	list(3, described(1, 1))
	require.Same(t, second, only(c, "t"))
	require.False(t, second.dropped.Load())
}

// TestTopicThatWasThereAllTheTimeGoesOn: that it is missing was said by brokers that were wrong.
func TestTopicThatWasThereAllTheTimeGoesOn(t *testing.T) {
	c, list := unstarted(t)
	list(1, described(1, 2))
	p := only(c, "t")
	p.next = 7
	list(2)
	require.Equal(t, 2, c.following(), "said once")
	list(3)
	require.Zero(t, c.following())
	list(4, described(1, 2))
	require.Equal(t, 2, c.following())
	require.Same(t, p, only(c, "t"))
	require.True(t, p.settled)
	require.EqualValues(t, 7, p.next)
}

// TestPositionedWaitsForAllThatWasThere and for nothing else.
func TestPositionedWaitsForAllThatWasThere(t *testing.T) {
	isPositioned := func(c *Consumer) bool {
		select {
		case <-c.Positioned():
			return true
		default:
			return false
		}
	}
	c, list := unstarted(t)
	list(1, described(1, 2))
	for _, p := range c.topics["t"].parts {
		require.False(t, isPositioned(c))
		p.next, p.told = 3, 3
		c.checkPositioned()
	}
	require.True(t, isPositioned(c))

	c, list = unstarted(t)
	list(1)
	require.False(t, isPositioned(c), "missing is said once only")
	list(2)
	require.True(t, isPositioned(c))

	c, list = unstarted(t)
	list(1, &sarama.TopicMetadata{Name: "t", Err: sarama.ErrLeaderNotAvailable})
	list(2, &sarama.TopicMetadata{Name: "t", Err: sarama.ErrUnknown})
	require.False(t, isPositioned(c), "nothing is known of it")
	list(3, described(1, 1))
	require.EqualValues(t, atEnd, only(c, "t").next, "it may have been there")
	require.False(t, isPositioned(c))
	list(4)
	list(5)
	require.True(t, isPositioned(c), "it was deleted before it had a place")
}

// TestPartitionFollowsItsLeader to another broker and to another address of the same one.
func TestPartitionFollowsItsLeader(t *testing.T) {
	c, _ := unstarted(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	p := newFollower("t", "", 0, 0)
	addrs := map[int32]string{1: "127.0.0.1:1", 2: "127.0.0.1:2"}
	lead := func(leader int32) *fetcher {
		c.lead(ctx, p, &sarama.PartitionMetadata{Leader: leader, LeaderEpoch: leader}, addrs, 1)
		require.Equal(t, leader, p.epoch)
		require.Len(t, p.fetcher.parts, 1)
		return p.fetcher
	}
	one := lead(1)
	two := lead(2)
	require.NotSame(t, one, two)
	require.Empty(t, one.parts, "it ends")
	addrs[2] = "127.0.0.1:3"
	moved := lead(2)
	require.NotSame(t, two, moved)
	require.Equal(t, "127.0.0.1:3", moved.addr)
	require.Empty(t, two.parts)
	c.lead(ctx, p, &sarama.PartitionMetadata{Leader: -1, Err: sarama.ErrLeaderNotAvailable}, addrs, 1)
	require.False(t, p.settled)
}
