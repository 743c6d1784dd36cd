package cluster

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// pollEvery is how often the harness asks whether what it waits for is so.
const pollEvery = 100 * time.Millisecond

// metadata asks the broker at addr, and no other one, what it knows about the
// cluster and about topics.
func metadata(ctx context.Context, addr string, topics ...string) (*kmsg.MetadataResponse, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.RequestRetries(0))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{} // none, where nil means all
	for _, t := range topics {
		rt := kmsg.NewMetadataRequestTopic()
		rt.Topic = kmsg.StringPtr(t)
		req.Topics = append(req.Topics, rt)
	}
	return req.RequestWith(ctx, cl.SeedBrokers()[0])
}

// knowsBrokers returns nil when the broker at addr sees a controller and the
// brokers ids. A broker answers only once the controller has let it serve.
func knowsBrokers(ctx context.Context, addr string, ids ...int32) error {
	m, err := metadata(ctx, addr)
	if err != nil {
		return fmt.Errorf("%s does not answer: %w", addr, err)
	}
	for _, id := range ids {
		if !slices.ContainsFunc(m.Brokers, func(b kmsg.MetadataResponseBroker) bool { return b.NodeID == id }) {
			return fmt.Errorf("%s does not see broker %d", addr, id)
		}
	}
	if m.ControllerID < 0 {
		return fmt.Errorf("%s sees no controller", addr)
	}
	return nil
}

// hasBrokers returns nil when the broker at addr sees at least n brokers.
func hasBrokers(ctx context.Context, addr string, n int) error {
	m, err := metadata(ctx, addr)
	if err != nil {
		return fmt.Errorf("%s does not answer: %w", addr, err)
	}
	if len(m.Brokers) < n {
		return fmt.Errorf("%s sees %d of the %d brokers the test needs", addr, len(m.Brokers), n)
	}
	return nil
}

// knowsTopic returns nil when the broker at addr has a leader for each of the
// topic's partitions; with partitions 0, when it knows no such topic.
func knowsTopic(ctx context.Context, addr, topic string, partitions int) error {
	m, err := metadata(ctx, addr, topic)
	if err != nil {
		return err
	}
	led := 0
	for _, t := range m.Topics {
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil && partitions > 0 {
			return err
		}
		for _, p := range t.Partitions {
			if p.ErrorCode == 0 && p.Leader >= 0 {
				led++
			}
		}
	}
	if led != partitions {
		return fmt.Errorf("%s sees %d of %d partitions of %q with a leader", addr, led, partitions, topic)
	}
	return nil
}
