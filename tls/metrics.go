package tls

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the counts of one listener.
type metrics struct {
	handshakes *prometheus.CounterVec
	reloads    *prometheus.CounterVec
	notAfter   prometheus.Gauge
	nextUpdate prometheus.Gauge
}

// newMetrics registers the metrics of a listener, if there is where to register them.
func newMetrics(reg prometheus.Registerer, listener string, crl bool) (*metrics, error) {
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "sluice", Subsystem: "tls", Name: name, Help: help}
	}
	m := &metrics{
		handshakes: prometheus.NewCounterVec(prometheus.CounterOpts(opts("handshakes_total", "TLS handshakes with devices, by result: full, resumed, or why not: revoked, expired, unknown_ca, bad_certificate, identity (the certificate names no device), too_long (more than 16 KiB at once or 10 certificates), no_room (handshakes and records take too much memory), not_tls, gone (the device went or took too long), failed.")), []string{"result"}),
		reloads:    prometheus.NewCounterVec(prometheus.CounterOpts(opts("reloads_total", "Times that changed certificate, key, client CA or CRL files were read, by result: ok, or failed, after which the old ones stay in use.")), []string{"result"}),
		notAfter:   prometheus.NewGauge(prometheus.GaugeOpts(opts("certificate_not_after_seconds", "When the listener's certificate expires, in seconds since 1970."))),
		nextUpdate: prometheus.NewGauge(prometheus.GaugeOpts(opts("crl_next_update_seconds", "When the first of the revocation lists is due to be replaced, in seconds since 1970; 0 means never."))),
	}
	all := []prometheus.Collector{m.handshakes, m.reloads, m.notAfter}
	if crl {
		all = append(all, m.nextUpdate)
	}
	for _, result := range []string{"ok", "failed"} {
		m.reloads.WithLabelValues(result)
	}
	return m, register(reg, listener, all)
}

func register(reg prometheus.Registerer, listener string, all []prometheus.Collector) error {
	if reg == nil {
		return nil
	}
	reg = prometheus.WrapRegistererWith(prometheus.Labels{"listener": listener}, reg)
	for _, c := range all {
		if err := reg.Register(c); err != nil {
			return err
		}
	}
	return nil
}

// dates shows when the files in use end.
func (m *metrics) dates(notAfter, nextUpdate time.Time) {
	m.notAfter.Set(float64(notAfter.Unix()))
	if !nextUpdate.IsZero() {
		m.nextUpdate.Set(float64(nextUpdate.Unix()))
	} else {
		m.nextUpdate.Set(0)
	}
}
