package proxy

import (
	"context"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"sluice/fleet"
	"sluice/kafka"
)

// TestStartRefusesTopicsThatDoNotFit and says which, and what to do.
func TestStartRefusesTopicsThatDoNotFit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		topics []kafka.StateTopic
		says   string
	}{
		{"sessions are forgotten", []kafka.StateTopic{{Name: "sluice-sessions", Partitions: 3, Replication: 1, Settings: map[string]string{"cleanup.policy": "delete"}}},
			`topic "sluice-sessions" has cleanup.policy=delete and must have compact`},
		{"the ledger is forgotten", []kafka.StateTopic{{Name: "sluice-ledger", Partitions: 3, Replication: 1, Settings: map[string]string{"cleanup.policy": "compact,delete"}}},
			`topic "sluice-ledger" has cleanup.policy=compact,delete and must have compact`},
		{"partitions differ", []kafka.StateTopic{{Name: "sluice-ledger", Partitions: 5, Replication: 1, Settings: map[string]string{"cleanup.policy": "compact"}}},
			"sluice-sessions and sluice-ledger must have the same number of partitions, and have 3 and 5"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cluster := cluster(t)
			cfg := settingsFor(t, cluster.Brokers()[0], 3, toOne)
			admin, err := kafka.NewAdmin(kafkaConfig(cfg, zerolog.Nop(), nil))
			require.NoError(t, err)
			_, err = admin.EnsureState(t.Context(), c.topics)
			require.NoError(t, err)
			require.NoError(t, admin.Close())
			p, err := New(cfg, zerolog.Nop(), prometheus.NewRegistry())
			require.NoError(t, err)
			err = p.Run(context.Background())
			require.ErrorIs(t, err, kafka.ErrUnfitTopic)
			require.ErrorContains(t, err, c.says)
		})
	}
}

// TestRecordOfANewerReleaseEndsTheProcess, at the start and later: what it can't read it can't keep.
func TestRecordOfANewerReleaseEndsTheProcess(t *testing.T) {
	t.Parallel()
	newer := func(topic string) *kafka.Fetched {
		key := fleet.SessionKey("d1", "i")
		if topic == "sluice-ledger" {
			key = fleet.LedgerWillKey("d1", 1)
		}
		return now(topic, string(key), `{"v":2}`)
	}
	for _, topic := range []string{"sluice-sessions", "sluice-ledger"} {
		for _, early := range []bool{true, false} {
			in := prepare(t, 3, toOne)
			if early {
				in.write(newer(topic))
			}
			ended := make(chan error, 1)
			go func() { ended <- in.Run(context.Background()) }() // ends with the error
			if !early {
				<-in.Serving()
				in.write(newer(topic))
			}
			err := <-ended
			require.ErrorIs(t, err, fleet.ErrNewerVersion)
			require.ErrorContains(t, err, "a newer release of Sluice has written")
		}
	}
}

// TestUnreadableRecordIsLeftOutAndCounted: one record that is not ours must not end the fleet.
func TestUnreadableRecordIsLeftOutAndCounted(t *testing.T) {
	in := prepare(t, 3, toOne)
	in.write(now("sluice-sessions", "no key of ours", "x"), now("sluice-sessions", string(fleet.SessionKey("d1", "i")), "{"), now("sluice-ledger", "?", "x"))
	in.serve()
	in.owned(in)
	require.EqualValues(t, 3, in.value("sluice_session_malformed_records_total"))
	d := lasting("d1").to(t, in.addr, false)
	d.leave()
	in.stop()
}
