package bench

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/kafka"
	"sluice/kafka/embedded"
)

// A stored says that a record is there.
type stored chan error

func (s stored) RecordDone(_ *kafka.Record, err error) { s <- err }

// TestADoubleThatComesWhileItIsReadBackCounts: behind the ends that the topics had when the reading began.
func TestADoubleThatComesWhileItIsReadBackCounts(t *testing.T) {
	cluster, err := embedded.Start(embedded.Config{Topics: []string{"t"}, Partitions: 1})
	require.NoError(t, err)
	defer cluster.Close()
	cfg := kafka.Config{Brokers: cluster.Brokers()}
	producer, err := kafka.NewProducer(cfg)
	require.NoError(t, err)
	ran := make(chan error, 1)
	go func() { ran <- producer.Run(context.Background()) }() // ends with Close
	write := func() {
		done := make(stored, 1)
		producer.Produce(&kafka.Record{Topic: "t", Value: value("r", 0, 1), Owner: done})
		require.NoError(t, <-done)
	}
	for qos := range byte(2) {
		b, err := Publish{Run: "r", Connections: 1, QoS: qos}.NewReadback(cfg, "t")
		require.NoError(t, err)
		require.NoError(t, b.Begin(t.Context()))
		write()
		handle, first := b.t.handle, true
		b.t.handle = func(at place, r *kafka.Fetched) {
			handle(at, r)
			if first {
				first = false
				write()
			}
		}
		got, err := b.Finish(t.Context(), &PublishResult{QoS: qos, Sent: 1, ledger: []ledger{{sent: 1}}})
		require.NoError(t, err)
		require.Equal(t, []int{2, 1}, []int{got.Records, got.Doubled})
		b.Close()
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, producer.Close(ctx))
	<-ran
}
