package mqtt

import (
	"testing"

	"github.com/stretchr/testify/require"
)

type owner struct{ sent, settled chan string }

func (o *owner) CommandSent(*Command) { o.sent <- "sent" }
func (o *owner) CommandSettled(_ *Command, id string, f Fate, code Code, reason string) {
	o.settled <- id + " " + f.String() + " " + reason
}

func TestSmokeCommand(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.stored(v, "dev")
		var none []byte
		if v == 5 {
			none = props()
		}
		c.send(packet(0x82, uint16(5), none, str("a/#"), 2))
		c.expect(packet(0x90, uint16(5), none, 2))
		o := &owner{make(chan string, 10), make(chan string, 10)}
		n, _ := w.s.Send(&Command{Topic: []byte("a/b"), Payload: []byte("hi"), QoS: 2, Owner: o})
		require.Equal(t, 1, n)
		w.s.Flush()
		c.expect(pub{topic: "a/b", payload: "hi", qos: 2, id: 1}.packet(v))
		_ = c.nc.Close()
		w.ended()
		n, _ = w.s.Send(&Command{Topic: []byte("a/c"), Payload: []byte("ho"), QoS: 1, Owner: o})
		require.Equal(t, 1, n)
		c = w.stored(v, "dev")
		require.True(t, c.present())
		c.expect(pub{topic: "a/b", payload: "hi", qos: 2, id: 1, dup: true}.packet(v), pub{topic: "a/c", payload: "ho", qos: 1, id: 2}.packet(v))
		c.send(puback(2), pubrec(1))
		c.expect(pubrel(1))
		c.send(pubcomp(1))
		require.Equal(t, "dev delivered ", <-o.settled)
		require.Equal(t, "dev delivered ", <-o.settled)
		require.Zero(t, w.s.held.Load())
	})
}
