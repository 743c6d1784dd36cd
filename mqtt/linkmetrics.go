package mqtt

import "github.com/prometheus/client_golang/prometheus"

// linkMetrics count the handshakes of what lies under MQTT.
type linkMetrics struct {
	handshakes *prometheus.CounterVec
	took       *prometheus.HistogramVec
}

func newLinkMetrics() linkMetrics {
	return linkMetrics{
		handshakes: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "sluice", Subsystem: "mqtt", Name: "handshakes_total",
			Help: "Handshakes under MQTT, by layer, tls or websocket, and result, ok, failed or timeout."}, []string{"layer", "result"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "sluice", Subsystem: "mqtt", Name: "handshake_duration_seconds",
			Help:    "How long a handshake under MQTT that succeeded took, the waiting for the device included, by layer.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 8)}, []string{"layer"}),
	}
}
