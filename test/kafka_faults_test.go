package test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	"sluice/test/cluster"
	"sluice/test/load"
	"sluice/test/netem"
)

// faulty is Kafka with three nodes (acks=all, min.insync.replicas 2) of which something fails or changes under load.
type faulty struct {
	t     *testing.T
	kafka *cluster.Cluster
	admin *kadm.Client
	ways  []*netem.Proxy // to its nodes
	topic string         // of the load
	aside string         // another one, of what a fault happens to
	disk  string         // of node 2; "": it can't be filled
	s     *instance
}

const fullDisk = "a full disk"

// TestFaultsOfKafkaHarmNobody: whatever of Kafka fails or changes for a while, its devices with QoS 1 and 2 stay connected, and
// everything acknowledged is there once and in order.
func TestFaultsOfKafkaHarmNobody(t *testing.T) {
	besideOthers(t)
	dir := t.TempDir()
	f := &faulty{t: t, disk: filepath.Join(dir, "node-2", "data")}
	require.NoError(t, os.MkdirAll(f.disk, 0o755))
	if !smallDisk(t, f.disk) {
		f.disk = ""
	}
	f.kafka = cluster.Need(t, cluster.Config{
		Nodes: 3, Dir: dir, Env: func(int) []string { return nil }, // processes, because of the disk
		Properties: map[string]string{
			"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer", "allow.everyone.if.no.acl.found": "true",
			"super.users": "User:ANONYMOUS", // who comes without a name: the nodes, and this test
		},
		Listeners: []cluster.Listener{{Name: wayNames[0], Protocol: "SASL_PLAINTEXT", Properties: map[string]string{
			"sasl.enabled.mechanisms": "PLAIN",
			"plain.sasl.jaas.config":  `org.apache.kafka.common.security.plain.PlainLoginModule required user_sluice="secret";`,
		}, Advertise: func(_ int, addr string) string { return proxyTo(t, &f.ways, addr) }}},
	})
	f.admin = kadm.NewClient(independent(t, f.kafka.Direct()))
	f.topic = cluster.TopicName(t)
	f.aside = f.topic + "-aside"
	for _, topic := range []string{f.topic, f.aside} {
		require.NoError(t, f.kafka.CreateTopic(topic, 6, 3, nil))
	}
	f.s = serve(t, f.kafka.At(wayNames[0]), oneTopic(f.topic)+fmt.Sprintf("  - {match: \"aside/{device}\", topic: %q, key: \"{device}\"}\n", f.aside), "  producer: {compression: none}\n  sasl: {mechanism: PLAIN, username: sluice, password: secret}")
	for _, fault := range []struct {
		name string
		does func(*faulty)
	}{
		{"leaders are killed", (*faulty).leadersDie},
		{"two of three are away", (*faulty).twoAreAway},
		{"a node stands still", (*faulty).nodeStandsStill},
		{"packets to a node are swallowed", (*faulty).packetsAreSwallowed},
		{"replicas move and leaders are elected", (*faulty).replicasMove},
		{"partitions are added", (*faulty).partitionsAreAdded},
		{"a topic is deleted and made anew", (*faulty).topicIsMadeAnew},
		{"a topic may not be written", (*faulty).rightIsWithdrawn},
		{"a quota", (*faulty).quota},
		{"max.message.bytes is lowered", (*faulty).smallerMessages},
		{fullDisk, (*faulty).fullDisk},
	} {
		t.Run(fault.name, func(t *testing.T) {
			if fault.name == fullDisk && f.disk == "" {
				t.Skip("a disk of its own for a node of Kafka needs the right to mount one")
			}
			f.under(t, fault.does)
		})
	}
}

// under has devices publish while something happens.
func (f *faulty) under(t *testing.T, happens func(*faulty)) {
	f.t = t
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const devices = 10
	var fleets []*load.Fleet
	var results []chan *load.Result
	for qos := byte(1); qos <= 2; qos++ {
		fleet := &load.Fleet{Addr: f.s.address, Run: runID(), Devices: devices, QoS: qos, Version: 3 + qos, Size: 256, Rate: 500, Ping: true, Drain: 2 * time.Minute}
		done := make(chan *load.Result, 1)
		go func() { done <- fleet.Publish(ctx) }() // ends after cancel
		fleets, results = append(fleets, fleet), append(results, done)
	}
	progress := func() {
		for _, fleet := range fleets {
			f.goOn(fleet, devices)
		}
	}
	progress()
	happens(f)
	progress()
	cancel()
	for i, fleet := range fleets {
		r := <-results[i]
		require.Empty(t, r.Errors)
		require.Zero(t, r.Refused)
		exact(t, verify(t, f.kafka.Direct(), fleet.Run, r, f.topic))
	}
}

