package test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"sluice/test/cluster"
	"sluice/test/load"
	"sluice/test/netem"
)

// A shareBench is instances, whose ways to Kafka's nodes are their own, and commands for shared subscriptions: those
// with the key K go to all/K.
type shareBench struct {
	t         *testing.T
	kafka     *cluster.Cluster
	instances []*instance
	ways      [][]*netem.Proxy // from each instance to each of Kafka's nodes
	commands  string
	sessions  string // the prefix of the groups' names
	client    *kgo.Client

	mu  sync.Mutex
	got map[string][]gotten // by who got it
}

// gotten is a command that a device got.
type gotten struct {
	payload   string
	partition int32
	written   time.Time
	at        time.Time
}

const sharePartitions = 6

func openShares(t *testing.T, nodes, instances int) *shareBench {
	t.Helper()
	b := &shareBench{t: t, got: map[string][]gotten{}, ways: make([][]*netem.Proxy, instances)}
	cfg := cluster.Config{Nodes: nodes, Properties: map[string]string{"group.initial.rebalance.delay.ms": "3000"}}
	for i, name := range wayNames[:instances] {
		cfg.Listeners = append(cfg.Listeners, cluster.Listener{Name: name, Protocol: "PLAINTEXT",
			Advertise: func(_ int, addr string) string { return proxyTo(t, &b.ways[i], addr) }})
	}
	b.kafka = cluster.Need(t, cfg)
	b.commands = newTopic(t, b.kafka, sharePartitions)
	state := stateTopics(t)
	b.sessions = sessionsOf(t, state)
	rules := fmt.Sprintf("publish: [{match: none, topic: %q}]\ncommands: [{topic: %q, publish: \"all/{key}\", qos: 1}]\n%s", b.commands, b.commands, state)
	for _, name := range wayNames[:instances] {
		s, _ := member(t, b.kafka.At(name), rules)
		b.instances = append(b.instances, s)
		s.start()
	}
	for _, s := range b.instances {
		s.awaitReady()
	}
	b.client = independent(t, b.kafka.Direct())
	return b
}

// wayNames are Kafka's listeners for instances that each have their own way to its nodes.
var wayNames = []string{"FIRST", "SECOND", "THIRD"}

func proxyTo(t testing.TB, list *[]*netem.Proxy, addr string) string {
	p, err := netem.New(addr)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	*list = append(*list, p)
	return p.Addr()
}

// member makes a device at an instance that shares all/KEY; what it gets is noted under its name.
func (b *shareBench) member(name string, instance int, key string) *load.CommandFleet {
	b.t.Helper()
	f := &load.CommandFleet{Addr: b.instances[instance].address, Run: runID(), QoS: 1, Filter: "$share/" + key + "/all/" + key, Clean: true, Keep: true, Reconnect: true}
	f.Answer = func(_ int, m *load.Message) *load.Answer { b.note(name, string(m.Payload)); return nil }
	require.NoError(b.t, f.Start(b.t.Context()))
	b.t.Cleanup(f.Stop)
	return f
}

// note notes that somebody got a command.
func (b *shareBench) note(name, payload string) {
	g := gotten{payload: payload, at: time.Now()}
	var nanos int64
	if _, err := fmt.Sscanf(payload, "%d %d", &g.partition, &nanos); err != nil {
		b.t.Errorf("%s got %q", name, payload)
	}
	g.written = time.Unix(0, nanos)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.got[name] = append(b.got[name], g)
}

// write writes n commands with each of the keys to each partition, and gives their payloads.
func (b *shareBench) write(n int, keys ...string) (payloads []string) {
	b.t.Helper()
	var all []*kgo.Record
	for i := range n * sharePartitions {
		p := int32(i % sharePartitions)
		payloads = append(payloads, fmt.Sprintf("%d %d %d", p, time.Now().UnixNano(), i))
		for _, key := range keys {
			all = append(all, &kgo.Record{Topic: b.commands, Partition: p, Key: []byte(key), Value: []byte(payloads[i])})
		}
	}
	require.NoError(b.t, b.client.ProduceSync(b.t.Context(), all...).FirstErr())
	return payloads
}

// of gives what somebody got so far.
func (b *shareBench) of(name string) []gotten {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.got[name][:len(b.got[name]):len(b.got[name])]
}

// times counts how often somebody got each of these.
func (b *shareBench) times(name string, payloads []string) (each map[string]int, missing int) {
	each = map[string]int{}
	for _, g := range b.of(name) {
		each[g.payload]++
	}
	for _, p := range payloads {
		if each[p] == 0 {
			missing++
		}
	}
	return each, missing
}

