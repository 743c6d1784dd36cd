package proxy

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/mqtt"
	"sluice/topicmap"
)

// commandMetrics are the counts of the way from Kafka to the devices.
type commandMetrics struct {
	bytes                           prometheus.Counter
	refused, dropped, lost          *prometheus.CounterVec
	leftOut                         prometheus.Counter
	found, unknown                  prometheus.Counter
	receiptsStored, receiptsLost    prometheus.Counter
	latency                         prometheus.Observer
	records, devices, nobody, fates *prometheus.CounterVec
	rules                           []*commandRuleMetrics
	norule                          *commandRuleMetrics
}

// commandRuleMetrics are the handles of one rule, looked up once.
type commandRuleMetrics struct {
	routed, refused, matched, nobody prometheus.Counter
	settled                          []prometheus.Counter // by mqtt.Fate
}

func (m *commandMetrics) rule(i int) *commandRuleMetrics {
	if i < 0 || i >= len(m.rules) {
		return m.norule
	}
	return m.rules[i]
}

// cancels counts the records that cancel.
func (m *commandMetrics) cancels(found bool) prometheus.Counter {
	if found {
		return m.found
	}
	return m.unknown
}

func newCommandMetrics(reg prometheus.Registerer, rules []topicmap.CommandRule) (*commandMetrics, error) {
	var all []prometheus.Collector
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "sluice", Subsystem: "command", Name: name, Help: help}, labels)
		all = append(all, v)
		return v
	}
	latency := prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: "sluice", Subsystem: "command", Name: "append_to_publish_seconds",
		Help:    "From the timestamp of a command's record to the moment its PUBLISH was handed to the network, for each device.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 3600},
	})
	cancels := counter("cancel_records_total", "Records that cancel, by whether a command was open that they name.", "found")
	receipts := counter("receipts_total", "Receipts, by what became of them: stored, or lost (Kafka refused the record, or the process ended first).", "result")
	m := &commandMetrics{
		bytes:   counter("read_bytes_total", "Bytes of the keys and values read from command topics.").WithLabelValues(),
		records: counter("records_total", "Records read from command topics, by the rule that took them and the result: routed to an MQTT topic, or refused.", "rule", "result"),
		refused: counter("refused_records_total", "Records that make no command, by reason.", "reason"),
		devices: counter("matched_devices_total", "Devices that commands matched, by rule; one command may match many.", "rule"),
		nobody:  counter("unmatched_records_total", "Commands without a named client that no session of this instance had subscribed to, by rule.", "rule"),
		fates:   counter("outcomes_total", "What became of commands, one for each device, by rule and outcome as in receipts.", "rule", "outcome"),
		dropped: counter("dropped_total", "Commands dropped by a bound of this process or because a record makes no command, by reason.", "reason"),
		lost:    counter("lost_positions_total", "Positions of sessions, and of this instance, in partitions of command topics that did not hold any more, by reason: the topic was made anew (it is read from its beginning), the log was cut (it is read from its end), or the records were deleted (those after them are read).", "reason"),
		leftOut: counter("left_out_headers_total", "Record headers left out of a command because they are no UTF-8 strings of at most 65535 bytes, so that they can't be User Properties.").WithLabelValues(),
		found:   cancels.WithLabelValues("true"), unknown: cancels.WithLabelValues("false"),
		receiptsStored: receipts.WithLabelValues("stored"), receiptsLost: receipts.WithLabelValues("lost"),
		latency: latency,
	}
	m.norule = m.handles(noRuleLabel)
	for _, label := range ruleLabels(rules) {
		m.rules = append(m.rules, m.handles(label))
	}
	for _, c := range append(all, latency) {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// noRuleLabel stands for records that no rule takes.
const noRuleLabel = "none"

// ruleLabels names the rules by their Kafka topic or pattern; of those that share one, which differ in their
// conditions, the later are numbered.
func ruleLabels(rules []topicmap.CommandRule) (labels []string) {
	times := map[string]int{noRuleLabel: 1}
	for _, r := range rules {
		label := r.Topic + r.Pattern
		if times[label]++; times[label] > 1 {
			label = fmt.Sprintf("%s (%d)", label, times[label])
		}
		labels = append(labels, label)
	}
	return labels
}

// handles makes the counters of the rule with this label.
func (m *commandMetrics) handles(rule string) *commandRuleMetrics {
	h := &commandRuleMetrics{
		routed:  m.records.WithLabelValues(rule, "routed"),
		refused: m.records.WithLabelValues(rule, "refused"),
		matched: m.devices.WithLabelValues(rule),
		nobody:  m.nobody.WithLabelValues(rule),
	}
	for _, f := range mqtt.Fates() {
		h.settled = append(h.settled, m.fates.WithLabelValues(rule, f.String()))
	}
	return h
}
