package proxy

import (
	"github.com/prometheus/client_golang/prometheus"

	"sluice/topicmap"
)

// An outcome is how a message ended; a metric label.
type outcome int

const (
	stored       outcome = iota // Kafka acknowledged its record
	refused                     // a final negative answer
	dropped                     // accepted and, as configured, not kept
	deadLettered                // Kafka acknowledged its record in the dead-letter topic
	unknown                     // no answer: the device was disconnected
	outcomes
)

var outcomeNames = [outcomes]string{"stored", "refused", "dropped", "dead_letter", "unknown"}

// metrics are the counts of the policy. Their labels are the rules of the configuration and fixed words.
type metrics struct {
	messages *prometheus.CounterVec
	bytes    *prometheus.CounterVec
	refused  *prometheus.CounterVec
	forged   prometheus.Counter
	latency  [3]prometheus.Observer
	rules    []*ruleMetrics
	norule   *ruleMetrics
}

// ruleMetrics are the handles of one rule, looked up once.
type ruleMetrics struct {
	messages, bytes [outcomes]prometheus.Counter
}

func (r *ruleMetrics) count(o outcome, bytes int) {
	r.messages[o].Inc()
	r.bytes[o].Add(float64(bytes))
}

// rule gives the handles of rule i, noRule included.
func (m *metrics) rule(i int) *ruleMetrics {
	if i < 0 || i >= len(m.rules) {
		return m.norule
	}
	return m.rules[i]
}

func newMetrics(reg prometheus.Registerer, rules []topicmap.Rule) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "sluice", Subsystem: "publish", Name: name, Help: help}, labels)
	}
	latency := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: "sluice", Subsystem: "publish", Name: "ack_latency_seconds",
		Help:    "From the receipt of a PUBLISH to Kafka's acknowledgement of its record, by QoS.",
		Buckets: []float64{.001, .0025, .005, .01, .02, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
	}, []string{"qos"})
	forged := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "sluice", Subsystem: "publish", Name: "forged_properties_total",
		Help: "User properties named mqtt.* or sluice.*, left out of the record because only the proxy may set such headers."})
	m := &metrics{
		messages: counter("messages_total", "Messages by the rule that took them and their outcome: stored, refused, dropped, dead_letter, or unknown (Kafka left it open and the device was disconnected).", "rule", "outcome"),
		bytes:    counter("payload_bytes_total", "Payload bytes of the messages in sluice_publish_messages_total.", "rule", "outcome"),
		refused:  counter("refused_messages_total", "Messages that were refused for good, by reason, those sent to the dead-letter topic included.", "reason"),
		forged:   forged,
	}
	for qos := 1; qos <= 2; qos++ {
		m.latency[qos] = latency.WithLabelValues(string(rune('0' + qos)))
	}
	for _, r := range rules {
		m.rules = append(m.rules, m.handles(r.Match+r.Regex))
	}
	m.norule = m.handles("none")
	for _, c := range []prometheus.Collector{m.messages, m.bytes, m.refused, forged, latency} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// handles makes the counters of the rule with this filter or expression.
func (m *metrics) handles(rule string) *ruleMetrics {
	h := new(ruleMetrics)
	for o := range outcomes {
		h.messages[o] = m.messages.WithLabelValues(rule, outcomeNames[o])
		h.bytes[o] = m.bytes.WithLabelValues(rule, outcomeNames[o])
	}
	return h
}
