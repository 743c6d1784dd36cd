package bench

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// A table is names and values, one a line, readable in 80 columns.
type table struct{ b strings.Builder }

const (
	nameColumn = 17
	tableWidth = 80
)

// row writes a name and what is said of it, on as many lines as it needs; the name "" goes on with the row above.
func (t *table) row(name, format string, args ...any) {
	line := fmt.Sprintf("%-*s", nameColumn, name)
	empty := true
	for word := range strings.FieldsSeq(fmt.Sprintf(format, args...)) {
		if !empty && len(line)+1+len(word) > tableWidth {
			t.b.WriteString(strings.TrimRight(line, " ") + "\n")
			line, empty = strings.Repeat(" ", nameColumn), true
		}
		if !empty {
			line += " "
		}
		line, empty = line+word, false
	}
	t.b.WriteString(strings.TrimRight(line, " ") + "\n")
}

// times writes quantiles in columns, with their heading where it is the first.
func (t *table) times(names []string, all []*Times) {
	first := true
	for i, q := range all {
		if q == nil {
			continue
		}
		if first {
			t.b.WriteString(fmt.Sprintf("\n%-*s%9s %9s %9s %9s %9s\n", nameColumn+2, "milliseconds", "p50", "p90", "p99", "p99.9", "max"))
			first = false
		}
		t.b.WriteString(fmt.Sprintf("%-*s%9.2f %9.2f %9.2f %9.2f %9.2f\n", nameColumn+2, names[i], q.P50, q.P90, q.P99, q.P999, q.Max))
	}
}

func (t *table) connections(c Connections) {
	t.row("connections", "%s of %s in %.2f s, %s a second", Thousands(c.Made), Thousands(c.Wanted), c.Seconds, Thousands(int(c.PerSecond)))
	if c.Failed > 0 {
		t.row("", "%s could not connect", Thousands(c.Failed))
	}
	if c.Lost > 0 {
		t.row("", "%s lost, %s made again", Thousands(c.Lost), Thousands(c.Again))
	}
	for _, r := range sortedReasons(c.Reasons) {
		t.row("", "%s × %s", Thousands(c.Reasons[r]), r)
	}
}

func (t *table) flush(w io.Writer) error {
	_, err := io.WriteString(w, t.b.String())
	return err
}

// WriteTable writes what a reader wants to know.
func (p *PublishResult) WriteTable(w io.Writer) error {
	t := &table{}
	pace := "flat out"
	if p.Rate > 0 {
		pace = Thousands(p.Rate) + " a second"
	}
	window := ""
	if p.QoS > 0 {
		window = fmt.Sprintf(", window %d", p.Window)
	}
	t.row("publish", "QoS %d, %s bytes%s, %s, %.1f s", p.QoS, Thousands(p.Size), window, pace, p.Seconds)
	t.row("run", "%s", p.Run)
	t.connections(p.Connections)
	t.row("sent", "%s", Thousands(p.Sent))
	if p.QoS > 0 {
		t.row("acknowledged", "%s", Thousands(p.Acknowledged))
	}
	t.row("a second", "%s, %.1f MB", Thousands(int(p.PerSecond)), p.PerSecond*float64(p.Size)/1e6)
	late := p.Late
	if late <= p.Connections.Made { // the last of each, whose moment had just come
		late = 0
	}
	for _, n := range []struct {
		name string
		n    int
	}{{"refused", p.Refused}, {"unacknowledged", p.Unacknowledged}, {"sent again", p.Repeated}, {"due, not sent", late}} {
		if n.n > 0 {
			t.row(n.name, "%s", Thousands(n.n))
		}
	}
	for _, r := range p.Refusals {
		t.row("", "%s", r)
	}
	if n := max(p.Acknowledged, p.Sent); n > 0 && p.CPU > 0 {
		t.row("CPU of the load", "%.2f µs a message, %.2f cores", p.CPU/float64(n)*1e6, p.CPU/p.Seconds)
	}
	t.times([]string{"CONNECT", "PINGREQ", "acknowledgement"}, []*Times{p.Connections.Times, p.Connections.Pings, p.Times})
	if p.Readback != nil {
		p.Readback.table(t)
	}
	return t.flush(w)
}

func (r *Readback) table(t *table) {
	t.b.WriteString("\n")
	t.row("Kafka", "%s records in %s, read in %.1f s", Thousands(r.Records), strings.Join(r.Topics, ", "), r.Seconds)
	t.row("lost", "%s", Thousands(r.Lost))
	t.row("doubled", "%s", Thousands(r.Doubled))
	t.row("out of order", "%s", Thousands(r.Disordered))
	for _, n := range []struct {
		n    int
		name string
		text string
	}{
		{r.Repeats, "repeats", "of messages that were sent again after a lost connection"},
		{r.Unacknowledged, "more", "stored without an acknowledgement that came"},
		{r.NotStored, "not stored", "of QoS 0, which nobody promises"},
		{r.Spread, "spread", "devices with records in several partitions, so in no order between these"},
		{int(r.Deleted), "deleted", "by Kafka before they were read, so nobody knows whether they were there"},
	} {
		if n.n > 0 {
			t.row(n.name, "%s %s", Thousands(n.n), n.text)
		}
	}
	for _, e := range slices.Sorted(slices.Values(r.Examples)) {
		t.row("", "%s", e)
	}
}

// Thousands writes a number in groups of three.
func Thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + " " + s[i:]
	}
	return s
}

// WriteTable writes what a reader wants to know.
func (c *CommandsResult) WriteTable(w io.Writer) error {
	t := &table{}
	t.row("commands", "QoS %d, %s bytes, %s a second, %.1f s", c.QoS, Thousands(c.Size), Thousands(c.Rate), c.Seconds)
	t.row("run", "%s", c.Run)
	t.connections(c.Connections)
	t.row("written", "%s", Thousands(c.Written))
	if c.NotWritten > 0 {
		t.row("not written", "%s: %s", Thousands(c.NotWritten), c.WhyNot)
	}
	if c.Late > 0 {
		t.row("due, not written", "%s, while too much waited for Kafka", Thousands(c.Late))
	}
	t.row("received", "%s, %s a second", Thousands(c.Received), Thousands(int(c.PerSecond)))
	t.row("lost", "%s", Thousands(c.Lost))
	t.row("doubled", "%s", Thousands(c.Doubled))
	t.row("out of order", "%s", Thousands(c.Disordered))
	if c.NotReceived > 0 {
		t.row("not received", "%s with QoS 0, or while the device was not subscribed", Thousands(c.NotReceived))
	}
	if c.Strange > 0 {
		t.row("strange", "%s messages of no command of this run, or of another device's", Thousands(c.Strange))
	}
	for _, e := range c.Examples {
		t.row("", "%s", e)
	}
	t.times([]string{"CONNECT", "PINGREQ", "stored in Kafka", "delivered"}, []*Times{c.Connections.Times, c.Connections.Pings, c.Stored, c.Times})
	if c.Receipts != nil {
		c.Receipts.table(t)
	}
	return t.flush(w)
}
