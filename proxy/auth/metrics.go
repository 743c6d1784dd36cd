package auth

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the counts of logins. Their labels are the kinds of methods and fixed words.
type metrics struct {
	logins  *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	lookups *prometheus.CounterVec
	reloads *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, delayed func() float64) (*metrics, error) {
	if reg == nil {
		reg = prometheus.NewRegistry() // that nobody reads
	}
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "sluice", Subsystem: "auth", Name: name, Help: help}
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts(opts(name, help)), labels)
	}
	m := &metrics{
		logins:  counter("logins_total", "Logins, by the method that decided (none: no method knew the user) and by what became of them: accepted, refused, throttled (not checked, since too many failed from the address) or error (nobody could say; the device was not let in).", "method", "result"),
		lookups: counter("cache_lookups_total", "Logins looked up in what is remembered of earlier ones, by method and whether it was there.", "method", "result"),
		reloads: counter("reloads_total", "Times that users and keys were read again, by what was read and how it went. After a failure the old ones stay.", "source", "result"),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "sluice", Subsystem: "auth", Name: "login_seconds",
			Help:    "Time until a login was decided, by method; the delay before a refusal is told is not included.",
			Buckets: []float64{.0001, .001, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"method"}),
	}
	gauge := prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts("delayed_logins", "Refused logins that wait for their answer.")), delayed)
	for _, c := range []prometheus.Collector{m.logins, m.lookups, m.reloads, m.seconds, gauge} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// login counts a decision.
func (m *metrics) login(by string, o outcome, took time.Duration) {
	m.logins.WithLabelValues(by, outcomeNames[o]).Inc()
	m.seconds.WithLabelValues(by).Observe(took.Seconds())
}

// reload counts that source was read again.
func (m *metrics) reload(source string, err error) {
	result := "ok"
	if err != nil {
		result = "failed"
	}
	m.reloads.WithLabelValues(source, result).Inc()
}

// cacheMetrics are the handles of one method's cache.
type cacheMetrics struct{ hits, misses prometheus.Counter }

func (m *metrics) cache(method string) *cacheMetrics {
	return &cacheMetrics{m.lookups.WithLabelValues(method, "hit"), m.lookups.WithLabelValues(method, "miss")}
}

func (c *cacheMetrics) count(hit bool) {
	if hit {
		c.hits.Inc()
	} else {
		c.misses.Inc()
	}
}
