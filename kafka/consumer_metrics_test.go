package kafka

import (
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
)

// counted gives the value of a counter.
func counted(c prometheus.Collector) float64 { return testutil.ToFloat64(c) }

func portOf(t testing.TB, addr string) int {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	n, err := strconv.Atoi(port)
	require.NoError(t, err)
	return n
}

func TestConsumerMetrics(t *testing.T) {
	k := fake(t, kfake.SeedTopics(3, "t"))
	reg := prometheus.NewRegistry()
	tp := newTape()
	cfg := following(k.ListenAddrs(), tp, "t")
	cfg.Registerer = reg
	c := follow(t, cfg)
	positioned(t, c)
	put(t, client(t, k), "t", 2, "four", "five5")
	tp.has(t, 2)
	eventually(t, func() bool { return c.Lag() == 0 }, "nothing is left")
	require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP sluice_kafka_consumer_records_total Records that were read and handled.
# TYPE sluice_kafka_consumer_records_total counter
sluice_kafka_consumer_records_total 2
# HELP sluice_kafka_consumer_bytes_total Bytes of their keys, values and headers.
# TYPE sluice_kafka_consumer_bytes_total counter
sluice_kafka_consumer_bytes_total 9
# HELP sluice_kafka_consumer_lag_records Records between what was handled and the end of the logs, open transactions excluded.
# TYPE sluice_kafka_consumer_lag_records gauge
sluice_kafka_consumer_lag_records 0
# HELP sluice_kafka_consumer_partitions Partitions that are followed.
# TYPE sluice_kafka_consumer_partitions gauge
sluice_kafka_consumer_partitions 3
`), "sluice_kafka_consumer_records_total", "sluice_kafka_consumer_bytes_total", "sluice_kafka_consumer_lag_records", "sluice_kafka_consumer_partitions"))
	problems, err := testutil.GatherAndLint(reg)
	require.NoError(t, err)
	require.Empty(t, problems)
	families, err := reg.Gather()
	require.NoError(t, err)
	require.Len(t, families, 7)
	_, err = NewConsumer(cfg)
	require.ErrorContains(t, err, "metrics", "two consumers can't share a registry")
}
