package mqtt

import "github.com/prometheus/client_golang/prometheus"

// limitMetrics tell how near the limits of the device side are, and who met them.
type limitMetrics struct {
	crowded    prometheus.Counter // refused connections, by reason
	fromOne    prometheus.Counter
	impatient  prometheus.Counter
	gone       prometheus.Counter
	messages   prometheus.Counter // rates, by limit
	bytes      prometheus.Counter
	control    prometheus.Counter
	levels     prometheus.Counter // other limits
	properties prometheus.Counter
	sessions   prometheus.Counter
}

func newLimitMetrics(reg prometheus.Registerer, s *Server) (*limitMetrics, error) {
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "sluice", Subsystem: "mqtt", Name: name, Help: help}
	}
	vec := func(name, label, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts(opts(name, help)), []string{label})
	}
	gauge := func(name, help string, f func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts(name, help)), func() float64 { return float64(f()) })
	}
	refused := vec("refused_connections_total", "reason", "Connections closed before a byte of theirs was handled, by reason: connections and connections per address (the limits), waited too long and hung up (in the queue of those that connect).")
	limited := vec("rate_limited_total", "limit", "Times a connection was delayed or ended because it was above a rate, by limit: messages, bytes, control (SUBSCRIBE, UNSUBSCRIBE, PINGREQ and answers to nothing).")
	over := vec("over_limit_total", "limit", "Packets refused because of a limit on what they hold or ask for: topic levels, user properties, sessions.")
	a := &s.admission
	all := []prometheus.Collector{
		refused, limited, over,
		gauge("open_connections", "Open connections, those that wait for admission included.", a.openCount),
		gauge("connections_limit", "How many connections may be open; 0: any number.", func() int { return s.cfg.MaxConnections }),
		gauge("waiting_connections", "Connections that wait for admission, unread.", a.waitingCount),
		gauge("unfinished_connections", "Connections that were admitted and whose CONNECT is not answered yet; 0 without a limit on connects.", a.unfinishedCount),
		gauge("kept_sessions", "Sessions of this process that outlive their connection, also those that have one now; 0 where Kafka keeps them.", func() int { return int(s.sessions.kept.Load()) }),
	}
	for _, c := range all {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return &limitMetrics{
		crowded: refused.WithLabelValues("connections"), fromOne: refused.WithLabelValues("connections per address"),
		impatient: refused.WithLabelValues("waited too long"), gone: refused.WithLabelValues("hung up"),
		messages: limited.WithLabelValues("messages"), bytes: limited.WithLabelValues("bytes"), control: limited.WithLabelValues("control"),
		levels: over.WithLabelValues("topic levels"), properties: over.WithLabelValues("user properties"), sessions: over.WithLabelValues("sessions"),
	}, nil
}
