package proxy

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// returns are the ways for a device to have its next connection.
var returns = map[string]func(all []*instance, c connecting, d *device) *device{
	"after a DISCONNECT": func(all []*instance, c connecting, d *device) *device {
		d.send(0xE0, nil)
		return c.to(d.t, all[0].addr, true)
	},
	"after a cut": func(all []*instance, c connecting, d *device) *device {
		_ = d.nc.Close()
		all[0].stored(c.id)
		return c.to(d.t, all[0].addr, true)
	},
	"at another instance": func(all []*instance, c connecting, d *device) *device {
		_ = d.nc.Close()
		all[1].stored(c.id)
		return c.to(d.t, all[1].addr, true)
	},
	"takeover": func(all []*instance, c connecting, d *device) *device { return c.to(d.t, all[0].addr, true) },
	"takeover by another instance": func(all []*instance, c connecting, d *device) *device {
		return c.to(d.t, all[1].addr, true)
	},
	"a takeover there and back": func(all []*instance, c connecting, d *device) *device {
		c.to(d.t, all[1].addr, true)
		return c.to(d.t, all[0].addr, true)
	},
	"at an instance that was started later": func(all []*instance, c connecting, d *device) *device {
		late := all[0].instance()
		late.serve()
		return c.to(d.t, late.addr, true)
	},
}

// all takes what comes until the answer to a ping, answers it and gives the payloads, each once.
func (d *device) all() (payloads []string) {
	d.t.Helper()
	seen := map[string]bool{}
	for quiet := 0; quiet < 2; quiet++ { // the answers to what came bring more
		d.send(0xC0, nil)
		for first, body := d.read(); first != 0xD0; first, body = d.read() {
			quiet = 0
			if first&0xF0 == 0x30 {
				if m := decode(first, body); !seen[m.payload] {
					seen[m.payload] = true
					payloads = append(payloads, m.payload)
				}
			}
			require.NoError(d.t, d.answer(first, body))
		}
	}
	return payloads
}

// TestReplayBeginsWhereEachSubscriptionDoes: an older command is still open, so that the replay begins before the
// SUBSCRIBE for a filter that was new [MQTT-3.8.4] [MQTT-3.3.4-2]. A second SUBSCRIBE for it changes nothing.
func TestReplayBeginsWhereEachSubscriptionDoes(t *testing.T) {
	t.Parallel()
	all := fleetOf(t, 2, toOne)
	var receipts []string
	n := 0
	for name, returns := range returns {
		for qos := byte(0); qos <= 2; qos++ {
			t.Run(fmt.Sprintf("%s, QoS %d", name, qos), func(t *testing.T) {
				n++
				c := lasting(fmt.Sprint("d", n))
				command := func(name string) {
					all[0].write(now("commands", c.id, name, "name", name, "id", name, "mqtt.qos", "2"))
				}
				d := c.to(t, all[0].addr, false)
				d.subscribe("devices/+/open", 1)
				command("open")
				require.Equal(t, "open", d.next().payload)
				command("new")
				receipts = append(receipts, fmt.Sprintf("%s %s dropped not_subscribed (new)", c.id, c.id))
				all[0].became(receipts...)
				d.subscribe("devices/+/new", qos)
				d.subscribe("devices/+/new", qos)
				d = returns(all, c, d)
				require.Equal(t, []string{"open"}, d.all())
				all[0].write(now("commands", c.id, "later", "name", "new", "id", "later", "mqtt.qos", "2"))
				m := d.next()
				require.Equal(t, "later", m.payload)
				how := "delivered"
				switch m.qos {
				case 0:
					how = "sent"
				case 1:
					d.ack(m, 0)
				case 2:
					d.complete(m)
				}
				receipts = append(receipts, fmt.Sprintf("%s %s delivered (open)", c.id, c.id), fmt.Sprintf("%s %s %s (later)", c.id, c.id, how))
				all[0].became(receipts...)
				d.leave()
			})
		}
	}
}

