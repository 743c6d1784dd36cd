package kafkatest

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
)

// HoldBack begins a transaction that writes to a partition, so that who reads what is committed gets nothing that comes
// after it there until release aborts it.
func HoldBack(t testing.TB, brokers []string, topic string, partition int32) (release func()) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.TransactionalID(t.Name()), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	require.NoError(t, cl.BeginTransaction())
	require.NoError(t, cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Partition: partition, Key: []byte("k")}).FirstErr())
	return func() {
		t.Helper()
		require.NoError(t, cl.EndTransaction(t.Context(), kgo.TryAbort))
	}
}
