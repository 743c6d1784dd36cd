package test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	"sluice/test/cluster"
)

// TestTopicsOfTheStateAreSafeOnAStockKafka of three nodes, whose defaults are one partition and one copy: they are made with
// three copies of which two have to have what is acknowledged. Where they were made before with less, a start says so.
func TestTopicsOfTheStateAreSafeOnAStockKafka(t *testing.T) {
	besideOthers(t)
	kafka := cluster.Need(t, cluster.Config{Nodes: 3, Properties: map[string]string{
		"default.replication.factor": "1", "num.partitions": "1", "min.insync.replicas": "1"}})
	telemetry := newTopic(t, kafka, 1)
	admin := kadm.NewClient(independent(t, kafka.Brokers()))
	const risk = "kept less safely than this cluster could"
	said := func(s *instance, topic string, copies, risks int) {
		t.Helper()
		require.EqualValues(t, copies, s.metric("sluice_session_topic_replicas", topic))
		require.EqualValues(t, risks, s.metric("sluice_session_topic_risks", topic))
	}

	s := serve(t, kafka.Brokers(), oneTopic(telemetry), "")
	topics, err := admin.ListTopics(t.Context())
	require.NoError(t, err)
	names := 0
	for _, topic := range topics.Names() {
		if topic == telemetry {
			continue
		}
		names++
		require.Len(t, topics[topic].Partitions, 12, topic)
		for _, p := range topics[topic].Partitions {
			require.Len(t, p.Replicas, 3, topic)
		}
		configs, err := admin.DescribeTopicConfigs(t.Context(), topic)
		require.NoError(t, err)
		set := map[string]string{}
		for _, c := range configs[0].Configs {
			set[c.Key] = c.MaybeValue()
		}
		require.Equal(t, []string{"2", "false", "compact"}, []string{set["min.insync.replicas"], set["unclean.leader.election.enable"], set["cleanup.policy"]}, topic)
		said(s, topic, 3, 0)
	}
	require.Equal(t, 3, names, "those of sessions, ledger and retained messages")
	require.NotContains(t, s.log.String(), risk)
	require.Zero(t, s.terminate())

	// What a fleet has whose topics an earlier release, or somebody in a hurry, has made.
	one, low, fine := "sluice-one-"+cluster.TopicName(t), "sluice-low-"+cluster.TopicName(t), "sluice-fine-"+cluster.TopicName(t)
	compact := func(insync string) map[string]string {
		return map[string]string{"cleanup.policy": "compact", "min.insync.replicas": insync}
	}
	require.NoError(t, kafka.CreateTopic(one, 4, 1, compact("1")))
	require.NoError(t, kafka.CreateTopic(low, 4, 3, compact("1")))
	require.NoError(t, kafka.CreateTopic(fine, 4, 3, compact("2")))
	s, _ = member(t, kafka.Brokers(), fmt.Sprintf("publish:\n%ssessions: {topic: %q, ledger: %q}\nretained: {topic: %q}\n", oneTopic(telemetry), one, low, fine))
	s.start()
	s.awaitReady()
	said(s, one, 1, 1)
	said(s, low, 3, 1)
	said(s, fine, 3, 0)
	lines := warnings(s, risk)
	require.Contains(t, lines, "replication factor 1, 3 brokers allow 3")
	require.Contains(t, lines, "min.insync.replicas=1, should be 2")
	require.NotContains(t, lines, fine)
}
