package proxy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"sluice/kafka"
	"sluice/mqtt"
	"sluice/proxy/config"
)

func retainedTableForTests(t testing.TB) *retainedTable {
	t.Helper()
	index, err := mqtt.NewRetained(plenty)
	require.NoError(t, err)
	m, err := newRetainedMetrics(prometheus.NewPedanticRegistry())
	require.NoError(t, err)
	return newRetainedTable(index, m, zerolog.Nop())
}

// all gives the messages of the index in one line each.
func (t *retainedTable) all() (all []string) {
	t.index.Match("#", "", 1<<20, func(m *mqtt.RetainedMessage) bool {
		s := fmt.Sprintf("%s=%s qos %d from %q", m.Topic, m.Payload, m.QoS, m.ClientID)
		for _, u := range m.User {
			s += fmt.Sprintf(" %s:%s", u.Key, u.Value)
		}
		all = append(all, s)
		return true
	})
	return all
}

func TestTableFollowsTheTopic(t *testing.T) {
	table := retainedTableForTests(t)
	handle := func(want []string, key, value string, headers ...string) {
		t.Helper()
		table.handle(now("sluice-retained", key, value, headers...))
		require.Equal(t, want, table.all())
	}
	handle([]string{`a=1 qos 0 from ""`}, "a", "1")
	handle([]string{`a=2 qos 2 from "dev" x:y x:z`}, "a", "2", "sluice.v", "1", "mqtt.qos", "2", "x", "y", "mqtt.client_id", "dev", "x", "z", "mqtt.other", "?")
	handle([]string{`a=2 qos 2 from "dev" x:y x:z`, `b=1 qos 0 from ""`}, "b", "1", "mqtt.expiry", "60")
	tombstone := now("sluice-retained", "a", "")
	tombstone.Value = nil
	table.handle(tombstone)
	require.Equal(t, []string{`b=1 qos 0 from ""`}, table.all())
	handle(nil, "b", "2", "mqtt.expiry", "0")
	require.EqualValues(t, 1, testutil.ToFloat64(table.m.read[readDeleted]))
}

// TestRecordThatCannotBeReadEndsTheOneBefore: what the topic had is not its message any more.
func TestRecordThatCannotBeReadEndsTheOneBefore(t *testing.T) {
	check := func(kind retainedRead, want string, headers ...string) {
		t.Helper()
		table := retainedTableForTests(t)
		table.handle(now("sluice-retained", "a", "1"))
		r := now("sluice-retained", "a", "2", headers...)
		_, err := retainedFrom(r, new(translation))
		require.ErrorContains(t, err, want)
		table.handle(r)
		require.Empty(t, table.all())
		require.EqualValues(t, 1, testutil.ToFloat64(table.m.read[kind]))
	}
	check(readNewer, "newer version: 2", "sluice.v", "2")
	check(readInvalid, "no number", "sluice.v", "x")
	check(readInvalid, "no number", "sluice.v", "0")
	check(readInvalid, "mqtt.qos", "mqtt.qos", "3")
	check(readInvalid, "mqtt.expiry", "mqtt.expiry", "-1")
	check(readInvalid, "mqtt.content_type", "mqtt.content_type", "\xff")
	check(readInvalid, "mqtt.response_topic", "mqtt.response_topic", "a/+")
	check(readInvalid, "mqtt.payload_format", "mqtt.payload_format", "2")
	check(readInvalid, "mqtt.correlation_data", "mqtt.correlation_data", strings.Repeat("x", 1<<16))
	table := retainedTableForTests(t)
	for _, key := range []string{"a/+", "\xff", strings.Repeat("x", 1<<16), "#"} {
		table.handle(now("sluice-retained", key, "x"))
	}
	table.handle(&kafka.Fetched{Value: []byte("x")})
	table.handle(&kafka.Fetched{})
	require.Zero(t, table.index.Len())
}

func TestRetainedExpiryCountsFromTheRecordsTimestamp(t *testing.T) {
	r := recordOf("sluice-retained", "a", "1", "mqtt.expiry", "60")
	r.Timestamp = time.UnixMilli(1_700_000_000_000)
	m, err := retainedFrom(r, new(translation))
	require.NoError(t, err)
	require.Equal(t, r.Timestamp.Add(time.Minute), m.Expires)
	r.Timestamp = time.Time{}
	m, err = retainedFrom(r, new(translation))
	require.NoError(t, err)
	require.Greater(t, m.Expires, time.Now().Add(50*time.Second))
}

// FuzzRetainedRecord: whatever a record holds, it is left out or makes a message that can be sent.
func FuzzRetainedRecord(f *testing.F) {
	f.Add([]byte("a/b"), []byte("1"), []byte("mqtt.qos"), []byte("2"), []byte("sluice.v"), []byte("1"), int64(1_700_000_000_000))
	f.Add([]byte("a"), []byte(""), []byte("mqtt.expiry"), []byte("4294967295"), []byte("mqtt.response_topic"), []byte("r"), int64(0))
	f.Add([]byte("#"), []byte("1"), []byte("mqtt.content_type"), []byte("\xff"), []byte("sluice.v"), []byte("9"), int64(-1))
	f.Add([]byte("\x00"), []byte("1"), []byte("u"), []byte("\xff"), []byte("mqtt.correlation_data"), []byte{}, int64(1<<62))
	f.Fuzz(func(t *testing.T, key, value, name1, value1, name2, value2 []byte, at int64) {
		table := retainedTableForTests(t)
		r := &kafka.Fetched{Topic: "sluice-retained", Key: key, Value: value, Timestamp: time.UnixMilli(at),
			Headers: []kafka.Header{{Key: name1, Value: value1}, {Key: name2, Value: value2}}}
		table.handle(r)
		require.LessOrEqual(t, table.index.Len(), 1)
		filter := "#"
		if len(key) > 0 && key[0] == '$' {
			filter = string(key)
		}
		found := 0
		table.index.Match(filter, "", 10, func(m *mqtt.RetainedMessage) bool {
			found++
			c := &command{settings: &config.Command{}}
			c.Topic, c.Payload, c.ContentType, c.ResponseTopic, c.CorrelationData = m.Topic, m.Payload, m.ContentType, m.ResponseTopic, m.CorrelationData
			c.User, c.QoS = m.User, m.QoS
			requireLegal(t, c)
			require.Equal(t, string(key), string(m.Topic))
			require.Equal(t, string(value), string(m.Payload))
			return true
		})
		require.Equal(t, table.index.Len(), found)
	})
}

// BenchmarkRetainedTable is what a record costs when an instance starts.
func BenchmarkRetainedTable(b *testing.B) {
	table := retainedTableForTests(b)
	r := now("sluice-retained", "", string(make([]byte, 100)), "sluice.v", "1", "mqtt.qos", "1", "mqtt.client_id", "device-0001")
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		n++
		r.Key = fmt.Appendf(r.Key[:0], "plants/p%03d/machines/m%05d/state", n*7919%1000, n%1_000_000/1000)
		table.handle(r)
	}
}
