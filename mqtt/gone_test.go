package mqtt

import (
	"bytes"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// floods are what keeps a connection above a rate for long, more than is read ahead and no more than a socket holds.
var floods = map[string]func(v byte) []byte{
	"answers to nothing": func(byte) []byte { return bytes.Repeat(puback(9), 25_000) },
	"pings":              func(byte) []byte { return bytes.Repeat(pingreq, 30_000) },
	"messages":           func(v byte) []byte { return bytes.Repeat(pub{topic: "t"}.packet(v), 11_000) },
}

// everyFlood runs f for each flood and version, in a world that lets ten messages a second through.
func everyFlood(t *testing.T, f func(t *testing.T, w *world, v byte, flood []byte)) {
	for name, flood := range floods {
		t.Run(name, func(t *testing.T) {
			bothVersions(t, func(t *testing.T, v byte) {
				f(t, newWorld(t, func(c *Config) { c.PublishesPerSecond = 10 }), v, flood(v))
			})
		})
	}
}

// handsOnWills has the test given Wills alone. Other messages get no answer.
func (w *world) handsOnWills() {
	w.answer = func(m *Message) {
		if m.Will {
			w.got <- m
		}
	}
}

// flood sends what the server does not read at once. It ends with the socket, or when all is sent.
func (c *client) flood(b []byte) (sent chan struct{}) {
	sent = make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = c.pipe.Write(b)
	}()
	return sent
}

// TestFarewellBehindAFloodCounts: the device said all that it had to say, and there is no will.
func TestFarewellBehindAFloodCounts(t *testing.T) {
	everyFlood(t, func(t *testing.T, w *world, v byte, flood []byte) {
		w.handsOnWills()
		c := w.connect(willed(v, "dev"))
		<-c.flood(cat(flood, packet(0xE0)))
		_ = c.nc.CloseWrite()
		w.ended()
		w.noMessage()
	})
}

// TestDelayedConnectionIsResumedSeldom: each time all is handled that the rate allows by then.
func TestDelayedConnectionIsResumedSeldom(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.PublishesPerSecond = 1000 })
	c := w.device(4, "dev")
	sent := c.flood(bytes.Repeat(pub{topic: "t", payload: strings.Repeat("x", 40)}.packet(4), 2000))
	for range 2000 {
		w.next()
	}
	<-sent
	require.LessOrEqual(t, count(w.s.limits.messages), 11, "a thousand messages above the burst, a hundred each time")
}

func TestAnswersToNothingAreHandledManyAtATime(t *testing.T) {
	w := newWorld(t, nil)
	c := w.device(4, "dev")
	sent := c.flood(cat(bytes.Repeat(puback(9), 11_000), pub{topic: "t"}.packet(4)))
	w.next()
	<-sent
	require.LessOrEqual(t, count(w.s.limits.control), 11)
}

// TestDeviceThatIsAboveARateAndStaysIsKept: it is slowed down for as long as it goes on, and gets everything handled.
func TestDeviceThatIsAboveARateAndStaysIsKept(t *testing.T) {
	var q queue
	q.cause = aboveMessages
	for now := time.Duration(0); now < time.Hour; now += leastDelay {
		q.waits(1000, now)
		require.False(t, q.isOverdue(now))
		q.handled(2)
		q.drained()
	}
}

// TestDeviceThatPoursIsEndedAfterAMinute: the socket is never found empty.
func TestDeviceThatPoursIsEndedAfterAMinute(t *testing.T) {
	q := queue{cause: aboveControl}
	q.waits(1000, 0)
	require.False(t, q.isOverdue(longestDelay))
	q.handled(1000)
	q.waits(1000, longestDelay)
	require.True(t, q.isOverdue(longestDelay+2))
	q.clear()
	require.False(t, q.isOverdue(longestDelay+2))
	q.waits(1000, longestDelay)
	q.cause = aboveNothing // now it waits for Kafka
	q.waits(1000, longestDelay+1)
	require.False(t, q.isOverdue(time.Hour))
}

// TestWhatWaitsForARateWaitsAMinuteAtMost: keep-alive spares the connection meanwhile.
func TestWhatWaitsForARateWaitsAMinuteAtMost(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, func(c *Config) { c.PublishBytesPerSecond = 1 })
		server, device := socketPair(t)
		c := w.s.connOf(server)
		c.version, c.since, c.now = v, begin.Sub(clockStart), begin
		c.session = &session{clientID: "dev"}
		c.identity.Store(&Identity{})
		week := pub{topic: "t", payload: strings.Repeat("x", 100_000)}.packet(v)
		require.Equal(t, errPause, c.feed(cat(week, pub{topic: "t"}.packet(v))))
		c.now = time.Now()
		c.since = c.now.Sub(clockStart)
		c.rates.messages, c.rates.bytes = 0, bucket(24*time.Hour)
		c.pause()
		require.NoError(t, c.goOn(socketOf(t, server)), "it waits again")
		require.True(t, c.holding)
		c.since -= longestDelay
		require.Equal(t, errOverdue, c.goOn(socketOf(t, server)))
		c.endPause()
		require.NoError(t, device.Close())
	})
}

// TestPauseCopiesNothingOfWhatWaits: however often a connection is resumed, what waits lies where it was.
func TestPauseCopiesNothingOfWhatWaits(t *testing.T) {
	w := newWorld(t, nil)
	server, _ := socketPair(t)
	c := w.s.connOf(server)
	c.version, c.now, c.session = 4, time.Now(), &session{clientID: "dev"}
	c.since = c.now.Sub(clockStart)
	require.Equal(t, errPause, c.feed(bytes.Repeat(puback(9), 16_000)))
	c.pause()
	defer c.endPause()
	fd := socketOf(t, server)
	for range 10 {
		left, before := len(c.partial), &c.partial[len(c.partial)-1]
		c.since -= leastDelay // that much time passes
		require.NoError(t, c.goOn(fd))
		require.True(t, c.holding)
		require.Less(t, len(c.partial), left, "some was handled")
		require.Same(t, before, &c.partial[len(c.partial)-1])
	}
}

// TestMemoryOfWhatWaitedIsGivenBack: a little that waits does not hold on to much.
func TestMemoryOfWhatWaitedIsGivenBack(t *testing.T) {
	s := &Server{cfg: DefaultConfig()}
	c := &Conn{srv: s, holding: true}
	c.hold(make([]byte, 60_000))
	c.partial = c.partial[30_000:]
	c.trim()
	require.Equal(t, int64(60_000), s.waiting.Load(), "half of it is not worth a copy")
	c.partial = c.partial[20_000:]
	c.trim()
	require.EqualValues(t, cap(c.partial), s.waiting.Load())
	require.Len(t, c.partial, 10_000)
	require.Less(t, cap(c.partial), 20_000)
}

// socketPair gives both ends of a connection.
func socketPair(t *testing.T) (server, device net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	device, err = net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	server, err = l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { _, _ = server.Close(), device.Close() })
	return server, device
}

// socketOf gives the descriptor of a connection, which must stay open as long as it is used.
func socketOf(t *testing.T, nc net.Conn) (fd int) {
	t.Helper()
	raw, err := nc.(*net.TCPConn).SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(f uintptr) { fd = int(f) }))
	return fd
}
