package performance

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// What stands between these lines of docs/performance.md is made of docs/performance/figures.json.
const (
	begin = "<!-- made of performance/figures.json by go generate ./test/performance -->\n"
	end   = "<!-- end of what is made -->\n"
)

// Sluice is who is measured against the Others, whose producers stand alone.
const Sluice = "Sluice"

var Others = []string{"sarama", "franz-go", "librdkafka"}

// Page gives the page with its made part made anew, and the charts by the names of their files.
func Page(page string, r *Report) (made string, charts map[string]string, err error) {
	before, rest, ok := strings.Cut(page, begin)
	_, after, okAfter := strings.Cut(rest, end)
	if !ok || !okAfter {
		return "", nil, fmt.Errorf("the page has no lines %q and %q", begin, end)
	}
	w := &writer{charts: map[string]string{}}
	for _, part := range []struct {
		name, title string
		write       func(*Part)
	}{
		{"base", "Beside producers alone", w.base}, {"latency", "Acknowledgements at a steady rate", w.latency},
		{"matrix", "Sizes, QoS, connections, compression", w.matrix}, {"growth", "Growth", w.growth}, {"slow", "One client flat out beside many slow ones", w.slow},
	} {
		if p := r.Part(part.name); p != nil {
			w.printf("\n## %s\n", part.title)
			part.write(p)
			w.origin(p)
		}
	}
	return before + begin + w.String() + end + after, w.charts, nil
}

// WritePage writes the page in the file source, made anew, into a folder, and its charts and no others into the folder
// performance there.
func WritePage(source, dir string, r *Report) error {
	page, err := os.ReadFile(source)
	if err != nil {
		return err
	}
	made, charts, err := Page(string(page), r)
	if err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(dir, "performance", "*.svg"))
	for _, path := range old {
		if charts[filepath.Base(path)] == "" {
			err = errors.Join(err, os.Remove(path))
		}
	}
	for name, svg := range charts {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, "performance", name), []byte(svg), 0o644))
	}
	return errors.Join(err, os.WriteFile(filepath.Join(dir, "performance.md"), []byte(made), 0o644))
}

type writer struct {
	strings.Builder
	charts map[string]string
}

func (w *writer) printf(format string, args ...any) { fmt.Fprintf(w, format, args...) }

// row writes the row of a table, head its first with the line below.
func (w *writer) row(cells ...string) { w.printf("| %s |\n", strings.Join(cells, " | ")) }

func (w *writer) head(cells ...string) {
	w.printf("\n")
	w.row(cells...)
	w.printf("%s|\n", strings.Repeat("|---", len(cells)))
}

// chart adds a chart if it has a line.
func (w *writer) chart(file string, c chart) {
	c.lines = slices.DeleteFunc(c.lines, func(l line) bool { return len(l.points) < 2 })
	if len(c.lines) > 0 {
		w.charts[file] = c.svg()
		w.printf("\n![%s](performance/%s)\n", c.title, file)
	}
}

// origin says where the figures of a part come from, and what is missing.
func (w *writer) origin(p *Part) {
	least, most := 1<<30, 0
	for _, c := range p.Cases {
		least, most = min(least, len(c.Rounds)), max(most, len(c.Rounds))
	}
	rounds := fmt.Sprintf("%d", most)
	if least < most {
		rounds = fmt.Sprintf("%d to %d", least, most)
	}
	w.printf("\n%s, revision %s, %s, medians of rounds in turns: %s.", p.Machine, p.Revision, p.Began.UTC().Format("2006-01-02"), rounds)
	if p.Short {
		w.printf(" A short run, for trying the measurement itself.")
	}
	if p.Idle < quiet {
		w.printf(" The machine had other work: %.0f %% of its CPU time were idle just before or after.", 100*p.Idle)
	}
	w.printf("\n")
	for _, c := range p.Cases {
		if c.Error != "" {
			w.printf("A round failed (%s): %s.\n", c.Command, strings.Join(strings.Fields(c.Error), " "))
		}
	}
}

// quiet is the share of idle time from which a machine counts as having no other work.
const quiet = .9

// A quantity is a figure as readers see it.
type quantity struct{ name, title, format string }

