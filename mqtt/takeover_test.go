package mqtt

import (
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTakeoverClosesTheOlderConnection(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		old := w.device(v, "dev")
		c := w.device(v, "dev")
		old.goodbye(SessionTakenOver)
		c.ping()
		until(t, "one connection", func() bool { return w.open() == 1 })
	})
}

func TestTakeoverBetweenVersions(t *testing.T) {
	w := newWorld(t, nil)
	a := w.stored(4, "dev")
	b := w.stored(5, "dev")
	require.True(t, b.present())
	a.goodbye(SessionTakenOver)
	c := w.stored(4, "dev")
	b.goodbye(SessionTakenOver)
	c.ping()
}

func TestTakeoverLeavesOtherClientIDsAlone(t *testing.T) {
	w := newWorld(t, nil)
	var others []*client
	for i := range 100 {
		others = append(others, w.device(4, fmt.Sprint("other", i)))
	}
	w.device(4, "dev")
	w.device(4, "dev").ping()
	for _, o := range others {
		o.ping()
	}
}

func TestMessagesOfTheOlderConnectionComeFirst(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		for range 20 {
			old := w.device(v, "dev")
			for i := range 50 {
				old.publish(pub{topic: "old", payload: fmt.Sprint(i)})
			}
			w.device(v, "dev").publish(pub{topic: "new"})
			for m := w.next(); string(m.Topic) == "old"; m = w.next() {
			}
			w.noMessage()
		}
	})
}

// TestTakeoverSendsNothingAfterDisconnect: an outcome is known, and not yet sent, when the DISCONNECT goes out.
func TestTakeoverSendsNothingAfterDisconnect(t *testing.T) {
	w := newWorld(t, nil)
	old := w.device(5, "dev")
	old.publish(pub{topic: "t", qos: 1, id: 1})
	w.next().Ack(Success) // without Flush
	w.device(5, "dev")
	old.expect(puback(1))
	old.goodbye(SessionTakenOver) // [MQTT-3.14.4-1]
}

func TestTakeoverOfAConnectionThatFloodsUs(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		w.answer = func(m *Message) { m.Ack(Success) }
		old := w.device(v, "dev")
		flood := pub{topic: "t", payload: string(make([]byte, 100_000))}.packet(v)
		var work sync.WaitGroup
		for range 2 {
			work.Go(func() {
				for {
					if _, err := old.pipe.Write(flood); err != nil {
						return
					}
				}
			})
		}
		w.device(v, "dev").ping()
		_ = old.nc.Close()
		work.Wait()
	})
}

func TestTakeoverOfAPausedConnection(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		old := w.stored(v, "dev")
		w.setFull(true)
		old.publish(pub{topic: "t", qos: 1, id: 1})
		until(t, "paused", func() bool { return w.waiting() == 1 })
		c := w.stored(v, "dev")
		old.goodbye(SessionTakenOver)
		w.makeRoom() // resumes a connection that is gone
		c.ping()
		w.noMessage()
		require.Zero(t, count(w.s.m.paused))
	})
}

func TestTakeoverOfAConnectionThatDoesNotRead(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorldOn(t, narrowListener(t), func(c *Config) { c.WriteTimeout, c.MaxUnreadBytes = time.Hour, 1<<30 })
		old := w.device(v, "dev")
		stuff(t, w, old)
		w.device(v, "dev").ping()
	})
}

func TestConnectionsRacingForOneClientID(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		for round := range 100 {
			h := persistent(v, "dev")
			h.persist = round%2 == 0
			lost := make(chan *client, 4)
			var racing sync.WaitGroup
			var rivals []*client
			for range 4 {
				rivals = append(rivals, w.dial(v))
			}
			for _, c := range rivals {
				racing.Go(func() { c.race(h); lost <- c })
			}
			losers := map[*client]bool{<-lost: true, <-lost: true, <-lost: true}
			until(t, "one is left", func() bool { return w.open() == 1 && w.holder("dev") != nil })
			for _, c := range rivals {
				if !losers[c] {
					_ = c.nc.SetReadDeadline(time.Now()) // the winner stays until now
				}
			}
			racing.Wait()
			w.ended()
		}
	})
}

// race connects and reads until the connection ends, then closes.
func (c *client) race(h hello) {
	_, _ = c.pipe.Write(h.packet())
	_, _ = io.Copy(io.Discard, c.nc)
	_ = c.nc.Close()
}

// holder is the connection of a client ID.
func (w *world) holder(id string) *Conn {
	sh := w.s.sessions.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if s := sh.sessions[id]; s != nil {
		return s.conn
	}
	return nil
}

func TestTakeoverKeepsTheSessionThoughNoMoreMayBeStored(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.MaxStoredSessions = 1 })
	first := w.stored(4, "first")
	first.send(packet(0xE0))
	first.closed()
	second := w.stored(4, "second")
	second.publish(q2(1, "x"))
	w.ack(w.next())
	second.expect(pubrec(1))
	second = w.stored(4, "second")
	require.True(t, second.present(), "it was never without a connection")
	second.send(packet(0xE0))
	second.closed()
	require.False(t, w.stored(4, "second").present(), "no room to store it")
	require.True(t, w.stored(4, "first").present())
}

// stuckInHandler connects a device whose message the Handler does not return from until release.
func (w *world) stuckInHandler(v byte) (old *client, release func()) {
	busy, end := make(chan bool), make(chan bool)
	w.answer = func(m *Message) {
		busy <- true
		<-end
		m.Ack(Success)
	}
	old = w.device(v, "dev")
	old.publish(pub{topic: "t"})
	<-busy
	release = sync.OnceFunc(func() { close(end) })
	w.t.Cleanup(release)
	return old, release
}

func TestTakeoverOfAConnectionThatDoesNotEnd(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, func(c *Config) { c.ConnectTimeout = 50 * time.Millisecond })
		old, release := w.stuckInHandler(v)
		c := w.dial(v)
		c.send(willed(v, "dev").packet())
		_, body := c.read()
		require.Equal(t, map[byte]byte{4: 3, 5: byte(ServerBusy)}[v], body[1])
		c.closed()
		release()
		old.goodbye(SessionTakenOver) // it was told, and that stays
		w.device(v, "dev").ping()
	})
}

func TestShutdownEndsAnUnfinishedTakeover(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, func(c *Config) { c.ConnectTimeout = time.Hour })
		old, release := w.stuckInHandler(v)
		c := w.dial(v)
		c.send(willed(v, "dev").packet())
		until(t, "the older was told", func() bool {
			o := w.holder("dev")
			o.mu.Lock()
			defer o.mu.Unlock()
			return o.ending
		})
		done, hurry := w.shutdown()
		hurry()
		_, body := c.read()
		require.Equal(t, map[byte]byte{4: 3, 5: byte(ServerUnavailable)}[v], body[1]) // CONNACK has no "shutting down"
		c.closed()
		release()
		old.goodbye(SessionTakenOver)
		w.returned(done)
		require.Zero(t, count(w.s.m.wills), "a CONNECT that failed has none")
	})
}
