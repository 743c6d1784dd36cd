package test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/test/cluster"
	"sluice/test/load"
)

// givenToShares are the log lines in which a member of a share's group is given partitions.
var givenToShares = regexp.MustCompile(`"group":"([^"]*-share-[^"]*)","gained":\d+,"partitions":(\d+)`)

// TestInstancesStayInTheirGroupsWithoutRoom: the members of one share acknowledge nothing, and their commands spend the
// memory of both instances. What there is no room for waits in Kafka, the commands of another share go on, nobody leaves
// or joins a consumer group meanwhile, and in the end all of it comes, with its receipts.
func TestInstancesStayInTheirGroupsWithoutRoom(t *testing.T) {
	besideOthers(t)
	kafka := cluster.Shared(t)
	told, plain, receipts := newTopic(t, kafka, 6), newTopic(t, kafka, 6), newTopic(t, kafka, 1)
	client := independent(t, kafka.Brokers())
	b := &fleetBench{t: t, kafka: kafka}
	b.serve(2, fmt.Sprintf(`limits: {commands_memory: 64KiB}
publish: [{match: none, topic: %q}]
commands:
  - {topic: %q, publish: "told/{key}", qos: 1, receipts: %q}
  - {topic: %q, publish: "plain/{key}", qos: 1}
`, plain, told, receipts, plain))
	members := func(filter string) *load.CommandFleet { // one at each instance
		f := &load.CommandFleet{Addrs: []string{b.instances[0].address, b.instances[1].address}, Run: runID(), Devices: 2, QoS: 1, Filter: filter, Keep: true}
		t.Cleanup(f.Stop)
		require.NoError(t, f.Start(t.Context()))
		return f
	}
	slow, swift := members("$share/a/told/#"), members("$share/b/plain/#")
	got := func(f *load.CommandFleet) (each [2]int, payloads map[string]bool) {
		payloads = map[string]bool{}
		for d := range each {
			for _, m := range f.Messages(d) {
				payloads[string(m.Payload)] = true
				each[d]++
			}
		}
		return each, payloads
	}
	written := map[string]int{}
	write := func(topic string, n int) {
		t.Helper()
		records := make([]*kgo.Record, n)
		for i := range records {
			records[i] = &kgo.Record{Topic: topic, Partition: int32(i % 6), Key: []byte("k"), Value: fmt.Appendf(nil, "%500d", written[topic]+i)}
		}
		require.NoError(t, client.ProduceSync(t.Context(), records...).FirstErr())
		written[topic] += n
	}
	comes := func(f *load.CommandFleet, topic string) {
		t.Helper()
		await(t, func() bool { _, all := got(f); return len(all) == written[topic] }, func() string {
			each, all := got(f)
			return fmt.Sprintf("%d of %d commands came, at each instance %d", len(all), written[topic], each)
		})
	}
	divided := func(f *load.CommandFleet, topic string) { // each instance has partitions of the share
		await(t, func() bool {
			write(topic, 6)
			comes(f, topic)
			each, _ := got(f)
			return each[0] > 0 && each[1] > 0
		}, func() string { return "both instances get commands" })
	}
	divided(slow, told)
	divided(swift, plain)
	said := func(text string) (times [2]int) {
		for i, s := range b.instances {
			times[i] = strings.Count(s.log.String(), text)
		}
		return times
	}
	// The groups of the shares alone, once each instance has its half of both: how often it was given partitions.
	given := func() (times [2]int, halves bool) {
		halves = true
		for i, s := range b.instances {
			last := map[string]string{}
			for _, line := range givenToShares.FindAllStringSubmatch(s.log.String(), -1) {
				times[i]++
				last[line[1]] = line[2]
			}
			halves = halves && len(last) == 2
			for _, n := range last {
				halves = halves && n == "6" // of twelve: a share reads both topics
			}
		}
		return times, halves
	}
	await(t, func() bool { _, halves := given(); return halves }, func() string { return "the groups are not divided" })
	// How each topic is divided is the strategy's: an instance may have no partition of the one whose commands are held.
	before, _ := got(slow)
	write(told, 12)
	comes(slow, told)
	reads, _ := got(slow)
	slow.Hold(0)
	slow.Hold(1)
	write(told, 600)
	await(t, func() bool {
		n := said("they wait in Kafka")
		return (n[0] > 0 || reads[0] == before[0]) && (n[1] > 0 || reads[1] == before[1])
	}, func() string { return fmt.Sprintf("there is room for all: %d", said("they wait in Kafka")) })

	joined, _ := given()
	for range either(6, 30) { // seconds: who gives its membership up for want of room does so in each
		begin := time.Now()
		write(plain, 12)
		comes(swift, plain)
		<-time.After(time.Until(begin.Add(time.Second)))
	}
	now, _ := given()
	require.Equal(t, joined, now, "nobody joins anew")
	require.Zero(t, said("membership in the consumer group is lost"))
	_, came := got(slow)
	require.Less(t, len(came), written[told], "there is still no room")

	require.NoError(t, slow.Release(0))
	require.NoError(t, slow.Release(1))
	comes(slow, told)
	all, err := load.FollowReceipts(kafka.Brokers(), receipts)
	require.NoError(t, err)
	t.Cleanup(all.Close)
	await(t, func() bool { return len(all.All()) >= written[told] }, func() string { return fmt.Sprintf("%d receipts of %d", len(all.All()), written[told]) })
	b.healthy()
}
