package proxy

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"sluice/kafka/kafkatest"

	"sluice/fleet"
)

// laid is the layout of a fleet with one topic.
func laid(topic string, partitions int32) *layout {
	return &layout{counts: fleet.Layout{Partitions: map[string]int32{topic: partitions}}}
}

// TestPartitionsAddedToTheStateAreIgnored by those that run and by those that start later: sessions are found where they
// were.
func TestPartitionsAddedToTheStateAreIgnored(t *testing.T) {
	t.Parallel()
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
	admin := s.topicAdmin()
	for _, topic := range []string{s.settings.Sessions.Topic, s.settings.Sessions.Ledger} {
		_, err := admin.UpdatePartitions(t.Context(), 7, topic)
		require.NoError(t, err)
		first.until("it sees the partitions", func() bool { return testutil.ToFloat64(first.sessions.m.ignored.WithLabelValues(topic)) == 4 })
	}
	second := s.instance()
	second.serve()
	require.EqualValues(t, 3, second.sessions.driver.Partitions())
	require.Equal(t, 4.0, testutil.ToFloat64(second.sessions.m.ignored.WithLabelValues(s.settings.Sessions.Topic)))
	for i, id := range ids {
		in := []*instance{first, second}[i%2]
		lasting(id).to(t, in.addr, true)
	}
	ends, err := admin.ListEndOffsets(t.Context(), s.settings.Sessions.Topic, s.settings.Sessions.Ledger)
	require.NoError(t, err)
	ends.Each(func(o kafkatest.ListedOffset) {
		if o.Partition >= 3 {
			require.Zero(t, o.Offset, "nothing is written to %s %d", o.Topic, o.Partition)
		}
	})
}

// TestPartitionsAddedToTheRetainedTopicAreIgnored by writers and readers, those that run and those that start later: the
// newest value of each topic is handed out, and nothing that was deleted.
func TestPartitionsAddedToTheRetainedTopicAreIgnored(t *testing.T) {
	t.Parallel()
	s := found(t, 4, once)
	topic := s.settings.Retained.Topic
	first := s.instance()
	first.serve()
	const n = 12
	// retain leaves values, or none if they are empty, by all ways that there are.
	retain := func(in *instance, value string) {
		d := dial(t, in.addr, "writer", false)
		for i := range n {
			require.Zero(t, d.retain(1, fmt.Sprint("plain/", i), value))
			require.Zero(t, d.retain(2, fmt.Sprint("once/", i), value))
		}
		for i := range n {
			will := connecting{id: fmt.Sprint("w", i), clean: true, will: fmt.Sprintf("once/will/%s/%d", value, i), retain: true}.to(t, in.addr, false)
			require.NoError(t, will.nc.Close())
		}
		require.NoError(t, d.nc.Close())
	}
	// handsOut waits until an instance hands out exactly what is wanted.
	handsOut := func(in *instance, want map[string]string) {
		t.Helper()
		in.until("the wills are published", func() bool { return in.keeping.index.Len() >= len(want) })
		d := dial(t, in.addr, "reader", false)
		d.subscribe("#", 0)
		got := map[string]string{}
		for range want {
			m := d.next()
			got[m.topic] = m.payload
		}
		require.Equal(t, want, got)
		require.Equal(t, len(want), in.keeping.index.Len())
		require.NoError(t, d.nc.Close())
	}
	want := map[string]string{}
	expect := func(value string) {
		for i := range n {
			want[fmt.Sprint("plain/", i)], want[fmt.Sprint("once/", i)] = value, value
			will := fmt.Sprintf("once/will/%s/%d", value, i)
			want[will] = will
		}
	}
	retain(first, "old")
	expect("old")
	handsOut(first, want)

	admin := s.topicAdmin()
	_, err := admin.UpdatePartitions(t.Context(), 7, topic)
	require.NoError(t, err)
	first.until("it sees the partitions", func() bool { return testutil.ToFloat64(first.sessions.m.ignored.WithLabelValues(topic)) == 3 })
	require.NoError(t, first.end())

	second := s.instance()
	second.serve()
	require.Equal(t, 3.0, testutil.ToFloat64(second.sessions.m.ignored.WithLabelValues(topic)))
	handsOut(second, want)
	retain(second, "new")
	expect("new")
	third := s.instance()
	third.serve()
	handsOut(second, want)
	handsOut(third, want)

	d := dial(t, third.addr, "writer", false)
	for topic := range want {
		require.Zero(t, d.retain(2, topic, ""))
	}
	fourth := s.instance()
	fourth.serve()
	for _, in := range []*instance{second, third, fourth} {
		in.until("all is deleted", func() bool { return in.keeping.index.Len() == 0 })
	}
	ends, err := admin.ListEndOffsets(t.Context(), topic)
	require.NoError(t, err)
	ends.Each(func(o kafkatest.ListedOffset) {
		if o.Partition >= 4 {
			require.Zero(t, o.Offset, "nothing is written to %s %d", o.Topic, o.Partition)
		}
	})
}

// TestAStateTopicMadeAnewEndsTheInstance: what was stored in it is lost, and nothing goes on as if it were not.
func TestAStateTopicMadeAnewEndsTheInstance(t *testing.T) {
	t.Parallel()
	for _, which := range []string{"sessions", "ledger", "retained"} {
		s := found(t, 2, toOne)
		in := s.instance()
		in.serve()
		topic := map[string]string{"sessions": s.settings.Sessions.Topic, "ledger": s.settings.Sessions.Ledger, "retained": s.settings.Retained.Topic}[which]
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
