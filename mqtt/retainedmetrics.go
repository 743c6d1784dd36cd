package mqtt

import "github.com/prometheus/client_golang/prometheus"

// retainedMetrics are the counts of retained messages; all labels have few values.
type retainedMetrics struct {
	expired prometheus.Counter
	settled [len(fateNames)]prometheus.Counter
}

func newRetainedMetrics(reg prometheus.Registerer, x *Retained) (*retainedMetrics, error) {
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "sluice", Subsystem: "mqtt", Name: name, Help: help}
	}
	settled := prometheus.NewCounterVec(prometheus.CounterOpts(opts("retained_deliveries_total", "Retained messages handed out to devices that subscribed, by outcome: the words of receipts, and kept where the session went on elsewhere.")), []string{"outcome"})
	m := &retainedMetrics{
		expired: prometheus.NewCounter(prometheus.CounterOpts(opts("retained_expired_total", "Retained messages that were forgotten because their time was over."))),
	}
	for _, f := range Fates() {
		m.settled[f] = settled.WithLabelValues(f.String())
	}
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts(name, help)), f)
	}
	all := []prometheus.Collector{
		m.expired, settled,
		gauge("retained_messages", "Retained messages, of all instances together.", func() float64 { return float64(x.Len()) }),
		gauge("retained_bytes", "Memory of the retained messages.", func() float64 { return float64(x.Bytes()) }),
	}
	for _, c := range all {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
