package proxy

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"sluice/kafka"
	"sluice/proxy/config"
)

// kafkaConfig is what the parts of an instance with cfg, which has no TLS, reach Kafka with.
func kafkaConfig(cfg *config.Config, log zerolog.Logger, reg prometheus.Registerer) kafka.Config {
	return (&kafkaClients{cfg: cfg, log: log}).config(reg)
}
