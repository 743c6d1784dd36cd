package test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	"sluice/test/cluster"
	"sluice/test/netem"
)

// TestAnInstanceStartsWhileAKafkaNodeIsAway: killed, standing still, or with all packets to it swallowed, whichever of the
// three it is.
func TestAnInstanceStartsWhileAKafkaNodeIsAway(t *testing.T) {
	besideOthers(t)
	var ways []*netem.Proxy
	kafkas := cluster.Need(t, cluster.Config{Own: true, Nodes: 3, Listeners: []cluster.Listener{{Name: wayNames[0], Protocol: "PLAINTEXT",
		Advertise: func(_ int, addr string) string { return proxyTo(t, &ways, addr) }}}})
	topic := cluster.TopicName(t)
	for _, name := range []string{topic, topic + "-commands", topic + "-receipts"} {
		require.NoError(t, kafkas.CreateTopic(name, 6, 3, nil))
	}
	admin := kadm.NewClient(independent(t, kafkas.Direct()))
	s, _ := member(t, kafkas.At(wayNames[0]), fmt.Sprintf("publish: [{match: \"a/#\", topic: %q, exactly_once: true}]\ncommands: [{topic: %q, publish: \"cmd/{key}\", receipts: %q}]\n", topic, topic+"-commands", topic+"-receipts")+stateTopics(t))
	s.start()
	s.awaitReady()
	require.Zero(t, s.terminate())
	type absence struct {
		how        string
		begin, end func(node int) error
	}
	still := absence{"stopped", kafkas.Pause, kafkas.Resume}
	for _, away := range either([]absence{still}, []absence{still, {"killed", kafkas.Kill, kafkas.Restart},
		{"swallowed", func(i int) error { ways[i].Swallow(); return nil }, func(i int) error { return ways[i].Heal() }}}) {
		for node := range either(1, 3) {
			require.NoError(t, away.begin(node))
			began := time.Now()
			s.start()
			s.awaitReady()
			t.Logf("node %d is %s: ready after %v", node, away.how, time.Since(began).Round(10*time.Millisecond))
			require.NoError(t, away.end(node))
			require.Zero(t, s.terminate())
			await(t, func() bool {
				topics, err := admin.ListTopics(t.Context())
				whole := err == nil
				topics.EachPartition(func(p kadm.PartitionDetail) { whole = whole && len(p.ISR) == len(p.Replicas) })
				return whole
			}, func() string { return "all replicas are in sync" })
			_, err := admin.ElectLeaders(t.Context(), kadm.ElectPreferredReplica, nil)
			require.NoError(t, err)
		}
	}
}