var quantities = []quantity{
	{CPU, "CPU a message", "%.2f µs"}, {PerSecond, "messages a second", ""}, {P50, "acknowledged after p50", "%.1f ms"}, {P99, "p99", "%.1f ms"},
	{Ready, "ready after", "%.2f s"}, {Memory, "process memory", "%.0f MiB"}, {PerMatch, "a match", "%.0f ns"},
}

// of gives the median of a case, "–" if it has none.
func (q quantity) of(c *Case) string {
	if c == nil {
		return "–"
	}
	v, ok := c.Median(q.name)
	switch {
	case !ok:
		return "–"
	case q.format == "":
		return thousands(v)
	}
	return fmt.Sprintf(q.format, v)
}

func thousands(v float64) string {
	s := fmt.Sprintf("%.0f", v)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + " " + s[i:]
	}
	return s
}

// against writes a figure of somebody else, and how ours compares.
func (q quantity) against(theirs, ours *Case) string {
	text := q.of(theirs)
	if theirs == nil || ours == nil {
		return text
	}
	a, ok := ours.Median(q.name)
	b, okB := theirs.Median(q.name)
	if ok && okB && b > 0 {
		text += fmt.Sprintf(" (×%.2f)", a/b)
	}
	return text
}

// base has a table of every window, and the curves.
func (w *writer) base(p *Part) {
	w.printf("\nThe whole proxy against Kafka clients' producers alone, with the same acks, linger, compression, keys, headers and number of\n"+
		"unacknowledged messages, and no MQTT in front%s. QoS 1, 256 bytes, 50 connections. In brackets, Sluice's figure\ndivided by theirs.\n", librdkafka(p))
	w.compare(p, "unacknowledged", func(c *Case) int { return c.Connections * c.Window }, CPU, PerSecond)
	w.curves(p, "base-cpu.svg", "CPU time for each acknowledged message", "unacknowledged messages", "µs", CPU)
	w.curves(p, "base-rate.svg", "Acknowledged messages a second", "unacknowledged messages", "a second", PerSecond)
}

func librdkafka(p *Part) string {
	if p.Librdkafka == "" {
		return ""
	}
	return " (librdkafka " + p.Librdkafka + ")"
}

func (w *writer) latency(p *Part) {
	w.printf("\nQoS 1, 256 bytes, 50 connections. Times count from when a message was due; in brackets, Sluice's divided by theirs.\n")
	w.compare(p, "messages a second", func(c *Case) int { return c.Rate }, P50, P99)
}

// compare writes a table with a column for everybody.
func (w *writer) compare(p *Part, axis string, x func(*Case) int, names ...string) {
	w.head(append([]string{axis, "", Sluice}, Others...)...)
	for _, at := range distinct(p.Cases, x) {
		find := func(who string) *Case {
			return first(p.Cases, func(c *Case) bool { return c.Who == who && x(c) == at })
		}
		for _, q := range quantities {
			if !slices.Contains(names, q.name) {
				continue
			}
			cells := []string{thousands(float64(at)), q.title, q.of(find(Sluice))}
			for _, who := range Others {
				cells = append(cells, q.against(find(who), find(Sluice)))
			}
			w.row(cells...)
		}
	}
}

func (w *writer) curves(p *Part, file, title, x, y, name string) {
	c := chart{title: title, x: x, y: y}
	for _, who := range append([]string{Sluice}, Others...) {
		c.lines = append(c.lines, curve(who, p.Cases, name, func(c *Case) (int, bool) { return c.Connections * c.Window, c.Who == who }))
	}
	w.chart(file, c)
}

// curve gives the medians of a figure over the cases that x takes.
func curve(name string, cases []*Case, figure string, x func(*Case) (int, bool)) line {
	l := line{name: name}
	for _, c := range cases {
		at, ok := x(c)
		v, measured := c.Median(figure)
		if ok && measured {
			l.points = append(l.points, [2]float64{float64(at), v})
		}
	}
	return l
}

