package proxy

import (
	"github.com/prometheus/client_golang/prometheus"

	"sluice/kafka"
)

// A retainedSource is where a retained message comes from; a metric label.
type retainedSource int

const (
	fromDevice retainedSource = iota
	fromCommand
	retainedSources
)

// A retainedWrite is how the writing of a retained message ended; a metric label.
type retainedWrite int

const (
	writeStored retainedWrite = iota
	writeDeleted
	writeRefused
	writeUnknown
	retainedWrites
)

// A retainedRead is what a record of the topic was; a metric label.
type retainedRead int

const (
	readSet retainedRead = iota
	readDeleted
	readInvalid
	readNewer
	retainedReads
)

// retainedMetrics are the counts of retained messages between MQTT and Kafka; all labels are fixed words.
type retainedMetrics struct {
	writes [retainedSources][retainedWrites]prometheus.Counter
	read   [retainedReads]prometheus.Counter
}

func newRetainedMetrics(reg prometheus.Registerer) (*retainedMetrics, error) {
	opts := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Namespace: "sluice", Subsystem: "retained", Name: name, Help: help}
	}
	writes := prometheus.NewCounterVec(opts("writes_total", "Retained messages that this instance wrote to Kafka, by source (device, command) and outcome: stored, deleted (an empty payload), refused (by a limit or by Kafka, for good), unknown."), []string{"source", "outcome"})
	read := prometheus.NewCounterVec(opts("records_total", "Records read from the Kafka topic of retained messages: set, deleted, invalid (not handed out), newer_version (written by a newer Sluice, not handed out)."), []string{"kind"})
	m := &retainedMetrics{}
	for s, source := range [...]string{"device", "command"} {
		for o, outcome := range [...]string{"stored", "deleted", "refused", "unknown"} {
			m.writes[s][o] = writes.WithLabelValues(source, outcome)
		}
	}
	for k, kind := range [...]string{"set", "deleted", "invalid", "newer_version"} {
		m.read[k] = read.WithLabelValues(kind)
	}
	for _, c := range []prometheus.Collector{writes, read} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *retainedMetrics) refused(from retainedSource) { m.writes[from][writeRefused].Inc() }

// wrote counts the outcome of a record.
func (m *retainedMetrics) wrote(from retainedSource, tombstone bool, err error) {
	outcome := writeStored
	switch {
	case kafka.Final(err):
		outcome = writeRefused
	case err != nil:
		outcome = writeUnknown
	case tombstone:
		outcome = writeDeleted
	}
	m.writes[from][outcome].Inc()
}
