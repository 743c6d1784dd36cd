//go:build unix

package main

import (
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/rcrowley/go-metrics"
)

type saramaProducer struct {
	sarama.AsyncProducer
	topic string
	said  sync.WaitGroup
}

func newSarama(o options, l *ledger) (producer, error) {
	metrics.UseNilMetrics = true
	c := sarama.NewConfig()
	c.Version = sarama.MaxVersion
	c.Producer.RequiredAcks = sarama.WaitForAll
	c.Producer.Idempotent = true
	c.Net.MaxOpenRequests = 1
	c.Producer.Partitioner = sarama.NewMurmur2Partitioner
	c.Producer.Return.Successes = true
	c.Producer.Retry.Max = 300
	c.Producer.Flush.Frequency = o.linger
	if err := c.Producer.Compression.UnmarshalText([]byte(o.compression)); err != nil {
		return nil, err
	}
	p, err := sarama.NewAsyncProducer(o.seeds(), c)
	if err != nil {
		return nil, err
	}
	s := &saramaProducer{AsyncProducer: p, topic: o.topic}
	s.said.Go(func() { // ends when the producer is closed
		for e := range p.Errors() {
			l.failed(e)
		}
	})
	s.said.Go(func() { // ends when the producer is closed
		for m := range p.Successes() {
			l.acked(m.Timestamp)
		}
	})
	return s, nil
}

func (s *saramaProducer) produce(key string, value []byte, at time.Time) {
	m := &sarama.ProducerMessage{Topic: s.topic, Key: sarama.StringEncoder(key), Value: sarama.ByteEncoder(value), Timestamp: at}
	m.Headers = make([]sarama.RecordHeader, 0, 4)
	for _, h := range headers(key) {
		m.Headers = append(m.Headers, sarama.RecordHeader{Key: []byte(h[0]), Value: []byte(h[1])})
	}
	s.Input() <- m
}

func (s *saramaProducer) close() {
	s.AsyncClose()
	s.said.Wait()
}
