package mqtt

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

func TestMetricsFollowThePrometheusConventions(t *testing.T) {
	reg := prometheus.NewRegistry()
	w := newWorld(t, func(c *Config) { c.Registerer = reg })
	c := w.device(5, "dev")
	c.send(packet(0xE0))
	c.closed()
	w.ended()
	faults, err := testutil.GatherAndLint(reg)
	require.NoError(t, err)
	require.Empty(t, faults)
	n, err := testutil.GatherAndCount(reg, "sluice_mqtt_connections", "sluice_mqtt_disconnects_total", "sluice_mqtt_received_messages_total", "sluice_mqtt_stored_sessions", "sluice_mqtt_partial_bytes")
	require.NoError(t, err)
	require.Equal(t, 1+1+3+1+1, n)
}

func TestMetricsThatAreTakenAreAnError(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Registerer = prometheus.NewRegistry()
	_, err := New(cfg, &recorder{})
	require.NoError(t, err)
	_, err = New(cfg, &recorder{})
	require.Error(t, err)
}

func TestEveryReasonCodeHasAName(t *testing.T) {
	for code, name := range codeNames {
		require.NotEmpty(t, name)
		require.Equal(t, name, code.String())
	}
	require.Equal(t, "unknown reason code", Code(0x7F).String())
}

func TestZeroConfigTakesTheDefaults(t *testing.T) {
	s, err := New(Config{}, &recorder{})
	require.NoError(t, err)
	want := DefaultConfig()
	want.TopicAliasMaximum, want.KeepAliveMax, want.SessionExpiryMax = 0, 0, 0 // here 0 says none
	want.ConnectsPerSecond, want.MaxSessions = 0, 0                            // and here
	want.Registerer, want.Logger = s.cfg.Registerer, s.cfg.Logger
	require.False(t, s.cfg.Away())
	s.cfg.Away = nil // functions don't compare
	require.Equal(t, want, s.cfg)
	require.Zero(t, s.capExpiry(neverExpires))
	s.cfg.SessionExpiryMax = 1 << 62 // longer than an interval can say
	require.Equal(t, uint32(1<<32-2), s.capExpiry(neverExpires-1))
	require.Equal(t, uint32(neverExpires), s.capExpiry(neverExpires))
}
