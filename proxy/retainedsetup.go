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

func newRetainedPart(clients *kafkaClients, producer *kafka.Producer, log zerolog.Logger, reg prometheus.Registerer) (*retainedPart, error) {
	cfg := clients.cfg
	m, err := newRetainedMetrics(reg)
	if err != nil {
		return nil, err
	}
	p := &retainedPart{}
	tail := &retainedTail{topic: cfg.Retained.Topic}
	if p.index, err = mqtt.NewRetained(mqtt.RetainedConfig{
		Messages: cfg.Retained.Messages, Bytes: int64(cfg.Retained.Memory), CatchUp: tail.catchUp, Registerer: reg,
	}); err != nil {
		return nil, err
	}
	p.writer = newRetainedWriter(cfg.Retained.Topic, p.index, producer, m, log)
	p.table, err = kafka.NewConsumer(kafka.ConsumerConfig{
		Config: clients.config(nil), Topics: []string{cfg.Retained.Topic}, From: kafka.FromBeginning,
		Handle: newRetainedTable(p.index, m, log).handle, Progress: tail.progress,
	})
	tail.table = p.table
	return p, err
}
