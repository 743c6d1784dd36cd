package kafka

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
)

// TestStateHasAsManyCopiesAsTheClusterAllows: three at most, and then two of them have what is acknowledged.
func TestStateHasAsManyCopiesAsTheClusterAllows(t *testing.T) {
	f := func(brokers, copies int, insync string) {
		t.Helper()
		c := fake(t, kfake.NumBrokers(brokers))
		a, _ := stateAdmin(t, c)
		_, err := a.EnsureState(t.Context(), []StateTopic{{Name: "s", Partitions: 4, Settings: map[string]string{"cleanup.policy": "compact"}}})
		require.NoError(t, err)
		all, err := a.Durability(t.Context(), []string{"s"})
		require.NoError(t, err)
		require.Equal(t, []Durability{{Topic: "s", Copies: copies}}, all)
		configs := c.TopicInfo("s").Configs
		require.Equal(t, "false", *configs[settingUnclean])
		if insync == "" {
			require.Nil(t, configs[settingInsync])
		} else {
			require.Equal(t, insync, *configs[settingInsync])
		}
	}
	f(1, 1, "")
	f(2, 2, "")
	f(3, 3, "2")
	f(5, 3, "2")
}

func TestRisksOfATopicAreNamed(t *testing.T) {
	f := func(copies int16, settings map[string]string, want ...string) {
		t.Helper()
		c := fake(t, kfake.NumBrokers(3))
		a, _ := stateAdmin(t, c)
		_, err := a.EnsureState(t.Context(), []StateTopic{{Name: "s", Partitions: 2, Replication: copies, Settings: settings}})
		require.NoError(t, err)
		all, err := a.Durability(t.Context(), []string{"s"})
		require.NoError(t, err)
		require.Equal(t, []Durability{{Topic: "s", Copies: int(copies), Risks: want}}, all)
	}
	f(3, nil)
	f(1, nil, "replication factor 1, 3 brokers allow 3")
	f(3, map[string]string{settingInsync: "1"}, "min.insync.replicas=1, should be 2")
	f(3, map[string]string{settingUnclean: "true"}, "unclean.leader.election.enable=true, should be false")
	f(2, map[string]string{settingUnclean: "true"}, "replication factor 2, 3 brokers allow 3", "unclean.leader.election.enable=true, should be false")
}

func TestKeysOfATransactionAreSpreadAmongSomeOfThePartitions(t *testing.T) {
	for _, key := range []string{"a", "b", "c", "foobar", "x/y"} {
		for _, c := range []struct{ among, have, want int32 }{{3, 7, 3}, {3, 3, 3}, {0, 7, 7}} {
			r := &TxRecord{Key: []byte("k"), PartitionKey: []byte(key), Among: c.among}
			id, fixed := r.partition(c.have)
			require.True(t, fixed)
			require.Equal(t, PartitionOf([]byte(key), c.want), id)
		}
	}
}
