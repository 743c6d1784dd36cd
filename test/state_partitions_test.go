package test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	"sluice/test/cluster"
	"sluice/test/internal/wire"
)

// topics names the topics of a stateBench.
func (b *stateBench) topics() map[string]string {
	return map[string]string{"sessions": b.sessions, "ledger": strings.Replace(b.sessions, "-sessions-", "-ledger-", 1), "retained": b.retained}
}

// TestPartitionsAddedToTopicsOfTheStateAreIgnored by the process that runs and by the next one: devices are served, and
// their sessions and retained messages are found.
func TestPartitionsAddedToTopicsOfTheStateAreIgnored(t *testing.T) {
	besideOthers(t)
	b := newStateBench(t, cluster.Shared(t))
	b.restart()
	const devices = 12 // of which some would be looked for in the new partitions
	state := func(d int) string { return "devices/state/telemetry/" + string(rune('a'+d)) }
	come := func(d int, present bool) *wireDevice {
		c := sayHello(t, b.address, wire.Hello{Version: 5, ID: state(d), Persist: true, Properties: wire.Properties(0x11, uint32(600))})
		require.Equal(t, present, c.present, state(d))
		return c
	}
	keep := func(c *wireDevice, d int, value string) {
		t.Helper()
		for qos := byte(1); qos <= 2; qos++ {
			require.Zero(t, c.publish(wire.Publish{Topic: state(d), QoS: qos, Retain: true, Payload: value}))
		}
	}
	finds := func(value string) {
		t.Helper()
		c := sayHello(t, b.address, wire.Hello{Version: 5, ID: "reader"})
		require.Zero(t, c.subscribe("devices/state/#", 0))
		got := map[string]string{}
		for len(got) < devices {
			m := c.message()
			got[m.topic] = m.payload
		}
		for d := range devices {
			require.Equal(t, value, got[state(d)])
		}
		require.NoError(t, c.Close())
	}
	var before []*wireDevice
	for d := range devices {
		before = append(before, come(d, false))
		keep(before[d], d, "old")
	}
	admin := kadm.NewClient(independent(t, b.kafka.Brokers()))
	for _, topic := range b.topics() {
		added, err := admin.CreatePartitions(t.Context(), 1, topic)
		require.NoError(t, err)
		require.NoError(t, added.Error())
	}
	noticed := func() {
		t.Helper()
		for _, topic := range b.topics() {
			await(t, func() bool {
				_, metrics := b.get("/metrics")
				return strings.Contains(metrics, fmt.Sprintf("sluice_session_ignored_partitions{kafka_topic=%q} 1\n", topic))
			}, func() string { return "it does not see the partition of " + topic })
			require.Contains(t, b.log.String(), "those that were added are ignored")
		}
	}
	noticed()
	for d, c := range before {
		keep(c, d, "new")
		come(d, true) // takes the session over
	}
	finds("new")
	require.Zero(t, b.terminate())

	b.restart()
	noticed()
	finds("new")
	for d := range devices {
		keep(come(d, true), d, "newer")
	}
	finds("newer")
	require.Zero(t, b.metric("sluice_mqtt_recovered_panics_total"))
	require.Zero(t, b.terminate())
	for _, topic := range b.topics() {
		ends, err := admin.ListEndOffsets(t.Context(), topic)
		require.NoError(t, err)
		require.Zero(t, ends[topic][6].Offset, "nothing is written to the partition that was added")
	}
}

// TestATopicOfTheStateMadeAnewEndsTheProcess with a line that says so, and so does the next start if the new one has fewer
// partitions than the fleet was laid out with.
func TestATopicOfTheStateMadeAnewEndsTheProcess(t *testing.T) {
	for _, which := range []string{"sessions", "ledger", "retained"} {
		t.Run(which, func(t *testing.T) {
			besideOthers(t)
			b := newStateBench(t, cluster.Shared(t))
			topic := b.topics()[which]
			ends := func(begin func()) {
				t.Helper()
				before := len(b.log.String())
				begin()
				begun := time.Now()
				await(t, func() bool { return !b.running() }, func() string { return "it goes on" })
				t.Logf("ended after %v", time.Since(begun))
				require.Equal(t, 1, b.cmd.ProcessState.ExitCode())
				said := b.log.String()[before:]
				require.NotContains(t, b.log.String(), "panic")
				require.Contains(t, said, topic)
				require.Contains(t, said, "deleted and made anew")
			}
			b.restart()
			ends(func() {
				require.NoError(t, b.kafka.DeleteTopic(topic))
				require.NoError(t, b.kafka.CreateTopic(topic, 5, 1, map[string]string{"cleanup.policy": "compact"}))
			})
			if which == "sessions" { // which has said how many there are to be: the ledger has another number
				b.start()
				await(t, func() bool { return !b.running() }, func() string { return "it goes on" })
				require.Equal(t, 1, b.cmd.ProcessState.ExitCode())
				require.Contains(t, b.log.String(), "must have the same number of partitions, and have 5 and 6")
				return
			}
			ends(b.start)
		})
	}
}
