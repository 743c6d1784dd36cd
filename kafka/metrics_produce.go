package kafka

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"github.com/prometheus/client_golang/prometheus"

	"sluice/kafka/produce"
)

// brokerVectors are what is counted for each broker of the cluster.
type brokerVectors struct {
	requests, records, bytes, retries, throttled, lost, unreachable *prometheus.CounterVec
	seconds                                                         *prometheus.HistogramVec
	out                                                             *prometheus.GaugeVec
}

func newBrokerVectors() brokerVectors {
	count := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "sluice", Subsystem: "kafka", Name: name, Help: help}, append([]string{"broker"}, labels...))
	}
	return brokerVectors{
		requests:    count("produce_requests_total", "Produce requests sent, by broker ID."),
		records:     count("produce_request_records_total", "Records in Produce requests, repeats included."),
		bytes:       count("produce_request_bytes_total", "Bytes of records in Produce requests before compression, repeats included."),
		retries:     count("produce_retries_total", "Batches that a broker answered with an error, by Kafka's name of it.", "error"),
		throttled:   count("produce_throttled_seconds_total", "Time for which a broker asked to be sent nothing, because of a quota."),
		lost:        count("produce_requests_lost_total", "Produce requests that had no answer; their batches are sent again."),
		unreachable: count("broker_connect_failures_total", "Failed attempts to connect to a broker for records."),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "sluice", Subsystem: "kafka", Name: "produce_request_seconds",
			Help: "From sending a Produce request to its answer.", Buckets: latencyBuckets[:]}, []string{"broker"}),
		out: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "sluice", Subsystem: "kafka", Name: "produce_batches_in_flight",
			Help: "Batches sent and not answered; one for each partition at most."}, []string{"broker"}),
	}
}

func (v brokerVectors) all() []prometheus.Collector {
	return []prometheus.Collector{v.requests, v.records, v.bytes, v.retries, v.throttled, v.lost, v.unreachable, v.seconds, v.out}
}

// brokerMetrics are those of one broker.
type brokerMetrics struct {
	requests, records, bytes, throttled, lost, unreachable prometheus.Counter
	seconds                                                prometheus.Observer
	out                                                    prometheus.Gauge
	retries                                                *prometheus.CounterVec
	id                                                     string
}

func (m *metrics) broker(id int32) brokerMetrics {
	v, name := m.byBroker, strconv.Itoa(int(id))
	return brokerMetrics{
		requests: v.requests.WithLabelValues(name), records: v.records.WithLabelValues(name), bytes: v.bytes.WithLabelValues(name),
		throttled: v.throttled.WithLabelValues(name), lost: v.lost.WithLabelValues(name), unreachable: v.unreachable.WithLabelValues(name),
		seconds: v.seconds.WithLabelValues(name), out: v.out.WithLabelValues(name), retries: v.retries, id: name,
	}
}

func (m *brokerMetrics) sent(r *request) {
	m.requests.Inc()
	m.records.Add(float64(r.records))
	m.bytes.Add(float64(r.bytes))
	m.out.Add(float64(len(r.batches)))
}

func (m *brokerMetrics) answered(r *request, took time.Duration) {
	m.seconds.Observe(took.Seconds())
	m.out.Sub(float64(len(r.batches)))
}

func (m *brokerMetrics) missed(r *request) {
	m.lost.Inc()
	m.out.Sub(float64(len(r.batches)))
}

func (m *brokerMetrics) retried(code sarama.KError) {
	m.retries.WithLabelValues(m.id, produce.Code(code).String()).Inc()
}

// latencyBuckets are the upper bounds, in seconds.
var latencyBuckets = [...]float64{.001, .0025, .005, .01, .02, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}

// latencies are those of a burst of records.
type latencies struct {
	buckets [len(latencyBuckets) + 1]uint64
	sum     time.Duration
}

func (l *latencies) add(d time.Duration) {
	s, i := d.Seconds(), 0
	for i < len(latencyBuckets) && s > latencyBuckets[i] {
		i++
	}
	l.buckets[i]++
	l.sum += d
}

// A latencyHistogram is a prometheus.Histogram that takes the observations of a burst at once: one by one they cost as
// much as all else that is done for a record when it is stored.
type latencyHistogram struct {
	desc    *prometheus.Desc
	buckets [len(latencyBuckets) + 1]atomic.Uint64
	sum     atomic.Int64
}

func newLatencyHistogram(name, help string) *latencyHistogram {
	return &latencyHistogram{desc: prometheus.NewDesc(name, help, nil, nil)}
}

func (h *latencyHistogram) add(l *latencies) {
	for i, n := range l.buckets {
		if n > 0 {
			h.buckets[i].Add(n)
		}
	}
	h.sum.Add(int64(l.sum))
}

// Describe gives the one metric.
func (h *latencyHistogram) Describe(ch chan<- *prometheus.Desc) { ch <- h.desc }

// Collect gives its values.
func (h *latencyHistogram) Collect(ch chan<- prometheus.Metric) {
	var n uint64
	buckets := make(map[float64]uint64, len(latencyBuckets))
	for i := range latencyBuckets {
		n += h.buckets[i].Load()
		buckets[latencyBuckets[i]] = n
	}
	n += h.buckets[len(latencyBuckets)].Load()
	ch <- prometheus.MustNewConstHistogram(h.desc, n, time.Duration(h.sum.Load()).Seconds(), buckets)
}