// has waits until somebody got all of these.
func (b *shareBench) has(name string, payloads []string) {
	b.t.Helper()
	missing := 0
	await(b.t, func() bool { _, missing = b.times(name, payloads); return missing == 0 }, func() string { return fmt.Sprintf("%s lacks %d", name, missing) })
}

// TestWhatTheLastMemberOfAShareAcknowledgedComesToNobodyElse when it leaves with DISCONNECT while its group is being
// assembled anew, which takes as long as the slowest member: here the leader needs until then, and most of a second more,
// to divide the partitions, since a member at another instance has come. Kafka takes no commit in that time.
func TestWhatTheLastMemberOfAShareAcknowledgedComesToNobodyElse(t *testing.T) {
	besideOthers(t)
	b := openShares(t, 1, 2)
	leader := &slowLeader{GroupBalancer: kgo.CooperativeStickyBalancer(), divides: make(chan struct{}, 100), release: make(chan struct{})}
	b.compete("elsewhere", "g", leader)
	<-leader.divides // it is the first member, and stays the leader

	leaving := b.member("leaving", 0, "g")
	await(t, func() bool {
		_, missing := b.times("leaving", b.write(1, "g"))
		return missing == sharePartitions/2 && b.stable()
	}, func() string { return "it does not get half of the partitions" })
	leader.waits.Store(true)
	for len(leader.divides) > 0 {
		<-leader.divides
	}
	b.member("elsewhere", 1, "g")
	<-leader.divides
	acknowledged := b.write(20, "g")
	await(t, func() bool { _, missing := b.times("leaving", acknowledged); return missing == len(acknowledged)/2 }, func() string { return "it does not get its commands" })
	leaving.Stop()
	await(t, func() bool { return b.instances[0].metric("sluice_mqtt_connections") == 0 }, func() string { return "the instance has not seen it leave" })
	close(leader.release)
	b.has("elsewhere", b.write(1, "g"))
	first, _ := b.times("leaving", nil)
	second, _ := b.times("elsewhere", nil)
	again := 0
	for _, p := range acknowledged {
		if first[p] > 0 && second[p] > 0 {
			again++
		}
	}
	require.Zero(t, again, "of %d acknowledged commands came again elsewhere", len(acknowledged)/2)
	_, missing := b.times("elsewhere", acknowledged)
	require.Equal(t, len(acknowledged)/2, missing)
}

// TestWhoeverOfThreeLeavesAShareTakesNothingAlong: each in turn, first when all is quiet, then when the one before has just come
// back; every command comes to one of the three, once.
func TestWhoeverOfThreeLeavesAShareTakesNothingAlong(t *testing.T) {
	besideOthers(t)
	const n = 3
	b := openShares(t, 1, n)
	var members [n]*load.CommandFleet
	var all []string
	name := func(i int) string { return fmt.Sprint("at ", i) }
	come := func(i int) { members[i] = b.member(name(i), i, "g") }
	write := func(each int) { // and wait until all that was written has come
		all = append(all, b.write(each, "g")...)
		missing := 0
		await(t, func() bool {
			missing = len(all)
			for i := range n {
				_, lacks := b.times(name(i), all)
				missing -= len(all) - lacks
			}
			return missing <= 0
		}, func() string { return fmt.Sprintf("%d of %d commands came to nobody", missing, len(all)) })
	}
	divided := func() { // each has its part of the partitions
		await(t, func() bool {
			from := len(all)
			write(1)
			for i := range n {
				if _, missing := b.times(name(i), all[from:]); missing != sharePartitions-sharePartitions/n {
					return false
				}
			}
			return b.stable()
		}, func() string { return "the share is not divided among three" })
	}
	for i := range n {
		come(i)
	}
	await(t, func() bool { // what is written before the first has subscribed is nobody's
		b.write(1, "g")
		return len(b.of(name(0))) > 0 && len(b.of(name(1))) > 0 && len(b.of(name(2))) > 0
	}, func() string { return "not all members get commands" })
	divided()
	leave := func(i int) {
		write(20)
		members[i].Stop()
		write(1)
		come(i)
	}
	for i := range n {
		leave(i)
		divided()
	}
	for i := range n { // one after the other, while the members are assembled still
		leave(i)
	}
	divided()
	times := map[string]int{}
	for i := range n {
		each, _ := b.times(name(i), nil)
		for payload, k := range each {
			times[payload] += k
		}
	}
	for _, payload := range all {
		require.Equal(t, 1, times[payload], "command %q", payload)
	}
}

