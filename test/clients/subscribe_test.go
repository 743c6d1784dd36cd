package clients_test

import (
	"context"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/test/clients"
)

// publishGo publishes to the broker with a client whose word is tested elsewhere.
func publishGo(t *testing.T, addr string, qos byte, ms ...clients.Message) {
	t.Helper()
	_, err := clients.Go(t).Run(limited(t), addr, clients.V5, qos, ms)
	require.NoError(t, err)
}

// TestEverySubscriberReportsWhatItGot: byte for byte and in order, with the QoS, and with MQTT 5 every property.
func TestEverySubscriberReportsWhatItGot(t *testing.T) {
	addr := broker(t)
	for name, get := range clients.All() {
		t.Run(name, func(t *testing.T) {
			r := get(t)
			for _, version := range r.Versions {
				for qos := byte(0); qos <= 2; qos++ {
					receivesAll(t, r, addr, version, qos)
				}
			}
		})
	}
}

func receivesAll(t *testing.T, r clients.Runner, addr string, version, qos byte) {
	t.Helper()
	sub := clients.Subscription{Filters: []string{"open/#", "other/+"}, QoS: qos}
	if version == clients.V5 {
		sub.ID = 300
	}
	s, err := r.Subscribe(limited(t), addr, version, sub)
	require.NoError(t, err)
	ms := append(messages(), withProperties())
	publishGo(t, addr, 2, ms...)
	got, err := s.Await(limited(t), len(ms))
	require.NoError(t, err)
	require.NoError(t, s.Close())
	require.Len(t, got, len(ms))
	for i, g := range got {
		want := clients.Received{Message: ms[i], QoS: qos}
		if version == clients.V5 {
			want.SubscriptionIDs = []int{300}
		} else {
			want.Message = clients.Message{Topic: ms[i].Topic, Payload: ms[i].Payload}
		}
		if g.Expiry > 0 && g.Expiry < want.Expiry { // "minus the time that the message has been waiting in the Server" [MQTT-3.3.2-6]
			want.Expiry = g.Expiry
		}
		require.Equal(t, plain(want), plain(g), "message %d", i)
	}
}

// plain takes the difference between nothing and an empty slice away.
func plain(r clients.Received) clients.Received {
	r.Payload, r.CorrelationData = []byte(string(r.Payload)), []byte(string(r.CorrelationData))
	r.UserProperties = append([][2]string{}, r.UserProperties...)
	r.SubscriptionIDs = append([]int{}, r.SubscriptionIDs...)
	return r
}

func TestASubscriberWithASessionGetsWhatItMissed(t *testing.T) {
	addr := broker(t)
	for name, get := range clients.All() {
		t.Run(name, func(t *testing.T) {
			r := get(t)
			for _, version := range r.Versions {
				r.ClientID = name + "-keeps-" + string('0'+version)
				sub := clients.Subscription{Filters: []string{"open/kept"}, QoS: 1, Keep: true}
				s, err := r.Subscribe(limited(t), addr, version, sub)
				require.NoError(t, err)
				require.NoError(t, s.Close())
				publishGo(t, addr, 1, clients.Message{Topic: "open/kept", Payload: []byte("missed")})
				s, err = r.Subscribe(limited(t), addr, version, sub)
				require.NoError(t, err)
				got, err := s.Await(limited(t), 1)
				require.NoError(t, err)
				require.Equal(t, "missed", string(got[0].Payload))
				require.NoError(t, s.Close())
			}
		})
	}
}

// TestASubscriberAnswersWithTheCorrelationDataItGot: request and response of MQTT 5.
func TestASubscriberAnswersWithTheCorrelationDataItGot(t *testing.T) {
	addr := broker(t)
	for name, get := range clients.All() {
		t.Run(name, func(t *testing.T) {
			asker, err := clients.Go(t).Subscribe(limited(t), addr, clients.V5, clients.Subscription{Filters: []string{"open/answers"}, QoS: 1})
			require.NoError(t, err)
			defer func() { require.NoError(t, asker.Close()) }()
			s, err := get(t).Subscribe(limited(t), addr, clients.V5, clients.Subscription{Filters: []string{"open/requests"}, QoS: 1, Answer: true})
			if name == "mosquitto_pub" {
				require.ErrorContains(t, err, "can't")
				return
			}
			require.NoError(t, err)
			publishGo(t, addr, 1, clients.Message{Topic: "open/requests", Payload: []byte("p"), ResponseTopic: "open/answers", CorrelationData: []byte{0, 7}})
			got, err := asker.Await(limited(t), 1)
			require.NoError(t, err)
			require.Equal(t, "p", string(got[0].Payload))
			require.Equal(t, []byte{0, 7}, got[0].CorrelationData)
			require.NoError(t, s.Close())
		})
	}
}

func TestNoLocalIsAskedFor(t *testing.T) {
	addr := broker(t)
	for name, get := range clients.All() {
		t.Run(name, func(t *testing.T) {
			sub := clients.Subscription{Filters: []string{"open/loop"}, QoS: 1, NoLocal: true, Answer: true}
			s, err := get(t).Subscribe(limited(t), addr, clients.V5, sub)
			if name == "mosquitto_pub" {
				require.ErrorContains(t, err, "can't")
				return
			}
			require.NoError(t, err)
			// It answers to the topic it subscribes to; only No Local keeps that from coming back.
			publishGo(t, addr, 1, clients.Message{Topic: "open/loop", Payload: []byte("1"), ResponseTopic: "open/loop"})
			publishGo(t, addr, 1, clients.Message{Topic: "open/loop", Payload: []byte("2")})
			got, err := s.Await(limited(t), 2)
			require.NoError(t, err)
			require.Equal(t, "2", string(got[1].Payload))
			require.NoError(t, s.Close())
		})
	}
}

func TestARefusedSubscriptionIsAnError(t *testing.T) {
	addr := broker(t)
	for name, get := range clients.All() {
		t.Run(name, func(t *testing.T) {
			r := get(t)
			_, err := r.Subscribe(limited(t), addr, clients.V5, clients.Subscription{Filters: []string{"$share/g/open/#", "open/#/x"}, QoS: 1})
			require.Error(t, err)
			require.NotErrorIs(t, err, context.DeadlineExceeded)
		})
	}
}

func TestASubscriberThatLosesItsConnectionSaysSo(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ended := make(chan struct{})
	go func() { // ends with the listener
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 100)) // a CONNECT, or part of it
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-ended })
	for name, get := range clients.All() {
		t.Run(name, func(t *testing.T) {
			_, err := get(t).Subscribe(limited(t), l.Addr().String(), clients.V5, clients.Subscription{Filters: []string{"a"}})
			require.Error(t, err)
			require.NotErrorIs(t, err, context.DeadlineExceeded)
		})
	}
}

func TestSubscriptionOptionsNeedMQTT5(t *testing.T) {
	_, err := clients.Runner{Name: "r", Versions: []byte{clients.V311}}.Subscribe(t.Context(), "127.0.0.1:1", clients.V311, clients.Subscription{ID: 1})
	require.ErrorContains(t, err, "MQTT 5")
}
