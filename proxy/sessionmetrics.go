package proxy

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/fleet"
	"sluice/fleet/driver"
)

// sessionMetrics are the counts of what the instances share.
type sessionMetrics struct {
	connects         *prometheus.CounterVec
	opening          *prometheus.HistogramVec
	records          prometheus.Counter
	retries          prometheus.Counter
	malformed        prometheus.Counter
	fences           prometheus.Counter
	transactionsLost prometheus.Counter
	wills            *prometheus.CounterVec
	verdicts         *prometheus.CounterVec
	presence         *prometheus.CounterVec
	ignored          *prometheus.GaugeVec
	replicas         *prometheus.GaugeVec
	risks            *prometheus.GaugeVec
}

// opened counts a CONNECT that got its session.
func (m *sessionMetrics) opened(present bool, after time.Duration) {
	kind := "new"
	if present {
		kind = "present"
	}
	m.connects.WithLabelValues(kind).Inc()
	m.opening.WithLabelValues(kind).Observe(after.Seconds())
}

func newSessionMetrics(reg prometheus.Registerer, s *sessions) (*sessionMetrics, error) {
	var all []prometheus.Collector
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "sluice", Subsystem: "session", Name: name, Help: help}, labels)
		all = append(all, v)
		return v
	}
	gauge := func(name, help string, f func() float64) {
		all = append(all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "sluice", Subsystem: "session", Name: name, Help: help}, f))
	}
	m := &sessionMetrics{
		connects:         counter("opens_total", "CONNECT packets that asked for their session, by the result: new, present, lost (a later one has the client ID), refused (another user's session), given_up (Kafka did not answer in time), too_many (limits.sessions).", "result"),
		records:          counter("records_total", "Records written to the sessions topic for devices.").WithLabelValues(),
		retries:          counter("record_retries_total", "Records of the sessions topic that Kafka did not take and that were written again after a while. The log has the reason.").WithLabelValues(),
		malformed:        counter("malformed_records_total", "Records of the sessions topic and the ledger that could not be read and were left out.").WithLabelValues(),
		fences:           counter("fenced_total", "Transactional ids of other instances that were fenced, to take over a device or because the instance died.").WithLabelValues(),
		transactionsLost: counter("transactions_lost_total", "Times that a transactional id was taken from this instance, or the outcome of a transaction was unknown.").WithLabelValues(),
		wills:            counter("wills_total", "Wills of devices whose session is shared, by what became of them: published, or dropped because no rule or Kafka takes them.", "result"),
		verdicts:         counter("verdicts_total", "Instances that were declared dead: by this one as the owner of a partition, or this one itself.", "who"),
		presence:         counter("presence_records_total", "Presence records, by what became of them: stored, or lost.", "result"),
		opening: prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "sluice", Subsystem: "session", Name: "open_seconds",
			Help:    "From a CONNECT that was read to its session in Kafka, by whether the session was new or present.",
			Buckets: []float64{.005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10}}, []string{"kind"}),
	}
	byTopic := func(name, help string) *prometheus.GaugeVec {
		v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "sluice", Subsystem: "session", Name: name, Help: help}, []string{"kafka_topic"})
		all = append(all, v)
		return v
	}
	m.ignored = byTopic("ignored_partitions", "Partitions that were added to a Kafka topic of the fleet after it was laid out. They hold nothing of the fleet's.")
	m.replicas = byTopic("topic_replicas", "Copies that Kafka keeps of a topic of the fleet, as of the start.")
	m.risks = byTopic("topic_risks", "Settings of a topic of the fleet with which Kafka can lose what it acknowledged although its brokers allow better ones, as of the start. The log names them.")
	all = append(all, m.opening)
	for v, values := range map[*prometheus.CounterVec][]string{
		m.connects: {"new", "present", "lost", "refused", "given_up", "too_many"}, m.wills: {"published", "dropped"}, m.verdicts: {"own", "other"}, m.presence: {"stored", "lost"},
	} {
		for _, value := range values {
			v.WithLabelValues(value) // a rate needs the 0 before the first one
		}
	}
	gauge("stored_records", "Records of sessions that this instance holds in memory, one for each device and instance it was connected to.", func() float64 { n, _ := s.driver.Stored(); return float64(n) })
	gauge("stored_bytes", "Bytes that these records take.", func() float64 { _, n := s.driver.Stored(); return float64(n) })
	gauge("stored_sessions", "Sessions that outlive their connection, of all instances, also those that have one now: what limits.sessions bounds.", func() float64 { return float64(s.driver.Lasting()) })
	gauge("owned_partitions", "Partitions of the sessions topic for whose dead instances this one acts.", func() float64 { return float64(s.driver.Given()) })
	for _, c := range all {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// driver gives what the driver counts.
func (m *sessionMetrics) driver() driver.Metrics {
	return driver.Metrics{
		Records: m.records, Retries: m.retries, Malformed: m.malformed, Fences: m.fences, TransactionsLost: m.transactionsLost,
		WillsPublished: m.wills.WithLabelValues(string(fleet.WillPublished)), WillsDropped: m.wills.WithLabelValues(string(fleet.WillDropped)),
		VerdictsOwn: m.verdicts.WithLabelValues("own"), VerdictsOther: m.verdicts.WithLabelValues("other"),
	}
}
