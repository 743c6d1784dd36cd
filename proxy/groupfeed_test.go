package proxy

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"sluice/kafka"
	"sluice/kafka/embedded"
	"sluice/mqtt"
)

// A seen is the payloads that were seen, in their order.
type seen struct {
	mu  sync.Mutex
	all []string
}

func (s *seen) add(payload []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, string(payload))
}

// Write takes a line of a log.
func (s *seen) Write(line []byte) (int, error) {
	if strings.Contains(string(line), "no room") {
		s.add(line)
	}
	return len(line), nil
}

// of gives those with a prefix.
func (s *seen) of(prefix string) (found []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.all {
		if strings.HasPrefix(p, prefix) {
			found = append(found, p)
		}
	}
	return found
}

// background runs something until the test ends.
func background(t testing.TB, run func(ctx context.Context)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { // ends with cancel
		defer close(ended)
		run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-ended })
}

// TestRecordThatIsNotTakenComesAgainInItsOrder: what follows it in its partition waits too, and nothing comes twice.
func TestRecordThatIsNotTakenComesAgainInItsOrder(t *testing.T) {
	a := share(t, cluster(t))
	var taken seen
	refused := false
	f := &groupFeed{cfg: a.shares.cfg, name: "group", c: a.c, window: 10, log: zerolog.Nop()}
	f.take = func(_ context.Context, r *kafka.Fetched, done func(bool)) bool {
		if string(r.Value) == "n3" && !refused {
			refused = true // only for this partition, so calls come one after the other
			return false
		}
		taken.add(r.Value)
		done(true)
		return true
	}
	background(t, f.run)
	until(t, "it is a member", func() bool {
		a.write("k", "probe")
		return len(taken.of("probe")) > 0
	})
	want := []string{"n1", "n2", "n3", "n4", "n5"}
	for _, p := range want {
		a.write("k", p)
	}
	until(t, "all are taken", func() bool { return len(taken.of("n")) >= len(want) })
	require.Equal(t, want, taken.of("n"))
	require.True(t, refused)
}

// retain has the instance store what commands say is to be retained.
func (s *sharing) retain(messages int) {
	s.t.Helper()
	reg := prometheus.NewRegistry()
	index, err := mqtt.NewRetained(mqtt.RetainedConfig{Messages: messages, Bytes: 1 << 20})
	require.NoError(s.t, err)
	m, err := newRetainedMetrics(reg)
	require.NoError(s.t, err)
	r := newRetainer(s.shares.cfg, "sluice-sessions", s.c, newRetainedWriter("retained", laid("retained", 1), index, s.producer, m, zerolog.Nop()))
	background(s.t, r.run)
}

// keep writes a command that is to be retained.
func (s *sharing) keep(key, payload string) {
	s.t.Helper()
	done := make(owner, 1)
	s.writer.Produce(toRecord(now("cmds", key, payload, "kind", "shared", "mqtt.retain", "true"), done))
	require.NoError(s.t, <-done)
}

func TestRetainedMessageOfACommandIsStoredByOneInstance(t *testing.T) {
	k := cluster(t)
	a, b := share(t, k), share(t, k)
	var stored seen
	background(t, func(ctx context.Context) {
		_ = k.Tail(ctx, func(r embedded.Record) {
			if r.Topic == "retained" {
				stored.add(r.Value)
			}
		})
	})
	a.retain(1000)
	b.retain(1000)
	until(t, "there are members for both partitions", func() bool {
		a.keep("even", "probe even")
		a.keep("odd2", "probe odd2")
		return len(stored.of("probe even")) > 0 && len(stored.of("probe odd2")) > 0
	})
	var want []string
	for _, p := range []string{"n1", "n2", "n3", "n4", "n5", "n6"} {
		a.write("even", p+" is not to be retained")
		a.keep("even", p)
		want = append(want, p)
	}
	until(t, "all are stored", func() bool { return len(stored.of("n")) >= len(want) })
	require.Equal(t, want, stored.of("n"), "in their order, once each")
}

// TestRetainedMessageWithoutRoomHoldsNobodyUp: it is refused for good.
func TestRetainedMessageWithoutRoomHoldsNobodyUp(t *testing.T) {
	a := share(t, cluster(t))
	m, err := newRetainedMetrics(prometheus.NewRegistry())
	require.NoError(t, err)
	index, err := mqtt.NewRetained(mqtt.RetainedConfig{Messages: 1, Bytes: 1 << 20})
	require.NoError(t, err)
	require.NoError(t, index.Set(&mqtt.RetainedMessage{Topic: []byte("taken"), Payload: []byte("x")}))
	r := newRetainer(a.shares.cfg, "sluice-sessions", a.c, newRetainedWriter("retained", laid("retained", 1), index, a.producer, m, zerolog.Nop()))
	ended := 0
	for _, rec := range []*kafka.Fetched{
		now("cmds", "k", "x", "kind", "shared", "mqtt.retain", "true"), // no room
		now("cmds", "k", "x", "kind", "shared"),                        // nothing to retain
		now("cmds", "k", "x", "mqtt.cancel", "1"),
		now("cmds", "k", "x", "kind", "shared", "mqtt.qos", "7"), // no command
	} {
		require.True(t, r.take(t.Context(), rec, func(settled bool) {
			require.True(t, settled)
			ended++
		}))
	}
	require.Equal(t, 4, ended)
}
