package kafka

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func testAdmin(t testing.TB, cfg Config) *Admin {
	t.Helper()
	a, err := NewAdmin(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, a.Close()) })
	return a
}

// standsStill gives the address of a broker that takes connections and says nothing.
func standsStill(t testing.TB) (addr string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l.Addr().String()
}

// TestAnotherBrokerIsTriedBesideOneThatStandsStill: nobody waits for the time-outs.
func TestAnotherBrokerIsTriedBesideOneThatStandsStill(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "a"))
	cfg := testConfig(append([]string{standsStill(t), standsStill(t)}, c.ListenAddrs()...))
	cfg.RequestTimeout, cfg.DialTimeout = time.Hour, time.Hour
	_, err := testAdmin(t, cfg).Ensure(t.Context(), []string{"a"})
	require.NoError(t, err)
}

// TestBrokerThatStandsStillIsGivenUp long before its answer is due, and no other connection with it.
func TestBrokerThatStandsStillIsGivenUp(t *testing.T) {
	c := fake(t)
	cfg := testConfig(c.ListenAddrs())
	cfg.RequestTimeout, cfg.DialTimeout = time.Hour, time.Millisecond
	d := newDialer(time.Minute)
	defer d.close()
	conf := cfg.base(d)
	well, still := sarama.NewBroker(c.ListenAddrs()[0]), sarama.NewBroker(standsStill(t))
	require.NoError(t, d.open(well, conf))
	require.NoError(t, d.open(well, conf), "it is open")
	require.ErrorIs(t, d.open(still, conf), errStandsStill)
	_ = still.Close() // it was cut
	_, err := well.ApiVersions(&sarama.ApiVersionsRequest{})
	require.NoError(t, err)
	require.NoError(t, well.Close())
}

func TestEnsureNamesEveryMissingTopic(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "a"))
	a := testAdmin(t, testConfig(c.ListenAddrs()))
	created, err := a.Ensure(t.Context(), []string{"c", "a", "b"})
	require.Empty(t, created)
	var missing *MissingTopicsError
	require.ErrorAs(t, err, &missing)
	require.Equal(t, []string{"b", "c"}, missing.Topics)
	require.True(t, Final(err))
	_, err = a.Ensure(t.Context(), []string{"a"})
	require.NoError(t, err)
}

func TestEnsureCreatesWhatIsMissing(t *testing.T) {
	for _, brokers := range []int{1, 3} { // of three, one is the controller
		c := fake(t, kfake.NumBrokers(brokers), kfake.SeedTopics(1, "a"))
		cfg := testConfig(c.ListenAddrs())
		cfg.CreateTopics = &CreateTopics{Partitions: 7}
		a := testAdmin(t, cfg)
		created, err := a.Ensure(t.Context(), []string{"c", "a", "b"})
		require.NoError(t, err)
		require.Equal(t, []string{"b", "c"}, created)
		require.Len(t, c.PartitionInfos("b"), 7)
		created, err = a.Ensure(t.Context(), []string{"c", "a", "b"})
		require.NoError(t, err)
		require.Empty(t, created)
	}
}

func TestEnsureBelievesNoSingleAnswerThatATopicIsMissing(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "a"))
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Topic: "a", Err: kerr.UnknownTopicOrPartition, Count: 1})
	_, err := testAdmin(t, testConfig(c.ListenAddrs())).Ensure(t.Context(), []string{"a"})
	require.NoError(t, err)
}

func TestEnsureSaysWhatCannotBe(t *testing.T) {
	c := fake(t)
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Topic: "secret", Err: kerr.TopicAuthorizationFailed, Count: -1},
		kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Topic: "later", Err: kerr.InvalidReplicationFactor, Count: -1})
	cfg := testConfig(c.ListenAddrs())
	cfg.CreateTopics = &CreateTopics{}
	a := testAdmin(t, cfg)
	_, err := a.Ensure(t.Context(), []string{"secret"})
	require.ErrorIs(t, err, ErrNotAuthorized)
	_, err = a.Ensure(t.Context(), []string{"later"})
	require.ErrorContains(t, err, "later")
	require.False(t, Final(err), "a broker that is away may come back")
	_, err = a.Ensure(t.Context(), []string{"no/such"})
	require.ErrorIs(t, err, ErrInvalidRecord)
}

func TestAdminDoesNotDecideWhenKafkaIsAway(t *testing.T) {
	for _, outage := range []mode{down, swallows} {
		t.Run(fmt.Sprint(outage), func(t *testing.T) {
			c, g := gated(t, kfake.SeedTopics(1, "a"))
			a := testAdmin(t, testConfig(c.ListenAddrs()))
			require.NoError(t, a.Ping(t.Context()))
			g.set(outage)
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			require.Error(t, a.Ping(ctx))
			ctx, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			_, err := a.Ensure(ctx, []string{"missing"})
			require.Error(t, err)
			require.False(t, Final(err))
			g.set(passing)
			require.NoError(t, a.Ping(t.Context()))
		})
	}
}

func TestAdminFindsBrokersItWasNotToldOf(t *testing.T) {
	c := fake(t, kfake.NumBrokers(3), kfake.SeedTopics(1, "a"))
	addrs := c.ListenAddrs()
	a := testAdmin(t, testConfig(addrs[:1]))
	require.NoError(t, a.Ping(t.Context()))
	require.NoError(t, c.RemoveNode(0))
	require.NoError(t, a.Ping(t.Context()))
}
