package proxy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/rs/zerolog"

	"sluice/fleet"
	"sluice/kafka"
	"sluice/proxy/config"
)

// A layout knows how many partitions of the fleet's topics count: those that there were when the fleet began, which the
// sessions topic has a record of. A fleet of an earlier release has none: what is there at its first start with this one
// counts.
type layout struct {
	topic  string   // of the record
	topics []string // of the fleet
	reader *kafka.Reader
	m      *sessionMetrics
	log    zerolog.Logger
	fail   func(error) // ends the process

	mu   sync.Mutex        // guards ids and most
	ids  map[string]string // of the topics as they were first met
	most map[string]int32  // partitions of the topics that have more than count

	counts fleet.Layout // set by read, before anything else of the sessions runs
	stored fleet.Layout // what the record said
}

func newLayout(cfg *config.Config, reader *kafka.Reader, m *sessionMetrics, log zerolog.Logger, fail func(error)) *layout {
	return &layout{
		topic: cfg.Sessions.Topic, topics: []string{cfg.Sessions.Topic, cfg.Sessions.Ledger, cfg.Retained.Topic},
		reader: reader, m: m, log: log, fail: fail, ids: make(map[string]string), most: make(map[string]int32),
	}
}

// of gives the number of partitions that count of a topic of the fleet.
func (l *layout) of(topic string) int32 { return l.counts.Partitions[topic] }

// read learns what counts, from the record and for what it does not have from the topics themselves.
func (l *layout) read(ctx context.Context, admin *kafka.Admin) (err error) {
	if l.stored, err = l.record(ctx); err != nil {
		return err
	}
	now := fleet.Layout{Partitions: make(map[string]int32)}
	for _, topic := range l.topics {
		n, err := admin.PartitionCount(ctx, topic)
		if err != nil {
			return err
		}
		if laid, known := l.stored.Partitions[topic]; known && n < laid {
			return fmt.Errorf("%w: %s has %d partitions, and the fleet was laid out with %d; it was deleted and made anew", kafka.ErrUnfitTopic, topic, n, laid)
		}
		now.Partitions[topic] = n
	}
	l.counts = now.Lower(l.stored)
	for topic, n := range now.Partitions {
		l.more(topic, n)
	}
	return nil
}

// record reads the record of the layout. Should there be several, the lower numbers are the older ones.
func (l *layout) record(ctx context.Context) (found fleet.Layout, err error) {
	from, err := l.reader.Start(ctx, l.topic, 0)
	for err == nil {
		var fault error
		var next int64
		next, err = l.reader.Read(ctx, l.topic, 0, from, layoutChunk, func(r *kafka.Fetched) bool {
			if kind, _, _, _ := fleet.ParseKey(r.Key); kind != fleet.KeyLayout || r.Value == nil {
				return true
			}
			var one fleet.Layout
			if one, fault = fleet.DecodeLayout(r.Value); fault == nil {
				found = found.Lower(one)
			}
			return fault == nil
		})
		if fault != nil {
			return found, fmt.Errorf("%w: cannot read how the fleet is laid out: %w", kafka.ErrUnfitTopic, fault)
		}
		if next == from {
			break
		}
		from = next
	}
	if errors.Is(err, kafka.ErrTopicMissing) { // it was there a moment ago, so this is no verdict
		err = fmt.Errorf("not every Kafka node has heard of the topic yet: %v", err)
	}
	return found, err
}

// layoutChunk is how much of the sessions topic is read at once in search of the layout.
const layoutChunk = 1 << 20

// keep writes the record if it lacks a topic.
func (l *layout) keep(ctx context.Context, produce func(key, value []byte, done func(int64, error))) error {
	if maps.Equal(l.stored.Lower(l.counts).Partitions, l.stored.Partitions) {
		return nil
	}
	if err := l.write(ctx, l.counts.Lower(l.stored), produce); err != nil {
		return err
	}
	// Another instance may have begun too, before a partition was added that we have counted.
	found, err := l.record(ctx)
	if err != nil || maps.Equal(l.counts.Lower(found).Partitions, l.counts.Lower(l.stored).Partitions) {
		return err
	}
	if err := l.write(ctx, found, produce); err != nil {
		return err
	}
	return fmt.Errorf("another instance has laid the fleet out with fewer partitions at the same time: start again")
}

func (l *layout) write(ctx context.Context, layout fleet.Layout, produce func(key, value []byte, done func(int64, error))) error {
	value, err := layout.Encode()
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	produce(fleet.LayoutKey(), value, func(_ int64, err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// begin is told of each partition before its first record. Another topic of the same name ends the process: what the
// devices were told is stored was stored in the one that is gone, and what is in memory would be written on top of nothing.
func (l *layout) begin(topic, id string, partition int32, _ int64) {
	l.mu.Lock()
	first, met := l.ids[topic]
	if !met {
		l.ids[topic] = id
	}
	l.mu.Unlock()
	if met && first != id {
		l.fail(fmt.Errorf("the Kafka topic %s was deleted and made anew while in use: what it held is lost, and this instance ends rather than go on without it", topic))
		return
	}
	l.more(topic, partition+1)
}

// more says once that a topic has more partitions than count.
func (l *layout) more(topic string, n int32) {
	laid := l.of(topic)
	if n <= laid {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	known := l.most[topic]
	if n <= known {
		return
	}
	l.most[topic] = n
	l.m.ignored.WithLabelValues(topic).Set(float64(n - laid))
	if known > 0 {
		return
	}
	l.log.Warn().Str("kafka_topic", topic).Int32("partitions", n).Int32("used", laid).
		Msg("the Kafka topic has more partitions than the fleet was laid out with; those that were added are ignored")
}
