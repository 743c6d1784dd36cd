package mqtt

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestKeepAliveEndsASilentConnection(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.connect(hello{version: v, id: "dev", keep: 10})
		w.pass(15)
		c.ping()
		w.pass(15) // counted from the last packet
		c.publish(pub{topic: "t"})
		w.next()
		c.ping()
		w.pass(15)
		require.Equal(t, 1, w.open())
		w.pass(2)
		c.goodbye(KeepAliveTimeout) // [MQTT-3.1.2-22]
		w.ended()
		require.Equal(t, 1, count(w.s.m.disconnects.WithLabelValues("keep alive timeout")))
	})
}

// TestKeepAliveHearsWholePacketsOnly: the specification counts Control Packets, so a drip of bytes that never
// makes one holds no connection open.
func TestKeepAliveHearsWholePacketsOnly(t *testing.T) {
	w := newWorld(t, nil)
	c := w.connect(hello{version: 4, id: "dev", keep: 10})
	before := count(w.s.m.bytesIn)
	big := pub{topic: "t", payload: "0123456789"}.packet(4)
	for i := range 3 {
		w.pass(5)
		c.send(big[i : i+1])
		until(t, "read", func() bool { return count(w.s.m.bytesIn) == before+i+1 })
	}
	w.pass(2)
	c.closed()
	w.ended()
	require.Equal(t, 1, count(w.s.m.disconnects.WithLabelValues("keep alive timeout")))
}

func TestKeepAliveZeroIsForever(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, func(c *Config) { c.KeepAliveMax = 0 })
		c := w.connect(hello{version: v, id: "dev"})
		w.s.tick.Add(1 << 33)
		w.pass(1)
		c.ping()
	})
}

func TestKeepAliveAbove43690Seconds(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, func(c *Config) { c.KeepAliveMax = 0 })
		c := w.connect(hello{version: v, id: "dev", keep: 65535})
		w.s.tick.Add(98302)
		w.pass(1)
		c.ping() // 1.5 × 65535 does not fit in 16 bits
		w.s.tick.Add(98305)
		w.pass(1)
		c.goodbye(KeepAliveTimeout)
	})
}

func TestServerKeepAliveIsWhatCounts(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.KeepAliveMax = 20 * time.Second })
	c := w.connect(hello{version: 5, id: "dev", keep: 1000})
	none := w.connect(hello{version: 5, id: "none"})
	old := w.connect(hello{version: 4, id: "old", keep: 1000}) // can't be told, so keeps its own
	w.pass(30)
	c.ping()
	none.ping()
	w.pass(32)
	c.goodbye(KeepAliveTimeout)
	none.goodbye(KeepAliveTimeout)
	old.ping()
}

func TestKeepAliveSparesAPausedConnection(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.connect(hello{version: v, id: "dev", keep: 10})
		w.setFull(true)
		c.publish(pub{topic: "t", qos: 1, id: 1})
		until(t, "paused", func() bool { return count(w.s.m.paused) == 1 })
		c.send(pingreq) // we don't read it, which is not the device's silence
		w.pass(100)
		require.Equal(t, 1, w.open())
		w.makeRoom()
		w.ack(w.next())
		w.pass(10)
		first, _ := c.read()
		second, _ := c.read()
		require.ElementsMatch(t, []byte{0x40, 0xD0}, []byte{first, second})
		w.pass(17)
		c.goodbye(KeepAliveTimeout) // spared only as long as it was paused
	})
}

func TestKeepAliveAndConnectAtOnce(t *testing.T) {
	w := newWorld(t, nil)
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		for range 2000 {
			w.s.sweep(time.Now())
		}
	}()
	for range 50 {
		w.connect(hello{version: 5, id: "dev", keep: 60}).ping()
	}
	<-stop
}

// TestRunTurnsTheClock is the one test that waits for real seconds to pass.
func TestRunTurnsTheClock(t *testing.T) {
	w := newWorld(t, nil)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.s.Run(ctx) }()
	c := w.connect(hello{version: 4, id: "dev", keep: 1, will: &lastWill{topic: "will/dev", payload: "gone"}})
	c.closed()
	w.expectWill("dev")
	stop()
	require.NoError(t, <-done)
}
