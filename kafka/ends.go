package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"golang.org/x/sync/errgroup"
)

// endAgain is between questions for an end that nobody can answer now.
const endAgain = 50 * time.Millisecond

// errNoLeader: it is not known who leads the partition.
var errNoLeader = errors.New("the partition has no leader that is known")

// End asks for the end of a partition as it is now: the last stable offset, before which every transaction is decided.
// What was acknowledged may lie behind it, see Written. It asks until the leader answers or ctx ends, on a connection where
// no fetch is waited for. It needs Run, and gives ErrClosed once that has ended. Many may call it at once.
func (c *Consumer) End(ctx context.Context, topic string, partition int32) (int64, error) {
	return c.end(ctx, topic, partition, sarama.ReadCommitted)
}

// Written gives the high watermark as End gives the last stable offset: all that was acknowledged lies before it, also
// what a transaction elsewhere still holds back, or whose own is committed and not yet marked so in this partition.
func (c *Consumer) Written(ctx context.Context, topic string, partition int32) (int64, error) {
	return c.end(ctx, topic, partition, sarama.ReadUncommitted)
}

func (c *Consumer) end(ctx context.Context, topic string, partition int32, among sarama.IsolationLevel) (int64, error) {
	for {
		end, err := c.endOnce(ctx, topic, partition, among)
		if err == nil {
			return end, nil
		}
		if !errors.Is(err, ErrClosed) {
			c.look.wake() // there may be another leader
			if over := sleep(ctx, endAgain); over == nil {
				continue
			} else if !errors.Is(err, over) {
				err = fmt.Errorf("%w: %w", over, err)
			}
		}
		return 0, fmt.Errorf("cannot ask for the end of partition %d of %s: %w", partition, topic, err)
	}
}

// Look has new topics and partitions looked for now, and not only when Refresh is over.
func (c *Consumer) Look() { c.look.wake() }

// Ends gives End for every partition of a topic, by partition. It waits for a topic that is not known yet.
func (c *Consumer) Ends(ctx context.Context, topic string) (map[int32]int64, error) {
	n := c.Partitions(topic)
	for ; n == 0; n = c.Partitions(topic) {
		c.look.wake()
		if err := sleep(ctx, endAgain); err != nil {
			return nil, fmt.Errorf("cannot ask for the ends of %s: nothing is known of it: %w", topic, err)
		}
	}
	var mu sync.Mutex // guards ends
	ends := make(map[int32]int64, n)
	g, ctx := errgroup.WithContext(ctx)
	for id := range n {
		g.Go(func() error {
			end, err := c.End(ctx, topic, id)
			mu.Lock()
			defer mu.Unlock()
			ends[id] = end
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return ends, nil
}

// Partitions is how many partitions of a topic are followed; 0: it is not there, or nothing is known of it yet.
func (c *Consumer) Partitions(topic string) int32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := c.topics[topic]; t != nil && !t.gone {
		return int32(len(t.parts))
	}
	return 0
}

func (c *Consumer) endOnce(ctx context.Context, topic string, partition int32, among sarama.IsolationLevel) (int64, error) {
	addr := c.leader(topic, partition)
	if addr == "" {
		return 0, errNoLeader
	}
	return askAt(ctx, c.asking, func(ctx context.Context) (int64, error) {
		return c.asking.net.offset(ctx, addr, topic, partition, sarama.OffsetNewest, among)
	})
}

// leader gives the address of a partition's leader, "" if it is not known.
func (c *Consumer) leader(topic string, partition int32) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.topics[topic]
	if t == nil || partition < 0 || int(partition) >= len(t.parts) || t.parts[partition].fetcher == nil {
		return ""
	}
	return t.parts[partition].fetcher.addr
}

// offset asks the broker at addr for an offset of a partition, by sarama's time or OffsetOldest or OffsetNewest, among
// what is committed or all.
func (l *links) offset(ctx context.Context, addr, topic string, partition int32, at int64, among sarama.IsolationLevel) (offset int64, err error) {
	var answer error // the connection is well then
	err = l.call(ctx, addr, func(b *sarama.Broker) error {
		req := sarama.NewOffsetRequest(sarama.MaxVersion)
		req.IsolationLevel = among
		req.AddBlock(topic, partition, at, 1)
		resp, err := b.GetAvailableOffsets(req)
		if err != nil {
			return err
		}
		switch block := resp.GetBlock(topic, partition); {
		case block == nil:
			answer = sarama.ErrIncompleteResponse
		case block.Err != sarama.ErrNoError:
			answer = block.Err
		default:
			offset = block.Offset
		}
		return nil
	})
	return offset, cmp.Or(err, answer)
}
