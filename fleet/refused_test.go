package fleet

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestAttemptThatWasGivenUpLeavesTheSessionAsItWas: how long it lasts the last connection that was let in has said. A CONNECT
// that was refused, or not answered, changes nothing of that [MQTT-3.1.2-5].
func TestAttemptThatWasGivenUpLeavesTheSessionAsItWas(t *testing.T) {
	const hour = 3600
	f := func(name string, giveUp func(k *kafka, c *Claimer, acts []Action)) {
		t.Helper()
		for by, claimer := range map[string]func(a *Claimer) *Claimer{
			"here":      func(a *Claimer) *Claimer { return a },
			"elsewhere": func(*Claimer) *Claimer { return NewClaimer(&Writer{"B", "tx-B"}) },
		} {
			for _, expiry := range []uint32{0, 1, NeverExpires} {
				k := newKafka(t)
				a, state := k.open("A")
				final := *state
				final.Expiry, final.Subs = hour, []Sub{{Filter: "x"}}
				k.run(a, a.Gone(&final, 1500, k.view("c")))

				c, req := claimer(a), request(false)
				req.Now, req.Expiry, req.Will = 1600, expiry, &Will{Topic: "another"}
				giveUp(k, c, k.untilOpening(c, c.Connect(req, k.view("c"))))
				_, s, ok := k.view("c").Base(1800)
				require.True(t, ok, "%s, %s, %d", name, by, expiry)
				require.Equal(t, []any{uint32(hour), int64(1500), (*Will)(nil)}, []any{s.Expiry, s.OfflineSince, s.Will}, "%s, %s, %d", name, by, expiry)
				_, _, ok = k.view("c").Base(1500 + hour*1000)
				require.False(t, ok, "%s, %s, %d", name, by, expiry)

				d := NewClaimer(&Writer{"D", "tx-D"})
				opened := k.opens(d, d.Connect(request(false), k.view("c")))
				require.True(t, opened.Present, "%s, %s, %d", name, by, expiry)
				require.Equal(t, final.Subs, opened.State.Subs, "%s, %s, %d", name, by, expiry)
			}
		}
	}
	f("while its opening record is under way", func(k *kafka, c *Claimer, acts []Action) {
		require.Empty(t, c.Gone(nil, 1700, k.view("c")))
		k.run(c, acts)
	})
	f("while its opening record is under way, and it has come back", func(k *kafka, c *Claimer, acts []Action) {
		require.Empty(t, c.Gone(nil, 1700, k.view("c")))
		require.Empty(t, c.Connect(request(false), k.view("c")))
		acts = k.untilOpening(c, k.untilOpening(c, acts))
		require.True(t, acts[0].Value.Opened())
		c.Gone(nil, 1750, k.view("c"))
		k.run(c, acts)
	})
	f("when its opening record is stored, and not read back", func(k *kafka, c *Claimer, acts []Action) {
		before := k.view("c")
		offset := k.append(SessionKey("c", c.by.Inc), encode(t, acts[0].Value))
		require.Empty(t, c.Wrote(offset, before))
		acts = c.Gone(nil, 1700, before)
		k.read()
		k.run(c, acts)
	})
	f("when it was open", func(k *kafka, c *Claimer, acts []Action) {
		require.Equal(t, ActOpened, k.run(c, acts)[0].Kind)
		k.run(c, c.Gone(nil, 1700, k.view("c")))
	})
	f("when it was open, and Kafka does not take the state", func(k *kafka, c *Claimer, acts []Action) {
		k.run(c, acts)
		require.Equal(t, []ActionKind{ActWrite}, kinds(c.Gone(nil, 1700, k.view("c"))))
		k.run(c, c.Failed(k.view("c")))
	})
	f("for a later one elsewhere, which is given up too", func(k *kafka, c *Claimer, acts []Action) {
		k.run(c, acts)
		d := NewClaimer(&Writer{"D", "tx-D"})
		require.Equal(t, []ActionKind{ActWait}, kinds(k.run(d, d.Connect(request(false), k.view("c")))))
		require.Equal(t, []ActionKind{ActLost}, kinds(c.Read(k.view("c"))))
		k.run(c, c.Gone(nil, 1700, k.view("c")))
		k.opens(d, d.Read(k.view("c")))
		k.run(d, d.Gone(nil, 1750, k.view("c")))
	})
}

// untilOpening carries out the writes of acts until one opens a session, and returns that.
func (k *kafka) untilOpening(c *Claimer, acts []Action) []Action {
	k.t.Helper()
	for {
		switch a := acts[0]; {
		case a.Kind == ActLedger:
			acts = append(acts[1:], c.LedgerRead(k.view("c"))...)
		case a.Kind == ActWrite && c.writing == writeOpening && c.phase == phaseOpening:
			return acts
		default:
			require.Equal(k.t, ActWrite, a.Kind)
			acts = append(acts[1:], c.Wrote(k.session("c", c.by.Inc, a.Value), k.view("c"))...)
		}
	}
}

// TestSessionLastsAsBeforeUntilTheDeviceIsTold: whoever takes over from an instance that is silent, or dead, can't know whether it has
// refused the CONNECT. Once the device was told, it lasts as long as that asked for.
func TestSessionLastsAsBeforeUntilTheDeviceIsTold(t *testing.T) {
	f := func(dead, told bool) {
		t.Helper()
		k := newKafka(t)
		a, state := k.open("A")
		final := *state
		final.Expiry = 3600
		k.run(a, a.Gone(&final, 1500, k.view("c")))
		req := request(false)
		req.Expiry = 0
		b := NewClaimer(&Writer{"B", "tx-B"})
		require.Zero(t, k.opens(b, b.Connect(req, k.view("c"))).State.Expiry)
		if told {
			k.run(b, b.Told(k.view("c")))
			require.Empty(t, b.Told(k.view("c")))
		}
		if dead {
			k.verdict("B")
		}
		d := NewClaimer(&Writer{"D", "tx-D"})
		require.Equal(t, !told, k.opens(d, d.Connect(request(false), k.view("c"))).Present, "dead %t, told %t", dead, told)
	}
	f(false, false)
	f(false, true)
	f(true, false)
	f(true, true)
}
