package proxy

import (
	"bufio"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// old connects with MQTT 3.1.1 and a clean session.
func old(t testing.TB, addr, id string) *device {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = nc.Close() })
	d := &device{t: t, nc: nc, in: bufio.NewReader(nc), id: id}
	d.send(0x10, append(append(text16("MQTT"), 4, 2, 0, 0), text16(id)...))
	first, body := d.read()
	require.Equal(t, []byte{0x20, 0, 0}, append([]byte{first}, body...), "CONNACK")
	return d
}

// publish311 sends a PUBLISH of MQTT 3.1.1.
func (d *device) publish311(topic, payload string, qos byte, id uint16) {
	d.t.Helper()
	body := text16(topic)
	if qos > 0 {
		body = append(body, byte(id>>8), byte(id))
	}
	d.send(0x30|qos<<1, append(body, payload...))
}

// TestRefusedMessagesOf311GetWhatTheConfigurationSays, whatever they are refused for, and the good ones behind them are
// stored once and acknowledged.
func TestRefusedMessagesOf311GetWhatTheConfigurationSays(t *testing.T) {
	t.Parallel()
	const text = `
publish: [{match: "ok/#", topic: good}, {match: "plants/{plant}/#", topic: "plant-{plant}"}]
limits: {topic_levels: 4}
acl: [{deny: [publish], filter: ok/secret}, {allow: [publish], filter: "#"}]
`
	refused := []string{"ok/secret denied", "elsewhere no_rule", "plants/ä/x illegal_topic", "ok/a/b/c/d topic_levels"}
	f := func(config string, qos byte) {
		t.Helper()
		in := begin(t, 1, text+config)
		d, closes := old(t, in.addr, "dev"), !strings.Contains(config, "acknowledge") && !strings.Contains(config, "dead")
		n := 0
		for i, r := range refused {
			topic, _, _ := strings.Cut(r, " ")
			id := uint16(2*i + 1)
			d.publish311(topic, "bad", qos, id)
			d.publish311("ok/x", "good", qos, id+1)
			if closes {
				_, _, err := d.tryRead()
				require.Error(t, err, "the connection closes")
				d = old(t, in.addr, "dev")
				continue
			}
			for _, id := range []uint16{id, id + 1} {
				first, body := d.read()
				require.Equal(t, []byte{0x30 + 0x10*qos, byte(id >> 8), byte(id)}, append([]byte{first}, body...))
			}
			n++
			in.until("stored", func() bool { return len(in.of("good")) == n })
		}
		var dead []string
		for _, r := range in.of("dead") {
			headers := map[string]string{}
			for _, h := range r.Headers {
				headers[string(h.Key)] = string(h.Value)
			}
			require.Equal(t, "dev", string(r.Key))
			dead = append(dead, headers["mqtt.topic"]+" "+headers["sluice.refused"])
		}
		if strings.Contains(config, "dead_letter") {
			require.Equal(t, refused, dead)
		} else {
			require.Empty(t, dead)
		}
		require.Len(t, in.of("good"), n)
		for i, r := range refused {
			_, reason, _ := strings.Cut(r, " ")
			require.EqualValues(t, 1, in.value("sluice_publish_refused_messages_total", reason), "%d", i)
		}
		five := dial(t, in.addr, "five", false)
		five.send(0x32, append(text16("elsewhere"), 0, 1, 0))
		_, body := five.read()
		require.Equal(t, byte(0x90), body[2], "MQTT 5 is told")
		_ = five.nc.Close()
		require.NoError(t, in.end())
		require.Zero(t, in.producer.Budget().InUse(), "memory is not given back")
	}
	f("", 1)
	for qos := byte(1); qos <= 2; qos++ {
		f("refused: close", qos)
		f("refused: acknowledge", qos)
		f("refused: {dead_letter: dead}", qos)
	}
}

// TestRefusedMessageOf311IsNotRetainedWhateverItsDeviceIsTold: the success stands for a refusal that MQTT 3.1.1 does not
// know, and the older retained message stays.
func TestRefusedMessageOf311IsNotRetainedWhateverItsDeviceIsTold(t *testing.T) {
	t.Parallel()
	for _, told := range []string{"acknowledge", "{dead_letter: dead}"} {
		in := begin(t, 1, "publish: [{match: \"#\", topic: t}]\nretained: {messages: 1}\nrefused: "+told+"\n"+
			"acl: [{deny: [publish], client_id: dev, filter: first}, {allow: [publish, subscribe, retain], filter: \"#\"}]\n")
		require.Zero(t, dial(t, in.addr, "writer", false).retain(1, "first", "older"))
		watching := dial(t, in.addr, "before", false)
		watching.subscribe("#", 0)
		require.Equal(t, "older", watching.next().payload)
		d := old(t, in.addr, "dev")
		for i, topic := range []string{"first", "second"} { // denied, and one too many
			d.send(0x33, append(append(text16(topic), 0, byte(1+i)), "newer"...))
			first, body := d.read()
			require.Equal(t, []byte{0x40, 0, byte(1 + i)}, append([]byte{first}, body...), "PUBACK")
		}
		late := dial(t, in.addr, "after", false)
		late.subscribe("#", 0)
		require.Equal(t, "older", late.next().payload)
		late.nothing()
		require.NoError(t, in.end())
	}
}