// compete makes a member of a share's group that is not ours; what it gets is noted under a name.
func (b *shareBench) compete(name, key string, balancer kgo.GroupBalancer) {
	b.t.Helper()
	sum := sha256.Sum256([]byte(key + "\x00all/" + key))
	client, err := kgo.NewClient(kgo.SeedBrokers(b.kafka.Direct()...), kgo.ConsumerGroup(b.sessions+"-share-"+key+"-"+hex.EncodeToString(sum[:8])),
		kgo.ConsumeTopics(b.commands), kgo.Balancers(balancer), kgo.HeartbeatInterval(200*time.Millisecond), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	require.NoError(b.t, err)
	b.t.Cleanup(client.Close)
	go func() { // ends with the client
		for {
			fetches := client.PollFetches(context.Background())
			if fetches.IsClientClosed() {
				return
			}
			fetches.EachRecord(func(r *kgo.Record) { b.note(name, string(r.Value)) })
		}
	}()
}

// stable says that no share's group is being assembled anew.
func (b *shareBench) stable() bool {
	b.t.Helper()
	groups, err := kadm.NewClient(b.client).ListGroups(b.t.Context())
	require.NoError(b.t, err)
	for name, g := range groups {
		if strings.Contains(name, "-share-") && g.State != "Stable" {
			return false
		}
	}
	return true
}

// A slowLeader divides partitions. If it waits, it begins when it is released, and needs a while.
type slowLeader struct {
	kgo.GroupBalancer
	waits            atomic.Bool
	divides, release chan struct{} // it is about to; it may
}

func (l *slowLeader) MemberBalancer(members []kmsg.JoinGroupResponseMember) (kgo.GroupMemberBalancer, map[string]struct{}, error) {
	l.divides <- struct{}{}
	if l.waits.Load() {
		<-l.release
		time.Sleep(700 * time.Millisecond) // this is what it needs
	}
	return l.GroupBalancer.MemberBalancer(members)
}

// TestAMemberThatIsCutOffDoesNotGoOnBesideItsSuccessor: an instance that can't reach the coordinator of its shares' groups,
// but all else, and one that stood still, give their devices nothing of a partition that is another instance's by then.
func TestAMemberThatIsCutOffDoesNotGoOnBesideItsSuccessor(t *testing.T) {
	besideOthers(t)
	b := openShares(t, 3, 2)
	for _, how := range []string{"parted from the coordinator", "stopped"} {
		t.Run(how, func(t *testing.T) {
			b.t = t
			var keys []string
			for i := range 10 { // each is a group, and takes its own chances
				keys = append(keys, fmt.Sprint(how[:1], i))
			}
			b.leadElsewhere()
			for _, key := range keys {
				b.member(key+" cut off", 0, key)
				b.member(key+" successor", 1, key)
			}
			payloads := b.write(1, keys...)
			mine := func(key, who string) int {
				_, missing := b.times(key+" "+who, payloads)
				return sharePartitions - missing
			}
			await(t, func() bool { // until each has half of the partitions of each share
				payloads = b.write(1, keys...)
				return !slices.ContainsFunc(keys, func(key string) bool {
					await(t, func() bool { return mine(key, "successor")+mine(key, "cut off") >= sharePartitions }, func() string { return key + " has lost some" })
					return mine(key, "successor") != sharePartitions/2
				})
			}, func() string { return "the shares are not divided" })
			before := map[string]bool{} // partitions of shares that are the successor's anyway
			for _, key := range keys {
				each, _ := b.times(key+" successor", nil)
				for p, payload := range payloads {
					before[fmt.Sprint(key, " ", p)] = each[payload] > 0
				}
			}
			var heal func()
			if how == "stopped" {
				signal := func(s syscall.Signal) { require.NoError(t, b.instances[0].cmd.Process.Signal(s)) }
				signal(syscall.SIGSTOP)
				heal = func() { signal(syscall.SIGCONT) }
			} else {
				b.ways[0][0].Swallow()
				heal = func() { require.NoError(t, b.ways[0][0].Heal()) }
			}
			taken := map[string]time.Time{} // when the successor got the first of a partition that was not its
			lost := func() (n int) {
				for line := range strings.Lines(b.instances[0].log.String()) {
					if strings.Contains(line, "-share-"+how[:1]) && strings.Contains(line, "membership in the consumer group is lost") {
						n++
					}
				}
				return n
			}
			await(t, func() bool {
				b.write(1, keys...)
				for _, key := range keys {
					for _, g := range b.of(key + " successor") {
						at := fmt.Sprint(key, " ", g.partition)
						if _, known := taken[at]; !known && !before[at] {
							taken[at] = g.at
						}
					}
				}
				all := len(taken) == sharePartitions/2*len(keys)
				if all && how == "stopped" && strings.Contains(b.instances[1].log.String(), "an instance is silent and is declared dead") {
					heal()
				}
				if how == "stopped" { // and its devices were disconnected
					return all && strings.Contains(b.instances[0].log.String(), "this instance was silent for too long")
				}
				return all && lost() >= len(keys)
			}, func() string {
				return fmt.Sprintf("the successor has %d partitions, and %d memberships are lost", len(taken), lost())
			})
			last := b.write(1, keys...)
			for _, key := range keys {
				b.has(key+" successor", last)
			}
			late := map[string]time.Duration{}
			for _, key := range keys {
				for _, g := range b.of(key + " cut off") {
					at := fmt.Sprint(key, " ", g.partition)
					if since, gone := taken[at]; gone && g.written.After(since) {
						late[at] = g.written.Sub(since)
					}
				}
			}
			require.Empty(t, late, "partitions of which the one that was cut off got commands beside its successor, and for how long")
			if how != "stopped" {
				heal()
			}
		})
	}
}

// TestWhatAShareAcknowledgedDoesNotComeAgainWhenItsCoordinatorIsKilled: Kafka notices after 9 s that a node is dead, and the
// group has no coordinator so long. What was acknowledged shortly before could not be committed.
func TestWhatAShareAcknowledgedDoesNotComeAgainWhenItsCoordinatorIsKilled(t *testing.T) {
	besideOthers(t)
	b := openShares(t, 3, 2)
	b.leadElsewhere()
	keys := []string{"0", "1", "2", "3", "4"} // each is a group, and commits at its own times
	for _, key := range keys {
		b.member(key+" here", 0, key)
		b.member(key+" there", 1, key)
	}
	come := func(payloads []string) (again int) {
		t.Helper()
		missing := 0
		await(t, func() bool {
			again, missing = 0, 0
			for _, key := range keys {
				here, _ := b.times(key+" here", nil)
				there, _ := b.times(key+" there", nil)
				for _, p := range payloads {
					switch n := here[p] + there[p]; n {
					case 0:
						missing++
					default:
						again += n - 1
					}
				}
			}
			return missing == 0
		}, func() string { return fmt.Sprint(missing, " are missing") })
		return again
	}
	await(t, func() bool {
		payloads := b.write(1, keys...)
		come(payloads)
		return !slices.ContainsFunc(keys, func(key string) bool {
			_, missing := b.times(key+" there", payloads)
			return missing != sharePartitions/2
		})
	}, func() string { return "the shares are not divided" })

	acknowledged := b.write(5, keys...)
	come(acknowledged)
	require.NoError(t, b.kafka.Kill(0))
	come(b.write(1, keys...)) // and before them what comes again
	require.Zero(t, come(acknowledged), "acknowledged commands that came again, of %d", len(keys)*len(acknowledged))
}

// leadElsewhere makes the first node the coordinator of all groups, and the others the leaders of the commands' partitions.
func (b *shareBench) leadElsewhere() {
	b.t.Helper()
	ctx, admin := b.t.Context(), kadm.NewClient(b.client)
	want := func(topic string, p int32) []int32 {
		if topic == b.commands {
			return [][]int32{{2, 3, 1}, {3, 2, 1}}[p%2]
		}
		return []int32{1, 2, 3}
	}
	for _, topic := range []string{b.commands, "__consumer_offsets"} {
		var req kadm.AlterPartitionAssignmentsReq
		topics, err := admin.ListTopicsWithInternal(ctx, topic)
		require.NoError(b.t, err)
		for p := range topics[topic].Partitions {
			req.Assign(topic, p, want(topic, p))
		}
		_, err = admin.AlterPartitionAssignments(ctx, req)
		require.NoError(b.t, err)
		await(b.t, func() bool {
			_, err := admin.ElectLeaders(ctx, kadm.ElectPreferredReplica, nil)
			require.NoError(b.t, err)
			topics, err := admin.ListTopicsWithInternal(ctx, topic)
			require.NoError(b.t, err)
			for p, is := range topics[topic].Partitions {
				if is.Leader != want(topic, p)[0] {
					return false
				}
			}
			return len(topics[topic].Partitions) > 0
		}, func() string { return topic + " has other leaders" })
	}
}