// lasts waits as long as a fault lasts.
func (f *faulty) lasts(short, long time.Duration) { <-time.After(either(short, long)) }

func (f *faulty) leadersDie() {
	for n := range either(1, 20) {
		require.NoError(f.t, f.kafka.Kill(n%3))
		f.lasts(0, 5*time.Second)
		require.NoError(f.t, f.kafka.Restart(n%3))
	}
}

func (f *faulty) twoAreAway() {
	for n := range 2 {
		require.NoError(f.t, f.kafka.Kill(n))
	}
	f.lasts(5*time.Second, time.Minute)
	for n := range 2 { // the first can't be ready without the other
		require.NoError(f.t, f.kafka.Restart(n))
	}
}

func (f *faulty) nodeStandsStill() {
	node := f.busiest()
	require.NoError(f.t, f.kafka.Pause(node))
	defer func() { require.NoError(f.t, f.kafka.Resume(node)) }()
	f.lasts(3*time.Second, 30*time.Second)
}

func (f *faulty) packetsAreSwallowed() {
	node := f.busiest()
	f.ways[node].Swallow()
	defer func() { require.NoError(f.t, f.ways[node].Heal()) }()
	f.lasts(3*time.Second, time.Minute)
}

// busiest is the node that leads most partitions of the topic.
func (f *faulty) busiest() int {
	leads := make([]int, 3)
	for _, p := range f.partitions() {
		leads[p.Leader-1]++
	}
	return slices.Index(leads, slices.Max(leads))
}

// partitionsAreAdded to a topic under load: a device may go on in another partition.
func (f *faulty) partitionsAreAdded() {
	for range either(1, 5) {
		report := f.beside(0, func(*load.Fleet) []int {
			before := len(partitionsOf(f.t, f.admin, f.aside))
			f.asks(func(ctx context.Context) error {
				answers, err := f.admin.UpdatePartitions(ctx, before+6, f.aside)
				return errors.Join(err, answers.Error())
			})
			if soak() { // a producer hears of them within a minute
				require.Eventually(f.t, func() bool { return f.written(before) }, 2*time.Minute, time.Second, "a new partition is written")
			}
			return nil
		})
		report.Spread, report.Disordered = 0, 0
		exact(f.t, report)
	}
}

// written says that a partition from a number on has records, of the topic aside.
func (f *faulty) written(from int) (yes bool) {
	f.asks(func(ctx context.Context) error {
		ends, err := f.admin.ListEndOffsets(ctx, f.aside)
		ends.Each(func(end kadm.ListedOffset) { yes = yes || int(end.Partition) >= from && end.Offset > 0 })
		return err
	})
	return yes
}

// topicIsMadeAnew while devices publish to it: what was not stored waits, unacknowledged, and is in the new one.
func (f *faulty) topicIsMadeAnew() {
	for range either(1, 5) {
		lost := func(n float64) {
			require.Eventually(f.t, func() bool { return f.s.metric("sluice_kafka_topics", "state", "lost") == n }, 2*time.Minute, 10*time.Millisecond)
		}
		exact(f.t, f.beside(0, func(fleet *load.Fleet) []int {
			f.asks(func(ctx context.Context) error {
				answers, err := f.admin.DeleteTopics(ctx, f.aside)
				return errors.Join(err, answers.Error())
			})
			lost(1)
			acked := fleet.AckedEach()
			require.Eventually(f.t, func() bool { // the last of the old one are on their way
				before := acked
				acked = fleet.AckedEach()
				return slices.Equal(before, acked)
			}, patience, 500*time.Millisecond, "nothing is acknowledged any more")
			f.lasts(0, 10*time.Second)
			require.Equal(f.t, acked, fleet.AckedEach())
			require.NoError(f.t, f.kafka.CreateTopic(f.aside, 6, 3, nil))
			lost(0)
			return acked
		}))
	}
}

