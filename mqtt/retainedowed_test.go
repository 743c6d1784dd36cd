package mqtt

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// place makes payload the retained message of a topic, at a place where the vault finds it.
func (w *keptWorld) place(x *Retained, topic, payload string, qos byte) *Command {
	w.t.Helper()
	at := Place{-1, int64(x.Len())}
	require.NoError(w.t, x.Set(&RetainedMessage{Topic: []byte(topic), Payload: []byte(payload), QoS: qos, Place: at}))
	w.v.mu.Lock()
	defer w.v.mu.Unlock()
	w.v.records[at] = &Command{Topic: []byte(topic), Payload: []byte(payload), QoS: qos, Retain: true, Place: at}
	return w.v.records[at]
}

// TestHandoutsAgainstAModel: however connections end, and whatever of a session was not stored when the process died, the
// application gets each retained message that its SUBACK has promised, with QoS 2 once. Once the record says that all was handed
// out, none comes again.
func TestHandoutsAgainstAModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		x := newRetained(drawn{t, rt}, 100)
		m := newKeptModel(drawn{t, rt}, func(c *Config) { smallModel(c); c.Retained = x })
		for i := range rapid.IntRange(1, 40).Draw(rt, "messages") {
			topic := string(rune('0' + i)) // in their order
			m.all = append(m.all, m.w.place(x, topic, strconv.Itoa(i), byte(rapid.IntRange(0, 2).Draw(rt, "QoS"))))
		}
		m.w.v.setPrompt(true)
		for _, d := range m.devices {
			d.c.suback(d.qos, "+")
		}
		m.w.v.setPrompt(false)
		rt.Repeat(m.steps(nil))
		clear(m.pending)
		m.w.v.setPrompt(true)
		for _, d := range m.devices {
			m.finish(rt, d)
		}
		m.save(rt)
		m.crash()
		for _, d := range m.devices {
			before := slices.Clone(d.log)
			m.finish(rt, d)
			require.Equal(rt, before, d.log)
			for number, c := range m.all {
				got := 0
				for _, n := range d.log {
					if n == number {
						got++
					}
				}
				switch qos := min(int(c.QoS), d.qos); {
				case qos == 0 || d.refused[number]:
				case qos == 1:
					require.Positive(rt, got, "%d with QoS 1 at %s: %v", number, d.id, d.log)
				default:
					require.Equal(rt, 1, got, "%d with QoS 2 at %s: %v", number, d.id, d.log)
				}
			}
		}
	})
}

// TestRecordSaysWhatIsStillOwed: from SUBACK on, until the device has it or has unsubscribed. A SUBSCRIBE that begins nothing anew
// leaves it as it is.
func TestRecordSaysWhatIsStillOwed(t *testing.T) {
	x := newRetained(t, 1000)
	w := keeping(t, func(c *Config) { c.Retained, c.CommandsInFlight = x, 1 })
	const n = 2 * portionMessages
	for i := range n {
		w.place(x, numbered(i), "x", 1)
	}
	c := w.connect(persistent(5, "dev"))
	k := func() *safe { return w.v.keeper("dev") }
	want := func(want ...string) {
		t.Helper()
		var got []string
		for _, s := range k().snapshot().Subscriptions {
			if s.Owed == nil {
				got = append(got, "-")
			} else {
				got = append(got, *s.Owed)
			}
		}
		require.Equal(t, want, got)
	}
	c.send(packet(0x82, uint16(9), props(), str("t/#"), 1, str("none"), 1))
	until(t, "it is to be stored", func() bool { return k().waits() })
	want("", "")
	w.v.setPrompt(true)
	c.expect(packet(0x90, uint16(9), props(), 1, 1))
	for i := range portionMessages - 1 {
		require.Equal(t, 1, c.obey(1, i))
	}
	first, _ := c.read()
	require.Equal(t, byte(0x33), first)
	until(t, "all the rest waits for the device", func() bool { return w.handouts() == 0 })
	want(numbered(portionMessages), "-")
	c.subscribe("t/#", 0x21) // Retain Handling 2
	want(numbered(portionMessages), "-")
	c.send(packet(0xA2, uint16(2), props(), str("t/#")))
	c.expect(c.unsuback(2, Success))
	c.subscribe("t/#", 0x21)
	want("-", "-")
}

// TestFewHandedOutMakeNoRecord of their own, and many do.
func TestFewHandedOutMakeNoRecord(t *testing.T) {
	x := newRetained(t, 1000)
	w := keeping(t, func(c *Config) { c.Retained = x })
	w.v.setPrompt(true)
	for i := range progressEvery {
		w.place(x, fmt.Sprintf("t/%d/%d", min(i, 1), i), "x", 0)
	}
	c := w.connect(persistent(5, "dev"))
	k := w.v.keeper("dev")
	c.suback(0, "t/1/#")
	for range progressEvery - 1 {
		c.read()
	}
	w.fence(c)
	require.Equal(t, 1, k.told(&k.asked))
	require.False(t, k.o.Session.HasProgressed())
	c.suback(0, "t/#")
	for range progressEvery {
		c.read()
	}
	w.fence(c)
	until(t, "a record is due", k.o.Session.HasProgressed)
	require.Nil(t, k.snapshot().Subscriptions[1].Owed)
	require.False(t, k.o.Session.HasProgressed())
}

// TestNobodyWaitsForASessionThatHasLeft, or as many would as the device comes back while Kafka can't tell what is retained.
func TestNobodyWaitsForASessionThatHasLeft(t *testing.T) {
	asked, left := make(chan []string), make(chan error)
	x, err := NewRetained(RetainedConfig{Messages: 10, Bytes: 1 << 20, CatchUp: func(ctx context.Context, filters []string, _ any) error {
		asked <- filters
		<-ctx.Done()
		left <- ctx.Err()
		return ctx.Err()
	}})
	require.NoError(t, err)
	v := newVault(t)
	v.setPrompt(true)
	w := v.start(func(c *Config) { c.Retained = x })
	c := w.connect(persistent(4, "dev"))
	c.suback(1, "t")
	for range 3 {
		require.Equal(t, []string{"t"}, <-asked)
		_ = c.nc.Close()
		require.Error(t, <-left)
		c = w.connect(persistent(4, "dev"))
		require.True(t, c.present())
	}
	require.Equal(t, []string{"t"}, <-asked)
	c.send(packet(0xA2, uint16(2), str("t")))
	c.expect(c.unsuback(2, Success))
	_ = c.nc.Close()
	require.Error(t, <-left)
	w.connect(persistent(4, "dev")).ping()
}
