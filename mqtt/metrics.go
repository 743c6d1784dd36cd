package mqtt

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the counts of the device side; all labels have few values.
type metrics struct {
	connections  *prometheus.GaugeVec
	disconnects  *prometheus.CounterVec
	received     [3]prometheus.Counter
	sent         [3]prometheus.Counter
	bytesIn      prometheus.Counter
	bytesOut     prometheus.Counter
	dropped      prometheus.Counter
	panics       prometheus.Counter
	acceptErrors prometheus.Counter
	slowReaders  prometheus.Counter
	wills        prometheus.Counter
	bridgeStates prometheus.Counter
	paused       prometheus.Gauge
	denied       denials
	link         linkMetrics
}

func newMetrics(reg prometheus.Registerer, s *Server) (*metrics, error) {
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "sluice", Subsystem: "mqtt", Name: name, Help: help}
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts(opts(name, help)))
	}
	received := prometheus.NewCounterVec(prometheus.CounterOpts(opts("received_messages_total", "PUBLISH packets received, by their QoS; QoS 1 and 2 include those sent again.")), []string{"qos"})
	sent := prometheus.NewCounterVec(prometheus.CounterOpts(opts("sent_messages_total", "PUBLISH packets sent to devices, by their QoS; those sent again on a new connection are included.")), []string{"qos"})
	m := &metrics{
		connections:  prometheus.NewGaugeVec(prometheus.GaugeOpts(opts("connections", "Connections past CONNACK, by MQTT version.")), []string{"version"}),
		disconnects:  prometheus.NewCounterVec(prometheus.CounterOpts(opts("disconnects_total", "Connections ended, by reason: the name of the Reason Code, or words of ours where there is none, such as connection lost, slow reader, connect timeout. The line device disconnected in the log has the reason too, with a detail.")), []string{"reason"}),
		bytesIn:      counter("received_bytes_total", "Bytes read from devices."),
		bytesOut:     counter("sent_bytes_total", "Bytes written to devices."),
		dropped:      counter("dropped_messages_total", "QoS 0 messages that waited for room and were dropped: nothing was stored, or for 30 s, or the connection ended."),
		panics:       counter("recovered_panics_total", "Panics while handling a connection, each of which cost that connection. Above 0 is a bug to report."),
		acceptErrors: counter("accept_errors_total", "Errors of accept; the listener goes on."),
		slowReaders:  counter("slow_readers_total", "Connections closed because the device did not read what was sent to it."),
		bridgeStates: counter("bridge_states_total", "Messages in $SYS/broker/connection/NAME/state, with which bridges tell that they are there: acknowledged, and passed on to nobody."),
		wills:        counter("wills_total", "Will Messages published."),
		link:         newLinkMetrics(),
		paused:       prometheus.NewGauge(prometheus.GaugeOpts(opts("paused_connections", "Connections that are not read until messages in flight are settled."))),
	}
	for qos := range m.received {
		m.received[qos] = received.WithLabelValues(string(rune('0' + qos)))
		m.sent[qos] = sent.WithLabelValues(string(rune('0' + qos)))
	}
	denied := prometheus.NewCounterVec(prometheus.CounterOpts(opts("denied_total", "What devices lacked the right to: will, a CONNECT with a will; subscribe, a topic filter of SUBSCRIBE or of a session that came back; receive, a message that was not delivered.")), []string{"right"})
	m.denied = newDenials(denied)
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts(name, help)), f)
	}
	all := []prometheus.Collector{
		m.connections, m.disconnects, received, sent, m.bytesIn, m.bytesOut, m.dropped, m.panics, m.acceptErrors, m.slowReaders, m.wills, m.bridgeStates, m.paused, denied, m.link.handshakes, m.link.took,
		gauge("stored_sessions", "Sessions without a connection, kept until they expire.", func() float64 { return float64(s.sessions.storedCount()) }),
		gauge("subscriptions", "Topic filters that sessions are subscribed to.", func() float64 { return float64(s.index.len()) }),
		gauge("subscription_bytes", "Memory of the subscriptions of all sessions.", func() float64 { return float64(s.filters.Load()) }),
		gauge("command_bytes", "Memory of the commands that wait for devices or are in flight.", func() float64 { return float64(s.held.Load()) }),
		gauge("waiting_sessions", "Sessions for which at least one command waits.", func() float64 { return float64(s.backlog.len()) }),
		gauge("tls_record_bytes", "Bytes above 12 KiB a connection that TLS keeps for the handshake and the largest record of its device, as long as it is connected.", func() float64 { return float64(s.records.used.Load()) }),
		gauge("extra_bytes", "Bytes of topic aliases above 1 KiB a connection, and of QoS 2 packet identifiers above the Receive Maximum a session.", func() float64 { return float64(s.extra.used.Load()) }),
		gauge("partial_bytes", "Bytes of incomplete packets and TLS records, above 1 KiB each.", func() float64 { return float64(s.partial.Load()) }),
		gauge("unhandled_bytes", "Bytes that were read of paused connections, above 1 KiB each.", func() float64 { return float64(s.waiting.Load()) }),
	}
	for _, c := range all {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
