package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/IBM/sarama"
	"golang.org/x/sync/singleflight"
)

// ErrOffsetGone: the offset is below the first record of the partition.
var ErrOffsetGone = errors.New("the records are no longer in Kafka")

// errHidden: a leader gives nothing though there is something.
var errHidden = errors.New("the leader does not give what it has")

// A Reader reads pieces of partitions, wherever and whenever its callers want. Its methods may be called from any
// goroutine.
type Reader struct {
	asker asker
	asks  singleflight.Group // for leaders, by topic: many callers may want the same

	mu      sync.Mutex
	leaders map[string]leaders
}

// leaders are what was last heard of a topic.
type leaders struct {
	id    string   // the topic's; "": Kafka has none
	addrs []string // of the leaders by partition; "" is none
}

// NewReader checks cfg, of which it uses Brokers, ClientID, the time-outs and Logger. It connects with the first call.
func NewReader(cfg Config) (*Reader, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("cannot make a reader: %w", err)
	}
	return &Reader{asker: asker{net: newLinks(cfg, cfg.RequestTimeout)}, leaders: map[string]leaders{}}, nil
}

// Close ends what is under way, and waits for it. Calls give ErrClosed afterwards.
func (r *Reader) Close() { r.asker.close() }

// readMost is the largest fetch, for batches that nothing smaller holds.
const readMost = 64 << 20

// Read reads committed records from an offset on and calls handle for each, in order, until it returns false. next is
// the offset of that record, or the one after all that was read: from itself at the end of the partition. About
// maxBytes are read, but at least one batch. It waits for no records, and handle is called on its goroutine. The record
// and its Headers slice are valid during the call; its bytes share the memory of the whole fetch. ErrOffsetGone: Start
// gives where there is something. Any other error: try again, from the same offset unless handle was called.
func (r *Reader) Read(ctx context.Context, topic string, partition int32, from int64, maxBytes int32, handle func(*Fetched) bool) (next int64, err error) {
	maxBytes = max(maxBytes, 1)
	for asked := false; ; {
		block, err := askAt(ctx, &r.asker, func(ctx context.Context) (*sarama.FetchResponseBlock, error) {
			return r.fetch(ctx, topic, partition, from, maxBytes, sarama.ReadCommitted)
		})
		outside := errors.Is(err, sarama.ErrOffsetOutOfRange)
		if err != nil && !outside {
			return from, fmt.Errorf("cannot read partition %d of %s: %w", partition, topic, err)
		}
		switch {
		case !outside && after(block, from) > from:
			return deliver(block, topic, partition, from, after(block, from), handle), nil
		case outside || block.LastStableOffset <= from:
			if ended, err := r.endsAt(ctx, topic, partition, from); ended || err != nil {
				return from, err
			}
			if asked {
				return from, fmt.Errorf("cannot read partition %d of %s: %w", partition, topic, errHidden)
			}
			asked = true
		case maxBytes >= readMost:
			return from, nil
		default:
			maxBytes = min(maxBytes, readMost/4) * 4 // the batch is larger
		}
	}
}

// endsAt says that a partition has nothing from an offset on. That its leader gives nothing is not enough: a new one gives less
// than it has until the others have fetched from it, but does not say then where the end is; and one that was replaced may not
// know. ErrOffsetGone: the partition begins later.
func (r *Reader) endsAt(ctx context.Context, topic string, partition int32, from int64) (bool, error) {
	r.forget(topic)
	start, err := r.Start(ctx, topic, partition)
	if err != nil {
		return false, err
	}
	if from < start {
		return false, ErrOffsetGone
	}
	end, err := askAt(ctx, &r.asker, func(ctx context.Context) (int64, error) {
		return r.offset(ctx, topic, partition, sarama.OffsetNewest, sarama.ReadCommitted)
	})
	if err != nil {
		return false, fmt.Errorf("cannot ask for the end of partition %d of %s: %w", partition, topic, err)
	}
	return end <= from, nil
}

// deliver hands the records of a block out.
func deliver(block *sarama.FetchResponseBlock, topic string, partition int32, from, next int64, handle func(*Fetched) bool) int64 {
	rec := Fetched{Topic: topic, Partition: partition}
	for batch, record := range committed(block, from) {
		rec.fill(batch, record)
		if !handle(&rec) {
			return rec.Offset
		}
	}
	return next
}

// Start gives the offset of the first record of a partition.
func (r *Reader) Start(ctx context.Context, topic string, partition int32) (int64, error) {
	start, err := askAt(ctx, &r.asker, func(ctx context.Context) (int64, error) { return r.oldest(ctx, topic, partition) })
	if err != nil {
		return 0, fmt.Errorf("cannot ask for the start of partition %d of %s: %w", partition, topic, err)
	}
	return start, nil
}

func (r *Reader) oldest(ctx context.Context, topic string, partition int32) (int64, error) {
	return r.offset(ctx, topic, partition, sarama.OffsetOldest, sarama.ReadCommitted)
}

