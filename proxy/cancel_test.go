package proxy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// farBehind writes what makes a cancellation lie so far behind its command that they are not read at once, and still near
// enough to be seen.
func (s *site) farBehind() {
	for range 5 {
		s.write(now("commands", "filler", strings.Repeat("x", 180_000), "name", "x"))
	}
}

// TestCancellationThatNoProcessHasReadIsSeen however the command ends which waits: by the return of its device, by the end
// of its session, or by a member of a share, and also if it is read apart from its cancellation.
func TestCancellationThatNoProcessHasReadIsSeen(t *testing.T) {
	share := strings.Replace(toAll, "fleet", "devices/{key}/x", 1)
	takesTwo := func(t *testing.T, in *instance) {
		d := lasting("d1").to(t, in.addr, true)
		for range 2 {
			d.ack(d.next(), 0)
		}
		d.nothing()
	}
	for name, c := range map[string]struct {
		rules, filter string
		end           func(t *testing.T, in *instance)
		want          []string
	}{
		"return": {toOne, "devices/+/x", takesTwo, []string{"d1 d1 cancelled (1)", "d1 d1 delivered (2)", "d1 d1 cancelled (3)", "d1 d1 delivered (4)"}},
		"Clean Start": {toOne, "devices/+/x", func(t *testing.T, in *instance) {
			connecting{id: "d1", clean: true}.to(t, in.addr, false).leave()
		}, []string{"d1 d1 cancelled (1)", "d1 d1 offline session_ended (2)", "d1 d1 cancelled (3)", "d1 d1 offline session_ended (4)"}},
		"DISCONNECT with expiry 0": {toOne + "limits: {commands_in_flight: 1, commands_queued: 1}\n", "devices/+/x", func(t *testing.T, in *instance) {
			d := lasting("d1").to(t, in.addr, true)
			require.Equal(t, "2", d.next().payload)
			d.disconnects(0)
		}, []string{"d1 d1 cancelled (1)", "d1 d1 offline not_acknowledged (2)", "d1 d1 cancelled (3)", "d1 d1 offline session_ended (4)"}},
		"share": {share, "$share/g/devices/d1/x", takesTwo, []string{"d1 cancelled (1)", "d1 d1 delivered (2)", "d1 cancelled (3)", "d1 d1 delivered (4)"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			in := begin(t, 1, c.rules)
			d := lasting("d1").to(t, in.addr, false)
			d.subscribe(c.filter, 1)
			if name == "share" { // the group has begun
				in.write(now("commands", "d1", "begin", "name", "x"))
				d.ack(d.next(), 0)
				in.became("d1 d1 delivered")
			}
			d.leave()
			in.stored("d1")
			in.stop()
			before := len(in.taken())
			command := func(id string) { in.write(now("commands", "d1", id, "name", "x", "id", id)) }
			cancel := func(id string) { in.write(now("commands", "d1", "null", headerCancel, id)) }
			command("1")
			cancel("1")
			in.farBehind()
			command("2")
			command("3")
			in.farBehind()
			cancel("3")
			command("4")
			next := in.instance()
			next.serve()
			c.end(t, next)
			next.until("receipts", func() bool { return len(next.taken()) >= before+len(c.want) })
			next.untold()
			next.stop()
			var got []string
			for _, r := range next.receipts(len(next.taken()))[before:] {
				if r.key == "d1" {
					got = append(got, r.String())
				}
			}
			require.ElementsMatch(t, c.want, got)
		})
	}
}

