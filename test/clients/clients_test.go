package clients_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"sluice/test/clients"
	"sluice/test/internal/mosquitto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// broker starts an MQTT server not written here that refuses what is published under "forbidden/".
func broker(t *testing.T) string {
	t.Helper()
	return mosquitto.Start(t, clients.Required())
}

func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// messages are what drivers get wrong: many in a row, bytes that are no text,
// an empty payload, line breaks, a large one, levels beyond ASCII.
func messages() []clients.Message {
	var ms []clients.Message
	for i := range 30 {
		ms = append(ms, clients.Message{Topic: "open/many", Payload: fmt.Appendf(nil, "%d", i)})
	}
	return append(ms,
		clients.Message{Topic: "open/binary", Payload: []byte{0, 0xff, '\n', 0xc3}},
		clients.Message{Topic: "open/empty"},
		clients.Message{Topic: "open/lines", Payload: []byte("a\nb\n")},
		clients.Message{Topic: "open/large", Payload: bytes.Repeat([]byte("x"), 100_000)},
		clients.Message{Topic: "open/köln/漢字", Payload: []byte("grüße")},
	)
}

func withProperties() clients.Message {
	return clients.Message{
		Topic: "open/properties", Payload: []byte("{}"), Expiry: 60, ContentType: "application/json",
		ResponseTopic: "open/reply", CorrelationData: []byte("id-1"),
		UserProperties: [][2]string{{"a", "1"}, {"a", "2"}, {"b", "ü"}},
	}
}

func TestEveryClientReportsEveryAcknowledgement(t *testing.T) {
	addr := broker(t)
	for name, get := range clients.All() {
		t.Run(name, func(t *testing.T) {
			r := get(t)
			for _, version := range r.Versions {
				for qos := byte(0); qos <= 2; qos++ {
					ms := messages()
					if version == clients.V5 {
						ms = append(ms, withProperties())
					}
					out, err := r.Run(limited(t), addr, version, qos, ms)
					require.NoError(t, err)
					require.Len(t, out.Acks, len(ms))
				}
			}
		})
	}
}

func TestARefusalIsAnErrorWithItsReason(t *testing.T) {
	addr := broker(t)
	ms := []clients.Message{{Topic: "open/a", Payload: []byte("1")}, {Topic: "forbidden/b", Payload: []byte("2")}}
	for name, get := range clients.All() {
		t.Run(name, func(t *testing.T) {
			out, err := get(t).Run(limited(t), addr, clients.V5, 1, ms)
			require.Error(t, err)
			require.Contains(t, out.Acks, clients.Ack{Index: 1, Reason: 0x87})
		})
	}
}

func TestALostConnectionIsAnError(t *testing.T) {
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
			r := get(t)
			_, err := r.Run(limited(t), l.Addr().String(), clients.V5, 1, messages())
			require.Error(t, err)
			require.NotErrorIs(t, err, context.DeadlineExceeded)
			require.NotContains(t, err.Error(), "killed")
		})
	}
}
