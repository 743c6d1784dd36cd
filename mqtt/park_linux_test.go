package mqtt

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// lotIsOpen waits until connections can be parked.
func (w *world) lotIsOpen() {
	until(w.t, "the lot is open", func() bool {
		w.s.lot.mu.Lock()
		defer w.s.lot.mu.Unlock()
		return w.s.lot.open
	})
}

// TestAQuietDeviceHasNoGoroutine: it is parked after CONNECT and again after what it says, and is served all the same.
func TestAQuietDeviceHasNoGoroutine(t *testing.T) {
	over(t, append([]layers{{}}, everyLayer...), func(t *testing.T) {
		bothVersions(t, func(t *testing.T, v byte) {
			w := newWorld(t, func(c *Config) { c.KeepAliveMax = 0 })
			w.lotIsOpen()
			c := w.device(v, "dev")
			w.allParked(1)
			for id := range uint16(3) {
				c.publish(pub{topic: "t", qos: 1, id: id + 1})
				m := w.next()
				w.allParked(1) // while its message has no outcome yet
				w.ack(m)
				c.expect(puback(id + 1))
				c.ping()
			}
			w.allParked(1)
			c.send([]byte{0xE0, 0})
			c.closed()
			w.ended()
		})
	})
}

// TestAParkedConnectionEndsAsAnyOther: with its will when it is lost, for a takeover, for its keep-alive, with the server.
func TestAParkedConnectionEndsAsAnyOther(t *testing.T) {
	ends := map[string]func(w *world, c *client){
		"the device is gone": func(w *world, c *client) {
			require.NoError(w.t, c.nc.Close())
			require.Equal(w.t, "gone", string(w.next().Payload))
		},
		"takeover": func(w *world, c *client) {
			w.device(5, "dev").ping()
			c.goodbye(SessionTakenOver)
		},
		"keep-alive": func(w *world, c *client) {
			w.pass(100)
			c.goodbye(KeepAliveTimeout)
		},
		"no more parking": func(w *world, c *client) {
			w.s.clearLot()
			c.ping()
			require.Zero(w.t, w.parked())
		},
		"shutdown": func(w *world, c *client) {
			stopped := make(chan struct{})
			go func() { // ends with the connection
				w.s.Shutdown(w.t.Context())
				close(stopped)
			}()
			c.goodbye(ServerShuttingDown)
			<-stopped
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.lotIsOpen()
			c := w.connect(hello{version: 5, id: "dev", keep: 60, will: &lastWill{topic: "w", payload: "gone"}})
			until(t, "parked", func() bool { return w.parked() == 1 })
			end(w, c)
		})
	}
}

// TestParkingAtAnyMomentLosesNothing: devices speak while the sweep parks whoever it finds waiting.
func TestParkingAtAnyMomentLosesNothing(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.KeepAliveMax = 0 })
	w.lotIsOpen()
	w.answer = func(m *Message) { m.Ack(Success); w.s.Flush() }
	stop := make(chan struct{})
	var sweeps sync.WaitGroup
	sweeps.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				w.s.tick.Add(parkTicks)
				w.s.conns.each(func(c *Conn) {
					c.mu.Lock()
					c.hush(w.s.tick.Load())
					c.mu.Unlock()
				})
			}
		}
	})
	var devices sync.WaitGroup
	for _, id := range []string{"a", "b", "c", "d"} {
		devices.Go(func() {
			for range 20 {
				c := w.device(5, id)
				for n := range uint16(20) {
					c.publish(pub{topic: "t", qos: 1, id: n + 1})
					c.expect(puback(n + 1))
					c.ping()
				}
				if id < "c" {
					_ = c.nc.Close() // else it is taken over
				}
			}
		})
	}
	devices.Wait()
	close(stop)
	sweeps.Wait()
	w.allParked(2)
}
