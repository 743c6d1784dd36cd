package kafka

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A verdictOf is an Owner that keeps how its record ended.
type verdictOf chan error

func (o verdictOf) RecordDone(_ *Record, err error) { o <- err }

// store produces records at once, and gives how they ended.
func store(t testing.TB, p *Producer, rs ...*Record) []error {
	t.Helper()
	for _, r := range rs {
		r.Owner = make(verdictOf, 1)
		p.Produce(r)
	}
	errs := make([]error, len(rs))
	for i, r := range rs {
		select {
		case errs[i] = <-r.Owner.(verdictOf):
		case <-time.After(patience):
			require.Fail(t, "a record does not end")
		}
	}
	return errs
}

// TestATombstoneIsStoredAmongOtherRecords: for a compacted topic it is what removes a key, and an empty value is not.
func TestATombstoneIsStoredAmongOtherRecords(t *testing.T) {
	k := fake(t)
	require.NoError(t, k.CreateTopic("t", 1, map[string]string{"cleanup.policy": "compact"}))
	p := start(t, testConfig(k.ListenAddrs()))
	alone := &Record{Topic: "t", Key: []byte("alone")}
	require.Equal(t, []error{nil}, store(t, p, alone))
	rs := []*Record{{Topic: "t", Key: []byte("a"), Value: []byte("v")}, {Topic: "t", Key: []byte("gone")}, {Topic: "t", Key: []byte("empty"), Value: []byte{}}}
	require.Equal(t, []error{nil, nil, nil}, store(t, p, rs...))
	got := map[string]*kgo.Record{}
	for _, r := range read(t, k.ListenAddrs(), "t", 4)[0] {
		got[string(r.Key)] = r
	}
	require.Nil(t, got["alone"].Value)
	require.Nil(t, got["gone"].Value)
	require.NotNil(t, got["empty"].Value)
	require.Equal(t, "v", string(got["a"].Value))

	rs[0].Value, rs[1].Value = nil, []byte("again") // used again, the other way round
	require.Equal(t, []error{nil, nil}, store(t, p, rs[:2]...))
	for _, r := range read(t, k.ListenAddrs(), "t", 6)[0] {
		got[string(r.Key)] = r
	}
	require.Nil(t, got["a"].Value)
	require.Equal(t, "again", string(got["gone"].Value))
}

func TestThePartitionIsChosenByThePartitionKeyOrByTheCaller(t *testing.T) {
	const partitions = 7
	k := fake(t)
	require.NoError(t, k.CreateTopic("t", partitions, nil))
	p := start(t, testConfig(k.ListenAddrs()))
	var rs []*Record
	var want []int32
	for _, key := range []string{"device-1", "device-2", "device-3", "device-4"} {
		of := PartitionOf([]byte(key), partitions)
		rs = append(rs, &Record{Topic: "t", Key: []byte(key + "/x"), PartitionKey: []byte(key)}, &Record{Topic: "t", PartitionKey: []byte(key)}, &Record{Topic: "t", Key: []byte(key)})
		want = append(want, of, of, of)
	}
	for to := range int32(partitions) {
		rs = append(rs, &Record{Topic: "t", Key: []byte("same"), PartitionKey: []byte("same"), To: to, Fixed: true})
		want = append(want, to)
	}
	rs = append(rs, &Record{Topic: "t", Key: []byte{}, PartitionKey: []byte{}})
	want = append(want, PartitionOf([]byte{}, partitions))
	for i, err := range store(t, p, rs...) {
		require.NoError(t, err)
		require.Equal(t, want[i], rs[i].Partition, i)
	}
	stored := 0
	for at, of := range read(t, k.ListenAddrs(), "t", len(rs)) {
		for _, r := range of {
			require.Equal(t, at, r.Partition)
			stored++
		}
	}
	require.Equal(t, len(rs), stored)
}

func TestAPartitionThatTheTopicDoesNotHaveIsRefused(t *testing.T) {
	k := fake(t)
	require.NoError(t, k.CreateTopic("t", 2, nil))
	p := start(t, testConfig(k.ListenAddrs()))
	for range 2 { // before and after the topic is known
		errs := store(t, p, &Record{Topic: "t", To: -1, Fixed: true}, &Record{Topic: "t", To: 2, Fixed: true}, &Record{Topic: "t", To: 1, Fixed: true})
		require.ErrorIs(t, errs[0], ErrInvalidRecord)
		require.ErrorIs(t, errs[1], ErrInvalidRecord)
		require.True(t, Final(errs[1]))
		require.NoError(t, errs[2])
	}
}
