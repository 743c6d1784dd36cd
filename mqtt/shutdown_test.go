package mqtt

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// shutdown begins Shutdown and gives the channel that closes when it returned, and what ends its patience.
func (w *world) shutdown() (done chan struct{}, hurry func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done = make(chan struct{})
	go func() {
		defer close(done)
		w.s.Shutdown(ctx)
	}()
	w.t.Cleanup(cancel)
	return done, cancel
}

func (w *world) returned(done chan struct{}) {
	w.t.Helper()
	select {
	case <-done:
	case <-time.After(tooLong):
		w.t.Fatal("Shutdown does not return")
	}
}

func TestShutdownSaysWhyAndRefusesTheNext(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.device(v, "dev")
		silent := w.dial(v)
		until(t, "accepted", func() bool { return w.open() == 2 })
		done, _ := w.shutdown()
		c.goodbye(ServerShuttingDown)
		silent.closed()
		w.returned(done)
		_, err := net.Dial("tcp", w.addr)
		require.Error(t, err)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		require.ErrorIs(t, w.s.Serve(l), ErrServerClosed)
	})
}

func TestShutdownWaitsForTheOutcomes(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.device(v, "dev")
		c.publish(pub{topic: "t", qos: 1, id: 1})
		c.publish(pub{topic: "t", qos: 2, id: 2})
		one, two := w.next(), w.next()
		done, _ := w.shutdown()
		until(t, "waiting", func() bool { return w.awaiting() })
		w.ack(one)
		c.expect(puback(1))
		select {
		case <-done:
			t.Fatal("returned before everything had its outcome")
		default:
		}
		w.ack(two)
		c.expect(pubrec(2))
		c.goodbye(ServerShuttingDown)
		w.returned(done)
	})
}

// awaiting says whether some connection waits for outcomes at its end.
func (w *world) awaiting() (any bool) {
	w.s.conns.each(func(c *Conn) {
		c.mu.Lock()
		any = any || c.end != nil && c.end.idle != nil
		c.mu.Unlock()
	})
	return any
}

func TestShutdownEndsItsPatienceWithTheContext(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.device(v, "dev")
		c.publish(pub{topic: "t", qos: 1, id: 1})
		m := w.next()
		done, hurry := w.shutdown()
		until(t, "waiting", func() bool { return w.awaiting() })
		hurry()
		c.goodbye(ServerShuttingDown)
		w.returned(done)
		w.ack(m) // too late, and harmless
	})
}

func TestShutdownSendsWhatWasSettledWithoutFlush(t *testing.T) {
	w := newWorld(t, nil)
	c := w.device(5, "dev")
	c.publish(pub{topic: "t", qos: 1, id: 1})
	w.next().Ack(Success)
	done, _ := w.shutdown()
	c.expect(puback(1))
	c.goodbye(ServerShuttingDown)
	w.returned(done)
}

// TestShutdownDoesNotWaitBehindAnAnswerThatCannotBe: after an abandoned message nothing can be acknowledged.
func TestShutdownDoesNotWaitBehindAnAnswerThatCannotBe(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.device(v, "dev")
		c.publish(pub{topic: "t", qos: 1, id: 1})
		m := w.next()
		done, _ := w.shutdown()
		until(t, "waiting", func() bool { return w.awaiting() })
		m.Abandon("unknown")
		w.s.Flush()
		c.goodbye(ServerShuttingDown)
		w.returned(done)
	})
}

func TestShutdownWakesAPausedConnection(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.device(v, "dev")
		w.setFull(true)
		c.publish(pub{topic: "t", qos: 1, id: 1})
		until(t, "paused", func() bool { return w.waiting() == 1 })
		done, _ := w.shutdown()
		c.goodbye(ServerShuttingDown)
		w.returned(done)
		w.noMessage()
	})
}

func TestShutdownPublishesTheWills(t *testing.T) {
	w := newWorld(t, nil)
	w.connect(willed(4, "now"))
	w.connect(delayed("later", 500))
	gone := w.connect(delayed("gone", 500))
	_ = gone.nc.Close()
	until(t, "closed", func() bool { return w.open() == 2 })
	done, _ := w.shutdown()
	w.returned(done)
	seen := map[string]bool{}
	for range 3 {
		m := w.next()
		require.True(t, m.Will)
		seen[m.ClientID] = true
	}
	require.Equal(t, map[string]bool{"now": true, "later": true, "gone": true}, seen)
	w.noMessage()
}

func TestShutdownAndConnectAtOnce(t *testing.T) {
	for range 30 {
		w := newWorld(t, func(c *Config) { c.ConnectTimeout = time.Hour })
		for range 5 {
			w.dial(4)
		}
		done, hurry := w.shutdown()
		hurry()
		w.returned(done) // not after the ConnectTimeout of those who just came
	}
}

func TestShutdownTwiceIsOne(t *testing.T) {
	w := newWorld(t, nil)
	w.device(4, "dev")
	one, _ := w.shutdown()
	two, _ := w.shutdown()
	w.returned(one)
	w.returned(two)
}

// TestLastWordWaitsForTheWriter: another goroutine is between two writes when the connection ends. What it
// has not taken yet, the DISCONNECT too, must not be lost to the close.
func TestLastWordWaitsForTheWriter(t *testing.T) {
	w := newWorld(t, nil)
	c := w.device(5, "dev")
	var conn *Conn
	w.s.conns.each(func(c *Conn) { conn = c })
	until(t, "the writer of the CONNACK is done", func() bool {
		conn.mu.Lock()
		defer conn.mu.Unlock()
		if conn.writing {
			return false
		}
		conn.writing = true
		return true
	})
	c.send(pingreq, packet(0x36, 0))
	until(t, "DISCONNECT waits", func() bool {
		conn.mu.Lock()
		defer conn.mu.Unlock()
		return len(conn.out) > 4
	})
	conn.mu.Lock()
	conn.writing = false
	conn.send()
	conn.mu.Unlock()
	c.expect(pingresp)
	c.goodbye(MalformedPacket)
}
