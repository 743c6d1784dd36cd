package proxy

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// loopRules bring what a device publishes to those who subscribed.
const loopRules = `
publish: [{match: "loop/#", topic: loop, key: "{mqtt.topic}"}]
commands: [{topic: loop, publish: "{header.mqtt.topic}", qos: 2}]
`

// TestPropertiesOfAMessageComeThrough, whatever they hold, live and retained, of a message and of a will [MQTT-3.3.2-4]
// [MQTT-3.3.2-15]: empty is not absent.
func TestPropertiesOfAMessageComeThrough(t *testing.T) {
	in := begin(t, 2, loopRules)
	live := dial(t, in.addr, "live", false)
	live.subscribe("loop/#", 1|retainAsPublished)
	f := func(topic, want string, props ...byte) {
		t.Helper()
		check := func(topic string) {
			t.Helper()
			m := live.next()
			require.Equal(t, topic+" "+want, m.topic+" "+m.props, "live")
			if m.qos > 0 {
				live.ack(m, 0)
			}
			later := dial(t, in.addr, "later", false)
			later.subscribe(topic, 0)
			m = later.next()
			require.True(t, m.retain)
			require.Equal(t, topic+" "+want, m.topic+" "+m.props, "retained")
			later.leave()
		}
		d := dial(t, in.addr, "d", false)
		require.Zero(t, d.retain(1, topic, "p", props...))
		in.until("it is retained", func() bool { return in.keeping.index.Len() == 1 })
		check(topic)
		require.Zero(t, d.retain(1, topic, ""))
		live.ack(live.next(), 0)
		d.leave()
		lost := connecting{id: "d", clean: true, will: topic + "/will", retain: true, willProps: props}.to(t, in.addr, false)
		require.NoError(t, lost.nc.Close())
		check(topic + "/will")
		require.Zero(t, dial(t, in.addr, "d", false).retain(1, topic+"/will", ""))
		live.ack(live.next(), 0)
		in.until("nothing is retained", func() bool { return in.keeping.index.Len() == 0 })
	}
	f("loop/bytes", "format=0", 1, 0)
	f("loop/text", "format=1", 1, 1)
	f("loop/response", "response=", 8, 0, 0)
	f("loop/share", "response=$share/g", append([]byte{8}, text16("$share/g")...)...)
	f("loop/type", "type=", 3, 0, 0)
	f("loop/correlation", `correlation=""`, 9, 0, 0)
	f("loop/none", "")
	for _, r := range in.of("loop") {
		if string(r.Key) == "loop/text" && len(r.Value) > 0 {
			require.Contains(t, headersOf(r), "mqtt.payload_format=1")
		}
	}
}
