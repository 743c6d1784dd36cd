package test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/test/clients"
	"sluice/test/cluster"
)

// An interop is clients of one protocol version at the instances of examples/loopback.yaml: who publishes and who
// subscribes are never at the same one.
type interop struct {
	*fleetBench
	t       *testing.T
	version byte
	runner  clients.Runner // publishes and subscribes
	base    string         // begins the MQTT topics of one test
}

// serveExample starts three instances with the rules of examples/loopback.yaml.
func serveExample(t *testing.T) *fleetBench {
	t.Helper()
	text, err := os.ReadFile("../examples/loopback.yaml")
	require.NoError(t, err)
	_, rules, ok := strings.Cut(string(text), "\npublish:")
	require.True(t, ok)
	require.Contains(t, rules, "topic: mqtt\n")
	b := &fleetBench{t: t, kafka: cluster.Shared(t)}
	b.serve(3, "publish:"+strings.ReplaceAll(rules, "topic: mqtt\n", fmt.Sprintf("topic: %q\n", newTopic(t, b.kafka, 6)))+"\n")
	return b
}

// TestTheFleetBehavesAsOneServer: what conformance suites ask of one server, asked of three instances at once: the
// publisher is at one, the subscriber at another.
func TestTheFleetBehavesAsOneServer(t *testing.T) {
	besideOthers(t)
	b := serveExample(t)
	obtain := map[byte][]func(testing.TB) clients.Runner{clients.V311: {clients.Python, clients.Mosquitto}, clients.V5: {clients.Python, clients.Go}}
	for version, all := range obtain {
		for _, one := range all {
			runner := one(t)
			for name, test := range map[string]func(*interop){
				"publish and wildcards": (*interop).wildcards, "retained": (*interop).retained, "offline queue": (*interop).offline,
				"overlapping subscriptions": (*interop).overlapping, "shared subscription": (*interop).shared, "will": (*interop).will,
			} {
				t.Run(fmt.Sprintf("v%d %s %s", version, runner.Name, name), func(t *testing.T) {
					test(&interop{fleetBench: b, t: t, version: version, runner: runner, base: runID()})
				})
			}
		}
	}
	b.healthy()
}

// at gives the address of an instance.
func (i *interop) at(n int) string { return i.instances[n].address }

func (i *interop) limit() (context.Context, context.CancelFunc) {
	return context.WithTimeout(i.t.Context(), patience)
}

// publish sends to base/topic at instance 0.
func (i *interop) publish(qos byte, retain bool, topic string, payloads ...string) {
	i.t.Helper()
	ctx, cancel := i.limit()
	defer cancel()
	var messages []clients.Message
	for _, p := range payloads {
		messages = append(messages, clients.Message{Topic: i.base + "/" + topic, Payload: []byte(p), Retain: retain})
	}
	out, err := i.runner.Run(ctx, i.at(0), i.version, qos, messages)
	require.NoError(i.t, err, out.Log)
}

// subscribe asks for filters below base, at an instance. The client ends with the test.
func (i *interop) subscribe(n int, sub clients.Subscription) *clients.Subscriber {
	i.t.Helper()
	for k, f := range sub.Filters {
		if rest, ok := strings.CutPrefix(f, "$share/g/"); ok {
			sub.Filters[k] = "$share/" + i.base + "/" + i.base + "/" + rest
		} else {
			sub.Filters[k] = i.base + "/" + f
		}
	}
	ctx, cancel := i.limit()
	i.t.Cleanup(cancel)
	s, err := i.runner.Subscribe(ctx, i.at(n), i.version, sub)
	require.NoError(i.t, err)
	i.t.Cleanup(func() { _ = s.Close() })
	return s
}

// got waits for n messages and gives topic=payload of all there are, without base, sorted.
func (i *interop) got(s *clients.Subscriber, n int) (all []string) {
	i.t.Helper()
	ctx, cancel := i.limit()
	defer cancel()
	received, err := s.Await(ctx, n)
	require.NoError(i.t, err)
	for _, m := range received {
		all = append(all, strings.TrimPrefix(m.Topic, i.base+"/")+"="+string(m.Payload))
	}
	slices.Sort(all)
	return all
}

func (i *interop) wildcards() {
	plus := i.subscribe(1, clients.Subscription{Filters: []string{"+/temp"}, QoS: 2})
	hash := i.subscribe(2, clients.Subscription{Filters: []string{"a/#"}, QoS: 1})
	for qos := byte(0); qos <= 2; qos++ {
		for _, topic := range []string{"a/temp", "b/temp", "a/b/temp", "a"} {
			i.publish(qos, false, topic, fmt.Sprint(qos))
		}
	}
	require.Equal(i.t, []string{"a/temp=0", "a/temp=1", "a/temp=2", "b/temp=0", "b/temp=1", "b/temp=2"}, i.got(plus, 6))
	require.Equal(i.t, []string{"a/b/temp=0", "a/b/temp=1", "a/b/temp=2", "a/temp=0", "a/temp=1", "a/temp=2", "a=0", "a=1", "a=2"}, i.got(hash, 9))
}

