package kafka

import (
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
)

func TestMetricsCountOutcomesAndNameNoTopic(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "there-1", "there-2"))
	reg := prometheus.NewRegistry()
	cfg := testConfig(c.ListenAddrs())
	cfg.Registerer = reg
	p := start(t, cfg)
	l := newLedger()
	for i := range 10 {
		p.Produce(l.record(i, fmt.Sprint("there-", i%2+1), "k"))
	}
	p.Produce(l.record(10, "gone-1", "k"))
	eventually(t, func() bool { return l.count() == 11 && p.Up() && p.outstanding() == 0 }, "all end")
	require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP sluice_kafka_topics Topics in use, by what is known of them: asking (not verified yet), open, lost (deleted while in use), refused (for a few seconds after a final answer).
# TYPE sluice_kafka_topics gauge
sluice_kafka_topics{state="asking"} 0
sluice_kafka_topics{state="lost"} 0
sluice_kafka_topics{state="open"} 2
sluice_kafka_topics{state="refused"} 1
# HELP sluice_kafka_up 1 while Kafka answers and stores what it gets.
# TYPE sluice_kafka_up gauge
sluice_kafka_up 1
# HELP sluice_kafka_records_in_flight Records taken and not yet answered for.
# TYPE sluice_kafka_records_in_flight gauge
sluice_kafka_records_in_flight 0
`), "sluice_kafka_topics", "sluice_kafka_up", "sluice_kafka_records_in_flight"))
	require.Equal(t, 10.0, testutil.ToFloat64(p.m.records[stored]))
	require.Equal(t, 1.0, testutil.ToFloat64(p.m.records[topicMissing]))
	problems, err := testutil.GatherAndLint(reg)
	require.NoError(t, err)
	require.Empty(t, problems)
	families, err := reg.Gather()
	require.NoError(t, err)
	require.NotContains(t, fmt.Sprint(families), "there-")
	_, err = NewProducer(cfg)
	require.ErrorContains(t, err, "metrics", "two producers can't share a registry")
}
