// Command metricsdoc writes docs/metrics.md from the metrics that an instance registers.
package main

import (
	"cmp"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/rs/zerolog"

	"sluice/proxy"
	"sluice/proxy/config"
)

// sample has everything that registers metrics of its own; the files are filled in.
const sample = `
listeners: [{address: 127.0.0.1:0, tls: {certificate: %[1]q, key: %[2]q, client_auth: request, client_ca: %[1]q, crl: %[3]q}}]
kafka: {brokers: [127.0.0.1:1]}
admin: {address: ""}
publish: [{match: "#", topic: t}]
commands: [{topic: c, publish: c}]
auth: {jwt: {secret: 0123456789abcdef0123456789abcdef}}
`

const head = `<!-- Code generated from the metrics' definitions by go generate; DO NOT EDIT. -->
# Metrics

` + "`GET /metrics`" + ` on the admin address, in Prometheus' text format. Labels take few values, bounded by the configuration: a
rule is named by what it is written for (` + "`match`, `regex`, `topic`, `pattern`" + `; command rules that share one are
numbered), and no client ID, no MQTT topic and no Kafka topic that only a message or a record names is ever a label. The metrics of the Go runtime and the process
(` + "`go_*`, `process_*`" + `) are there too; those of commands (` + "`sluice_command_*`, `sluice_kafka_consumer_*`" + `), of logins (` + "`sluice_auth_*`" + `) and of
certificates (` + "`sluice_tls_*`" + `) only where these are configured. Where publish rules have an ` + "`identity`" + `, the metrics of producers
have a label of that name.

| metric | type | labels | meaning |
|---|---|---|---|
`

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(file string) error {
	text, err := Page()
	if err != nil {
		return err
	}
	return os.WriteFile(file, []byte(text), 0o644)
}

// Page renders the whole page.
func Page() (string, error) {
	dir, err := os.MkdirTemp("", "metricsdoc-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	certificate, key, crl, err := writeAuthority(dir)
	if err != nil {
		return "", err
	}
	cfg, err := config.Parse("sample", fmt.Appendf(nil, sample, certificate, key, crl), os.LookupEnv)
	if err != nil {
		return "", err
	}
	var r recorder
	if _, err := proxy.New(cfg, zerolog.Nop(), &r); err != nil {
		return "", err
	}
	slices.SortFunc(r.rows, func(a, b row) int { return cmp.Compare(a.name, b.name) })
	var b strings.Builder
	b.WriteString(head)
	for _, m := range r.rows {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.name, m.kind, m.labels, strings.ReplaceAll(m.help, "|", "\\|"))
	}
	return b.String(), nil
}

type row struct{ name, kind, labels, help string }

// A recorder notes what is registered with it.
type recorder struct{ rows []row }

var descriptor = regexp.MustCompile(`^Desc\{fqName: "(.*)", help: "(.*?)"(?:, unit: ".*?")?, constLabels: \{(.*)\}, variableLabels: \{(.*)\}\}$`)

// constant is the name of a label with a value, as String shows it.
var constant = regexp.MustCompile(`[a-z_]+="`)

// Register notes the collector's metrics.
func (r *recorder) Register(c prometheus.Collector) error {
	descs := make(chan *prometheus.Desc, 100)
	c.Describe(descs)
	close(descs)
	for d := range descs {
		m := descriptor.FindStringSubmatch(d.String())
		if m == nil {
			return fmt.Errorf("unreadable description %s", d)
		}
		var labels []string
		for _, l := range constant.FindAllString(m[3], -1) {
			labels = append(labels, strings.TrimSuffix(l, `="`))
		}
		if m[4] != "" {
			labels = append(labels, m[4])
		}
		r.rows = append(r.rows, row{m[1], kind(m[1], c), strings.Join(labels, ","), strings.ReplaceAll(m[2], `\"`, `"`)})
	}
	return nil
}

// MustRegister is Register for those who can't fail.
func (r *recorder) MustRegister(cs ...prometheus.Collector) {
	for _, c := range cs {
		_ = r.Register(c)
	}
}

// Unregister is never asked for.
func (r *recorder) Unregister(prometheus.Collector) bool { return false }

// Gather gives nothing: no values are shown.
func (r *recorder) Gather() ([]*dto.MetricFamily, error) { return nil, nil }

func kind(name string, c prometheus.Collector) string {
	switch c.(type) {
	case *prometheus.HistogramVec, prometheus.Histogram:
		return "histogram"
	}
	if strings.HasSuffix(name, "_total") {
		return "counter"
	}
	return "gauge"
}
