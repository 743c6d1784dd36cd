package test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/test/clients"
	"sluice/test/cluster"
	"sluice/test/load"
)

// serveLoopback starts instances through which devices speak to devices by way of one Kafka topic.
func serveLoopback(t *testing.T, instances int) (addresses []string) {
	t.Helper()
	kafka := cluster.Shared(t)
	topic := newTopic(t, kafka, 6)
	rules := fmt.Sprintf("  - match: \"#\"\n    topic: %q\n", topic)
	commands := fmt.Sprintf("commands:\n  - topic: %q\n    publish: \"{header.mqtt.topic}\"\n", topic)
	for range instances {
		addresses = append(addresses, serve(t, kafka.Brokers(), rules, commands).address)
	}
	return addresses
}

// TestDevicesSpeakToDevices: what one publishes reaches all that subscribed, at its own instance and at another, once
// with its QoS, in the order of its publisher; who said No Local does not hear himself, everybody else does.
func TestDevicesSpeakToDevices(t *testing.T) {
	besideOthers(t)
	for _, instances := range []int{1, 2} {
		for _, noLocal := range []bool{true, false} {
			t.Run(fmt.Sprintf("%d instances, no local %v", instances, noLocal), func(t *testing.T) {
				f := &load.CommandFleet{Addrs: serveLoopback(t, instances), Run: runID(), Devices: 4, QoS: 2, Filter: "rooms/+/temp", Keep: true, Shared: true}
				if noLocal {
					f.Options = 4
				}
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				t.Cleanup(f.Stop)
				require.NoError(t, f.Start(ctx))
				conversation(t, f, noLocal)
			})
		}
	}
}

// conversation lets every device publish and checks what each has heard of each.
func conversation(t *testing.T, f *load.CommandFleet, noLocal bool) {
	t.Helper()
	const each = 20
	for i := range each {
		for device := range f.Devices {
			payload := fmt.Appendf(nil, "%s %d %d 0 ", f.Run, device, i)
			require.NoError(t, f.Publish(device, load.Answer{Topic: fmt.Sprintf("rooms/%d/temp", device), Payload: payload, CorrelationData: []byte{byte(i)}}))
		}
	}
	speakers := f.Devices
	if noLocal {
		speakers--
	}
	for device := range f.Devices {
		await(t, func() bool { return len(f.Messages(device)) >= each*speakers }, func() string {
			return fmt.Sprintf("%d of %d; %v", len(f.Messages(device)), each*speakers, f.Failures())
		})
		heard := map[string][]int{}
		for _, m := range f.Messages(device) {
			require.EqualValues(t, 1, m.QoS, "published with 1, subscribed with 2")
			require.Len(t, m.CorrelationData, 1)
			heard[m.Topic] = append(heard[m.Topic], int(m.CorrelationData[0]))
		}
		require.Len(t, heard, speakers)
		for topic, numbers := range heard {
			require.Len(t, numbers, each, topic)
			require.True(t, slices.IsSorted(numbers), "%s: %v", topic, numbers)
			require.False(t, noLocal && topic == fmt.Sprintf("rooms/%d/temp", device), "it hears itself")
		}
	}
	await(t, func() bool { return f.Answered() == each*f.Devices }, func() string { return fmt.Sprint(f.Answered()) })
	require.Empty(t, f.Failures())
}

// TestForeignClientsSpeakToEachOther: a message passes from any client not written here to any other with all of its
// properties.
func TestForeignClientsSpeakToEachOther(t *testing.T) {
	besideOthers(t)
	address := serveLoopback(t, 1)[0]
	sent := clients.Message{Topic: "rooms/7/temp", Payload: []byte("21.5"), ContentType: "text/plain", ResponseTopic: "answers/7",
		CorrelationData: []byte("c-7"), UserProperties: [][2]string{{"unit", "°C"}}, Expiry: 3600}
	for name, obtain := range clients.All() {
		t.Run(name, func(t *testing.T) {
			listener := obtain(t)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			s, err := listener.Subscribe(ctx, address, clients.V5, clients.Subscription{Filters: []string{"rooms/#"}, QoS: 2})
			require.NoError(t, err)
			speakers := 0
			for _, other := range clients.All() {
				_, err := other(t).Run(ctx, address, clients.V5, 2, []clients.Message{sent})
				require.NoError(t, err)
				speakers++
			}
			got, err := s.Await(ctx, speakers)
			require.NoError(t, err)
			for _, m := range got {
				require.InDelta(t, 3600-45, m.Expiry, 45)
				require.EqualValues(t, 2, m.QoS)
				m.Expiry = sent.Expiry
				require.Equal(t, sent, m.Message)
			}
			require.NoError(t, s.Close())
		})
	}
}
