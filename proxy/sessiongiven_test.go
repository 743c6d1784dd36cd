package proxy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/kafka/embedded"
)

// TestQoS0IsGivenOnceThoughItsHolderDiesOrStandsStill: the next holder, and a third one, give what has QoS 1, and of QoS 0 only
// what came later [MQTT-4.3.1-1]. The third knows it though the second, which has left in order, had not come so far.
func TestQoS0IsGivenOnceThoughItsHolderDiesOrStandsStill(t *testing.T) {
	for _, c := range []struct {
		name          string
		first, second func(*child)
	}{
		{"both stand still", (*child).standStill, (*child).standStill},
		{"it dies, and the next stands still", (*child).die, (*child).standStill},
		{"it stands still, and the next leaves in order", (*child).standStill, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			const text = toOne + "limits: {commands_in_flight: 1, commands_queued: 1}\nsessions: {dead_after: 8s}\n"
			s := found(t, 4, text)
			third := s.instance()
			third.serve()
			s.owned(third)
			a, b := s.child(4, text), s.child(4, text)
			write := func(id string, qos int) {
				s.write(now("commands", "d1", id, "name", "x", "id", id, "mqtt.qos", fmt.Sprint(qos)))
			}
			d := lasting("d1").to(t, a.addr, false)
			d.subscribe("devices/d1/#", 1)
			for i := range 7 {
				write(fmt.Sprint(i), i%2)
			}
			for i := range 3 { // one with QoS 1 is in flight now, and the others wait behind the next
				require.Equal(t, fmt.Sprint(i), d.next().payload)
			}
			c.first(a)
			d = lasting("d1").to(t, b.addr, true)
			require.Equal(t, "1", d.next().payload)
			write("after the first", 0)
			d.nothing()
			if c.second != nil {
				c.second(b)
			}
			s.until("the third has the session, which may need a verdict on the second", func() (ok bool) {
				var code byte
				d, ok, code = lasting("d1").try(t, third.addr)
				return ok && code == 0
			})
			for _, want := range []string{"1", "3", "5"} {
				m := d.next()
				require.Equal(t, want, m.payload)
				d.ack(m, 0)
			}
			if c.second == nil {
				require.Equal(t, "after the first", d.next().payload)
			}
			write("after the second", 0)
			require.Equal(t, "after the second", d.next().payload)
			d.nothing()
			d.leave()
			state := third.stored("d1")
			require.Empty(t, state.Given, "it has passed that")
			s.until("a receipt says so", func() bool {
				return slices.ContainsFunc(s.taken(), func(r embedded.Record) bool {
					return strings.Contains(string(r.Value), `"dropped","reason":"perhaps_sent"`)
				})
			})
		})
	}
}

// TestAnEndThatKafkaDoesNotTellIsNotMadeUp: what a session counts on then is where the devices here are, and a verdict counts on
// nothing.
func TestAnEndThatKafkaDoesNotTellIsNotMadeUp(t *testing.T) {
	t.Parallel()
	s := found(t, 2, toOne)
	in := s.instance()
	in.serve()
	in.until("the commands are followed", func() bool { return in.value("sluice_kafka_consumer_partitions") > 0 })
	known, err := in.sessions.logEnds(t.Context())
	require.NoError(t, err)
	require.Equal(t, in.sessions.Ends(), known)
	require.Equal(t, known, in.sessions.LogEnds(t.Context()))
	s.noKafka()
	ends, err := in.sessions.logEnds(t.Context())
	require.Error(t, err)
	require.Equal(t, known, ends)
	require.Nil(t, in.sessions.LogEnds(t.Context()))
}