// retained: the last one is handed out at every instance, with RETAIN 1, until an empty one deletes it.
func (i *interop) retained() {
	i.publish(1, true, "r/x", "old", "new")
	i.publish(2, true, "r/y", "why")
	for n := range i.instances {
		await(i.t, func() bool { return slices.Equal(i.handedOut(n), []string{"r/x=new", "r/y=why"}) },
			func() string { return fmt.Sprintf("instance %d: %v", n, i.handedOut(n)) })
	}
	i.publish(1, true, "r/x", "")
	for n := range i.instances {
		await(i.t, func() bool { return slices.Equal(i.handedOut(n), []string{"r/y=why"}) },
			func() string { return fmt.Sprintf("instance %d: %v", n, i.handedOut(n)) })
	}
}

// handedOut gives what a new subscriber gets before a message that is published when it has subscribed.
func (i *interop) handedOut(n int) (all []string) {
	i.t.Helper()
	s := i.subscribe(n, clients.Subscription{Filters: []string{"r/#"}, QoS: 1})
	i.publish(1, false, "r/fence", "fence")
	ctx, cancel := i.limit()
	defer cancel()
	for count := 1; ; count++ {
		received, err := s.Await(ctx, count)
		require.NoError(i.t, err)
		m := received[count-1]
		if strings.HasSuffix(m.Topic, "/fence") {
			require.False(i.t, m.Retain)
			slices.Sort(all)
			_ = s.Close()
			return all
		}
		require.True(i.t, m.Retain)
		all = append(all, strings.TrimPrefix(m.Topic, i.base+"/")+"="+string(m.Payload))
	}
}

// offline: what is published while a device with a session is away waits for it, at whichever instance it comes back.
func (i *interop) offline() {
	i.runner.ClientID = i.base + "-offline"
	_ = i.subscribe(1, clients.Subscription{Filters: []string{"o/#"}, QoS: 2, Keep: true}).Close()
	i.runner.ClientID = ""
	i.publish(1, false, "o/1", "a", "b")
	i.publish(2, false, "o/2", "c", "d")
	i.runner.ClientID = i.base + "-offline"
	s := i.subscribe(2, clients.Subscription{Filters: []string{"o/#"}, QoS: 2, Keep: true})
	i.runner.ClientID = ""
	require.Equal(i.t, []string{"o/1=a", "o/1=b", "o/2=c", "o/2=d"}, i.got(s, 4))
}

// overlapping: one copy for all filters of one client, with the highest QoS.
func (i *interop) overlapping() {
	s := i.subscribe(1, clients.Subscription{Filters: []string{"v/#", "v/+", "v/x"}, QoS: 2})
	i.publish(2, false, "v/x", "one")
	i.publish(2, false, "v/end", "end")
	require.Equal(i.t, []string{"v/end=end", "v/x=one"}, i.got(s, 2))
}

// shared: each message goes to one member of the group, at whichever instance.
func (i *interop) shared() {
	var members []*clients.Subscriber
	for n := range i.instances {
		members = append(members, i.subscribe(n, clients.Subscription{Filters: []string{"$share/g/s/#"}, QoS: 1}))
	}
	everyone := i.subscribe(1, clients.Subscription{Filters: []string{"s/#"}, QoS: 1})
	var payloads []string
	for k := range 20 {
		payloads = append(payloads, fmt.Sprintf("%02d", k))
	}
	i.publish(1, false, "s/x", payloads...)
	want := i.got(everyone, len(payloads))
	var all []string
	await(i.t, func() bool {
		all = nil
		for _, m := range members {
			all = append(all, i.got(m, 0)...)
		}
		return len(all) >= len(want)
	}, func() string { return fmt.Sprintf("%d of %d: %v", len(all), len(want), all) })
	slices.Sort(all)
	require.Equal(i.t, want, all, "each once")
}

// will: published when its connection ends without DISCONNECT, and not after one.
func (i *interop) will() {
	s := i.subscribe(1, clients.Subscription{Filters: []string{"w/#"}, QoS: 1})
	for _, tidy := range []bool{true, false} {
		d := connectRaw(i.t, i.at(0), rawConnect{version: i.version, id: i.base + "-will", clean: true,
			will: &rawWill{topic: fmt.Sprintf("%s/w/%v", i.base, tidy), payload: "gone"}})
		if tidy {
			d.leave()
		} else {
			d.vanish()
		}
	}
	require.Equal(i.t, []string{"w/false=gone"}, i.got(s, 1))
	i.publish(1, false, "w/end", "end")
	require.Equal(i.t, []string{"w/end=end", "w/false=gone"}, i.got(s, 2))
}

// TestASessionEndsAtItsTimeEverywhere: the Session Expiry Interval counts from the end of the connection, at whichever
// instance the device comes back; one that comes back in time has its session.
func TestASessionEndsAtItsTimeEverywhere(t *testing.T) {
	besideOthers(t)
	b := serveExample(t)
	short, long := rawConnect{id: runID() + "-short", expiry: 2}, rawConnect{id: runID() + "-long", expiry: 3600}
	for _, r := range []rawConnect{short, long} {
		require.False(t, connectRaw(t, b.instances[0].address, r).present)
	}
	b.raw(b.instances[1].address, short).leave() // taken over in time, and left
	left := time.Now()
	// The moment can't be watched from outside without a connect, which would begin a new interval.
	await(t, func() bool { return time.Since(left) > 5*time.Second }, func() string { return "time" })
	require.False(t, connectRaw(t, b.instances[2].address, short).present)
	require.True(t, connectRaw(t, b.instances[2].address, long).present)
}
