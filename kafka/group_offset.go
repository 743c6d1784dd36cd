package kafka

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/IBM/sarama"
)

// commitAll commits the offsets of all partitions, as far as they have changed. It takes no longer than the session may
// last, since no heartbeat is sent meanwhile.
func (g *Group) commitAll(ctx context.Context) {
	ctx, cancel := g.session(ctx)
	defer cancel()
	g.commit(ctx, g.all())
}

// commit commits offsets once, and says whether that was done for all. What fails is committed with the next, or its
// records come again.
func (g *Group) commit(ctx context.Context, hs []*holding) (all bool) {
	id, generation := g.get()
	req := sarama.NewOffsetCommitRequest(g.reader.conf, g.cfg.Name)
	req.ConsumerID, req.ConsumerGroupGeneration = id, generation
	offsets := map[*holding]func(){}
	for _, h := range hs {
		if offset, note, ok := h.low(); ok {
			offsets[h] = func() { h.noteCommitted(offset, note) }
			req.AddBlock(h.at.topic, h.at.id, offset, 0, note)
		}
	}
	if len(offsets) == 0 {
		return true
	}
	var resp *sarama.OffsetCommitResponse
	code, err := g.net.coordinateOnce(ctx, g.coordinated(), func(b *sarama.Broker) (_ sarama.KError, err error) {
		resp, err = b.CommitOffset(req)
		return sarama.ErrNoError, err
	})
	if err == nil && code != sarama.ErrNoError {
		err = denied("Read", code)
	}
	if err != nil {
		g.log.Debug().Err(err).Msg("cannot commit offsets of the consumer group")
		return false
	}
	all = true
	for h, committed := range offsets {
		code, ok := resp.Errors[h.at.topic][h.at.id]
		if ok && code == sarama.ErrNoError {
			committed()
			continue
		}
		all = false
		if moved[code] {
			g.net.forgetCoordinator(g.coordinated())
		}
	}
	return all
}

// found writes down where the group begins in the partitions that it has no offsets of, and says whether that is done. It has
// no members for some seconds yet: who came first may leave before, and whoever is given a partition may have come later.
// If it has, Kafka takes nothing, and it is founded.
func (g *Group) found(ctx context.Context) bool {
	founding, cancel := context.WithCancel(g.cfg.Patience)
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(leaveWait, cancel) })()
	states, err := g.net.admin.leadersIn(founding, g.cfg.Topics)
	if err != nil {
		return false
	}
	had, err := g.committed(founding, partitionsOf(states))
	if err != nil {
		return false
	}
	req := sarama.NewOffsetCommitRequest(g.reader.conf, g.cfg.Name)
	req.ConsumerGroupGeneration = sarama.GroupGenerationUndefined
	begins := false
	for _, s := range states {
		for id := range s.partitions {
			if b := had[spot{s.name, id}]; b.Offset >= 0 {
				continue
			}
			if offset, told := g.cfg.Begin(s.name, topicIDOf(s.id), id); told {
				req.AddBlock(s.name, id, offset, 0, topicIDOf(s.id))
				begins = true
			}
		}
	}
	if !begins {
		return true
	}
	_, err = g.net.coordinate(founding, g.coordinated(), func(b *sarama.Broker) (sarama.KError, error) {
		resp, err := b.CommitOffset(req)
		if err != nil {
			return 0, err
		}
		for _, codes := range resp.Errors {
			for _, code := range codes {
				if code != sarama.ErrNoError {
					return code, nil
				}
			}
		}
		return sarama.ErrNoError, nil
	})
	return err == nil
}

// committed asks for the group's offsets, with their notes as metadata. An offset of -1: there is none.
func (g *Group) committed(ctx context.Context, of map[string][]int32) (found map[spot]*sarama.OffsetFetchResponseBlock, err error) {
	code, err := g.net.coordinate(ctx, g.coordinated(), func(b *sarama.Broker) (sarama.KError, error) {
		resp, err := b.FetchOffset(sarama.NewOffsetFetchRequest(sarama.MaxVersion, g.cfg.Name, of))
		if err != nil {
			return 0, err
		}
		unknown := resp.GroupError() == sarama.ErrGroupIDNotFound
		if code := resp.GroupError(); code != sarama.ErrNoError && !unknown {
			return code, nil
		}
		found = map[spot]*sarama.OffsetFetchResponseBlock{}
		for topic, ids := range of {
			for _, id := range ids {
				block := resp.GetGroupBlock(g.cfg.Name, topic, id)
				if unknown {
					block = &sarama.OffsetFetchResponseBlock{Offset: -1}
				}
				if block == nil {
					return 0, sarama.ErrIncompleteResponse
				}
				if block.Err != sarama.ErrNoError {
					return block.Err, nil
				}
				found[spot{topic, id}] = block
			}
		}
		return sarama.ErrNoError, nil
	})
	if err == nil && code != sarama.ErrNoError {
		err = denied("Read", code)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot ask for the group's offsets: %w", err)
	}
	return found, nil
}

