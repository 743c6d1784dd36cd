package mqtt

import (
	"net"
	"strings"
	"testing"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"sluice/tls/tlstest"
)

// TestLogSaysWhyADeviceDoesNotComeIn, and nothing at info of those who only look whether the port is open.
func TestLogSaysWhyADeviceDoesNotComeIn(t *testing.T) {
	for _, l := range []layers{{}, {tls: true}, {ws: true}, {tls: true, ws: true}} {
		t.Run(l.String(), func(t *testing.T) {
			log := &safeBuffer{}
			w := newWorldBehind(t, l, func(c *Config) {
				c.Logger, c.TopicLevels = zerolog.New(log), 3
			})
			line := func(n int) string {
				t.Helper()
				until(t, "the line of the end", func() bool { return strings.Count(log.String(), "\n") == n })
				return strings.Split(log.String(), "\n")[n-1]
			}
			probe, err := net.Dial("tcp", w.addr)
			require.NoError(t, err)
			require.NoError(t, probe.Close())
			require.Contains(t, line(1), `"level":"debug"`)

			deep := hello{version: 5, id: "d1", will: &lastWill{topic: "a/b/c/d"}}
			c := w.dial(5)
			c.send(deep.packet())
			first, _ := c.read()
			require.Equal(t, byte(0x20), first, "CONNACK")
			got := line(2)
			for _, want := range []string{`"level":"info"`, `"client_id":"d1"`, `"mqtt":"5"`, `"code":"0x90"`, `"remote":"127.0.0.1:`, "levels", "device refused"} {
				require.Contains(t, got, want)
			}
			foreign := w.dial(5)
			foreign.send(append([]byte{0x10, 13, 0, 4}, "MQTT\x06\x02\x00\x00\x00\x00\x01d"...))
			got = line(3)
			require.Contains(t, got, "MQTT at level 6;")
			require.NotContains(t, got, `"mqtt":`)
			if !l.tls {
				return
			}
			nc, err := net.Dial("tcp", w.addr)
			require.NoError(t, err)
			_, err = tlstest.Client(t.Context(), nc, tlstest.NewCA(t, "a stranger").ClientConfig(t, "elsewhere"))
			require.Error(t, err)
			got = line(4)
			require.Contains(t, got, `"level":"info"`)
			require.Contains(t, got, "bad certificate")
		})
	}
}
