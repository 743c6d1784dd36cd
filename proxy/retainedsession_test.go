package proxy

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRetainedMessageInFlightIsSentAgain to a session that lasts, under its packet identifier [MQTT-4.4.0-1], by the same
// instance and by another one, also when another value has replaced it meanwhile.
func TestRetainedMessageInFlightIsSentAgain(t *testing.T) {
	s := found(t, 3, "publish: [{match: \"#\", topic: t}]\n")
	all := []*instance{s.instance(), s.instance()}
	for _, in := range all {
		in.serve()
	}
	w := dial(t, all[0].addr, "writer", false)
	for from := range all {
		for to := range all {
			for qos := byte(1); qos <= 2; qos++ {
				for _, replaced := range []bool{false, true} {
					topic := fmt.Sprintf("keep/%d/%d/%d/%v", from, to, qos, replaced)
					require.Zero(t, w.retain(2, topic, "first"))
					id := lasting(fmt.Sprintf("d%d%d%d%v", from, to, qos, replaced))
					d := id.to(t, all[from].addr, false)
					d.subscribe(topic, qos)
					first := d.next()
					require.Equal(t, delivered{topic: topic, payload: "first", qos: qos, retain: true, id: first.id}, first)
					require.NoError(t, d.nc.Close())
					all[from].stored(id.id)
					if replaced {
						require.Zero(t, w.retain(2, topic, "second"))
					}
					d = id.to(t, all[to].addr, true)
					head, body := d.read()
					require.Equal(t, 0x39|qos<<1, head, "PUBLISH with DUP and RETAIN")
					require.Equal(t, first, decode(head, body))
					if qos == 1 {
						d.ack(first, 0)
					} else {
						d.complete(first)
					}
					d.leave()
					all[to].stored(id.id)
					d = id.to(t, all[from].addr, true)
					d.nothing()
					d.leave()
				}
			}
		}
	}
}
