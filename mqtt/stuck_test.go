package mqtt

import (
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A narrow listener gives its connections the smallest send buffer, so that little makes them stuck.
type narrow struct{ *net.TCPListener }

func (l narrow) Accept() (net.Conn, error) {
	nc, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	return nc, nc.SetWriteBuffer(1)
}

func narrowListener(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return narrow{l.(*net.TCPListener)}
}

// stuff makes the server send more than the sockets hold, by PINGREQs whose answers c does not read. It gives
// the number of those.
func stuff(t testing.TB, w *world, c *client) (pings int) {
	t.Helper()
	if w.s.rates.controlBurst < time.Hour {
		w.s.rates.controlBurst = time.Hour // it is not their number that must end this
	}
	_ = c.nc.SetReadBuffer(32 << 10)
	many := cat()
	for range 4096 {
		many = append(many, pingreq...)
	}
	for range 1 << 12 {
		_ = c.nc.SetWriteDeadline(time.Now().Add(tooLong))
		if _, err := c.pipe.Write(many); err != nil {
			require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
			return pings // closed by the server
		}
		pings += 4096
		stuck := false
		w.s.conns.each(func(c *Conn) {
			c.mu.Lock()
			stuck = stuck || c.writing && len(c.out) > 0
			c.mu.Unlock()
		})
		if stuck {
			return pings
		}
	}
	t.Fatal("the sockets hold everything")
	return 0
}

func TestStuckReaderIsClosedAtItsBound(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorldOn(t, narrowListener(t), func(c *Config) { c.WriteTimeout = time.Hour })
		other := w.device(v, "other")
		c := w.device(v, "dev")
		for count(w.s.m.slowReaders) == 0 {
			stuff(t, w, c)
			other.ping() // nobody else notices
		}
		until(t, "closed", func() bool { return w.open() == 1 })
		other.ping()
		require.Equal(t, 1, count(w.s.m.slowReaders))
		require.Equal(t, 1, count(w.s.m.disconnects.WithLabelValues("slow reader")))
	})
}

// TestStuckReaderIsReset: what it was sent is cut off anyway, and a FIN would wait behind that for as long as the kernel
// keeps a socket that nobody has. At a stop it may: a device with a slow link has acknowledgements there.
func TestStuckReaderIsReset(t *testing.T) {
	cut := func(v byte, timeout time.Duration, left int, want error, end func(*dispatcher)) func(*testing.T) {
		return func(t *testing.T) {
			d := slow(t, func(c *Config) { c.WriteTimeout = timeout })
			c := d.unread(v, "dev")
			conn := d.holder("dev")
			looks, flushed := 0, uint64(0)
			until(t, "nothing goes out any more", func() bool {
				d.send(&Command{Topic: []byte("t"), Payload: make([]byte, 5000)})
				conn.mu.Lock()
				defer conn.mu.Unlock()
				if looks++; !conn.stuck || conn.flushed != flushed {
					looks, flushed = 0, conn.flushed
				}
				return looks == 50 || conn.ending
			})
			end(d)
			until(t, "closed", func() bool { return d.open() == left })
			_ = c.nc.SetReadDeadline(time.Now().Add(tooLong))
			_, err := io.Copy(io.Discard, c.nc)
			require.ErrorIs(t, err, want)
		}
	}
	bothVersions(t, func(t *testing.T, v byte) {
		t.Run("write timeout", cut(v, 50*time.Millisecond, 0, syscall.ECONNRESET, func(*dispatcher) {}))
		t.Run("takeover", cut(v, time.Hour, 1, syscall.ECONNRESET, func(d *dispatcher) { d.device(v, "dev").ping() }))
		t.Run("stop", cut(v, time.Hour, 0, nil, func(d *dispatcher) { d.s.Shutdown(t.Context()) }))
	})
}

func TestStuckReaderIsClosedAfterTheWriteTimeout(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorldOn(t, narrowListener(t), func(c *Config) { c.WriteTimeout, c.MaxUnreadBytes = 50*time.Millisecond, 1<<30 })
		c := w.device(v, "dev")
		for count(w.s.m.slowReaders) == 0 { // it may be stuck for a moment only
			stuff(t, w, c)
		}
		until(t, "closed", func() bool { return w.open() == 0 })
		require.Equal(t, 1, count(w.s.m.slowReaders))
		require.Equal(t, 1, count(w.s.m.disconnects.WithLabelValues("slow reader")))
	})
}

// TestWriteTimeoutEndsWithTheWrite: a device that once was slow and read everything is as good as any other.
func TestWriteTimeoutEndsWithTheWrite(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		for timeout := time.Second; ; timeout *= 3 {
			w := newWorldOn(t, narrowListener(t), func(c *Config) { c.WriteTimeout, c.MaxUnreadBytes = timeout, 1<<30 })
			c := w.device(v, "dev")
			began := time.Now()
			n := stuff(t, w, c)
			_ = c.nc.SetReadDeadline(time.Now().Add(tooLong))
			_, err := io.CopyN(io.Discard, c.in, int64(2*n))
			if err != nil && time.Since(began) >= timeout && timeout < tooLong {
				continue // a busy machine has not read it all by then
			}
			require.NoError(t, err)
			for end := time.Now().Add(timeout + timeout/4); time.Now().Before(end); {
				c.ping()
			}
			require.Zero(t, count(w.s.m.slowReaders))
			return
		}
	})
}