// rightIsWithdrawn to write to a topic, and given back.
func (f *faulty) rightIsWithdrawn() {
	acl := func(ops ...kadm.ACLOperation) *kadm.ACLBuilder {
		return kadm.NewACLs().Topics(f.aside).ResourcePatternType(kadm.ACLPatternLiteral).Operations(ops...)
	}
	granted := acl(kadm.OpDescribe, kadm.OpDescribeConfigs, kadm.OpWrite).Allow("User:sluice").AllowHosts("*") // without one all is
	denied := acl(kadm.OpWrite).Deny("User:sluice").DenyHosts("*")
	f.grant(granted)
	defer f.withdraw(granted)
	for range either(1, 5) {
		exact(f.t, f.beside(1, func(fleet *load.Fleet) []int {
			f.grant(denied)
			require.Eventually(f.t, func() bool { return fleet.Refused() > 10 }, 2*time.Minute, 10*time.Millisecond)
			f.withdraw(denied)
			return nil
		}))
	}
}

func (f *faulty) grant(acl *kadm.ACLBuilder) {
	f.asks(func(ctx context.Context) error {
		results, err := f.admin.CreateACLs(ctx, acl)
		for _, r := range results {
			err = errors.Join(err, r.Err)
		}
		return err
	})
}

func (f *faulty) withdraw(acl *kadm.ACLBuilder) {
	f.asks(func(ctx context.Context) error {
		results, err := f.admin.DeleteACLs(ctx, acl)
		for _, r := range results {
			require.NotEmpty(f.t, r.Deleted)
			err = errors.Join(err, r.Err)
		}
		return err
	})
}

// beside has other devices publish to the topic aside while something happens to that. They stay connected, go on after it, and at
// least so many of their messages are refused. What happens gives how many each had acknowledged when the topic began anew, if it did.
func (f *faulty) beside(refused int, happens func(*load.Fleet) (from []int)) load.Report {
	ctx, cancel := context.WithCancel(f.t.Context())
	defer cancel()
	const devices = 20
	fleet := &load.Fleet{Addr: f.s.address, Run: runID(), Devices: devices, QoS: 1, Version: 5, Size: 100, Rate: 200, Topic: "aside/%d"}
	done := make(chan *load.Result, 1)
	go func() { done <- fleet.Publish(ctx) }() // ends after cancel
	f.goOn(fleet, devices)
	from := happens(fleet)
	f.goOn(fleet, devices)
	cancel()
	r := <-done
	require.Empty(f.t, r.Errors)
	require.GreaterOrEqual(f.t, r.Refused, refused)
	require.True(f.t, refused > 0 || r.Refused == 0)
	for device, n := range from {
		r.PerDevice[device] = r.PerDevice[device][n:]
	}
	return verify(f.t, f.kafka.Direct(), fleet.Run, r, f.aside)
}

// goOn waits until each device has more acknowledged.
func (f *faulty) goOn(fleet *load.Fleet, devices int) {
	require.Eventually(f.t, func() bool { return len(fleet.AckedEach()) == devices }, patience, 10*time.Millisecond)
	acked := fleet.AckedEach()
	require.Eventually(f.t, func() bool {
		for device, n := range fleet.AckedEach() {
			if n < acked[device]+20 {
				return false
			}
		}
		return true
	}, 2*time.Minute, 10*time.Millisecond, "each device has more acknowledged")
}

// replicasMove takes a replica of each partition away and gives it back, another one each time, and has another one lead.
func (f *faulty) replicasMove() {
	for n := range either(2, 12) {
		for _, count := range []int{2, 3} {
			var req kadm.AlterPartitionAssignmentsReq
			for partition := range int32(6) {
				var replicas []int32
				for i := range count {
					replicas = append(replicas, 1+(partition+int32(n+i))%3)
				}
				req.Assign(f.topic, partition, replicas)
			}
			f.asks(func(ctx context.Context) error {
				answers, err := f.admin.AlterPartitionAssignments(ctx, req)
				return errors.Join(err, answers.Error())
			})
			require.Eventually(f.t, func() bool { return f.replicas(count) }, 2*time.Minute, 100*time.Millisecond, "every partition has %d replicas in sync", count)
			f.asks(func(ctx context.Context) error {
				_, err := f.admin.ElectLeaders(ctx, kadm.ElectPreferredReplica, nil) // some have it already
				return err
			})
			require.Eventually(f.t, func() bool { return f.leads(n) }, time.Minute, 100*time.Millisecond, "the first replica of each partition leads")
		}
	}
}

