package proxy

import (
	"slices"
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
	t.Parallel()
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

// TestSubscriptionGetsNothingThatItsDevicePublishedBefore, live: a retained message comes once, as what it is, and what
// is published after the SUBSCRIBE comes, however close the packets are.
func TestSubscriptionGetsNothingThatItsDevicePublishedBefore(t *testing.T) {
	t.Parallel()
	in := begin(t, 2, loopRules)
	in.until("it is followed", func() bool { return in.value("sluice_kafka_consumer_partitions") > 0 })
	for range 20 {
		d := dial(t, in.addr, "d", false)
		var burst []byte
		add := func(first byte, body ...[]byte) {
			b := slices.Concat(body...)
			burst = append(append(burst, first, byte(len(b))), b...)
		}
		add(0x30, text16("loop/a"), []byte("\x00before"))
		add(0x33, text16("loop/b"), []byte("\x00\x01\x00retained"))
		add(0x82, []byte{0, 1, 0}, text16("loop/#"), []byte{1})
		add(0x30, text16("loop/a"), []byte("\x00after"))
		add(0x82, []byte{0, 2, 0}, text16("loop/#"), []byte{1 | 2<<4})
		add(0x32, text16("loop/a"), []byte("\x00\x02\x00last"))
		_, err := d.nc.Write(burst)
		require.NoError(t, err)
		var live, retained []string
		for len(live) < 2 || len(retained) < 1 {
			first, body := d.read()
			if first&0xF0 != 0x30 {
				continue
			}
			if m := decode(first, body); m.retain {
				retained = append(retained, m.payload)
			} else {
				live = append(live, m.payload)
			}
		}
		require.Equal(t, []string{"after", "last"}, live)
		require.Equal(t, []string{"retained"}, retained)
		d.send(0xE0, nil)
		for err == nil { // acknowledgements, until the server has let go
			_, _, err = d.tryRead()
		}
	}
}
