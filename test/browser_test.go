package test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/test/clients"
	"sluice/test/cluster"
	"sluice/tls/tlstest"
)

// TestABrowserConnectsFromPagesThatMay: MQTT.js in Chromium subscribes, publishes and gets its own messages back through
// Kafka, over WebSocket with and without TLS. A page of another site is not let in.
func TestABrowserConnectsFromPagesThatMay(t *testing.T) {
	besideOthers(t)
	kafka := cluster.Shared(t)
	browser := clients.Chromium(t)
	topic := newTopic(t, kafka, 1)
	at := ownPorts(t, 3)
	certificate, key := tlstest.NewCA(t, "browser").Server(t, t.TempDir(), "127.0.0.1")
	listeners := fmt.Sprintf(`listeners:
  - {address: %q, protocol: websocket, origins: [%q]}
  - {address: %q, protocol: websocket, origins: [%q], tls: {certificate: %q, key: %q}}
  - {address: %q, protocol: websocket, origins: ["https://console.example"]}
`, at[0], browser.Origin(), at[1], browser.Origin(), certificate, key, at[2])
	s := prepareWith(t, kafka.Brokers(), listeners, loopback(topic), "")
	s.start()
	s.awaitReady()
	payloads := []string{"one", "two", "three"}
	for _, version := range []byte{clients.V311, clients.V5} {
		for i, scheme := range []string{"ws", "wss"} {
			t.Run(fmt.Sprintf("%s v%d", scheme, version), func(t *testing.T) {
				page, err := browser.Run(t.Context(), fmt.Sprintf("%s://%s/mqtt", scheme, at[i]), "page/"+scheme+fmt.Sprint(version), version, payloads...)
				require.NoError(t, err)
				require.Equal(t, clients.Page{Connected: true, Acked: 3, Received: payloads}, page)
			})
		}
	}
	t.Run("another site", func(t *testing.T) {
		page, err := browser.Run(t.Context(), fmt.Sprintf("ws://%s/mqtt", at[2]), "page/x", clients.V5, payloads...)
		require.NoError(t, err)
		require.False(t, page.Connected)
		require.NotEmpty(t, page.Error)
	})
}

// loopback is a rule, and a command rule that brings what it stores back under the same MQTT topic.
func loopback(kafkaTopic string) string {
	return fmt.Sprintf("  - match: \"#\"\n    topic: %q\ncommands:\n  - {topic: %q, publish: \"{header.mqtt.topic}\", qos: 1}\n", kafkaTopic, kafkaTopic)
}
