package kafka

import "github.com/prometheus/client_golang/prometheus"

// consumerMetrics are the consumer's. They have no labels: topics come and go at run time.
type consumerMetrics struct {
	metrics          // for its ways to make and to register them
	handled, bytes   prometheus.Counter
	gaps, gapRecords prometheus.Counter
	errors           prometheus.Counter
}

func newConsumerMetrics(c *Consumer) *consumerMetrics {
	m := new(consumerMetrics)
	m.handled = m.counter("consumer_records_total", "Records that were read and handled.")
	m.bytes = m.counter("consumer_bytes_total", "Bytes of their keys, values and headers.")
	m.gaps = m.counter("consumer_gaps_total", "Times that reading could not go on where it was, because records had been deleted before they were read or the log was cut.")
	m.gapRecords = m.counter("consumer_gap_records_total", "Offsets that were passed over by it; of a log that was cut it is not known how many records were missed.")
	m.errors = m.counter("consumer_errors_total", "Requests that failed and partitions that were refused in an answer. Each is tried again.")
	m.gauge("consumer_lag_records", "Records between what was handled and the end of the logs, open transactions excluded.", func() float64 { return float64(c.Lag()) })
	m.gauge("consumer_partitions", "Partitions that are followed.", func() float64 { return float64(c.following()) })
	return m
}