// TestCancellationThatWasForgottenIsSeen because it is near its command: too many others were read after it.
func TestCancellationThatWasForgottenIsSeen(t *testing.T) {
	for _, returns := range []bool{true, false} {
		t.Run(fmt.Sprint("returns ", returns), func(t *testing.T) {
			t.Parallel() // most of it is waiting
			in := prepare(t, 1, toOne)
			in.commands.withdrawn = newWithdrawn(1)
			in.serve()
			in.owned(in)
			in.behind("d1", "commands")
			in.write(now("commands", "d1", "null", headerCancel, "commands"))
			in.farBehind()
			in.write(now("commands", "d1", "null", headerCancel, "another"))
			in.until("both are read", func() bool { return in.value("sluice_command_cancel_records_total") == 2 })
			if returns {
				lasting("d1").to(t, in.addr, true).nothing()
			} else {
				connecting{id: "d1", clean: true}.to(t, in.addr, false).leave()
			}
			in.until("it is told", func() bool {
				for _, r := range in.taken() {
					if string(r.Key) == "d1" {
						return true
					}
				}
				return false
			})
			in.untold()
			in.stop()
			for _, r := range in.receipts(len(in.taken())) {
				if r.key == "d1" {
					require.Equal(t, "d1 d1 cancelled (commands)", r.String())
				}
			}
		})
	}
}

// TestCommandWithoutCorrelationDataCannotBeCancelled by a header without a value, wherever it waits; one with empty ones can.
func TestCommandWithoutCorrelationDataCannotBeCancelled(t *testing.T) {
	for _, returns := range []bool{true, false} {
		for _, restarted := range []bool{true, false} {
			t.Run(fmt.Sprint("returns ", returns, ", restarted ", restarted), func(t *testing.T) {
				t.Parallel() // most of it is waiting
				in := begin(t, 1, strings.Replace(toOne, "correlation_data", "content_type", 1))
				d := lasting("d1").to(t, in.addr, false)
				d.subscribe("devices/+/x", 1)
				d.leave()
				in.stored("d1")
				if restarted {
					in.stop()
				}
				in.write(now("commands", "d1", "stays", "name", "x", "id", "t"), now("commands", "d1", "goes", "name", "x", "id", "t", "mqtt.correlation_data", ""),
					now("commands", "d1", "null", headerCancel, ""), now("commands", "d1", "null", headerCancel, "null"))
				if restarted {
					in = in.instance()
					in.serve()
					in.owned(in)
				} else {
					in.until("they are read", func() bool { return in.value("sluice_command_cancel_records_total") == 2 })
				}
				if returns {
					d = lasting("d1").to(t, in.addr, true)
					m := d.next()
					require.Equal(t, "stays", m.payload)
					d.ack(m, 0)
					d.nothing()
					in.became("d1 d1 delivered", "d1 d1 cancelled ()")
				} else {
					connecting{id: "d1", clean: true}.to(t, in.addr, false).leave()
					in.became("d1 d1 offline session_ended", "d1 d1 cancelled ()")
				}
				in.untold()
				in.stop()
			})
		}
	}
}

// TestCancelledCommandThatWaitsAtAConnectionIsNotToldOfAsUnsent when that ends before anybody has looked after it.
func TestCancelledCommandThatWaitsAtAConnectionIsNotToldOfAsUnsent(t *testing.T) {
	in := begin(t, 1, toOne+"    offline: drop\nlimits: {commands_in_flight: 1}\n")
	for i, c := range []connecting{lasting("d1"), {id: "d2", clean: true}} {
		d := c.to(t, in.addr, false)
		d.subscribe("devices/+/x", 1)
		in.write(now("commands", c.id, "x", "name", "x"), now("commands", c.id, "x", "name", "x", "id", "1"), now("commands", c.id, "x", "name", "x", "id", "2"))
		d.next()
		in.write(now("commands", c.id, "null", headerCancel, "2"))
		in.until("it is read", func() bool { return in.value("sluice_command_cancel_records_total", "true") == float64(i+1) })
		d.leave()
	}
	lasting("d1").to(t, in.addr, true).disconnects(0)
	in.until("all are told", func() bool { return len(in.taken()) >= 6 })
	in.stop()
	in.became("d1 d1 offline not_acknowledged", "d1 d1 offline not_sent (1)", "d1 d1 cancelled (2)",
		"d2 d2 offline not_acknowledged", "d2 d2 offline not_sent (1)", "d2 d2 cancelled (2)")
}
