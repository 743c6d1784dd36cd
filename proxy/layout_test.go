package proxy

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
)

// TestPartitionsAddedToTheStateAreIgnored by those that run and by those that start later: sessions are found where they
// were.
func TestPartitionsAddedToTheStateAreIgnored(t *testing.T) {
	s := found(t, 3, toOne)
	first := s.instance()
	first.serve()
	var ids []string
	for i := range 20 {
		id := string(rune('a' + i))
		ids = append(ids, id)
		d := dial(t, first.addr, id, true)
		d.subscribe("devices/#", 1)
		require.NoError(t, d.nc.Close())
		first.stored(id)
	}
	admin := s.client()
	for _, topic := range []string{s.settings.Sessions.Topic, s.settings.Sessions.Ledger} {
		_, err := admin.UpdatePartitions(t.Context(), 7, topic)
		require.NoError(t, err)
		first.until("it sees the partitions", func() bool { return testutil.ToFloat64(first.sessions.m.ignored.WithLabelValues(topic)) == 4 })
	}
	second := s.instance()
	second.serve()
	require.EqualValues(t, 3, second.sessions.spread())
	require.Equal(t, 4.0, testutil.ToFloat64(second.sessions.m.ignored.WithLabelValues(s.settings.Sessions.Topic)))
	for i, id := range ids {
		in := []*instance{first, second}[i%2]
		lasting(id).to(t, in.addr, true)
	}
	ends, err := admin.ListEndOffsets(t.Context(), s.settings.Sessions.Topic, s.settings.Sessions.Ledger)
	require.NoError(t, err)
	ends.Each(func(o kadm.ListedOffset) {
		if o.Partition >= 3 {
			require.Zero(t, o.Offset, "nothing is written to %s %d", o.Topic, o.Partition)
		}
	})
}

// TestAStateTopicMadeAnewEndsTheInstance: what was stored in it is lost, and nothing goes on as if it were not.
func TestAStateTopicMadeAnewEndsTheInstance(t *testing.T) {
	for _, which := range []string{"sessions", "ledger"} {
		s := found(t, 2, toOne)
		in := s.instance()
		in.serve()
		topic := map[string]string{"sessions": s.settings.Sessions.Topic, "ledger": s.settings.Sessions.Ledger}[which]
		s.anew(topic, 2)
		select {
		case err := <-in.ended:
			in.ended <- nil
			require.ErrorContains(t, err, topic)
			require.ErrorContains(t, err, "deleted and made anew")
		case <-time.After(time.Minute):
			require.Fail(t, "it goes on", which)
		}
	}
}