// topicID asks for the ID that a topic has now; "" if Kafka has none.
func (g *Group) topicID(ctx context.Context, topic string) (string, error) {
	states, err := g.net.admin.leadersIn(ctx, []string{topic})
	switch {
	case err != nil:
		return "", fmt.Errorf("cannot ask for the topic: %w", err)
	case len(states) != 1 || !states[0].exists:
		return "", fmt.Errorf("cannot ask for the topic: %w", ErrTopicMissing)
	}
	return topicIDOf(states[0].id), nil
}

// A groupReader reads the partitions that are ours, with sarama's consumer. That is made when it is first needed.
type groupReader struct {
	g    *Group
	dial *dialer
	conf *sarama.Config
	work sync.WaitGroup // of those who read

	mu       sync.Mutex
	client   sarama.Client
	consumer sarama.Consumer
}

func newGroupReader(g *Group) *groupReader {
	r := &groupReader{g: g, dial: newDialer(min(g.cfg.DialTimeout, fetchDial))}
	r.conf = g.cfg.base(r.dial)
	r.conf.Consumer.IsolationLevel = sarama.ReadCommitted
	r.conf.Consumer.Return.Errors = true
	r.conf.Consumer.Fetch.Default = fetchPart
	r.conf.Consumer.Retry.Backoff = memberAgain
	r.conf.Consumer.MaxWaitTime = fetchWait / 2
	r.conf.Metadata.RefreshFrequency = time.Minute
	return r
}

// connect gives the client and the consumer.
func (r *groupReader) connect() (sarama.Client, sarama.Consumer, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.consumer != nil {
		return r.client, r.consumer, nil
	}
	client, err := sarama.NewClient(r.g.cfg.Brokers, r.conf)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot connect: %w", err)
	}
	consumer, err := sarama.NewConsumerFromClient(client)
	if err != nil {
		_ = client.Close() // it was only just made
		return nil, nil, fmt.Errorf("cannot make a consumer: %w", err)
	}
	r.client, r.consumer = client, consumer
	return client, consumer, nil
}

// close waits until nobody reads any more.
func (r *groupReader) close() {
	r.dial.close()
	r.work.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.consumer != nil {
		_ = r.consumer.Close()
		_ = r.client.Close()
	}
}

func (r *groupReader) consume(at spot, from int64) (sarama.PartitionConsumer, error) {
	client, consumer, err := r.connect()
	if err != nil {
		return nil, err
	}
	if err := client.RefreshMetadata(at.topic); err != nil {
		return nil, fmt.Errorf("cannot find the partition's leader: %w", err)
	}
	return consumer.ConsumePartition(at.topic, at.id, from)
}

// end gives the end of a partition for a reader of committed records.
func (r *groupReader) end(at spot) (int64, error) {
	client, _, err := r.connect()
	if err != nil {
		return 0, err
	}
	b, err := client.Leader(at.topic, at.id)
	if err != nil {
		return 0, fmt.Errorf("cannot find the partition's leader: %w", err)
	}
	req := sarama.NewOffsetRequest(r.conf.Version)
	req.IsolationLevel = sarama.ReadCommitted
	req.AddBlock(at.topic, at.id, sarama.OffsetNewest, 1)
	resp, err := b.GetAvailableOffsets(req)
	if err != nil {
		_ = b.Close() // sarama opens it again
		return 0, fmt.Errorf("cannot ask for the end: %w", err)
	}
	block := resp.GetBlock(at.topic, at.id)
	if block == nil || block.Err != sarama.ErrNoError {
		_ = client.RefreshMetadata(at.topic) // the next try shows whether it helped
		return 0, fmt.Errorf("cannot ask for the end: %w", sarama.ErrIncompleteResponse)
	}
	return block.Offset, nil
}

// inside gives an offset that is in the log, for one that is not: the oldest, or the end if it is past that.
func (r *groupReader) inside(at spot, offset int64) int64 {
	client, _, err := r.connect()
	if err != nil {
		return offset
	}
	end, err := client.GetOffset(at.topic, at.id, sarama.OffsetNewest)
	switch {
	case err != nil:
		return offset
	case offset > end:
		return end
	}
	return sarama.OffsetOldest
}
