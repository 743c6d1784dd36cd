package proxy

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"sluice/kafka"
	"sluice/mqtt"
)

// commanding gives a commander whose server has no device and whose producer does not run: receipts wait in it.
func commanding(t testing.TB, extra string) (c *commander, producer *kafka.Producer, registry *prometheus.Registry) {
	t.Helper()
	cfg := configured(t, extra)
	rules, err := cfg.CommandRules()
	require.NoError(t, err)
	producer, err = kafka.NewProducer(kafkaConfig(cfg, zerolog.Nop(), nil))
	require.NoError(t, err)
	server, err := mqtt.New(mqttConfig(cfg, zerolog.Nop(), prometheus.NewRegistry()), nil)
	require.NoError(t, err)
	registry = prometheus.NewPedanticRegistry()
	c, err = newCommander(rules, cfg.Commands, server, producer, newStreams(), zerolog.Nop(), registry)
	require.NoError(t, err)
	t.Cleanup(func() { _ = producer.Close(context.Background()) })
	return c, producer, registry
}

// outcomes counts what became of the commands of a rule.
func (c *commander) outcomes(rule int, fate mqtt.Fate) int {
	return int(testutil.ToFloat64(c.m.rule(rule).settled[fate]))
}

// fill takes the whole budget.
func fill(b *kafka.Budget) { b.Take(kafka.Destination{}, int(b.Max())) }

func TestCommandWaitsForTheRoomOfItsReceipt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, producer, _ := commanding(t, commandsForTests)
		budget := producer.Budget()
		fill(budget)
		var partitions sync.WaitGroup
		for i := range 20 {
			partitions.Go(func() {
				c.handle(inPartition(int32(i), recordOf("plain", fmt.Sprint("d", i), "x", "name", "reboot", "mqtt.expiry", "4294967295")))
			})
		}
		for i := range 4 {
			partitions.Go(func() {
				c.handle(inPartition(int32(100+i), recordOf("plain", "d", "x", "mqtt.qos", "nonsense", "to", "t")))
			})
		}
		synctest.Wait()
		require.EqualValues(t, 20, testutil.ToFloat64(c.m.rule(0).routed))
		require.Zero(t, c.outcomes(0, mqtt.Offline)+c.outcomes(1, mqtt.Dropped), "none goes on")
		budget.Give(kafka.Destination{}, receiptBytes-1)
		synctest.Wait()
		require.Zero(t, c.outcomes(0, mqtt.Offline)+c.outcomes(1, mqtt.Dropped), "that is not room enough")
		budget.Give(kafka.Destination{}, 1)
		synctest.Wait()
		require.NotZero(t, c.outcomes(0, mqtt.Offline)+c.outcomes(1, mqtt.Dropped), "one goes on")
		budget.Give(kafka.Destination{}, int(budget.Max())-receiptBytes)
		partitions.Wait()
		require.Equal(t, 20, c.outcomes(0, mqtt.Offline))
		require.Equal(t, 4, c.outcomes(1, mqtt.Dropped))
		require.Error(t, producer.Close(t.Context()))
		require.EqualValues(t, 24, testutil.ToFloat64(c.m.receiptsLost), "the producer never ran")
		require.Zero(t, budget.InUse())
	})
}

// TestCommandWithoutReceiptNeedsNoRoom: nor does a record that cancels.
func TestCommandWithoutReceiptNeedsNoRoom(t *testing.T) {
	c, producer, _ := commanding(t, "commands: [{topic: t, publish: a, client: '{key}'}]")
	fill(producer.Budget())
	c.handle(recordOf("t", "d1", "x"))
	c.handle(recordOf("t", "null", "x"))
	c.handle(recordOf("t", "d1", "x", headerCancel, "c"))
	require.Equal(t, 1, c.outcomes(0, mqtt.Offline))
	require.Equal(t, 1, c.outcomes(0, mqtt.Dropped))
	require.Equal(t, producer.Budget().Max(), producer.Budget().InUse())
}

