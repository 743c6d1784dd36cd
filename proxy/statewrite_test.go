package proxy

import (
	"bytes"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"sluice/kafka"
)

// TestRefusedSessionRecordsAreTriedAgainAtABoundedPace: the waits grow to a second, and the log has Kafka's words, once in
// a while.
func TestRefusedSessionRecordsAreTriedAgainAtABoundedPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		cfg := settingsFor(t, "127.0.0.1:1", 1, withWills)
		clients, err := newKafkaClients(cfg, zerolog.Nop())
		require.NoError(t, err)
		s, err := newSessions(clients, nil, nil, zerolog.New(&log), prometheus.NewRegistry())
		require.NoError(t, err)
		sent := func() float64 { return testutil.ToFloat64(s.m.records) }

		r := &stateRecord{s: s, done: func(int64, error) { require.Fail(t, "it is not decided") }}
		r.Topic, r.Key, r.Fixed, r.Owner = cfg.Sessions.Topic, []byte("k"), true, r
		refusal := fmt.Errorf("%w: the words of Kafka", kafka.ErrUncertain)
		for i, wait := range []int{50, 100, 200, 400, 800, 1000, 1000, 1000} {
			r.RecordDone(&r.Record, refusal)
			time.Sleep(time.Duration(wait)*time.Millisecond - 1)
			synctest.Wait()
			require.Equal(t, float64(i), sent(), "try %d", i)
			time.Sleep(time.Nanosecond)
			synctest.Wait()
			require.Equal(t, float64(i+1), sent(), "try %d", i)
		}
		require.Equal(t, 8.0, testutil.ToFloat64(s.m.retries))
		require.Equal(t, 1, bytes.Count(log.Bytes(), []byte("the words of Kafka")), "one line in 5 s")
		r.RecordDone(&r.Record, kafka.ErrClosed)
		time.Sleep(time.Minute)
		require.Equal(t, 8.0, sent(), "the process stops")
	})
}
