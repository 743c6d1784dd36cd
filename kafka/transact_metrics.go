package kafka

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// transactMetrics are shared by all Transactors that have one Registerer: there is one for each shard and for each
// partition that is owned.
type transactMetrics struct {
	ended  *prometheus.CounterVec
	commit prometheus.Histogram
	size   prometheus.Histogram
	fenced prometheus.Counter
	aborts prometheus.Counter
}

func newTransactMetrics(reg prometheus.Registerer) (*transactMetrics, error) {
	opts := prometheus.Opts{Namespace: "sluice", Subsystem: "kafka"}
	ended, fenced, aborts := opts, opts, opts
	ended.Name, ended.Help = "transaction_groups_total", "Groups of records that were to be written in a transaction, by outcome: committed, refused (for good, because of a record), aborted, fenced, unknown or closed."
	fenced.Name, fenced.Help = "transactions_fenced_total", "Times that a transactional id was lost to another producer or to Kafka's timeout."
	aborts.Name, aborts.Help = "transactions_aborted_total", "Transactions that were aborted and written again, because a partition did not take its records in time."
	commit := prometheus.HistogramOpts{Namespace: "sluice", Subsystem: "kafka", Name: "transaction_seconds",
		Help: "From the begin of a transaction to its commit.", Buckets: []float64{.005, .01, .02, .03, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}}
	size := prometheus.HistogramOpts{Namespace: "sluice", Subsystem: "kafka", Name: "transaction_size_groups",
		Help: "Groups in a committed transaction.", Buckets: prometheus.ExponentialBuckets(1, 4, 7)}
	m := new(transactMetrics)
	var errs [5]error
	m.ended, errs[0] = shared(reg, prometheus.NewCounterVec(prometheus.CounterOpts(ended), []string{"outcome"}))
	m.fenced, errs[1] = shared(reg, prometheus.NewCounter(prometheus.CounterOpts(fenced)))
	m.commit, errs[2] = shared(reg, prometheus.NewHistogram(commit))
	m.size, errs[3] = shared(reg, prometheus.NewHistogram(size))
	m.aborts, errs[4] = shared(reg, prometheus.NewCounter(prometheus.CounterOpts(aborts)))
	return m, errors.Join(errs[:]...)
}

// shared registers c, or gives the one that is registered already.
func shared[C prometheus.Collector](reg prometheus.Registerer, c C) (C, error) {
	if reg == nil {
		return c, nil
	}
	err := reg.Register(c)
	var before prometheus.AlreadyRegisteredError
	if errors.As(err, &before) {
		if same, ok := before.ExistingCollector.(C); ok {
			return same, nil
		}
	}
	return c, err
}

// groups gives the counter of an outcome.
func (m *transactMetrics) groups(err error) prometheus.Counter {
	outcome := "refused"
	switch {
	case err == nil:
		outcome = "committed"
	case errors.Is(err, ErrAborted):
		outcome = "aborted"
	case errors.Is(err, ErrTransactionUnknown):
		outcome = "unknown"
	case errors.Is(err, ErrFenced):
		outcome = "fenced"
	case errors.Is(err, ErrClosed):
		outcome = "closed"
	}
	return m.ended.WithLabelValues(outcome)
}

// RegisterTransactions registers the metrics that all Transactors with this Registerer share, before there are any.
func RegisterTransactions(reg prometheus.Registerer) error {
	_, err := newTransactMetrics(reg)
	return err
}
