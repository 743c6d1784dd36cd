package proxy

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"sluice/kafka"
	"sluice/mqtt"
)

// A retainedPart is what keeps retained messages: in Kafka, and from there in an index that subscriptions are served
// from.
type retainedPart struct {
	index  *mqtt.Retained
	writer *retainedWriter
	table  *kafka.Consumer
}

func newRetainedPart(clients *kafkaClients, producer *kafka.Producer, layout *layout, log zerolog.Logger, reg prometheus.Registerer) (*retainedPart, error) {
	cfg := clients.cfg
	m, err := newRetainedMetrics(reg)
	if err != nil {
		return nil, err
	}
	p := &retainedPart{}
	topic := cfg.Retained.Topic
	tail := &retainedTail{topic: topic, layout: layout}
	if p.index, err = mqtt.NewRetained(mqtt.RetainedConfig{
		Messages: cfg.Retained.Messages, Bytes: int64(cfg.Retained.Memory), CatchUp: tail.catchUp, Registerer: reg,
	}); err != nil {
		return nil, err
	}
	p.writer = newRetainedWriter(topic, layout, p.index, producer, m, log)
	table := newRetainedTable(p.index, m, log)
	p.table, err = kafka.NewConsumer(kafka.ConsumerConfig{
		Config: clients.config(nil), Topics: []string{topic}, From: kafka.FromBeginning,
		Begin: layout.begin,
		Handle: func(r *kafka.Fetched) {
			if r.Partition < layout.of(topic) {
				table.handle(r)
			}
		},
		Progress: tail.progress,
	})
	tail.table = p.table
	return p, err
}