// matrix has a row for each QoS, number of connections and compression, a column for each size.
func (w *writer) matrix(p *Part) {
	w.printf("\nCPU time of Sluice for each acknowledged message (with QoS 0, stored message), and messages a second; some 1 000 unacknowledged\n" +
		"messages in all, one for each of 10 000 connections.\n")
	sizes := distinct(p.Cases, func(c *Case) int { return c.Size })
	heads := []string{"compression", "QoS", "connections"}
	for _, size := range sizes {
		heads = append(heads, bytes(size))
	}
	w.head(heads...)
	row := func(c *Case) string {
		return fmt.Sprintf("%s | %d | %s", c.Compression, c.QoS, thousands(float64(c.Connections)))
	}
	for _, r := range distinct(p.Cases, row) {
		cells := []string{r}
		for _, size := range sizes {
			c := first(p.Cases, func(c *Case) bool { return row(c) == r && c.Size == size })
			cells = append(cells, strings.ReplaceAll(quantities[0].of(c)+", "+quantities[1].of(c), "–, –", "–"))
		}
		w.row(cells...)
	}
	byConnections := chart{title: "CPU time for each message: 256 bytes, lz4", x: "connections", y: "µs"}
	for _, qos := range distinct(p.Cases, func(c *Case) byte { return c.QoS }) {
		byConnections.lines = append(byConnections.lines, curve(fmt.Sprintf("QoS %d", qos), p.Cases, CPU, func(c *Case) (int, bool) {
			return c.Connections, c.QoS == qos && c.Size == 256 && c.Compression == "lz4"
		}))
	}
	w.chart("matrix-connections.svg", byConnections)
	bySize := chart{title: "CPU time for each message: QoS 1, 50 connections", x: "bytes", y: "µs"}
	for _, compression := range distinct(p.Cases, func(c *Case) string { return c.Compression }) {
		bySize.lines = append(bySize.lines, curve(compression, p.Cases, CPU, func(c *Case) (int, bool) {
			return c.Size, c.QoS == 1 && c.Connections == 50 && c.Compression == compression
		}))
	}
	w.chart("matrix-size.svg", bySize)
}

func bytes(n int) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%d KiB", n/1024)
}

// growth has a table and a chart for each of what grows.
func (w *writer) growth(p *Part) {
	for _, series := range distinct(p.Cases, func(c *Case) string { return c.Series }) {
		var cases []*Case
		for _, c := range p.Cases {
			if c.Series == series {
				cases = append(cases, c)
			}
		}
		var columns []quantity
		heads := []string{series}
		for _, q := range quantities {
			if first(cases, func(c *Case) bool { _, ok := c.Median(q.name); return ok }) != nil {
				columns, heads = append(columns, q), append(heads, q.title)
			}
		}
		w.head(heads...)
		for _, c := range cases {
			cells := []string{thousands(float64(c.X))}
			for _, q := range columns {
				cells = append(cells, q.of(c))
			}
			w.row(cells...)
		}
		w.printf("\n`%s`\n", cases[len(cases)-1].Command)
		if len(columns) > 0 {
			q, unit := columns[0], "µs"
			if q.name == PerMatch {
				unit = "ns"
			}
			all := curve(Sluice, cases, q.name, func(c *Case) (int, bool) { return c.X, true })
			w.chart("growth-"+strings.ReplaceAll(series, " ", "-")+".svg", chart{title: q.title + " by " + series, x: series, y: unit, lines: []line{all}})
		}
	}
}

func (w *writer) slow(p *Part) {
	w.printf("\n1 000 devices, together 1 000 messages of 256 bytes a second with QoS 1, and what they see of a client that sends as fast as it can.\n")
	w.head("beside them", "acknowledged after p50", "p99")
	for _, c := range p.Cases {
		w.row(c.Series, quantities[2].of(c), quantities[3].of(c))
	}
}

// distinct gives the values that the cases have, each once, as they come.
func distinct[T comparable](cases []*Case, f func(*Case) T) (values []T) {
	for _, c := range cases {
		if v := f(c); !slices.Contains(values, v) {
			values = append(values, v)
		}
	}
	return values
}

func first(cases []*Case, f func(*Case) bool) *Case {
	if i := slices.IndexFunc(cases, f); i >= 0 {
		return cases[i]
	}
	return nil
}
