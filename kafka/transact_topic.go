package kafka

import (
	"context"
	"fmt"
	"time"

	"github.com/IBM/sarama"
)

const (
	// topicKnown is how long what is known of a topic is taken for true, and topicRefused how long a negative answer.
	topicKnown   = time.Minute
	topicRefused = 3 * time.Second
	// topicAgain is between questions while there is no answer.
	topicAgain = 100 * time.Millisecond
)

// txTopics are the topics that a Transactor writes to. They belong to its goroutine.
type txTopics struct {
	admin *Admin
	known map[string]*txTopic
}

// A txTopic is what has to be known of a topic before a transaction with it begins: a record that can't be written
// would abort it for all.
type txTopic struct {
	topicState
	leaders []string // addresses by partition; "" is none
	until   time.Time
}

// need has all of the topics known, and is done when none of them is left open or ctx ends.
func (ts *txTopics) need(ctx context.Context, names map[string]bool) error {
	for {
		var ask []string
		for name := range names {
			if t := ts.known[name]; t == nil || time.Now().After(t.until) {
				ask = append(ask, name)
			}
		}
		if len(ask) == 0 {
			return nil
		}
		if err := ts.look(ctx, sorted(ask)); err != nil && sleep(ctx, topicAgain) != nil {
			return fmt.Errorf("cannot look at topics: %w: %w", ctx.Err(), err)
		}
	}
}

// stale has a topic looked at again before it is used.
func (ts *txTopics) stale(name string) {
	if t := ts.known[name]; t != nil {
		t.until = time.Time{}
	}
}

// look asks for topics. An error says that some are still open.
func (ts *txTopics) look(ctx context.Context, names []string) error {
	states, err := ts.admin.inspect(ctx, names)
	if err != nil {
		return err
	}
	leaders, err := ts.leaders(ctx, names)
	if err != nil {
		return err
	}
	var open error
	for _, s := range states {
		if s.missing {
			s.verdict = ts.missing(ctx, s.name)
		}
		switch {
		case s.verdict != nil:
			ts.known[s.name] = &txTopic{topicState: s, until: time.Now().Add(topicRefused)}
		case s.exists && len(leaders[s.name]) == int(s.partitions):
			ts.known[s.name] = &txTopic{s, leaders[s.name], time.Now().Add(topicKnown)}
		default:
			open = fmt.Errorf("topic %q is not ready", s.name)
		}
	}
	return open
}

// missing creates a topic if that may be, and gives the verdict if it can't.
func (ts *txTopics) missing(ctx context.Context, name string) error {
	if _, err := ts.admin.Ensure(ctx, []string{name}); Final(err) {
		return err
	}
	return nil
}

// leaders gives the addresses of the leaders of all partitions.
func (ts *txTopics) leaders(ctx context.Context, names []string) (map[string][]string, error) {
	leaders := map[string][]string{}
	err := ts.admin.ask(ctx, func(b *sarama.Broker) error {
		resp, err := b.GetMetadata(sarama.NewMetadataRequest(ts.admin.conf.Version, names))
		if err != nil {
			return err
		}
		for _, t := range resp.Topics {
			leaders[t.Name] = leadersOf(t, resp.Brokers)
		}
		return nil
	})
	return leaders, err
}

func leadersOf(t *sarama.TopicMetadata, brokers []*sarama.Broker) []string {
	addrs := map[int32]string{}
	for _, b := range brokers {
		addrs[b.ID()] = b.Addr()
	}
	leaders := make([]string, len(t.Partitions))
	for _, p := range t.Partitions {
		if int(p.ID) < len(leaders) {
			leaders[p.ID] = addrs[p.Leader]
		}
	}
	return leaders
}