// TestCommandThatStillWaitsAtTheEndIsAnsweredFor: it was read, and no instance reads it again.
func TestCommandThatStillWaitsAtTheEndIsAnsweredFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, producer, _ := commanding(t, commandsForTests)
		stop := make(chan struct{})
		c.stop = stop
		fill(producer.Budget())
		var partitions sync.WaitGroup
		partitions.Go(func() { c.handle(recordOf("plain", "d1", "x", "name", "reboot", "mqtt.expiry", "4294967295")) })
		partitions.Go(func() { c.handle(recordOf("plain", "d1", "x", "mqtt.qos", "nonsense", "to", "t")) })
		synctest.Wait()
		close(stop)
		partitions.Wait()
		require.Zero(t, c.outcomes(0, mqtt.Dropped), "it waits in Kafka for whoever has the device next")
		require.Less(t, c.streams.of("plain", 0).next.Load(), int64(1), "and nobody says that it went by")
		require.Equal(t, 1, c.outcomes(1, mqtt.Dropped))
		require.EqualValues(t, 1, testutil.ToFloat64(c.m.dropped.WithLabelValues(reasonInvalidHeader)))
		producer.Budget().Give(kafka.Destination{}, int(producer.Budget().Max()))
		require.Error(t, producer.Close(t.Context()))
		require.Zero(t, producer.Budget().InUse())
		require.EqualValues(t, 1, testutil.ToFloat64(c.m.receiptsLost), "the refused one had its receipt")
	})
}

func TestRecordsWithoutARuleAreCountedAndHaveNoReceipt(t *testing.T) {
	c, producer, _ := commanding(t, commandsForTests)
	fill(producer.Budget())
	c.handle(recordOf("elsewhere", "k", "x"))
	require.EqualValues(t, 1, testutil.ToFloat64(c.m.rule(noRule).refused))
	require.EqualValues(t, 1, testutil.ToFloat64(c.m.refused.WithLabelValues("no_rule")))
	require.Equal(t, producer.Budget().Max(), producer.Budget().InUse())
}

// TestLatencyIsNeverNegative: a record may come from a clock ahead of ours, and a sum that falls is no counter.
func TestLatencyIsNeverNegative(t *testing.T) {
	c, _, registry := commanding(t, commandsForTests)
	cmd := named("t", "k", "c")
	cmd.c, cmd.written = c, time.Now().Add(time.Hour)
	cmd.CommandSent(nil)
	families, err := registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == "sluice_command_append_to_publish_seconds" {
			require.EqualValues(t, 1, f.Metric[0].Histogram.GetSampleCount())
			require.Zero(t, f.Metric[0].Histogram.GetSampleSum())
			return
		}
	}
	require.Fail(t, "no such metric")
}

// TestInstancesHaveDifferentNames, also those of one host.
func TestInstancesHaveDifferentNames(t *testing.T) {
	require.NotEqual(t, instanceName(), instanceName())
}

// TestLogOfRefusedRecordsIsSampled, and says nothing of the payload.
func TestLogOfRefusedRecordsIsSampled(t *testing.T) {
	var log strings.Builder
	cfg := configured(t, commandsForTests)
	rules, err := cfg.CommandRules()
	require.NoError(t, err)
	producer, err := kafka.NewProducer(kafkaConfig(cfg, zerolog.Nop(), nil))
	require.NoError(t, err)
	c, err := newCommander(rules, cfg.Commands, nil, producer, newStreams(), zerolog.New(&log), prometheus.NewRegistry())
	require.NoError(t, err)
	for range 100 {
		c.handle(recordOf("cmd-ulm", "s3cret key", "s3cret", "mqtt.qos", "s3cret"))
	}
	lines := strings.Count(log.String(), "\n")
	require.Greater(t, lines, 0)
	require.Less(t, lines, 50)
	require.Contains(t, log.String(), `"kafka_topic":"cmd-ulm","partition":3,"offset":42,"reason":"not_json"`)
	require.NotContains(t, log.String(), "s3cret")
	require.NoError(t, producer.Close(t.Context()))
}

// inPartition puts a record into a partition.
func inPartition(partition int32, r *kafka.Fetched) *kafka.Fetched {
	r.Partition = partition
	return r
}
