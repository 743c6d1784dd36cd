package test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	"sluice/test/cluster"
	"sluice/test/load"
)

// lead has the partitions of each topic, Kafka's own too, led by the node that of names.
func lead(t testing.TB, admin *kadm.Client, of func(topic string) (node int)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	topics, err := admin.ListTopicsWithInternal(ctx)
	require.NoError(t, err)
	var req kadm.AlterPartitionAssignmentsReq
	topics.EachPartition(func(p kadm.PartitionDetail) {
		replicas := slices.Clone(p.Replicas)
		i := slices.Index(replicas, int32(of(p.Topic)+1))
		replicas[0], replicas[i] = replicas[i], replicas[0]
		req.Assign(p.Topic, p.Partition, replicas)
	})
	_, err = admin.AlterPartitionAssignments(ctx, req)
	require.NoError(t, err)
	await(t, func() bool {
		_, err := admin.ElectLeaders(ctx, kadm.ElectPreferredReplica, nil)
		topics, listed := admin.ListTopicsWithInternal(ctx)
		led := err == nil && listed == nil
		topics.EachPartition(func(p kadm.PartitionDetail) {
			led = led && p.Leader == int32(of(p.Topic)+1) && len(p.ISR) == len(p.Replicas)
		})
		return led
	}, func() string { return "the nodes lead what they are to" })
}

// TestWhatIsInFlightGoesOnWhereAFollowerWasTheLeader: commands are in flight when the node that leads them is killed, and their
// devices go on at the other instance. That one has read from the leader before, which is a follower now and does not show the
// last records. No device is taken to have what it may not have got, and each command has its receipt.
func TestWhatIsInFlightGoesOnWhereAFollowerWasTheLeader(t *testing.T) {
	besideOthers(t)
	kafka := cluster.Need(t, cluster.Config{Own: true, Nodes: 3})
	b := &fleetBench{t: t, kafka: kafka, commands: cluster.TopicName(t), receipts: cluster.TopicName(t)}
	for _, topic := range []string{b.commands, b.receipts} {
		require.NoError(t, kafka.CreateTopic(topic, 6, 0, nil))
	}
	b.serve(2, fmt.Sprintf("publish: [{match: \"#\", topic: %q}]\ncommands:\n  - topic: %q\n    publish: devices/{key}/commands\n    client: \"{key}\"\n    qos: 2\n    receipts: %q\n",
		b.receipts, b.commands, b.receipts))
	admin := kadm.NewClient(independent(t, kafka.Direct()))
	receipts, err := load.FollowReceipts(kafka.Direct(), b.receipts)
	require.NoError(t, err)
	t.Cleanup(receipts.Close)
	var way switchboard
	way.lead(b.instances[0].address)
	var fleets []*load.CommandFleet
	var writers []*load.CommandWriter
	for qos := byte(1); qos <= 2; qos++ {
		f := &load.CommandFleet{Devices: 50, QoS: qos, Dialer: way.dial}
		fleets, writers = append(fleets, f), append(writers, b.devices(f))
	}
	each := func(do func(f *load.CommandFleet, device int)) {
		for _, f := range fleets {
			for device := range f.Devices {
				do(f, device)
			}
		}
	}
	hold := func(f *load.CommandFleet, device int) { f.Hold(device) }
	move := func(to *instance) {
		way.lead(to.address)
		moved := fleets[0].Reconnects() + fleets[1].Reconnects() + 100
		each(func(f *load.CommandFleet, device int) { f.Cut(device) })
		await(t, func() bool { return fleets[0].Reconnects()+fleets[1].Reconnects() >= moved }, func() string { return "all have lost their connections" })
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		each(func(f *load.CommandFleet, device int) { require.NoError(t, f.AwaitOnline(ctx, device)) })
		each(func(f *load.CommandFleet, device int) { require.NoError(t, f.Release(device)) })
	}
	complete := func() {
		var all []load.Command
		for i, f := range fleets {
			t.Logf("QoS %d: %s", f.QoS, delivered(t, f, writers[i].Written(nil)))
			all = append(all, writers[i].Written(nil)...)
		}
		await(t, func() bool { return receipts.Report(all).Missing == 0 }, func() string { return receipts.Report(all).String() })
		r := receipts.Report(all)
		t.Log(r)
		require.Equal(t, map[string]int{"delivered": len(all)}, r.Outcomes)
		require.Empty(t, receipts.Errors())
	}
	rounds := either(1, 12)
	for round := range rounds {
		led := func(commands, others int) {
			lead(t, admin, func(topic string) int {
				if topic == b.commands {
					return commands
				}
				return others
			})
		}
		node, here, other := round%3, b.instances[round%2], b.instances[1-round%2]
		led((node+1)%3, (node+1)%3)
		for _, s := range []*instance{other, here} { // the other has something to read
			each(hold)
			for i, f := range fleets {
				b.write(writers[i], f, 1)
			}
			move(s)
			complete()
		}
		led(node, (node+1)%3)
		each(hold)
		some := fleets[0].Received() + fleets[1].Received() + 100
		for i, f := range fleets { // at once: that a record is acknowledged the followers hear with the next one, or half a second later
			b.write(writers[i], f, 1)
		}
		await(t, func() bool { return fleets[0].Received()+fleets[1].Received() >= some }, func() string { return "commands" })
		require.NoError(t, kafka.Kill(node))
		move(other)
		complete()
		if round+1 < rounds {
			require.NoError(t, kafka.Restart(node))
		}
	}
	b.healthy()
}
