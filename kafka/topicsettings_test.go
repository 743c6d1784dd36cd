package kafka

import (
	"bytes"
	"testing"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// compacted are settings as state is kept with.
func compacted(name string) StateTopic {
	return StateTopic{Name: name, Partitions: 5, Replication: 1, Settings: map[string]string{
		"cleanup.policy": "compact", "min.insync.replicas": "2", "segment.ms": "3600000", "delete.retention.ms": "86400000"}}
}

// stateAdmin makes an admin that may create topics, and gives its log.
func stateAdmin(t testing.TB, c *kfake.Cluster) (*Admin, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	cfg := testConfig(c.ListenAddrs())
	cfg.CreateTopics, cfg.Logger = &CreateTopics{Partitions: 9}, zerolog.New(&log)
	return testAdmin(t, cfg), &log
}

func TestEnsureStateCreatesWhatIsMissingWithItsSettings(t *testing.T) {
	for _, brokers := range []int{1, 3} {
		c := fake(t, kfake.NumBrokers(brokers))
		a, log := stateAdmin(t, c)
		plain := compacted("b")
		plain.Partitions, plain.Replication = 0, 0
		created, err := a.EnsureState(t.Context(), []StateTopic{compacted("a"), plain})
		require.NoError(t, err)
		require.ElementsMatch(t, []string{"a", "b"}, created)
		for name, value := range compacted("a").Settings {
			require.Equal(t, value, *c.TopicInfo("a").Configs[name], name)
		}
		n, err := a.PartitionCount(t.Context(), "a")
		require.NoError(t, err)
		require.EqualValues(t, 5, n)
		n, err = a.PartitionCount(t.Context(), "b")
		require.NoError(t, err)
		require.EqualValues(t, len(c.PartitionInfos("b")), n)
		_, err = a.PartitionCount(t.Context(), "c")
		require.ErrorContains(t, err, "c")
		created, err = a.EnsureState(t.Context(), []StateTopic{compacted("a"), compacted("b")})
		require.NoError(t, err)
		require.Empty(t, created)
		require.Empty(t, log.String(), "nothing differs")
	}
}

// TestEnsureStateRefusesATopicThatForgets: Kafka would delete the state after a week.
func TestEnsureStateRefusesATopicThatForgets(t *testing.T) {
	c := fake(t)
	for name, policy := range map[string]string{"a": "delete", "b": "compact,delete", "c": "compact"} {
		require.NoError(t, c.CreateTopic(name, 1, map[string]string{"cleanup.policy": policy}))
	}
	a, _ := stateAdmin(t, c)
	_, err := a.EnsureState(t.Context(), []StateTopic{compacted("a"), compacted("b"), compacted("c")})
	require.ErrorIs(t, err, ErrUnfitTopic)
	for _, part := range []string{`"a" has cleanup.policy=delete and must have compact`, `"b" has cleanup.policy=compact,delete`, "--add-config cleanup.policy=compact"} {
		require.ErrorContains(t, err, part)
	}
	require.NotContains(t, err.Error(), `"c"`)
}

func TestEnsureStateWarnsOfSettingsThatAreOnlyWorse(t *testing.T) {
	c := fake(t)
	require.NoError(t, c.CreateTopic("low", 1, map[string]string{"cleanup.policy": "compact", "min.insync.replicas": "1", "segment.ms": "60000", "delete.retention.ms": "86400000"}))
	require.NoError(t, c.CreateTopic("high", 1, map[string]string{"cleanup.policy": "compact", "min.insync.replicas": "3", "segment.ms": "3600000", "delete.retention.ms": "86400000"}))
	a, log := stateAdmin(t, c)
	created, err := a.EnsureState(t.Context(), []StateTopic{compacted("low"), compacted("high")})
	require.NoError(t, err)
	require.Empty(t, created)
	require.Contains(t, log.String(), `"kafka_topic":"low","setting":"min.insync.replicas","value":"1","recommended":"2"`)
	require.Contains(t, log.String(), `"kafka_topic":"low","setting":"segment.ms","value":"60000","recommended":"3600000"`)
	require.NotContains(t, log.String(), `"kafka_topic":"high"`)
}

func TestEnsureStateSaysWhichRightIsMissing(t *testing.T) {
	refused := func(c *kfake.Cluster, part string) {
		t.Helper()
		a, _ := stateAdmin(t, c)
		_, err := a.EnsureState(t.Context(), []StateTopic{compacted("a")})
		require.ErrorIs(t, err, ErrNotAuthorized)
		require.ErrorContains(t, err, `"a"`)
		require.ErrorContains(t, err, part)
		require.True(t, Final(err))
	}
	mayNotCreate := fake(t)
	mayNotCreate.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Topic: "a", Err: kerr.TopicAuthorizationFailed})
	refused(mayNotCreate, "cannot create")

	mayNotLook := fake(t)
	require.NoError(t, mayNotLook.CreateTopic("a", 1, map[string]string{"cleanup.policy": "compact"}))
	mayNotLook.ControlKey(int16(kmsg.DescribeConfigs), func(req kmsg.Request) (kmsg.Response, error, bool) {
		mayNotLook.KeepControl()
		resp := req.ResponseKind().(*kmsg.DescribeConfigsResponse)
		for _, r := range req.(*kmsg.DescribeConfigsRequest).Resources {
			one := kmsg.NewDescribeConfigsResponseResource()
			one.ErrorCode, one.ResourceType, one.ResourceName = kerr.TopicAuthorizationFailed.Code, r.ResourceType, r.ResourceName
			resp.Resources = append(resp.Resources, one)
		}
		return resp, nil, true
	})
	refused(mayNotLook, "DescribeConfigs")
}

func TestEnsureStateTakesNoIllegalName(t *testing.T) {
	a, _ := stateAdmin(t, fake(t))
	_, err := a.EnsureState(t.Context(), []StateTopic{compacted("a b")})
	require.ErrorIs(t, err, ErrInvalidRecord)
}

func TestEnsureStateDecidesNothingInAnOutage(t *testing.T) {
	c, g := gated(t)
	a, _ := stateAdmin(t, c)
	g.set(down)
	_, err := a.EnsureState(t.Context(), []StateTopic{compacted("a")})
	require.Error(t, err)
	require.False(t, Final(err))
	require.NotErrorIs(t, err, ErrUnfitTopic)
	g.set(passing)
	created, err := a.EnsureState(t.Context(), []StateTopic{compacted("a")})
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, created)
}
