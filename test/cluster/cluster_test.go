package cluster_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"sluice/test/cluster"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(cluster.Closing(m))
}

// produce writes one record and returns once all replicas in sync have it.
func produce(t *testing.T, brokers []string, topic, value string) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	require.NoError(t, err)
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, cl.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte(value)}).FirstErr())
}

// read returns the first n values of a topic.
func read(t *testing.T, brokers []string, topic string, n int) (values []string) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	require.NoError(t, err)
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for len(values) < n {
		fetches := cl.PollFetches(ctx)
		require.NoError(t, ctx.Err(), "have %q", values)
		fetches.EachRecord(func(r *kgo.Record) { values = append(values, string(r.Value)) })
	}
	return values
}

func TestRecordsSurviveKillAndRestart(t *testing.T) {
	c := cluster.Need(t, cluster.Config{Own: true})
	require.NoError(t, c.CreateTopic("kept", 1, 1, nil))
	produce(t, c.Brokers(), "kept", "before")
	require.NoError(t, c.Kill(0))
	require.NoError(t, c.Restart(0))
	produce(t, c.Brokers(), "kept", "after")
	require.Equal(t, []string{"before", "after"}, read(t, c.Brokers(), "kept", 2))
}
