package mqtt

import "github.com/prometheus/client_golang/prometheus"

// shareMetrics are the counts of shared subscriptions.
type shareMetrics struct {
	handedOn prometheus.Counter
}

func newShareMetrics(reg prometheus.Registerer, x *Shares) (*shareMetrics, error) {
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "sluice", Subsystem: "mqtt", Name: name, Help: help}
	}
	m := &shareMetrics{
		handedOn: prometheus.NewCounter(prometheus.CounterOpts(opts("shared_handed_on_total", "Commands of shared subscriptions that a device left without an answer, so that another one gets them, here or at another instance."))),
	}
	shares := prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts("shares", "Share names, each with each of its topic filters, that devices of this instance are members of.")), func() float64 { return float64(x.len()) })
	for _, c := range []prometheus.Collector{m.handedOn, shares} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
