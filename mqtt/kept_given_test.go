package mqtt

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestQoS0ThatAnotherServerMayHaveSentIsNotSentAgain, whether it is replayed or comes live, while that with QoS 1 is; and who
// goes on with the session knows it, as long as the session has not come so far [MQTT-4.3.1-1].
func TestQoS0ThatAnotherServerMayHaveSentIsNotSentAgain(t *testing.T) {
	const tail, given, end = 4, 8, 10
	for _, connected := range []bool{false, true} {
		for _, early := range []bool{false, true} {
			t.Run(fmt.Sprintf("connected %v, early %v", connected, early), func(t *testing.T) {
				w := keeping(t, func(c *Config) { c.CommandsInFlight = end })
				w.v.setPrompt(true)
				w.v.mu.Lock()
				w.v.next[1] = tail
				for i := range int64(end) {
					p := Place{1, i}
					w.v.records[p] = &Command{Topic: []byte("t"), Payload: fmt.Append(nil, i), QoS: byte(i % 2), Connected: connected, Place: p}
				}
				w.v.mu.Unlock()
				w.deposits(deposit{snapshot: Snapshot{
					Subscriptions: []Subscription{{Filter: "t", QoS: 1}}, Next: []Place{{1, 0}}, Given: []Place{{1, given}},
				}})
				c := w.stored(5, "dev")
				require.True(t, c.present())
				k := w.v.keeper("dev")
				require.Equal(t, []Place{{1, given}}, k.snapshot().Given)
				until(t, "its connection is there", func() bool { _, ok := k.o.Session.At(1); return ok })
				require.Empty(t, w.readsOn(tail, end, early))
				w.s.Flush()
				first := 0
				if connected {
					first = tail // what came before was for who was there
				}
				id := uint16(0)
				for i := first; i < end; i++ {
					switch {
					case i%2 == 1:
						id++
						c.gets(i, 1, 1, id)
						c.send(puback(id))
					case i >= given:
						c.gets(i, 1, 0, 0)
					}
				}
				c.ping()
				s := k.snapshot()
				require.Equal(t, []Place{{1, end}}, s.Next)
				require.Empty(t, s.Given, "it has passed it")
				w.settled()
				var perhaps []string
				for c, fates := range w.fates {
					if fates[0].reason == reasonPerhapsSent {
						perhaps = append(perhaps, string(c.Payload))
					}
				}
				require.ElementsMatch(t, []string{"0", "2", "4", "6"}[first/2:], perhaps)
			})
		}
	}
}

// TestSessionForgetsWhatOthersHadComeTo once it is as far, also if nothing comes for it: a map for each stream of commands would
// stay as long as the session is here, and in its record.
func TestSessionForgetsWhatOthersHadComeTo(t *testing.T) {
	const streams, tail, end = 100, 4, 8
	w := keeping(t, nil)
	w.v.setPrompt(true)
	snapshot := Snapshot{Subscriptions: []Subscription{{Filter: "t", QoS: 1}}}
	for stream := range int32(streams) {
		w.v.next[stream+1] = tail
		at := Place{stream + 1, end}
		snapshot.Given, snapshot.Met = append(snapshot.Given, at), append(snapshot.Met, Place{stream + 1, end - 1})
		w.v.before = append(w.v.before, at)
	}
	w.deposits(deposit{snapshot: snapshot})
	fresh := w.stored(5, "fresh")
	c := w.stored(5, "dev")
	require.True(t, c.present())
	held := func(id string) (n int) {
		o := w.v.keeper(id).o.Session.lock()
		defer o.mu.Unlock()
		return len(o.past) + len(o.before) + len(o.given)
	}
	require.Equal(t, 2*streams, held("dev"))
	require.Equal(t, streams, held("fresh"))
	k := w.v.keeper("dev")
	pass := func(next int64) {
		w.v.mu.Lock()
		defer w.v.mu.Unlock()
		for stream := range w.v.next {
			w.v.next[stream] = next
		}
	}
	require.False(t, k.o.Session.HasProgressed())
	pass(end - 1)
	require.False(t, k.o.Session.HasProgressed())
	require.Len(t, k.snapshot().Given, streams)
	require.Equal(t, streams, held("dev"))
	pass(end)
	require.True(t, k.o.Session.HasProgressed(), "its record says less from now on")
	require.False(t, k.o.Session.HasProgressed(), "once")
	require.Empty(t, k.snapshot().Given)
	require.Zero(t, held("dev"))
	require.False(t, w.v.keeper("fresh").o.Session.HasProgressed())
	require.Zero(t, held("fresh"))
	fresh.ping()
}