// TestReplayHasNothingThatTheDevicePublishedBefore its SUBSCRIBE on the same connection, whether it is acknowledged by
// then or not [MQTT-3.3.4-2]. What it published after it comes.
func TestReplayHasNothingThatTheDevicePublishedBefore(t *testing.T) {
	t.Parallel()
	all := fleetOf(t, 2, "publish: [{match: \"loop/#\", topic: loop, key: one}]\ncommands: [{topic: loop, publish: \"{header.mqtt.topic}\", qos: 2}]\n")
	w := dial(t, all[0].addr, "writer", false)
	n := 0
	for name, returns := range returns {
		for qos := byte(0); qos <= 2; qos++ {
			for _, acknowledged := range []bool{false, true} {
				if qos == 0 && acknowledged {
					continue
				}
				t.Run(fmt.Sprintf("%s, QoS %d, %v", name, qos, acknowledged), func(t *testing.T) {
					n++
					c := lasting(fmt.Sprint("d", n))
					d := c.to(t, all[0].addr, false)
					open, topic := "loop/open/"+c.id, "loop/"+c.id
					d.subscribe(open, 1)
					w.publish(open, "open")
					require.Equal(t, "open", d.next().payload)
					publish := func(id byte, payload string) []byte {
						b := text16(topic)
						if qos > 0 {
							b = append(b, 0, id)
						}
						b = append(append(b, 0), payload...)
						return append([]byte{0x30 | qos<<1, byte(len(b))}, b...)
					}
					burst := publish(1, "before")
					if acknowledged {
						_, err := d.nc.Write(burst)
						require.NoError(t, err)
						first, _ := d.read()
						require.Contains(t, []byte{0x40, 0x50}, first, "PUBACK or PUBREC")
						burst = nil
					}
					filter := append(append([]byte{0, 1, 0}, text16(topic)...), 1)
					burst = append(append(append(burst, 0x82, byte(len(filter))), filter...), publish(2, "after")...)
					_, err := d.nc.Write(burst)
					require.NoError(t, err)
					for first, _ := d.read(); first&0xF0 != 0x30; first, _ = d.read() {
					}
					d = returns(all, c, d)
					if qos > 0 {
						require.Equal(t, []string{"open", "after"}, d.all())
					} else {
						require.NotContains(t, d.all(), "before")
					}
					d.leave()
				})
			}
		}
	}
}

// TestSessionThatEndsTellsOfNothingBeforeASubscription: who was not subscribed was told of when the command came.
func TestSessionThatEndsTellsOfNothingBeforeASubscription(t *testing.T) {
	all := fleetOf(t, 2, toOne)
	command := func(name string) {
		all[0].write(now("commands", "d", name, "name", name, "id", name))
	}
	d := lasting("d").to(t, all[0].addr, false)
	d.subscribe("devices/+/open", 1)
	command("open")
	require.Equal(t, "open", d.next().payload)
	command("new")
	all[0].became("d d dropped not_subscribed (new)")
	d.subscribe("devices/+/new", 1)
	require.NoError(t, d.nc.Close())
	seenAway(all, "d")
	all[0].write(now("commands", "d", "new", "name", "new", "id", "later"))
	connecting{id: "d", clean: true}.to(t, all[1].addr, false)
	all[0].became("d d dropped not_subscribed (new)", "d d offline not_acknowledged (open)", "d d offline session_ended (later)")
}

// TestRecordHasNoPlacesThatSayNothing: a SUBSCRIBE at the start of a session has none, and one that the session has passed
// none any more.
func TestRecordHasNoPlacesThatSayNothing(t *testing.T) {
	in := fleetOf(t, 1, toOne)[0]
	c := lasting("d")
	d := c.to(t, in.addr, false)
	for i := range 10 {
		in.write(now("commands", fmt.Sprint(i), "x", "name", "x"))
	}
	in.receipts(10)
	d.subscribe("devices/+/open", 1)
	d.leave()
	for _, o := range in.stored("d").Origins {
		require.Nil(t, o.Pos, "nothing was open")
	}
	d = c.to(t, in.addr, true)
	in.write(now("commands", "d", "open", "name", "open"))
	d.next()
	for i := range 10 {
		d.subscribe(fmt.Sprint("devices/+/", i), 1)
	}
	require.NoError(t, d.nc.Close())
	state := in.stored("d")
	text, err := json.Marshal(state.Origins)
	require.NoError(t, err)
	require.Len(t, state.Subs, 11)
	require.Len(t, state.Origins, 11, "%s", text)
	for _, o := range state.Origins[1:] {
		require.Len(t, o.Pos, 1, "%s", text)
		require.Len(t, o.Pos["commands"], 1, "%s", text)
	}
	d = c.to(t, in.addr, true)
	require.Equal(t, []string{"open"}, d.all())
	in.receipts(11)
	d.leave()
	for _, o := range in.stored("d").Origins {
		require.Nil(t, o.Pos, "the session has passed it")
	}
}

// TestCommandFromBeforeASubscriptionHasOneReceipt also when the device has gone to an instance that reads the command after
// the SUBSCRIBE: who was not subscribed was told of.
func TestCommandFromBeforeASubscriptionHasOneReceipt(t *testing.T) {
	t.Parallel()
	all := fleetOf(t, 2, toOne)
	d := lasting("d").to(t, all[0].addr, false)
	d.subscribe("devices/+/open", 1)
	goOn := all[1].standsStill()
	all[0].write(now("commands", "d", "open", "name", "open", "id", "open"))
	require.Equal(t, "open", d.next().payload)
	all[0].write(now("commands", "d", "new", "name", "new", "id", "new"))
	all[0].became("d d dropped not_subscribed (new)")
	d.subscribe("devices/+/new", 1)
	d = lasting("d").to(t, all[1].addr, true)
	goOn()
	all[0].write(now("commands", "d", "later", "name", "new", "id", "later"))
	want := []string{"d d dropped not_subscribed (new)", "d d delivered (open)", "d d delivered (later)"}
	var got []string
	all[0].until("both came", func() bool { got = append(got, d.all()...); return len(got) >= 2 })
	require.Equal(t, []string{"open", "later"}, got)
	all[0].becameForGood(all, want...)
}
