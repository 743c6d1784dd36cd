package test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	"sluice/test/cluster"
	"sluice/test/internal/wire"
)

// TestNamesThatNeverExistedLeaveMaxTopicsToOthers: a faulty device invents names of Kafka topics, each of which is refused,
// and those that exist are written to all the same, up to max_topics.
func TestNamesThatNeverExistedLeaveMaxTopicsToOthers(t *testing.T) {
	besideOthers(t)
	kafka := cluster.Shared(t)
	prefix := cluster.TopicName(t)
	for n := range 3 {
		require.NoError(t, kafka.CreateTopic(fmt.Sprint(prefix, "-", n), 1, 1, nil))
	}
	s := serve(t, kafka.Brokers(), fmt.Sprintf("  - {match: \"plants/{plant}/x\", topic: \"%s-{plant}\", max_topics: 2}\n", prefix), "")
	d := sayHello(t, s.address, wire.Hello{Version: 5, ID: "d"})
	f := func(plant any, code byte) {
		t.Helper()
		require.Equal(t, code, d.publish(wire.Publish{Topic: fmt.Sprintf("plants/%v/x", plant), QoS: 1}), plant)
	}
	f(0, 0)
	for n := range 12 {
		f(fmt.Sprint("invented", n), 0x90)
	}
	f(1, 0)
	f(2, 0x97) // the third that exists
	f("another", 0x97)
	f(0, 0)
}

// TestShareNamesAndTheirGroupsAreBounded: a device that takes one share name after the other makes as many consumer groups
// as one client ID may and no more, though it leaves them and comes back; a name that is not allowed makes none; and there
// is a share left for another device.
func TestShareNamesAndTheirGroupsAreBounded(t *testing.T) {
	besideOthers(t)
	kafka := cluster.Shared(t)
	commands := newTopic(t, kafka, 1)
	b := &fleetBench{t: t, kafka: kafka}
	state := stateTopics(t)
	s, _ := member(t, kafka.Brokers(), fmt.Sprintf("publish: [{match: none, topic: %q}]\ncommands: [{topic: %q, publish: \"c/{key}\"}]\n"+
		"shares: [workers, \"team-*\"]\nlimits: {shares_per_device: 3, shared_subscriptions: 5}\n", commands, commands)+state)
	b.instances = []*instance{s}
	s.start()
	s.awaitReady()
	sessions := sessionsOf(t, state)
	admin := kadm.NewClient(independent(t, kafka.Brokers()))
	groups := func() (names []string) {
		all, err := admin.ListGroups(t.Context())
		require.NoError(t, err)
		for _, name := range all.Groups() {
			if strings.HasPrefix(name, sessions+"-share-") {
				names = append(names, name)
			}
		}
		return names
	}
	made := func(n int) {
		t.Helper()
		await(t, func() bool { return len(groups()) == n }, func() string { return fmt.Sprint(groups()) })
	}
	const granted, forbidden, spent = byte(1), byte(0x87), byte(0x97)
	greedy := func(from, groups int, want ...byte) {
		t.Helper()
		d := sayHello(t, s.address, wire.Hello{Version: 5, ID: "greedy"})
		require.Equal(t, forbidden, d.subscribe("$share/elsewhere/c/#", 1))
		var got []byte
		for n := range want {
			got = append(got, d.subscribe(fmt.Sprintf("$share/team-%d/c/#", from+n), 1))
		}
		require.Equal(t, want, got)
		made(groups)
		for n := range want {
			d.send(wire.Unsubscribe(5, 1, fmt.Sprintf("$share/team-%d/c/#", from+n)))
			d.next(wire.UNSUBACK)
		}
		require.NoError(t, d.Close())
	}
	greedy(0, 3, granted, granted, granted, spent, spent)
	greedy(10, 3, spent, spent, spent)
	greedy(0, 3, granted, granted, granted, spent) // those that it has had are there still
	worker := sayHello(t, s.address, wire.Hello{Version: 5, ID: "worker"})
	require.Equal(t, granted, worker.subscribe("$share/workers/c/#", 1))
	made(4)
	require.Equal(t, granted, worker.subscribe("$share/workers/c/x", 1)) // another filter is another share
	made(5)
	await(t, func() bool { return s.metric("sluice_mqtt_shares") == 2 }, func() string { return "there are still those that the greedy one has left" })
	third, fourth := sayHello(t, s.address, wire.Hello{Version: 5, ID: "third"}), sayHello(t, s.address, wire.Hello{Version: 5, ID: "fourth"})
	for n := range 3 {
		require.Equal(t, granted, third.subscribe(fmt.Sprintf("$share/team-%d/c/#", 20+n), 1))
	}
	require.Equal(t, spent, fourth.subscribe("$share/team-23/c/#", 1), "there are as many as limits.shared_subscriptions")
	require.Equal(t, granted, fourth.subscribe("$share/workers/c/#", 1), "of one that there is anyone may become a member")
	made(8)
	b.healthy()
}
