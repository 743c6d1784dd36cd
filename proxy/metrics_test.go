package proxy

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
)

// TestMetricsKeepPrometheusCustoms lints the names and help texts of everything an instance registers.
func TestMetricsKeepPrometheusCustoms(t *testing.T) {
	reg := prometheus.NewRegistry()
	_, err := New(parse(t, rulesForTests, ""), zerolog.Nop(), reg)
	require.NoError(t, err)
	problems, err := testutil.GatherAndLint(reg)
	require.NoError(t, err)
	require.Empty(t, problems)
	families, err := reg.Gather()
	require.NoError(t, err)
	require.Greater(t, len(families), 15)
}

// TestEveryRuleHasItsOwnCounters: the label is the rule's filter, and messages without a rule have one of their own.
func TestEveryRuleHasItsOwnCounters(t *testing.T) {
	reg := prometheus.NewRegistry()
	cfg := parse(t, rulesForTests, "")
	rules, err := cfg.Rules()
	require.NoError(t, err)
	m, err := newMetrics(reg, rules.Rules())
	require.NoError(t, err)
	m.rule(1).count(stored, 10)
	m.rule(noRule).count(refused, 3)
	require.EqualValues(t, 1, testutil.ToFloat64(m.messages.WithLabelValues("plants/{plant}/#", "stored")))
	require.EqualValues(t, 10, testutil.ToFloat64(m.bytes.WithLabelValues("plants/{plant}/#", "stored")))
	require.EqualValues(t, 3, testutil.ToFloat64(m.bytes.WithLabelValues("none", "refused")))
}
