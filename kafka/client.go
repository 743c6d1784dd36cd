package kafka

import (
	"time"

	"github.com/IBM/sarama"
)

// A laneClient is what sarama's producer sees as its client. sarama's own answers an unanswerable question for
// metadata in one of two ways. With many retries it waits, and everybody else with it: one topic that is missing
// stalls all. With few it gives up, and records fail that only had to wait. So here it asks once, and the
// waiting is done per partition, in the goroutine of that partition.
type laneClient struct {
	sarama.Client
	p *Producer
}

const (
	leaderPoll     = 100 * time.Millisecond
	leaderPollSlow = 500 * time.Millisecond
)

// RefreshMetadata asks once. The error does not matter: who needs an answer calls Leader, which waits for it,
// and sarama would fail records for it.
func (c laneClient) RefreshMetadata(topics ...string) error {
	if c.p.isAborted() {
		return ErrClosed
	}
	_ = c.Client.RefreshMetadata(topics...)
	return nil
}

// Leader waits until the partition has a leader. It gives an error, for which sarama gives back the records,
// only when the topic is gone or the producer aborts. It is called by the goroutine of one partition or of one
// batch, so nobody else waits.
func (c laneClient) Leader(topic string, partition int32) (*sarama.Broker, error) {
	for wait := leaderPoll; ; wait = min(2*wait, leaderPollSlow) {
		if err := c.p.wanted(topic, partition); err != nil {
			return nil, err
		}
		b, err := c.Client.Leader(topic, partition)
		if err == nil {
			return b, nil
		}
		if !c.p.isAborted() {
			c.p.suspect(topic)
		}
		// All partitions wait for the same points in time, so that sarama joins their questions into one.
		now := time.Now()
		select {
		case <-time.After(now.Truncate(wait).Add(wait).Sub(now)):
		case <-c.p.aborted:
		}
	}
}

// Partitions gives the partitions as last verified; every record asks.
func (c laneClient) Partitions(topic string) ([]int32, error) {
	if v, ok := c.p.views.Load(topic); ok {
		if ids := v.(*view).partitions.Load(); ids != nil {
			return *ids, nil
		}
	}
	return nil, errRecalled
}

// WritablePartitions is Partitions: a partition without a leader is waited for.
func (c laneClient) WritablePartitions(topic string) ([]int32, error) { return c.Partitions(topic) }

// wanted gives the error for which sarama lets go of a partition's records.
func (p *Producer) wanted(topic string, partition int32) error {
	if p.isAborted() {
		return ErrClosed
	}
	v, ok := p.views.Load(topic)
	if !ok || v.(*view).recall.Load() {
		return errRecalled
	}
	if ids := v.(*view).partitions.Load(); ids == nil || int(partition) >= len(*ids) {
		return errRecalled
	}
	return nil
}

// isAborted says whether the producer gives up what is left.
func (p *Producer) isAborted() bool {
	select {
	case <-p.aborted:
		return true
	default:
		return false
	}
}
