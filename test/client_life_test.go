package test

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/test/clients"
	"sluice/test/cluster"
)

// burst is how many messages a client publishes at once: four times the Receive Maximum that it is given.
const burst = 1000

// lifeRules take what a device publishes through Kafka and back to itself.
const lifeRules = `  - match: life/{id}
    topic: %q
    key: "{mqtt.client_id}"
`

const lifeCommands = `commands:
  - topic: %q
    publish: back/{key}
    client: "{key}"
    qos: 1
`

// A lived is one library's client in one version.
type lived struct {
	*clients.Life
	clients.Library
	id string
}

// TestClientLibrariesLiveWithUs: every client library that its registry has, as its users run it, publishes bursts that
// are larger than any window, with QoS 1 and 2, subscribes to what it publishes, loses its instance by kill -9 in the
// middle of a burst, and goes on. Nothing of it is adapted to Sluice.
func TestClientLibrariesLiveWithUs(t *testing.T) {
	besideOthers(t)
	kafka := cluster.Shared(t)
	topic := newTopic(t, kafka, 6)
	s := serve(t, kafka.Brokers(), fmt.Sprintf(lifeRules, topic), fmt.Sprintf(lifeCommands, topic))
	var all []lived
	for _, library := range clients.Libraries() {
		for _, version := range library.Versions {
			t.Run(fmt.Sprintf("%s v%d", library.Name, version), func(st *testing.T) {
				id := fmt.Sprintf("%s-v%d", library.Name, version)
				life := library.Start(t, st, s.address, version, id, "back/"+id)
				all = append(all, lived{life, library, id})
			})
		}
	}
	require.NotEmpty(t, all)
	each := func(phase string, f func(t *testing.T, c lived)) {
		for _, c := range all {
			t.Run(phase+" "+c.id, func(t *testing.T) { f(t, c) })
		}
	}
	each("subscribes", func(t *testing.T, c lived) {
		c.await(t, func(s clients.State) bool { return len(s.Connected) > 0 && s.Granted > 0 })
	})
	for i, qos := range []byte{1, 2} {
		first := i * burst
		for _, c := range all {
			require.NoError(t, c.Publish("life/"+c.id, qos, first, burst))
		}
		each(fmt.Sprintf("burst of QoS %d", qos), func(t *testing.T, c lived) {
			state := c.await(t, func(s clients.State) bool { return len(s.Acked) >= first+burst && len(s.Got) >= first+burst })
			require.Empty(t, state.Lost, "a connection ended")
			require.Empty(t, state.Dropped)
		})
	}
	for _, c := range all {
		require.NoError(t, c.Publish("life/"+c.id, 1, 2*burst, burst))
	}
	all[0].await(t, func(s clients.State) bool { return len(s.Acked) > 2*burst+burst/10 })
	s.kill()
	s.start()
	s.awaitReady()
	each("comes back", func(t *testing.T, c lived) {
		require.NoError(t, c.Publish("life/"+c.id, 1, 3*burst, 1))
		state := c.await(t, func(s clients.State) bool { return s.Acked[3*burst] > 0 && s.Got[3*burst] > 0 })
		require.Greater(t, len(state.Connected), 1, "connections")
		require.NotContains(t, state.Connected[1:], "0", "Session Present")
		c.await(t, func(s clients.State) bool { return len(s.Acked)+len(s.Dropped) > 3*burst })
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		require.NoError(t, c.End(ctx))
	})
	stored := map[string]map[int]int{}
	for _, r := range everything(t, kafka.Brokers(), topic) {
		n, err := strconv.Atoi(string(r.Value))
		require.NoError(t, err)
		if stored[string(r.Key)] == nil {
			stored[string(r.Key)] = map[int]int{}
		}
		stored[string(r.Key)][n]++
	}
	each("lost nothing", func(t *testing.T, c lived) {
		state := c.await(t, func(clients.State) bool { return true })
		for n := range 2 * burst {
			require.Equal(t, 1, stored[c.id][n], "records of message %d, acknowledged before any fault", n)
			require.Equal(t, 1, state.Acked[n], "acknowledgements of message %d", n)
		}
		for n := range state.Acked {
			require.Positive(t, stored[c.id][n], "records of message %d, which was acknowledged", n)
		}
	})
}

func (c lived) await(t *testing.T, cond func(clients.State) bool) clients.State {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := c.Await(ctx, cond)
	require.NoError(t, err, "connected %q, granted %d, acknowledged %d, received %d, dropped %d, lost %q",
		s.Connected, s.Granted, len(s.Acked), len(s.Got), len(s.Dropped), s.Lost)
	return s
}

// everything reads a topic up to its end as it is now.
func everything(t testing.TB, brokers []string, topic string) (all []*kgo.Record) {
	t.Helper()
	c, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	require.NoError(t, err)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ends, err := kadm.NewClient(c).ListEndOffsets(ctx, topic)
	require.NoError(t, err)
	left := 0
	ends.Each(func(o kadm.ListedOffset) { left += int(o.Offset) })
	for len(all) < left {
		fetches := c.PollFetches(ctx)
		require.NoError(t, ctx.Err(), "have %d of %d records of %s", len(all), left, topic)
		all = append(all, fetches.Records()...)
	}
	return all
}
