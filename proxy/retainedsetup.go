package proxy

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"sluice/kafka"
	"sluice/mqtt"
	"sluice/proxy/config"
)

// A retainedPart is what keeps retained messages: in Kafka, and from there in an index that subscriptions are served
// from.
type retainedPart struct {
	index  *mqtt.Retained
	writer *retainedWriter
	table  *kafka.Consumer
}

func newRetainedPart(cfg *config.Config, producer *kafka.Producer, log zerolog.Logger, reg prometheus.Registerer) (*retainedPart, error) {
	m, err := newRetainedMetrics(reg)
	if err != nil {
		return nil, err
	}
	p := &retainedPart{}
	if p.index, err = mqtt.NewRetained(mqtt.RetainedConfig{Messages: cfg.Retained.Messages, Bytes: int64(cfg.Retained.Memory), Registerer: reg}); err != nil {
		return nil, err
	}
	p.writer = newRetainedWriter(cfg.Retained.Topic, p.index, producer, m, log)
	p.table, err = kafka.NewConsumer(kafka.ConsumerConfig{
		Config: kafkaConfig(cfg, log, nil), Topics: []string{cfg.Retained.Topic}, From: kafka.FromBeginning,
		Handle: newRetainedTable(p.index, m, log).handle,
	})
	return p, err
}
