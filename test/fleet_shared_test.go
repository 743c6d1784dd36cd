package test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/test/clients"
)

// TestASharedSubscriptionGoesOnWithoutADeadInstance: a group has a member at each of two instances, and one of those is
// killed in the middle. Every message comes to one of the members, at least once.
func TestASharedSubscriptionGoesOnWithoutADeadInstance(t *testing.T) {
	besideOthers(t)
	b := serveExample(t)
	i := &interop{fleetBench: b, t: t, version: clients.V5, runner: clients.Go(t), base: runID()}
	dies, lives := i.subscribe(1, clients.Subscription{Filters: []string{"$share/g/s/#"}, QoS: 1}), i.subscribe(2, clients.Subscription{Filters: []string{"$share/g/s/#"}, QoS: 1})
	seen := func() map[string]bool {
		all := make(map[string]bool)
		for _, m := range append(i.got(dies, 0), i.got(lives, 0)...) {
			all[m] = true
		}
		return all
	}
	const topics = 12 // of several partitions
	each, want := either(20, 500), 0
	publish := func(when string) {
		for topic := range topics {
			var payloads []string
			for k := range each {
				payloads = append(payloads, fmt.Sprint(when, k))
			}
			i.publish(1, false, fmt.Sprintf("s/%d", topic), payloads...)
		}
		want += topics * each
	}
	// Until both instances are in the group, one of them has all partitions.
	for round := 0; len(i.got(dies, 0)) == 0 || len(i.got(lives, 0)) == 0; round++ {
		require.Less(t, round, 60, "both get some")
		publish(fmt.Sprint("before ", round, " "))
	}
	b.instances[1].kill()
	publish("after ")
	await(t, func() bool { return len(seen()) == want }, func() string { return fmt.Sprintf("%d of %d", len(seen()), want) })
	t.Logf("%d messages, %d deliveries", want, len(i.got(dies, 0))+len(i.got(lives, 0)))
}