func (r *Reader) offset(ctx context.Context, topic string, partition int32, at int64, among sarama.IsolationLevel) (int64, error) {
	addr, err := r.leader(ctx, topic, partition)
	if err != nil {
		return 0, err
	}
	offset, err := r.asker.net.offset(ctx, addr, topic, partition, at, among)
	if err != nil {
		r.forget(topic)
	}
	return offset, err
}

// Written gives the high watermark of a partition: all that was acknowledged lies before it, also what a transaction
// holds back from Read.
func (r *Reader) Written(ctx context.Context, topic string, partition int32) (int64, error) {
	end, err := askAt(ctx, &r.asker, func(ctx context.Context) (int64, error) {
		return r.offset(ctx, topic, partition, sarama.OffsetNewest, sarama.ReadUncommitted)
	})
	if err != nil {
		return 0, fmt.Errorf("cannot ask for the end of partition %d of %s: %w", partition, topic, err)
	}
	return end, nil
}

// Partitions gives how many partitions a topic has now. ErrTopicMissing: there is no such topic.
func (r *Reader) Partitions(ctx context.Context, topic string) (int32, error) {
	l, err := askAt(ctx, &r.asker, func(ctx context.Context) (leaders, error) { return r.ask(ctx, topic) })
	if err != nil {
		return 0, fmt.Errorf("cannot ask for the partitions of %s: %w", topic, err)
	}
	return int32(len(l.addrs)), nil
}

// fetch asks the leader for one piece.
func (r *Reader) fetch(ctx context.Context, topic string, partition int32, from int64, maxBytes int32, isolation sarama.IsolationLevel) (block *sarama.FetchResponseBlock, err error) {
	addr, err := r.leader(ctx, topic, partition)
	if err != nil {
		return nil, err
	}
	var answer error // the connection is well then
	err = r.asker.net.call(ctx, addr, func(b *sarama.Broker) error {
		req := &sarama.FetchRequest{Version: 12, MinBytes: 0, MaxBytes: maxBytes, MaxWaitTime: 1, Isolation: isolation, SessionEpoch: -1}
		req.AddBlock(topic, partition, from, maxBytes, -1)
		resp, err := b.Fetch(req)
		if err != nil {
			return err
		}
		switch block = resp.GetBlock(topic, partition); {
		case resp.ErrorCode != 0:
			answer = sarama.KError(resp.ErrorCode)
		case block == nil:
			answer = sarama.ErrIncompleteResponse
		case block.Err != sarama.ErrNoError:
			answer = denied("Read", block.Err)
		}
		return nil
	})
	if err = cmp.Or(err, answer); err != nil && !errors.Is(err, sarama.ErrOffsetOutOfRange) {
		r.forget(topic)
	}
	return block, err
}

// leader gives the address of a partition's leader.
func (r *Reader) leader(ctx context.Context, topic string, partition int32) (string, error) {
	r.mu.Lock()
	l, known := r.leaders[topic]
	r.mu.Unlock()
	if !known {
		var err error
		if l, err = r.ask(ctx, topic); err != nil {
			return "", err
		}
	}
	if partition < 0 || int(partition) >= len(l.addrs) || l.addrs[partition] == "" {
		r.forget(topic)
		return "", errNoLeader
	}
	return l.addrs[partition], nil
}

// TopicID asks for the ID of a topic as it is now; "" if Kafka has none. ErrTopicMissing: there is no such topic.
func (r *Reader) TopicID(ctx context.Context, topic string) (string, error) {
	l, err := askAt(ctx, &r.asker, func(ctx context.Context) (leaders, error) { return r.ask(ctx, topic) })
	if err != nil {
		return "", fmt.Errorf("cannot ask for the ID of %s: %w", topic, err)
	}
	return l.id, nil
}

// ask asks the cluster who leads the partitions of a topic.
func (r *Reader) ask(ctx context.Context, topic string) (leaders, error) {
	l, err, _ := r.asks.Do(topic, func() (any, error) { return r.askOnce(ctx, topic) })
	if err != nil {
		return leaders{}, err
	}
	return l.(leaders), nil
}

// askOnce asks a second broker before it believes that a topic is missing: the first may not have heard of it yet.
func (r *Reader) askOnce(ctx context.Context, topic string) (leaders, error) {
	admin := r.asker.net.admin
	for misses := 1; ; misses++ {
		states, err := admin.leadersIn(ctx, []string{topic})
		if err != nil {
			return leaders{}, err
		}
		if len(states) != 1 {
			return leaders{}, sarama.ErrIncompleteResponse
		}
		if s := states[0]; !s.missing {
			return r.learn(s), nil
		}
		if misses == missesToBelieve {
			return leaders{}, ErrTopicMissing
		}
		admin.turn()
		if err := sleep(ctx, missingAgain); err != nil {
			return leaders{}, err
		}
	}
}

func (r *Reader) learn(s topicState) leaders {
	l := leaders{topicIDOf(s.id), s.addrs()}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leaders[s.name] = l
	return l
}

func (r *Reader) forget(topic string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.leaders, topic)
}
