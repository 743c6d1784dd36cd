package test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	"sluice/test/cluster"
	"sluice/test/load"
)

// TestDevicesAreDisconnectedBeforeAKafkaNodeThatHasDiedIsWaitedFor: it coordinated the consumer groups in which the instance
// reads commands, and SIGTERM comes before they have another coordinator.
func TestDevicesAreDisconnectedBeforeAKafkaNodeThatHasDiedIsWaitedFor(t *testing.T) {
	besideOthers(t)
	kafka := cluster.Need(t, cluster.Config{Own: true, Nodes: 3})
	topic, state := cluster.TopicName(t), stateTopics(t)
	require.NoError(t, kafka.CreateTopic(topic, 6, 3, nil))
	b := &fleetBench{t: t, kafka: kafka, commands: topic}
	s, _ := member(t, kafka.Brokers(), fmt.Sprintf("commands: [{topic: %q, publish: \"devices/{key}/commands\"}]\n", topic)+state)
	s.start()
	s.awaitReady()
	b.instances = append(b.instances, s)
	var way switchboard
	way.lead(s.address)
	b.devices(&load.CommandFleet{Devices: 1, QoS: 1, Dialer: way.dial})
	admin := kadm.NewClient(independent(t, kafka.Direct()))
	await(t, func() bool {
		groups, err := admin.DescribeGroups(t.Context())
		for _, g := range groups {
			if strings.HasSuffix(g.Group, "-retainer") && strings.Contains(state, strings.TrimSuffix(g.Group, "-retainer")) {
				return err == nil && g.State == "Stable" && len(g.Members) == 1
			}
		}
		return false
	}, func() string { return "the instance is a member" })
	const coordinator = 1
	lead(t, admin, func(topic string) int {
		if topic == "__consumer_offsets" {
			return coordinator
		}
		return 0
	})
	before := s.log.String()
	require.NotContains(t, before, "device disconnected")
	require.NoError(t, kafka.Kill(coordinator))
	s.terminate()
	stopped := strings.TrimPrefix(s.log.String(), before)
	gone, left := strings.Index(stopped, "device disconnected"), strings.Index(stopped, "cannot leave the consumer group")
	if left < 0 { // Kafka had another coordinator in time, which was waited for
		left = strings.Index(stopped, "stopped; everything")
	}
	require.Positive(t, left)
	require.Positive(t, gone)
	require.Less(t, gone, left, "the device hears of the stop first:\n%s", stopped)
}
