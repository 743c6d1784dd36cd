package kafka

import (
	"context"
	"errors"
)

// A Producer writes records to Kafka.
type Producer struct{}

// NewProducer checks cfg. It starts nothing.
func NewProducer(cfg Config) (*Producer, error) { return nil, errors.New("not built yet") }

// Run works until Close or the end of ctx.
func (p *Producer) Run(ctx context.Context) error { return nil }

// Produce takes r; it never blocks on Kafka.
func (p *Producer) Produce(r *Record) {}

// Close flushes.
func (p *Producer) Close(ctx context.Context) error { return nil }

// Budget gives the budget of bytes.
func (p *Producer) Budget() *Budget { return nil }

// Up says whether Kafka answers.
func (p *Producer) Up() bool { return false }