// partitionsOf gives the partitions of a topic, as Kafka has them now.
func partitionsOf(t testing.TB, admin *kadm.Client, topic string) kadm.PartitionDetails {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	topics, err := admin.ListTopics(ctx, topic)
	require.NoError(t, err)
	require.NotEmpty(t, topics[topic].Partitions)
	return topics[topic].Partitions
}

func (f *faulty) partitions() kadm.PartitionDetails {
	all := partitionsOf(f.t, f.admin, f.topic)
	require.Len(f.t, all, 6)
	return all
}

// replicas says that each partition has so many replicas, all in sync.
func (f *faulty) replicas(count int) bool {
	for _, p := range f.partitions() {
		if len(p.Replicas) != count || len(p.ISR) != count {
			return false
		}
	}
	return true
}

// leads says that each partition has the leader that is its first replica after n moves.
func (f *faulty) leads(n int) bool {
	for partition, p := range f.partitions() {
		if p.Leader != 1+(partition+int32(n))%3 {
			return false
		}
	}
	return true
}

// quota lets every client write a tenth of what the devices publish, and counts that it holds them up.
func (f *faulty) quota() {
	throttled := f.s.metric("sluice_kafka_produce_throttled_seconds_total")
	of := func(op kadm.AlterClientQuotaOp) {
		f.asks(func(ctx context.Context) error {
			entity := kadm.ClientQuotaEntity{{Type: "client-id"}} // the default
			altered, err := f.admin.AlterClientQuotas(ctx, []kadm.AlterClientQuotaEntry{{Entity: entity, Ops: []kadm.AlterClientQuotaOp{op}}})
			for _, a := range altered {
				require.NoError(f.t, a.Err)
			}
			return err
		})
	}
	of(kadm.AlterClientQuotaOp{Key: "producer_byte_rate", Value: 1000 * 256 / 10 / 3})
	defer of(kadm.AlterClientQuotaOp{Key: "producer_byte_rate", Remove: true})
	require.Eventually(f.t, func() bool { return f.s.metric("sluice_kafka_produce_throttled_seconds_total") > throttled }, patience, 50*time.Millisecond)
	f.lasts(5*time.Second, time.Minute)
}

// smallerMessages has the topic take less than a batch, and than some devices' messages, which are refused beside the others'.
func (f *faulty) smallerMessages() {
	f.limit(700)
	defer f.limit(1 << 20)
	large := &load.Fleet{Addr: f.s.address, Run: runID(), Devices: 2, QoS: 1, Version: 5, Size: 2000, Rate: 50}
	r := within(f.t, large, either(3*time.Second, 30*time.Second))
	require.Empty(f.t, r.Errors)
	require.Positive(f.t, r.Refused)
	require.Zero(f.t, r.Acked)
}

func (f *faulty) limit(bytes int) {
	f.asks(func(ctx context.Context) error {
		value := fmt.Sprint(bytes)
		answers, err := f.admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "max.message.bytes", Value: &value}}, f.topic)
		for _, a := range answers {
			err = errors.Join(err, a.Err)
		}
		return err
	})
}

// fullDisk leaves a node no room for what it is to write: it gives its partitions up and ends.
func (f *faulty) fullDisk() {
	filler := filepath.Join(f.disk, "filler")
	fillDisk(f.t, filler)
	require.Eventually(f.t, func() bool {
		conn, err := net.Dial("tcp", f.kafka.Direct()[2])
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	}, time.Minute, 100*time.Millisecond, "the node ends")
	f.lasts(time.Second, 10*time.Second)
	require.NoError(f.t, os.Remove(filler))
	require.NoError(f.t, f.kafka.Kill(2))
	require.NoError(f.t, f.kafka.Restart(2))
}

// asks asks Kafka for something, in a time of its own.
func (f *faulty) asks(what func(ctx context.Context) error) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), time.Minute)
	defer cancel()
	require.NoError(f.t, what(ctx))
}

// fillDisk writes a file until there is no room for more.
func fillDisk(t *testing.T, name string) {
	t.Helper()
	file, err := os.Create(name)
	require.NoError(t, err)
	defer func() { _ = file.Close() }() // it may say again that there is no room
	for block := make([]byte, 1<<16); err == nil; {
		_, err = file.Write(block)
	}
	require.ErrorIs(t, err, errNoRoom)
}
