package kafka

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// An outcome is how a record ended; a metric label.
type outcome int

const (
	stored outcome = iota
	tooLarge
	topicMissing
	notAuthorized
	invalidRecord
	closed
	uncertain
	outcomes
)

var (
	outcomeNames  = [outcomes]string{"stored", "too_large", "topic_missing", "not_authorized", "invalid_record", "closed", "uncertain"}
	outcomeErrors = [outcomes]error{nil, ErrTooLarge, ErrTopicMissing, ErrNotAuthorized, ErrInvalidRecord, ErrClosed, ErrUncertain}
)

// metrics are the producer's. Names of topics are no labels: templates make them at run time.
type metrics struct {
	records       [outcomes]prometheus.Counter
	latency       *latencyHistogram
	startFailures prometheus.Counter
	adminFailures prometheus.Counter
	topicsLost    prometheus.Counter
	topicsCreated prometheus.Counter
	splits        prometheus.Counter
	bumps         prometheus.Counter
	byBroker      brokerVectors
	all           []prometheus.Collector
}

func newMetrics(p *Producer) *metrics {
	m := new(metrics)
	records := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "sluice", Subsystem: "kafka", Name: "records_total",
		Help: "Records that ended, by outcome: stored (acknowledged by all in-sync replicas), refused for good (too_large, topic_missing, not_authorized, invalid_record), closed (the producer was closed first), or uncertain (Kafka left it open)."},
		[]string{"outcome"})
	for o := range outcomes {
		m.records[o] = records.WithLabelValues(outcomeNames[o])
	}
	m.latency = newLatencyHistogram("sluice_kafka_produce_latency_seconds", "From taking a record to Kafka's acknowledgement, of stored records.")
	m.all = append(m.all, records, m.latency)
	m.startFailures = m.counter("start_failures_total", "Failed attempts to get a producer ID from the cluster.")
	m.adminFailures = m.counter("admin_failures_total", "Questions about topics that no broker answered.")
	m.topicsLost = m.counter("topics_lost_total", "Topics that were deleted or made anew while in use.")
	m.topicsCreated = m.counter("topics_created_total", "Topics that this process created.")
	m.splits = m.counter("batch_splits_total", "Batches that Kafka refused and that were sent again in two halves: too large, or with an invalid record that it did not name.")
	m.bumps = m.counter("epoch_bumps_total", "Partitions that began a new producer epoch because Kafka's sequence numbers were not ours.")
	m.byBroker = newBrokerVectors()
	m.all = append(m.all, m.byBroker.all()...)
	m.gauges(p)
	return m
}

func (m *metrics) counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "sluice", Subsystem: "kafka", Name: name, Help: help})
	m.all = append(m.all, c)
	return c
}

func (m *metrics) gauge(name, help string, f func() float64) {
	m.all = append(m.all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "sluice", Subsystem: "kafka", Name: name, Help: help}, f))
}

// gauges are read from the producer when they are asked for.
func (m *metrics) gauges(p *Producer) {
	if p.cfg.Budget == nil { // or another producer tells
		m.budgetGauges(p)
	}
	m.gauge("records_in_flight", "Records taken and not yet answered for.", func() float64 { return float64(p.outstanding()) })
	m.gauge("up", "1 while Kafka answers and stores what it gets.", func() float64 {
		if p.Up() {
			return 1
		}
		return 0
	})
	m.all = append(m.all, topicsCollector{p, prometheus.NewDesc("sluice_kafka_topics",
		"Topics in use, by what is known of them: asking (not verified yet), open, lost (deleted while in use), refused (for a few seconds after a final answer).",
		[]string{"state"}, nil)})
}

func (m *metrics) budgetGauges(p *Producer) {
	m.gauge("budget_used_bytes", "Bytes of the memory budget in use.", func() float64 { return float64(p.budget.InUse()) })
	m.gauge("budget_max_bytes", "Size of the memory budget.", func() float64 { return float64(p.budget.Max()) })
	m.gauge("budget_waiters", "Connections that wait for room in the memory budget.", func() float64 { return float64(p.budget.waiting()) })
}

// topicsCollector counts topics by phase.
type topicsCollector struct {
	p    *Producer
	desc *prometheus.Desc
}

// Describe gives the one metric.
func (c topicsCollector) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }

// Collect counts.
func (c topicsCollector) Collect(ch chan<- prometheus.Metric) {
	var n [phases]int
	c.p.mu.Lock()
	for _, t := range c.p.topics {
		n[t.phase]++
	}
	c.p.mu.Unlock()
	for ph, count := range n {
		ch <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, float64(count), phaseNames[ph])
	}
}

func (m *metrics) register(reg prometheus.Registerer) error {
	if reg == nil {
		return nil
	}
	for _, c := range m.all {
		if err := reg.Register(c); err != nil {
			return err
		}
	}
	return nil
}

// failed counts a record that ended with an error.
func (m *metrics) failed(err error) { m.records[outcomeOf(err)].Inc() }

// outcomeOf gives the label of an error.
func outcomeOf(err error) outcome {
	for o, sentinel := range outcomeErrors {
		if sentinel != nil && errors.Is(err, sentinel) {
			return outcome(o)
		}
	}
	return uncertain
}
