package proxy

import (
	"context"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"sluice/proxy/config"
)

// TestRunEndsWhenAPartFailsBeforeKafkaAnswers: what waits for Kafka at the start must not outlive the process's other
// parts.
func TestRunEndsWhenAPartFailsBeforeKafkaAnswers(t *testing.T) {
	cfg, err := config.Parse("test", []byte(`
listeners: [{address: "127.0.0.1:0"}]
admin: {address: "127.0.0.1:0"}
kafka: {brokers: ["127.0.0.1:1"]}
publish: [{match: "#", topic: t}]
commands: [{topic: c, publish: "{key}"}]
limits: {shutdown_timeout: 1s}
`), noEnv)
	require.NoError(t, err)
	p, err := New(cfg, zerolog.Nop(), prometheus.NewRegistry())
	require.NoError(t, err)
	require.NoError(t, p.admin.listener.Close())
	require.Error(t, p.Run(context.Background()))
}
