package test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/test/cluster"
	"sluice/test/load"
)

// makeAnew deletes the command topic and makes it anew, once the cluster has forgotten it. The controller does so before
// the broker, which takes records for the old one meanwhile.
func (b *commandBench) makeAnew() {
	b.t.Helper()
	c, err := kgo.NewClient(kgo.SeedBrokers(b.kafka.Brokers()...))
	require.NoError(b.t, err)
	defer c.Close()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	admin := kadm.NewClient(c)
	_, err = admin.DeleteTopic(ctx, b.topic)
	require.NoError(b.t, err)
	var made kadm.CreateTopicResponse
	await(b.t, func() bool {
		made, err = admin.CreateTopic(ctx, 6, 1, nil, b.topic)
		return err == nil
	}, func() string { return "the topic is not made" })
	await(b.t, func() bool {
		known, err := admin.ListTopics(ctx, b.topic)
		return err == nil && known[b.topic].ID == made.ID
	}, func() string { return "the broker has the old topic" })
}

// TestACommandTopicMadeAnewIsReadFromItsBeginning by stored sessions: of a device that is connected, of one that comes
// back, and of one that comes back after a restart.
func TestACommandTopicMadeAnewIsReadFromItsBeginning(t *testing.T) {
	b := serveCommands(t, cluster.Shared(t), "", "")
	f, w := b.start(&load.CommandFleet{Devices: 3, QoS: 1, Keep: true})
	for range 20 {
		for d := range 3 {
			w.Write(d)
		}
	}
	b.flush(w)
	delivered(t, f, w.Written(nil))
	b.settled(w.Written(nil))
	f.Leave(1)
	f.Leave(2)
	b.makeAnew()
	const n = 10
	var records []*kgo.Record
	for i := range n {
		for d := range 3 {
			records = append(records, &kgo.Record{Key: []byte(f.ClientID(d)), Value: fmt.Append(nil, "new ", i)})
		}
	}
	b.produce(records...)
	comes := func(device int) {
		t.Helper()
		got := func() (payloads []string) {
			for _, m := range f.Messages(device) {
				if strings.HasPrefix(string(m.Payload), "new ") {
					payloads = append(payloads, string(m.Payload))
				}
			}
			return payloads
		}
		await(t, func() bool { return len(got()) >= n }, func() string { return fmt.Sprint(device, " has ", got()) })
		require.Len(t, got(), n)
	}
	comes(0)
	b.returns(f, 1)
	comes(1)
	require.Positive(t, b.metric("sluice_command_lost_positions_total", `reason="topic_made_anew"`))
	require.Zero(t, b.terminate())
	b.instance.start()
	b.awaitReady()
	b.returns(f, 2)
	comes(2)
}

// TestASharedSubscriptionReadsATopicMadeAnewFromItsBeginning, whether it has fewer records than the old one had or more.
func TestASharedSubscriptionReadsATopicMadeAnewFromItsBeginning(t *testing.T) {
	besideOthers(t)
	const old = 300
	for name, n := range map[string]int{"shorter": 30, "longer": 900} {
		t.Run(name, func(t *testing.T) {
			b := serveCommands(t, cluster.Shared(t), "", "")
			f, _ := b.start(&load.CommandFleet{Devices: 1, QoS: 1, Keep: true, Filter: "$share/g/devices/#"})
			produce := func(kind string, n int) {
				t.Helper()
				records := make([]*kgo.Record, n)
				for i := range records {
					records[i] = &kgo.Record{Key: fmt.Append(nil, i), Value: fmt.Append(nil, kind, i)}
				}
				b.produce(records...)
			}
			comes := func(kind string, n int) {
				t.Helper()
				got := func() int {
					all := map[string]bool{}
					for _, m := range f.Messages(0) {
						if strings.HasPrefix(string(m.Payload), kind) {
							all[string(m.Payload)] = true
						}
					}
					return len(all)
				}
				await(t, func() bool { return got() == n }, func() string { return fmt.Sprintf("%d of %d came", got(), n) })
			}
			produce("old", old)
			comes("old", old)
			b.makeAnew()
			produce("new", n)
			comes("new", n)
		})
	}
}
