package proxy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"sluice/mqtt"
)

func TestCommandMetricsKeepPrometheusCustoms(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	_, err := New(configured(t, commandsForTests), zerolog.Nop(), registry)
	require.NoError(t, err)
	problems, err := testutil.GatherAndLint(registry)
	require.NoError(t, err)
	require.Empty(t, problems)
	n, err := testutil.GatherAndCount(registry, "sluice_command_outcomes_total")
	require.NoError(t, err)
	require.Equal(t, 5*len(mqtt.Fates()), n, "four rules and none, all there from the start")
}

// TestEveryCommandRuleHasItsOwnCounters, also those that share a Kafka topic and differ in their conditions.
func TestEveryCommandRuleHasItsOwnCounters(t *testing.T) {
	c, _, _ := commanding(t, commandsForTests+"  - {topic: none, publish: x}\n  - {topic: plain, publish: y}\n")
	for i := range 6 {
		for range i + 1 {
			c.m.rule(i).routed.Inc()
		}
	}
	c.m.rule(noRule).refused.Inc()
	for rule, want := range map[string]float64{"plain": 1, "plain (2)": 2, "fixed": 3, "^cmd-(?P<plant>[a-z]+)$": 4, "none (2)": 5, "plain (3)": 6, "none": 0} {
		require.Equal(t, want, testutil.ToFloat64(c.m.records.WithLabelValues(rule, "routed")), rule)
	}
	require.EqualValues(t, 1, testutil.ToFloat64(c.m.records.WithLabelValues("none", "refused")))
	require.Same(t, c.m.norule, c.m.rule(99))
}

// TestRecordsMakeNoNewSeries: whatever they hold, the label values are those of the configuration and fixed words.
func TestRecordsMakeNoNewSeries(t *testing.T) {
	c, producer, registry := commanding(t, commandsForTests)
	for i := range 200 {
		x := fmt.Sprint("x", i)
		for _, r := range []struct{ topic, key, value, name, header string }{
			{x, x, x, x, x}, {"plain", x, x, "to", x}, {"plain", x, x, "name", "reboot"}, {"plain", x, x, "to", "+" + x}, {"plain", x, x, x, x}, {"cmd-" + strings.Repeat("a", i+1), x, x, x, x},
			{"fixed", x, x, "mqtt.qos", x}, {"fixed", x, x, headerCancel, x}, {"fixed", x, x, x, "\xff" + x}, {"plain", x + "\xff", x, "name", "reboot"},
		} {
			c.handle(recordOf(r.topic, r.key, r.value, r.name, r.header))
		}
	}
	_ = producer.Close(t.Context())
	allowed := slices.Concat(reasons, []string{"none", "plain", "plain (2)", "fixed", "^cmd-(?P<plant>[a-z]+)$", "routed", "refused", "stored", "lost", "true", "false", reasonNotConnected})
	for _, f := range mqtt.Fates() {
		allowed = append(allowed, f.String())
	}
	families, err := registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		for _, m := range f.Metric {
			for _, l := range m.Label {
				require.Contains(t, allowed, l.GetValue(), f.GetName())
			}
		}
	}
	require.EqualValues(t, 200, testutil.ToFloat64(c.m.unknown), "cancel records")
	require.EqualValues(t, 200, testutil.ToFloat64(c.m.leftOut))
}
